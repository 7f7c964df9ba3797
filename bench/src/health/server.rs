//! Instances that note when their probes and requests came.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clock;
use crate::http1::{self, BodyReader, Framing};
use crate::payload;

/// What an instance saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A probe, just before it was answered well.
    Good(Instant),
    /// A probe, just before it was answered with a failure.
    Bad(Instant),
    /// A request, once its head had arrived.
    Request(Instant),
}

/// One instance. Its probes succeed and fail in turn if it `flaps`; its requests always succeed.
#[derive(Debug)]
pub(super) struct Instance {
    flaps: bool,
    events: Mutex<Vec<Event>>,
}

impl Instance {
    pub(super) fn new(flaps: bool) -> Arc<Self> {
        Arc::new(Self {
            flaps,
            events: Mutex::default(),
        })
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request with this first line.
    fn answer(&self, start_line: &[u8]) -> (u16, Vec<u8>) {
        let mut events = self.lock();
        if !start_line.starts_with(b"GET /health ") {
            events.push(Event::Request(clock::now()));
            return (200, payload::completion());
        }
        let was_good = |event: &Event| match event {
            Event::Good(_) => Some(true),
            Event::Bad(_) => Some(false),
            Event::Request(_) => None,
        };
        let last = events.iter().rev().find_map(was_good);
        let (event, status) = match self.flaps && last == Some(true) {
            true => (Event::Bad(clock::now()), 500),
            false => (Event::Good(clock::now()), 200),
        };
        events.push(event);
        (status, Vec::new())
    }
}

/// Listens at `address` for `instance`; returns where, and what serves there until it is dropped.
pub(super) async fn listen(
    address: SocketAddr,
    instance: Arc<Instance>,
) -> io::Result<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let serve = async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // One that was gone before it was accepted concerns nobody.
            if let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&instance)));
            }
            while connections.try_join_next().is_some() {}
        }
    };
    Ok((address, serve))
}

async fn serve(mut stream: TcpStream, instance: Arc<Instance>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        let head = http1::parse_head(&buffer[..filled])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let Some(head) = head else {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                count => filled += count,
            }
            continue;
        };
        let (status, body) = instance.answer(head.start_line);
        let keep_alive = head.keep_alive;
        let mut reader = BodyReader::new(head.framing.unwrap_or(Framing::Length(0)));
        let invalid =
            |error: http1::Malformed| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let head_bytes = head.len;
        let fed = reader.feed(&buffer[head_bytes..filled], |_| {});
        let mut used = head_bytes + fed.map_err(invalid)?;
        while !reader.is_done() {
            filled = stream.read(&mut buffer).await?;
            if filled == 0 {
                return Ok(());
            }
            used = reader.feed(&buffer[..filled], |_| {}).map_err(invalid)?;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        let mut answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        stream.write_all(&answer).await?;
        if !keep_alive {
            return Ok(());
        }
    }
}
