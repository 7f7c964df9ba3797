//! Connections that serve several probes, for `checks.active.reuse_connection`.
//!
//! A verdict never waits for the rest of an answer: it is known with the status line. What is still to
//! come is read when the next probe is due, without waiting; if the answer is not over by then, or is
//! framed so that its end cannot be told, the connection is closed. A connection that its peer has
//! closed, or that breaks before a byte of an answer, says nothing: the probe is made anew.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use pointsman_balance::{ProbeOutcome, TargetId};
use pointsman_gateway::{
    clock,
    upstream::health::{ProbeKind, ProbeRequest, ProbeSpec},
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::{Next, Stage, head_of, meaning};
use crate::{
    http_client::Stream,
    http1::{
        decoder::{Decoder, Step},
        head::HeadScan,
    },
};

/// A connection on which a probe was answered.
pub(crate) struct Kept {
    stream: Stream,
    /// What has come of the last answer, until that is over.
    answer: Vec<u8>,
    /// Requests so far.
    asked: u32,
    /// When the last of them was answered.
    since: Instant,
}

/// Asks on a new connection.
pub(super) async fn first(stream: Stream, request: &ProbeRequest, stage: &Stage) -> ProbeOutcome {
    let kept = Kept {
        stream,
        answer: Vec::new(),
        asked: 0,
        since: clock::now(),
    };
    let outcome = kept.ask(request, stage).await;
    outcome.unwrap_or(ProbeOutcome::TcpFailure)
}

impl Kept {
    /// Performs `spec` on this connection; `None` if that takes a new one.
    pub(super) async fn serve(mut self, spec: &ProbeSpec, stage: &Stage) -> Option<ProbeOutcome> {
        let request = request_of(&spec.kind)?;
        let is_fresh = clock::now().saturating_duration_since(self.since) <= IDLE_MAX;
        if !is_fresh || !self.is_idle(request) {
            return None;
        }
        self.ask(request, stage).await
    }

    /// Sends the request and waits for a status line; `None` if the connection ends before a byte of
    /// it. Leaves the connection to the next probe if there may be one.
    async fn ask(mut self, request: &ProbeRequest, stage: &Stage) -> Option<ProbeOutcome> {
        stage.begin(ProbeOutcome::Timeout);
        self.asked += 1;
        let next = match self.asked < PROBES_MAX {
            true => Next::Keep,
            false => Next::Close,
        };
        let head = head_of(request, next);
        self.stream.write_all(head.as_bytes()).await.ok()?;
        stage.begin(ProbeOutcome::Timeout);
        let outcome = poll_fn(|cx| {
            loop {
                if !matches!(ready!(self.poll_more(cx)), Ok(1..)) {
                    let begun = !self.answer.is_empty();
                    return Poll::Ready(begun.then_some(ProbeOutcome::TcpFailure));
                }
                if let Some(outcome) = meaning(&self.answer) {
                    return Poll::Ready(Some(outcome));
                }
            }
        });
        let outcome = outcome.await?;
        if next == Next::Keep && self.settle(request) != Rest::Unknown {
            self.since = clock::now();
            stage.connection.set(Some(self));
        }
        Some(outcome)
    }

    /// Whether the last answer is over, nothing follows it, and the peer has not closed, as far as is
    /// known without waiting.
    fn is_idle(&mut self, request: &ProbeRequest) -> bool {
        let was_over = self.answer.is_empty();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_more(&mut cx) {
                Poll::Pending => return was_over || self.settle(request) == Rest::Over,
                // Nobody asked for it.
                Poll::Ready(Ok(1..)) if was_over => return false,
                Poll::Ready(Ok(1..)) if self.answer.len() <= ANSWER_MAX => {}
                Poll::Ready(_) => return false,
            }
        }
    }

    /// Reads what is there; 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Not kept while the probe waits.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.answer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// What is still to come of the answer, which is forgotten once it is over.
    fn settle(&mut self, request: &ProbeRequest) -> Rest {
        let rest = rest_of(&self.answer, &request.method);
        if rest == Rest::Over {
            self.answer = Vec::new();
        }
        rest
    }
}

/// What is still to come of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing, and the connection stays open.
    Over,
    /// Something that will show its end.
    Missing,
    /// Nobody knows, or too much, or the connection is not to be used again.
    Unknown,
}

fn rest_of(answer: &[u8], method: &str) -> Rest {
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return Rest::Unknown;
    };
    let mut input = Bytes::copy_from_slice(answer);
    let head = match HeadScan::default().response(&mut input, &method, ANSWER_MAX) {
        Ok(Some(head)) => head,
        Ok(None) => return Rest::Missing,
        Err(_) => return Rest::Unknown,
    };
    if !head.keep_alive || head.status.is_informational() || method == Method::CONNECT {
        return Rest::Unknown;
    }
    let mut body = head.body.unwrap_or(Decoder::Length(0));
    let too_much = |left: u64| left > ANSWER_MAX as u64;
    if body == Decoder::UntilClose || body.remaining().is_some_and(too_much) {
        return Rest::Unknown;
    }
    loop {
        match body.step(&mut input) {
            Ok(Step::Data(_)) => {}
            Ok(Step::More) => return Rest::Missing,
            Ok(Step::End) if input.is_empty() => return Rest::Over,
            Ok(Step::End) | Err(_) => return Rest::Unknown,
        }
    }
}

fn request_of(kind: &ProbeKind) -> Option<&ProbeRequest> {
    match kind {
        ProbeKind::Tcp => None,
        ProbeKind::Http(request) | ProbeKind::Https { request, .. } => Some(request),
    }
}

/// The connections that wait for the next probes of their targets.
pub(crate) struct Shelf {
    kept: HashMap<TargetId, (Arc<ProbeSpec>, Kept)>,
    /// Targets that have had a connection kept, and so their place among the others.
    known: HashMap<TargetId, Arc<ProbeSpec>>,
    most: usize,
}

impl Shelf {
    /// Empty; it never has more than a share of the descriptors that the process may have.
    pub(crate) fn new() -> Self {
        Self {
            kept: HashMap::new(),
            known: HashMap::new(),
            most: descriptors().unwrap_or(DESCRIPTORS_USUAL) / 4,
        }
    }

    /// The connection for one more probe of `target`, if it was kept for this very probe.
    pub(crate) fn take(&mut self, target: TargetId, spec: &Arc<ProbeSpec>) -> Option<Kept> {
        let (made_for, kept) = self.kept.remove(&target)?;
        (Arc::ptr_eq(&made_for, spec) || made_for == *spec).then_some(kept)
    }

    /// Keeps a connection for the next probe of `target`.
    pub(crate) fn keep(&mut self, target: TargetId, spec: &Arc<ProbeSpec>, mut kept: Kept) {
        kept.asked += self.head_start(target, spec);
        if kept.asked < PROBES_MAX && self.kept.len() < self.most {
            self.kept.insert(target, (Arc::clone(spec), kept));
        }
    }

    /// How many probes fewer go over the first connection of `target`, and over no other: targets that
    /// began together do not all come to new connections together.
    fn head_start(&mut self, target: TargetId, spec: &Arc<ProbeSpec>) -> u32 {
        match self.known.insert(target, Arc::clone(spec)) {
            Some(_) => 0,
            // It is used for one more at least.
            None => target.index() as u32 % (PROBES_MAX - 1),
        }
    }

    /// Closes all connections but those of which `stays` says that their targets are still probed.
    pub(crate) fn retain(&mut self, stays: impl Fn(TargetId, &ProbeSpec) -> bool) {
        self.kept.retain(|target, (spec, _)| stays(*target, spec));
        self.known.retain(|target, spec| stays(*target, spec));
    }

    /// Whether it knows of none.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// How many descriptors this process may have.
fn descriptors() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Probes on one connection: whether a target still takes new ones shows at least that often.
const PROBES_MAX: u32 = 10;
/// A connection that was idle for longer may have been forgotten by something on the way, which would
/// look like a target that does not answer.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// An answer with more than this is not read to its end.
const ANSWER_MAX: usize = 64 << 10;
const READ_BYTES: usize = 4 << 10;
/// Where the limit cannot be read.
const DESCRIPTORS_USUAL: usize = 1024;

#[cfg(test)]
mod tests {
    use pointsman_balance::{Monitor, Policy, Wanted};

    use super::*;

    #[test]
    fn only_first_connections_are_renewed_early() {
        let wanted = |place: u16| Wanted {
            probe: place,
            policy: Policy::default(),
            lineage: place.to_string(),
            checker: String::new(),
        };
        #[expect(clippy::disallowed_methods, reason = "no other way to an `Instant`")]
        let now = std::time::Instant::now();
        let targets = Monitor::new().reconcile((0..20).map(wanted).collect(), now);
        let spec = Arc::new(ProbeSpec {
            kind: ProbeKind::Tcp,
            host: "127.0.0.1".to_owned(),
            port: 1,
            hostname: String::new(),
        });
        let mut shelf = Shelf::new();
        let starts = |shelf: &mut Shelf| -> Vec<u32> {
            let each = targets
                .iter()
                .map(|&target| shelf.head_start(target, &spec));
            each.collect()
        };
        let first: Vec<u32> = (0..20).map(|place| place % 9).collect();
        assert_eq!(starts(&mut shelf), first);
        assert_eq!(starts(&mut shelf), [0; 20]);
        // Who comes again after it was gone is new.
        shelf.retain(|_, _| false);
        assert!(shelf.is_empty());
        assert_eq!(starts(&mut shelf), first);
    }

    #[test]
    fn only_an_answer_with_a_known_end_leaves_its_connection() {
        let check = |method: &str, answer: &str, expected| {
            assert_eq!(
                rest_of(answer.as_bytes(), method),
                expected,
                "{method} {answer:?}"
            );
        };
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Rest::Over,
        );
        check(
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            Rest::Missing,
        );
        check(
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noks",
            Rest::Unknown,
        );
        check(
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            Rest::Unknown,
        );
        check(
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            Rest::Over,
        );
        check("GET", "HTTP/1.1 200 OK\r\nContent-", Rest::Missing);
        check("GET", &format!("{chunked}2\r\nok\r\n0\r\n\r\n"), Rest::Over);
        check("GET", &format!("{chunked}2\r\nok\r\n"), Rest::Missing);
        check("GET", &format!("{chunked}zz\r\n"), Rest::Unknown);
        check("GET", "HTTP/1.1 204 No Content\r\n\r\n", Rest::Over);
        check(
            "GET",
            "HTTP/1.1 200 OK\r\n\r\nuntil the close",
            Rest::Unknown,
        );
        check(
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            Rest::Unknown,
        );
        let closes = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        check("GET", closes, Rest::Unknown);
        check(
            "GET",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Rest::Unknown,
        );
        check("CONNECT", "HTTP/1.1 200 OK\r\n\r\n", Rest::Unknown);
    }
}
