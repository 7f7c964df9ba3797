//! Two connections joined after a protocol switch (WebSocket).

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use pointsman_gateway::{body::Body, clock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{http_client::Switched, http1::wire::Wire};

/// Copies both ways until one side ends, or nothing has moved for the upstream's read timeout
/// (as nginx, and so APISIX, has it). `body` holds the exchange, which ends with the tunnel.
pub(super) async fn join<S: AsyncRead + AsyncWrite + Unpin>(
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
    let (client_read, mut client_write) = tokio::io::split(client.stream);
    let (upstream_read, mut upstream_write) = tokio::io::split(upstream.stream);
    let up = async {
        upstream_write.write_all(&client.input).await?;
        pump(client_read, upstream_write, &moved, None).await
    };
    let down = async {
        client_write.write_all(&upstream.input).await?;
        to_client.set(upstream.input.len() as u64);
        pump(upstream_read, client_write, &moved, Some(&to_client)).await
    };
    // When one side has said its last word the other is not kept waiting.
    let ended = tokio::select! {
        ended = up => ended,
        ended = down => ended,
        () = silence(&moved, idle) => {
            tracing::info!("tunnel closed: nothing moved for {} s", idle.as_secs());
            Ok(())
        }
    };
    if let Err(error) = ended {
        tracing::debug!("tunnel ended: {error}");
    }
    relay.tunnel_ended(to_client.get());
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
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return writer.shutdown().await;
        }
        moved.set(clock::now());
        writer.write_all(&buffer[..read]).await?;
        writer.flush().await?;
        if let Some(count) = count {
            count.set(count.get() + read as u64);
        }
    }
}

/// One direction, in bytes.
const BUFFER_BYTES: usize = 16 << 10;
