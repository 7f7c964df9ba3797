//! Two connections joined after a protocol switch (WebSocket).

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use pointsman_gateway::{body::Body, clock, exchange::Ended};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Abort;
use crate::{http_client::Switched, http1::wire::Wire};

/// Copies both ways until one side ends, or nothing has moved for the upstream's read timeout
/// (as nginx, and so APISIX, has it). `body` holds the exchange, which ends with the tunnel.
pub(super) async fn join<S: Abort + AsyncRead + AsyncWrite + Unpin>(
    client: Wire<S>,
    switched: Switched,
    body: Body,
) {
    let Body::Relay(mut relay) = body else { return };
    let Some((upstream, idle)) = switched.take() else {
        return;
    };
    let moved = Cell::new(clock::now());
    let to_client = Cell::new(0);
    let (mut client_read, mut client_write) = tokio::io::split(client.stream);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream.stream);
    let up = async {
        write(&mut upstream_write, &client.input, &moved).await?;
        pump(&mut client_read, &mut upstream_write, &moved, None).await
    };
    let down = async {
        write(&mut client_write, &upstream.input, &moved).await?;
        to_client.set(upstream.input.len() as u64);
        pump(
            &mut upstream_read,
            &mut client_write,
            &moved,
            Some(&to_client),
        )
        .await
    };
    // When one side has said its last word the other is not kept waiting.
    let ended = tokio::select! {
        ended = up => ended.map_err(|fault| match fault {
            Fault::Reading(error) => (error, Ended::Abandoned),
            Fault::Writing(error) => (error, Ended::UpstreamBroken),
        }),
        ended = down => ended.map_err(|fault| match fault {
            Fault::Reading(error) => (error, Ended::UpstreamBroken),
            Fault::Writing(error) => (error, Ended::Abandoned),
        }),
        () = silence(&moved, idle) => {
            tracing::info!("tunnel closed: nothing moved for {} s", idle.as_secs());
            Ok(())
        }
    };
    if let Err((error, how)) = ended {
        tracing::debug!("tunnel ended: {error}");
        // The client sees the same end as we did.
        client_read.unsplit(client_write).reset_on_close(true);
        return relay.tunnel_ended(to_client.get(), how);
    }
    relay.tunnel_ended(to_client.get(), Ended::Complete);
}

/// Ends when nothing has moved for `idle`.
async fn silence(moved: &Cell<Instant>, idle: Duration) {
    loop {
        let due = moved.get() + idle;
        if due <= clock::now() {
            return;
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Copies until the reader ends; counts what was written.
async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
    count: Option<&Cell<u64>>,
) -> Result<(), Fault> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).await.map_err(Fault::Reading)?;
        if read == 0 {
            return writer.shutdown().await.map_err(Fault::Writing);
        }
        moved.set(clock::now());
        write(&mut writer, &buffer[..read], moved).await?;
        if let Some(count) = count {
            count.set(count.get() + read as u64);
        }
    }
}

/// Writes `bytes`, and flushes them: TLS may have taken what the socket has not.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    moved: &Cell<Instant>,
) -> Result<(), Fault> {
    writer.write_all(bytes).await.map_err(Fault::Writing)?;
    writer.flush().await.map_err(Fault::Writing)?;
    moved.set(clock::now());
    Ok(())
}

/// On which side a direction failed.
enum Fault {
    Reading(io::Error),
    Writing(io::Error),
}

/// One direction, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::BufWriter;

    use super::*;

    /// What TLS holds back is like what a buffered writer holds back.
    #[tokio::test]
    async fn what_is_written_is_on_its_way() {
        let (mut far, near) = tokio::io::duplex(64);
        let moved = Cell::new(clock::now());
        let written = write(&mut BufWriter::new(near), b"hello", &moved).await;
        assert!(written.is_ok());
        let mut arrived = [0; 5];
        far.read_exact(&mut arrived).await.expect("five bytes");
        assert_eq!(&arrived, b"hello");
    }
}
