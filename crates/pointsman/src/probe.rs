//! Probes, performed: one connection, one request, one status line.

use std::time::Duration;

use pointsman_balance::ProbeOutcome;
use pointsman_gateway::upstream::{
    destination::Tls,
    health::{ProbeKind, ProbeRequest, ProbeSpec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::http_client::{Dialer, Stream};

/// Performs `spec`. Connecting, the TLS handshake, sending and the wait for the whole status line
/// may each take `limit`, however the peer spreads its bytes over that.
pub(crate) async fn perform(dialer: &Dialer, spec: &ProbeSpec, limit: Duration) -> ProbeOutcome {
    let connected = timeout(limit, dialer.connect(&spec.host, spec.port)).await;
    let (tcp, address) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) => return ProbeOutcome::TcpFailure,
        Err(_) => return ProbeOutcome::Timeout,
    };
    match &spec.kind {
        ProbeKind::Tcp => ProbeOutcome::TcpOk,
        ProbeKind::Http(request) => converse(Stream::Plain(tcp), request, limit).await,
        ProbeKind::Https {
            request,
            server_name,
            verify,
        } => {
            let tls = Tls {
                server_name: server_name.as_str().into(),
                verify: *verify,
                client: None,
            };
            match timeout(limit, dialer.secure(tcp, address, &tls)).await {
                Ok(Ok(stream)) => converse(stream, request, limit).await,
                // A failed handshake is a TCP failure for whatever reason it failed, time
                // included (APISIX 3.18).
                Ok(Err(_)) | Err(_) => ProbeOutcome::TcpFailure,
            }
        }
    }
}

async fn converse(mut stream: Stream, request: &ProbeRequest, limit: Duration) -> ProbeOutcome {
    let head = head_of(request);
    match timeout(limit, stream.write_all(head.as_bytes())).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return ProbeOutcome::TcpFailure,
        Err(_) => return ProbeOutcome::Timeout,
    }
    match timeout(limit, status_line(&mut stream)).await {
        Ok(outcome) => outcome,
        Err(_) => ProbeOutcome::Timeout,
    }
}

/// Reads the first line of the answer, and says what it means.
async fn status_line(stream: &mut Stream) -> ProbeOutcome {
    let mut line = Vec::with_capacity(64);
    let mut buffer = [0u8; 512];
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return ProbeOutcome::TcpFailure,
            Ok(read) => read,
        };
        line.extend_from_slice(&buffer[..read]);
        if let Some(end) = memchr::memchr(b'\n', &line) {
            return status_of(&line[..end]).map_or(ProbeOutcome::NotHttp, ProbeOutcome::Status);
        }
        if line.len() > STATUS_LINE_MAX {
            return ProbeOutcome::NotHttp;
        }
    }
}

fn head_of(request: &ProbeRequest) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    head.push_str("Connection: close\r\n");
    if !has_line(request, "host") {
        head.push_str(&format!("Host: {}\r\n", request.host));
    }
    for line in &request.lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    if !request.body.is_empty() && !has_line(request, "content-length") {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    head.push_str(&request.body);
    head
}

fn has_line(request: &ProbeRequest, name: &str) -> bool {
    request.lines.iter().any(|line| {
        line.split_once(':')
            .is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name))
    })
}

/// The status in a status line such as `HTTP/1.1 200 OK`.
fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/")?;
    let rest = &rest[memchr::memchr(b' ', rest)?..].trim_ascii_start();
    let digits = rest.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A peer that sends more than this without a line end does not speak HTTP.
const STATUS_LINE_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        let check = |line: &str, expected| {
            assert_eq!(status_of(line.as_bytes()), expected, "{line:?}");
        };
        check("HTTP/1.1 200 OK\r", Some(200));
        check("HTTP/1.0 503", Some(503));
        check("HTTP/2 204\r", Some(204));
        check("HTTP/1.1 20", None);
        check("HTTP/1.1", None);
        check("SSH-2.0-OpenSSH", None);
        check("HTTP/1.1 abc OK", None);
    }

    #[test]
    fn a_body_brings_its_length_and_lines_stay_as_they_are() {
        let request = ProbeRequest {
            method: "POST".into(),
            target: "/post?key=1".into(),
            host: "example.com".into(),
            lines: vec!["Authorization: Bearer x".into()],
            body: "abc".into(),
        };
        assert_eq!(
            head_of(&request),
            "POST /post?key=1 HTTP/1.1\r\nConnection: close\r\nHost: example.com\r\n\
             Authorization: Bearer x\r\nContent-Length: 3\r\n\r\nabc"
        );
    }
}
