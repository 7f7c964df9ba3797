//! Accept, retry elsewhere, or stop? A pure decision over what an attempt came to.
//!
//! The rules are APISIX 3.18's. For LLM instances: an attempt may be followed by another only if
//! its status is one that the configuration selects, it failed quickly enough, and the number of
//! retries is not used up. For plain upstreams: only if the connection failed, and then only if
//! repeating the request is safe.

use std::time::Duration;

use pointsman_ai::Complaint;

use crate::{
    failure::{Blame, Failure, TransportFault},
    forward::{Outcome, http::PlainPlan},
    ports::Answer,
};

/// What to do after an attempt.
pub enum Ruling {
    /// Pass the response on.
    Accept(Accepted),
    /// Try another target, if there is one.
    Retry(Held),
    /// The failure is the answer.
    Stop(Held),
}

/// A response that was judged fit for the client. Only this module makes one, and only it can be
/// delivered.
pub struct Accepted(Answer);

impl Accepted {
    /// The response.
    pub fn into_answer(self) -> Answer {
        self.0
    }
}

/// A failed attempt that may yet become the answer.
pub enum Held {
    /// The target answered with an error; its body has not been read.
    Answer(Answer),
    /// It did not answer.
    Failure(Failure),
}

/// When an LLM attempt may be followed by another (`ai-proxy-multi`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// More than one instance; a lone instance is never retried.
    pub has_alternatives: bool,
    /// `http_429` is selected.
    pub on_429: bool,
    /// `http_5xx` is selected.
    pub on_5xx: bool,
    /// `fallback_http_statuses`.
    pub statuses: Vec<u16>,
    /// `max_retries`.
    pub max_retries: Option<u32>,
    /// `retry_on_failure_within_ms`.
    pub within: Option<Duration>,
}

impl RetryPolicy {
    /// Whether a status stands for a failure of the attempt at all: its body is then not passed
    /// on before the decision.
    pub fn is_error(&self, status: u16) -> bool {
        status == 429 || (500..600).contains(&status) || self.statuses.contains(&status)
    }

    /// Whether any failure at all may be followed by another attempt.
    pub fn may_retry(&self) -> bool {
        self.has_alternatives
            && (self.on_429 || self.on_5xx || !self.statuses.is_empty())
            && self.max_retries != Some(0)
    }

    fn selects(&self, status: u16) -> bool {
        (status == 429 && self.on_429)
            || ((500..600).contains(&status) && self.on_5xx)
            || self.statuses.contains(&status)
    }

    /// Whether another attempt may follow one that ended with `status` after `took`, when
    /// `attempts` have been made.
    pub fn allows(&self, status: u16, took: Duration, attempts: usize) -> bool {
        self.selects(status) && self.has_room(took, attempts)
    }

    /// Whether number and time leave room for another attempt, whatever this one ended with. The
    /// parameters are those of [`allows`](Self::allows).
    pub fn has_room(&self, took: Duration, attempts: usize) -> bool {
        let retries = u32::try_from(attempts).unwrap_or(u32::MAX);
        self.has_alternatives
            && self.within.is_none_or(|within| took <= within)
            && self.max_retries.is_none_or(|max| retries <= max)
    }
}

/// The ruling for an LLM attempt that took `took`, of which `attempts` have been made. A failed `trial`
/// was our own idea: it uses up none of the request's retries and passes every gate.
pub fn ai(
    policy: &RetryPolicy,
    outcome: Outcome,
    attempts: usize,
    took: Duration,
    trial: bool,
) -> Ruling {
    let (status, held) = match outcome {
        Outcome::Answer(answer) => return Ruling::Accept(Accepted(answer)),
        Outcome::ErrorStatus(answer) => (answer.response.status().as_u16(), Held::Answer(answer)),
        // A refusal by policy is an answer, also within a stream.
        Outcome::Failed(Failure::BadStream(error))
            if error.complaint == Some(Complaint::ContentPolicy) =>
        {
            return Ruling::Stop(Held::Failure(Failure::BadStream(error)));
        }
        Outcome::Failed(failure) => (failure.status().as_u16(), Held::Failure(failure)),
        Outcome::Overtaken => {
            let failure = Failure::Transport(TransportFault::Overtaken);
            (failure.status().as_u16(), Held::Failure(failure))
        }
    };
    if trial || policy.allows(status, took, attempts) {
        Ruling::Retry(held)
    } else {
        Ruling::Stop(held)
    }
}

/// The ruling for an attempt on a plain upstream, of which `attempts` have been made.
pub fn plain(plan: &PlainPlan, outcome: Outcome, attempts: usize, elapsed: Duration) -> Ruling {
    match outcome {
        Outcome::Answer(answer) | Outcome::ErrorStatus(answer) => Ruling::Accept(Accepted(answer)),
        Outcome::Overtaken => Ruling::Retry(Held::Failure(Failure::PlainTransport(
            TransportFault::Overtaken,
        ))),
        Outcome::Failed(failure) => {
            let in_time = plan
                .upstream
                .retry_timeout
                .is_none_or(|limit| elapsed < limit);
            // What is wrong with the request is wrong everywhere.
            let allowed = failure.blame() == Blame::Upstream
                && attempts <= plan.upstream.retries
                && in_time
                && plan.may_repeat();
            let held = Held::Failure(failure);
            if allowed {
                Ruling::Retry(held)
            } else {
                Ruling::Stop(held)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I-25: a retry happens iff every gate allows it; the product of all settings, small.
    #[test]
    fn a_retry_passes_every_gate() {
        let statuses = [200, 401, 402, 429, 499, 500, 503, 599];
        for bits in 0..128u32 {
            let bit = |n: u32| bits & (1 << n) != 0;
            let policy = RetryPolicy {
                has_alternatives: bit(0),
                on_429: bit(1),
                on_5xx: bit(2),
                statuses: if bit(3) { vec![401, 402] } else { Vec::new() },
                max_retries: if bit(4) {
                    Some(u32::from(bit(5)))
                } else {
                    None
                },
                within: bit(6).then(|| Duration::from_millis(200)),
            };
            for status in statuses {
                for (took, attempts) in [(100, 1), (201, 1), (200, 2), (100, 3)] {
                    let selected = (status == 429 && bit(1))
                        || ((500..600).contains(&status) && bit(2))
                        || ((status == 401 || status == 402) && bit(3));
                    let expected = bit(0)
                        && selected
                        && !(bit(6) && took > 200)
                        && !(bit(4) && attempts > usize::from(bit(5)));
                    let took = Duration::from_millis(took);
                    assert_eq!(
                        policy.allows(status, took, attempts),
                        expected,
                        "{policy:?} {status} {took:?} {attempts}"
                    );
                }
            }
        }
    }
}
