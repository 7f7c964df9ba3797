//! Probes, performed: one connection, one request, one status line. A connection that may serve the
//! next probe, too, is in `kept.rs`.

mod kept;

use std::{
    cell::Cell,
    future::poll_fn,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Poll, ready},
    time::{Duration, Instant},
};

use pointsman_balance::ProbeOutcome;
use pointsman_gateway::{
    clock,
    failure::TransportFault,
    upstream::{
        destination::Tls,
        health::{ProbeKind, ProbeRequest, ProbeSpec},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    task::yield_now,
    time::sleep_until,
};

use crate::http_client::{self, Dialer, Stream};

pub(crate) use self::kept::{Kept, Shelf};

/// What a probe does at the moment, until when it may, and a connection that outlives it. Each of its
/// operations has the same limit; one timer serves them all.
pub(crate) struct Stage {
    limit: Duration,
    /// When the operation under way has taken too long, and what that counts as.
    ends: Cell<Option<(Instant, ProbeOutcome)>>,
    /// It could not be performed, which says nothing about the target.
    is_void: Cell<bool>,
    /// At first one that an earlier probe left, in the end one that the next may use.
    connection: Cell<Option<Kept>>,
}

impl Stage {
    /// Nothing has begun; each operation may take `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit: limit.min(LONGEST),
            ends: Cell::new(None),
            is_void: Cell::new(false),
            connection: Cell::new(None),
        }
    }

    /// The same with a connection that may be used once more.
    pub(crate) fn with(self, connection: Option<Kept>) -> Self {
        self.connection.set(connection);
        self
    }

    /// The connection that the next probe of the same may use.
    pub(crate) fn take_connection(&self) -> Option<Kept> {
        self.connection.take()
    }

    /// The next operation begins; `overrun` is the outcome if it takes too long.
    fn begin(&self, overrun: ProbeOutcome) {
        self.ends.set(Some((clock::now() + self.limit, overrun)));
    }

    /// The outcome of a connection that could not be made.
    fn unconnected(&self, fault: TransportFault) -> ProbeOutcome {
        self.is_void.set(fault == TransportFault::Exhausted);
        ProbeOutcome::TcpFailure
    }

    /// When the operation under way ends at the latest, and how.
    fn ends(&self, give_up: Instant) -> (Instant, ProbeOutcome) {
        let ends = self.ends.get().filter(|(at, _)| *at < give_up);
        ends.unwrap_or((give_up, ProbeOutcome::Timeout))
    }
}

/// Ends a probe that began at `began` while its outcome still counts, whatever the peer does, and as
/// soon as an operation of it, as its `stage` says, has taken too long; returns the outcome and when it
/// was known. `None`: this thread was too busy to even begin in time, or there was no descriptor left, which
/// says nothing about the target. Its ticket lapses then, and it is due again.
///
/// A busy thread may look long after the probe ended. That is its own lateness and not the target's: no
/// answer by the time of giving up was a fact at that time, and an answer that is there when the thread
/// looks again is taken as one that came in time. Stamped with the time of looking, every outcome of a
/// thread that is always late would be void, and no verdict would ever change.
pub(crate) async fn in_time(
    mut performed: Pin<&mut (impl Future<Output = ProbeOutcome> + ?Sized)>,
    stage: &Stage,
    began: Instant,
    answer_within: Duration,
) -> Option<(ProbeOutcome, Instant)> {
    let give_up = began + answer_within.min(LONGEST).saturating_sub(REPORT_MARGIN);
    if clock::now() >= give_up {
        return None;
    }
    let mut set_to = give_up;
    let mut timer = pin!(sleep_until(give_up.into()));
    let outcome = loop {
        let run_out = poll_fn(|cx| {
            // First, whatever the time is: see above.
            if let Poll::Ready(outcome) = performed.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            let (ends, overrun) = stage.ends(give_up);
            if ends != set_to {
                timer.as_mut().reset(ends.into());
                set_to = ends;
            }
            timer.as_mut().poll(cx).map(|()| Err(overrun))
        });
        let overrun = match run_out.await {
            Ok(outcome) => break outcome,
            Err(overrun) => overrun,
        };
        // Timers may have been looked at and sockets not: a process that was stopped and goes on wakes
        // up without an event (signal(7)). Tasks that yield go on once both have been.
        yield_now().await;
        match poll_fn(|cx| Poll::Ready(performed.as_mut().poll(cx))).await {
            Poll::Ready(outcome) => break outcome,
            Poll::Pending if stage.ends(give_up).0 == set_to => break overrun,
            // It has come to its next operation.
            Poll::Pending => {}
        }
    };
    (!stage.is_void.get()).then(|| (outcome, clock::now().min(give_up)))
}

/// Performs `spec`. Connecting, the TLS handshake, sending and the wait for the whole status line
/// are operations of their own, however the peer spreads its bytes over them.
///
/// What is seldom is boxed: thousands of probes may be under way at once, and each takes the room of
/// the largest thing that it might do.
pub(crate) async fn perform(dialer: &Dialer, spec: &ProbeSpec, stage: &Stage) -> ProbeOutcome {
    if let Some(kept) = stage.take_connection()
        && let Some(outcome) = Box::pin(kept.serve(spec, stage)).await
    {
        return outcome;
    }
    stage.begin(ProbeOutcome::Timeout);
    let (tcp, address) = match spec.host.parse() {
        Ok(ip) => {
            let address = SocketAddr::new(ip, spec.port);
            match http_client::open_to_send(address).await {
                Ok(tcp) => (tcp, address),
                Err(error) => return stage.unconnected(http_client::fault_of(&error)),
            }
        }
        Err(_) => match Box::pin(dialer.connect(&spec.host, spec.port)).await {
            Ok(connected) => connected,
            Err(error) => return stage.unconnected(error.fault),
        },
    };
    match &spec.kind {
        ProbeKind::Tcp => ProbeOutcome::TcpOk,
        ProbeKind::Http(request) if request.reuse => {
            Box::pin(kept::first(Stream::Plain(tcp), request, stage)).await
        }
        ProbeKind::Http(request) => converse(tcp, request, stage).await,
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
            Box::pin(secured(dialer, (tcp, address), &tls, request, stage)).await
        }
    }
}

async fn secured(
    dialer: &Dialer,
    (tcp, address): (TcpStream, SocketAddr),
    tls: &Tls,
    request: &ProbeRequest,
    stage: &Stage,
) -> ProbeOutcome {
    // A failed handshake is a TCP failure for whatever reason it failed, time included (APISIX 3.18).
    stage.begin(ProbeOutcome::TcpFailure);
    // The request follows the end of the handshake at once.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%address, "TCP_NODELAY: {error}");
    }
    match dialer.secure(tcp, address, tls).await {
        Ok(stream) if request.reuse => kept::first(stream, request, stage).await,
        Ok(stream) => converse(stream, request, stage).await,
        Err(_) => ProbeOutcome::TcpFailure,
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &ProbeRequest,
    stage: &Stage,
) -> ProbeOutcome {
    stage.begin(ProbeOutcome::Timeout);
    let head = head_of(request, Next::Close);
    if stream.write_all(head.as_bytes()).await.is_err() {
        return ProbeOutcome::TcpFailure;
    }
    stage.begin(ProbeOutcome::Timeout);
    status_line(&mut stream).await
}

/// Reads the first line of the answer, and says what it means.
async fn status_line(stream: &mut (impl AsyncRead + Unpin)) -> ProbeOutcome {
    // What came of a line that did not come whole; mostly it does.
    let mut begun = Vec::new();
    poll_fn(|cx| {
        loop {
            // Not kept while the probe waits. What is left unread when the connection closes resets
            // it (RFC 9293 §3.10.4 lets it), and servers may log that: most answers fit.
            let mut space = [MaybeUninit::uninit(); ANSWER_USUAL];
            let mut read = ReadBuf::uninit(&mut space);
            let done = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
            if done.is_err() || read.filled().is_empty() {
                return Poll::Ready(ProbeOutcome::TcpFailure);
            }
            let outcome = if begun.is_empty() {
                meaning(read.filled())
            } else {
                begun.extend_from_slice(read.filled());
                meaning(&begun)
            };
            if let Some(outcome) = outcome {
                return Poll::Ready(outcome);
            }
            if begun.is_empty() {
                begun = read.filled().to_vec();
            }
        }
    })
    .await
}

/// What an answer that begins like this means; `None`: its first line has not ended.
fn meaning(answer: &[u8]) -> Option<ProbeOutcome> {
    match memchr::memchr(b'\n', answer) {
        Some(end) => {
            Some(status_of(&answer[..end]).map_or(ProbeOutcome::NotHttp, ProbeOutcome::Status))
        }
        None => (answer.len() > STATUS_LINE_MAX).then_some(ProbeOutcome::NotHttp),
    }
}

/// What is to become of a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is closed.
    Close,
    /// Another request may follow.
    Keep,
}

fn head_of(request: &ProbeRequest, next: Next) -> String {
    let mut head = String::with_capacity(HEAD_USUAL + request.body.len());
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| head.push_str(part));
    put(&[&request.method, " ", &request.target, " HTTP/1.1\r\n"]);
    if next == Next::Close {
        put(&["Connection: close\r\n"]);
    }
    if !has_line(request, "host") {
        put(&["Host: ", &request.host, "\r\n"]);
    }
    for line in &request.lines {
        put(&[line, "\r\n"]);
    }
    if !request.body.is_empty() && !has_line(request, "content-length") {
        put(&["Content-Length: ", &request.body.len().to_string(), "\r\n"]);
    }
    put(&["\r\n", &request.body]);
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

/// Bytes that the head of a probe usually stays below.
const HEAD_USUAL: usize = 256;
/// Bytes that an answer to a probe usually stays below.
const ANSWER_USUAL: usize = 4 << 10;

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
        let silence = pin!(std::future::pending());
        let expected = (ProbeOutcome::Timeout, began + GIVE_UP);
        let stage = Stage::new(WITHIN);
        let outcome = in_time(silence, &stage, began, WITHIN).await;
        assert_eq!(outcome, Some(expected));
    }

    #[tokio::test]
    async fn a_busy_thread_neither_loses_an_answer_nor_invents_a_timeout() {
        let began = clock::now();
        let stage = Stage::new(Duration::ZERO);
        let answered = pin!(async {
            stage.begin(ProbeOutcome::TcpFailure);
            std::thread::sleep(2 * WITHIN);
            ProbeOutcome::Status(200)
        });
        let expected = (ProbeOutcome::Status(200), began + GIVE_UP);
        let outcome = in_time(answered, &stage, began, WITHIN).await;
        assert_eq!(outcome, Some(expected));

        let never = pin!(std::future::pending());
        assert_eq!(in_time(never, &stage, began, WITHIN).await, None);
    }

    #[tokio::test]
    async fn a_prompt_answer_bears_the_time_at_which_it_came() {
        let began = clock::now();
        let prompt = pin!(std::future::ready(ProbeOutcome::TcpOk));
        let stage = Stage::new(Duration::MAX);
        let (outcome, known) = in_time(prompt, &stage, began, Duration::MAX).await.unwrap();
        assert_eq!(outcome, ProbeOutcome::TcpOk);
        assert!(known >= began && known <= clock::now());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_seen_after_its_timer_counts() {
        let (began, hour) = (clock::now(), Duration::from_secs(60 * 60));
        let stage = Stage::new(hour);
        let end_in = |hours| {
            let ends = (began + hours * hour, ProbeOutcome::Timeout);
            stage.ends.set(Some(ends));
        };
        end_in(1);
        let at = tokio::time::Instant::now();
        let mut looks = 0;
        let seen_late = pin!(poll_fn(|_| {
            if at.elapsed() < hour / 2 {
                return Poll::Pending;
            }
            looks += 1;
            match looks {
                // The timer of the first operation has run out when this is seen: it is connected.
                2 => end_in(2),
                // The same of the second: the answer is there. Between, the timer is set and runs out.
                5 => return Poll::Ready(ProbeOutcome::Status(200)),
                _ => {}
            }
            Poll::Pending
        }));
        let outcome = in_time(seen_late, &stage, began, 24 * hour).await.unwrap();
        assert_eq!(outcome.0, ProbeOutcome::Status(200));
    }

    #[tokio::test(start_paused = true)]
    async fn each_operation_has_an_end_of_its_own() {
        let (began, hour) = (clock::now(), Duration::from_secs(60 * 60));
        let stage = Stage::new(hour);
        let slow = pin!(async {
            stage.ends.set(Some((began + hour, ProbeOutcome::Timeout)));
            tokio::task::yield_now().await;
            let second = (began + 2 * hour, ProbeOutcome::TcpFailure);
            stage.ends.set(Some(second));
            std::future::pending().await
        });
        let at = tokio::time::Instant::now();
        let (outcome, _) = in_time(slow, &stage, began, 24 * hour).await.unwrap();
        assert_eq!(outcome, ProbeOutcome::TcpFailure);
        assert!(at.elapsed() > hour * 3 / 2, "{:?}", at.elapsed());
    }

    /// Thousands may be under way at once.
    #[test]
    fn a_probe_under_way_is_small() {
        fn bytes<F>(
            _: impl FnOnce(&'static Dialer, &'static ProbeSpec, &'static Stage) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(perform);
        assert!(bytes <= 320, "{bytes}");
    }

    #[tokio::test]
    async fn a_status_line_may_come_in_pieces() {
        let check = async |pieces: &[&[u8]], expected| {
            let mut stream = tokio_test::io::Builder::new();
            pieces.iter().for_each(|piece| {
                stream.read(piece);
            });
            let outcome = status_line(&mut stream.build()).await;
            assert_eq!(outcome, expected, "{pieces:?}");
        };
        let ok = ProbeOutcome::Status(200);
        check(&[b"HTTP/1.1 200 OK\r\n\r\n"], ok).await;
        check(&[b"H", b"TTP/1.1 200", b" OK\r", b"\n"], ok).await;
        check(&[b"HTTP/1.1 200 OK"], ProbeOutcome::TcpFailure).await;
        check(&[b"SSH-2.0", b"-x\n"], ProbeOutcome::NotHttp).await;
        let endless = [b'H'; STATUS_LINE_MAX + 1];
        check(&[&endless], ProbeOutcome::NotHttp).await;
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
            reuse: true,
        };
        let check = |next, connection: &str| {
            let expected = format!(
                "POST /post?key=1 HTTP/1.1\r\n{connection}Host: example.com\r\n\
                 Authorization: Bearer x\r\nContent-Length: 3\r\n\r\nabc"
            );
            assert_eq!(head_of(&request, next), expected);
        };
        check(Next::Close, "Connection: close\r\n");
        check(Next::Keep, "");
    }
}
