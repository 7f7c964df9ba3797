//! Two connections joined after a protocol switch (WebSocket).

use std::{
    cell::{Cell, RefCell},
    io,
    time::{Duration, Instant},
};

use pointsman_gateway::{
    body::Body,
    clock,
    forward::relay::{Cut, TunnelEnd},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Abort;
use crate::{http_client::Switched, http1::wire::Wire};

/// Copies both ways until one side ends, nothing has moved for the upstream's read timeout (as nginx,
/// and so APISIX, has it), or a limit of the route's cuts. `body` holds the exchange, which ends with
/// the tunnel.
pub(super) async fn join<S: Abort + AsyncRead + AsyncWrite + Unpin>(
    client: Wire<S>,
    switched: Switched,
    body: Body,
) {
    let Body::Relay(relay) = body else { return };
    let Some((upstream, idle)) = switched.take() else {
        return;
    };
    let idle = relay.tunnel_idle().unwrap_or(idle);
    let until = relay.tunnel_until();
    let relay = RefCell::new(relay);
    let moved = Cell::new(clock::now());
    let (sent_down, sent_up) = (Sent::default(), Sent::default());
    let (mut client_read, mut client_write) = tokio::io::split(client.stream);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream.stream);
    let up = Direction {
        moved: &moved,
        sent: &sent_up,
        look: |bytes: &[u8]| {
            relay.borrow_mut().tunnel_heard(bytes);
            Ok(())
        },
    };
    let down = Direction {
        moved: &moved,
        sent: &sent_down,
        look: |bytes: &[u8]| relay.borrow_mut().tunnel_said(bytes),
    };
    // When one side has said its last word the other is not kept waiting.
    let end = tokio::select! {
        end = up.pump(&client.input, &mut client_read, &mut upstream_write) => match end {
            Stop::End => TunnelEnd::ClientLeft,
            Stop::Reading(error) => told(&error, TunnelEnd::ClientBroke),
            Stop::Writing(error) => told(&error, TunnelEnd::UpstreamBroke),
            Stop::Cut(cut) => TunnelEnd::Cut(cut),
        },
        end = down.pump(&upstream.input, &mut upstream_read, &mut client_write) => match end {
            Stop::End => TunnelEnd::UpstreamLeft,
            Stop::Reading(error) => told(&error, TunnelEnd::UpstreamBroke),
            Stop::Writing(error) => told(&error, TunnelEnd::ClientBroke),
            Stop::Cut(cut) => TunnelEnd::Cut(cut),
        },
        () = silence(&moved, idle) => {
            tracing::info!("tunnel closed: nothing moved for {} s", idle.as_secs());
            TunnelEnd::Cut(Cut::Idle)
        }
        () = moment(until) => TunnelEnd::Cut(Cut::Duration),
    };
    let mut goodbye = relay.borrow_mut().tunnel_ended(sent_down.bytes.get(), end);
    // Half of what came before may be on its way.
    goodbye.to_client = goodbye.to_client.filter(|_| !sent_down.is_open.get());
    goodbye.to_upstream = goodbye.to_upstream.filter(|_| !sent_up.is_open.get());
    drop(relay);
    let is_broken = matches!(end, TunnelEnd::ClientBroke | TunnelEnd::UpstreamBroke);
    let is_reset = is_broken && goodbye.to_client.is_none();
    last(&mut upstream_write, goodbye.to_upstream).await;
    if is_reset
        || (!leave(&mut client_read, &mut client_write, goodbye.to_client).await && is_broken)
    {
        // The client sees the same end as we did.
        client_read.unsplit(client_write).reset_on_close(true);
    }
}

/// Notes the error behind `end`.
fn told(error: &io::Error, end: TunnelEnd) -> TunnelEnd {
    tracing::debug!("tunnel ended: {error}");
    end
}

/// Says the last there is to be said, and whether that was possible; whoever cannot hear it is gone.
async fn last(writer: &mut (impl AsyncWrite + Unpin), frame: Option<Vec<u8>>) -> bool {
    let words = async {
        writer.write_all(&frame.unwrap_or_default()).await?;
        writer.shutdown().await
    };
    let said = tokio::time::timeout(GOODBYE, words).await;
    matches!(said, Ok(Ok(())))
}

/// The same to the client, and waits for it to end, too: closing with something unread would be a
/// reset, which takes the last words away.
async fn leave(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    frame: Option<Vec<u8>>,
) -> bool {
    if !last(writer, frame).await {
        return false;
    }
    let mut unread = vec![0; BUFFER_BYTES];
    let rest = async { while matches!(reader.read(&mut unread).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(GOODBYE, rest).await;
    true
}

/// Ends at `until`, if ever.
async fn moment(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
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

/// What was written in one direction.
#[derive(Default)]
struct Sent {
    bytes: Cell<u64>,
    /// A piece is being written.
    is_open: Cell<bool>,
}

/// One direction.
struct Direction<'a, F> {
    moved: &'a Cell<Instant>,
    sent: &'a Sent,
    /// Sees every piece before it is passed on, and may stop it.
    look: F,
}

impl<F: FnMut(&[u8]) -> Result<(), Cut>> Direction<'_, F> {
    /// Copies `first`, which has been read, and then until the reader ends.
    async fn pump(
        mut self,
        first: &[u8],
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Stop {
        let stopped = self.copy(first, reader, writer).await;
        stopped.err().unwrap_or(Stop::End)
    }

    async fn copy(
        &mut self,
        first: &[u8],
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Stop> {
        self.pass(first, writer).await?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = reader.read(&mut buffer).await.map_err(Stop::Reading)?;
            if read == 0 {
                return Ok(());
            }
            self.moved.set(clock::now());
            self.pass(&buffer[..read], writer).await?;
        }
    }

    async fn pass(
        &mut self,
        bytes: &[u8],
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        (self.look)(bytes).map_err(Stop::Cut)?;
        self.sent.is_open.set(true);
        write(writer, bytes).await.map_err(Stop::Writing)?;
        self.sent.is_open.set(false);
        self.sent
            .bytes
            .set(self.sent.bytes.get() + bytes.len() as u64);
        self.moved.set(clock::now());
        Ok(())
    }
}

/// Writes `bytes`, and flushes them: TLS may have taken what the socket has not.
async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Why a direction has ended.
enum Stop {
    /// Its reader has.
    End,
    Reading(io::Error),
    Writing(io::Error),
    Cut(Cut),
}

/// How long it may take to say that it is over.
const GOODBYE: Duration = Duration::from_secs(2);

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
        let written = write(&mut BufWriter::new(near), b"hello").await;
        assert!(written.is_ok());
        let mut arrived = [0; 5];
        far.read_exact(&mut arrived).await.expect("five bytes");
        assert_eq!(&arrived, b"hello");
    }
}
