//! Heads and chunk framing, written.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, Method, StatusCode, Uri, header};
use pointsman_gateway::clock;

/// How the end of a body is told to its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// There is no body, and its length is not told either.
    Absent,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By closing the connection.
    UntilClose,
}

/// Writes the head of a response.
///
/// `connection` is the value of `Connection`, if one is needed.
pub(crate) fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    encoding: Encoding,
    connection: Option<&str>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    lines(out, headers);
    if encoding == Encoding::Absent && tells_length(status) {
        told_length(out, headers);
    }
    if !headers.contains_key(header::DATE) {
        line(out, "date", &date());
    }
    if let Some(connection) = connection {
        line(out, "connection", connection.as_bytes());
    }
    framing(out, encoding);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a request to `uri`, which is in origin form.
pub(crate) fn request(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    encoding: Encoding,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(uri.path().as_bytes());
    if let Some(query) = uri.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    lines(out, headers);
    if let Some(connection) = headers.get(header::CONNECTION) {
        line(out, "connection", connection.as_bytes());
    }
    framing(out, encoding);
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk.
pub(crate) fn chunk_size(out: &mut Vec<u8>, bytes: usize) {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4).max(1);
    out.extend(
        (0..digits)
            .rev()
            .map(|place| HEX[bytes >> (4 * place) & 15]),
    );
    out.extend_from_slice(b"\r\n");
}

/// All lines but those that this connection decides on.
fn lines(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if *name == header::TRANSFER_ENCODING
            || *name == header::CONNECTION
            || *name == header::CONTENT_LENGTH
        {
            continue;
        }
        line(out, name.as_str(), value.as_bytes());
    }
}

/// Whether a response without a body may say how long it would have been (RFC 9110 §8.6).
fn tells_length(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT
}

/// The length that a response to HEAD, or a 304, states; nothing if it is not one number.
fn told_length(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(value), None) = (values.next(), values.next())
        && value.as_bytes().iter().all(u8::is_ascii_digit)
    {
        line(out, "content-length", value.as_bytes());
    }
}

fn framing(out: &mut Vec<u8>, encoding: Encoding) {
    match encoding {
        Encoding::Absent | Encoding::UntilClose => {}
        Encoding::Chunked => line(out, "transfer-encoding", b"chunked"),
        Encoding::Length(length) => {
            line(
                out,
                "content-length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The value of `Date`, made once a second.
fn date() -> [u8; DATE_BYTES] {
    let second = clock::unix_millis() / 1000;
    DATE.with_borrow_mut(|(made, text)| {
        if *made != second {
            let time: SystemTime = UNIX_EPOCH + Duration::from_secs(second);
            let formatted = httpdate::fmt_http_date(time);
            if let Ok(formatted) = <[u8; DATE_BYTES]>::try_from(formatted.as_bytes()) {
                (*made, *text) = (second, formatted);
            }
        }
        *text
    })
}

thread_local! {
    static DATE: RefCell<(u64, [u8; DATE_BYTES])> = const { RefCell::new((u64::MAX, [0; DATE_BYTES])) };
}

/// Of `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for size in [0usize, 1, 15, 16, 255, 256, 65_535, 1 << 40] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").into_bytes());
        }
    }

    #[test]
    fn the_connection_decides_on_its_own_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("date", HeaderValue::from_static("now"));
        headers.insert("content-length", HeaderValue::from_static("7"));
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        headers.insert("x", HeaderValue::from_static("1"));
        let text = |encoding, connection| {
            let mut out = Vec::new();
            response(&mut out, StatusCode::OK, &headers, encoding, connection);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            text(Encoding::Length(3), Some("close")),
            "HTTP/1.1 200 OK\r\ndate: now\r\nx: 1\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
        );
        assert_eq!(
            text(Encoding::Absent, None),
            "HTTP/1.1 200 OK\r\ndate: now\r\nx: 1\r\ncontent-length: 7\r\n\r\n"
        );
        assert_eq!(
            text(Encoding::Chunked, None),
            "HTTP/1.1 200 OK\r\ndate: now\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn dates_are_http_dates() {
        let text = date();
        assert!(httpdate::parse_http_date(std::str::from_utf8(&text).expect("text")).is_ok());
    }
}
