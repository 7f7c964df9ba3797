//! Probes, performed: one connection, one request, one status line.

use std::time::{Duration, Instant};

use pointsman_balance::ProbeOutcome;
use pointsman_gateway::{
    clock,
    upstream::{
        destination::Tls,
        health::{ProbeKind, ProbeRequest, ProbeSpec},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{timeout, timeout_at},
};

use crate::http_client::{Dialer, Stream};

/// Ends a probe that began at `began` while its outcome still counts, whatever the peer does; returns
/// the outcome and when it was known. `None`: this thread was too busy to even begin in time, which
/// says nothing about the target. Its ticket lapses then, and it is due again.
///
/// A busy thread may look long after the probe ended. That is its own lateness and not the target's: no
/// answer by the time of giving up was a fact at that time, and an answer that is there when the thread
/// looks again is taken as one that came in time. Stamped with the time of looking, every outcome of a
/// thread that is always late would be void, and no verdict would ever change.
pub(crate) async fn in_time(
    performed: impl Future<Output = ProbeOutcome>,
    began: Instant,
    answer_within: Duration,
) -> Option<(ProbeOutcome, Instant)> {
    let give_up = began + answer_within.min(LONGEST).saturating_sub(REPORT_MARGIN);
    if clock::now() >= give_up {
        return None;
    }
    let outcome = timeout_at(give_up.into(), performed)
        .await
        .unwrap_or(ProbeOutcome::Timeout);
    Some((outcome, clock::now().min(give_up)))
}

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

/// From giving a probe up to the point at which an outcome does not count any more. How late the
/// report is does not matter: it bears the time of giving up.
const REPORT_MARGIN: Duration = Duration::from_millis(50);

/// No probe takes longer: a point in time further away might not exist.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_millis(550);
    const GIVE_UP: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn no_answer_is_a_timeout_of_the_time_of_giving_up() {
        let began = clock::now();
        let silence = std::future::pending();
        let expected = (ProbeOutcome::Timeout, began + GIVE_UP);
        assert_eq!(in_time(silence, began, WITHIN).await, Some(expected));
    }

    #[tokio::test]
    async fn a_busy_thread_neither_loses_an_answer_nor_invents_a_timeout() {
        let began = clock::now();
        let answered = async {
            std::thread::sleep(2 * WITHIN);
            ProbeOutcome::Status(200)
        };
        let expected = (ProbeOutcome::Status(200), began + GIVE_UP);
        assert_eq!(in_time(answered, began, WITHIN).await, Some(expected));

        let too_late = in_time(std::future::pending(), began, WITHIN);
        assert_eq!(too_late.await, None);
    }

    #[tokio::test]
    async fn a_prompt_answer_bears_the_time_at_which_it_came() {
        let began = clock::now();
        let prompt = std::future::ready(ProbeOutcome::TcpOk);
        let (outcome, known) = in_time(prompt, began, Duration::MAX).await.unwrap();
        assert_eq!(outcome, ProbeOutcome::TcpOk);
        assert!(known >= began && known <= clock::now());
    }

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
