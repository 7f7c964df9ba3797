//! A client that shows what really came over the wire.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A response as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The sizes of the chunks, if it was chunked.
    pub(crate) chunks: Vec<usize>,
    /// The framing said that the body was over; otherwise the connection just ended.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream
            .set_read_timeout(Some(super::DEADLINE))
            .expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Sends what the peer may no longer want.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn limit_reads(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a socket");
    }

    /// Reads one more piece; 0 at the end of the connection.
    fn fill(&mut self) -> usize {
        let mut piece = [0u8; 64 << 10];
        let read = match self.stream.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!(
                    "no bytes in time; so far: {}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(_) => 0,
        };
        self.buffer.extend_from_slice(&piece[..read]);
        read
    }

    /// Whether the peer closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill() == 0
    }

    /// Reads until the buffer contains `part`; returns all of it so far.
    pub(crate) fn read_until(&mut self, part: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if text.contains(part) {
                return text;
            }
            assert!(
                self.fill() > 0,
                "the connection ended before `{part}`: {text}"
            );
        }
    }

    /// All that comes until the peer has ended.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        self.take()
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The next response; `is_head` for one that has no body.
    pub(crate) fn response(&mut self, is_head: bool) -> Response {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            let before = self.buffer.len();
            assert!(
                self.fill() > 0,
                "the connection ended in the head ({before} bytes): {}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        let mut response = Response {
            status: status.parse().expect("a number"),
            headers,
            body: Vec::new(),
            chunks: Vec::new(),
            complete: true,
        };
        if is_head || matches!(response.status, 101 | 204 | 304) {
            return response;
        }
        let length = response
            .header("content-length")
            .map(|length| length.parse().expect("a length"));
        let chunked = response.header("transfer-encoding").is_some();
        match (chunked, length) {
            (true, _) => self.chunked(&mut response),
            (false, Some(length)) => {
                while self.buffer.len() < length && self.fill() > 0 {}
                response.complete = self.buffer.len() >= length;
                let end = length.min(self.buffer.len());
                response.body = self.buffer.drain(..end).collect();
            }
            (false, None) => {
                while self.fill() > 0 {}
                response.body = self.take();
            }
        }
        response
    }

    fn chunked(&mut self, response: &mut Response) {
        loop {
            let end = loop {
                if let Some(end) = find(&self.buffer, b"\r\n") {
                    break end;
                }
                if self.fill() == 0 {
                    response.complete = false;
                    return;
                }
            };
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            self.buffer.drain(..end + 2);
            while self.buffer.len() < size + 2 {
                if self.fill() == 0 {
                    response.complete = false;
                    response.body.extend(self.take());
                    return;
                }
            }
            response.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return;
            }
            response.chunks.push(size);
        }
    }
}

/// Sends bytes as they are on a fresh connection and reads one response.
pub(crate) fn raw(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut connection = Connection::open(address);
    connection.send(bytes);
    connection.response(bytes.starts_with(b"HEAD "))
}

/// One request on a fresh connection.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("Connection: close\r\n\r\n");
    text.push_str(body);
    raw(address, text.as_bytes())
}

pub(crate) fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    request(address, "GET", target, headers, "")
}

/// A JSON request.
pub(crate) fn post_json(address: SocketAddr, target: &str, body: &str) -> Response {
    request(
        address,
        "POST",
        target,
        &[("Content-Type", "application/json")],
        body,
    )
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

impl Connection {
    /// Reads to the end of the connection; returns how many bytes came.
    pub(crate) fn read_end(&mut self) -> usize {
        while self.fill() > 0 {}
        self.buffer.len()
    }

    /// The status in what was read so far.
    pub(crate) fn status(&self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        text.split(' ').nth(1)?.parse().ok()
    }
}
