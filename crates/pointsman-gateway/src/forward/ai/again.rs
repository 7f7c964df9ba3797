//! Whether an instance is asked once more, or one that takes longer prompts.

use std::time::Duration;

use pointsman_ai::Complaint;
use pointsman_balance::Tried;

use crate::{
    failure::{Failure, TransportFault},
    forward::{Outcome, ai::AiPlan, evidence},
    plugins::ai_proxy::AiInstance,
};

impl AiPlan {
    /// How long to wait before the same instance is asked once more, after `repeats` times; `None`: it
    /// is not. Only what may be over in a moment is worth it: a connection that broke before its
    /// answer, a server's error, and a quota that comes back before the client minds.
    pub fn wait_for_same(&self, outcome: &Outcome, repeats: u32) -> Option<Duration> {
        let rules = self.target.repeat;
        if repeats >= rules.attempts {
            return None;
        }
        let doubled = rules.backoff_ms.saturating_mul(1 << repeats.min(16));
        let varied = doubled / 2 + rand::random_range(0..=doubled / 2);
        let backoff = Duration::from_millis(varied.min(BACKOFF_MS_MAX));
        let answer = match outcome {
            Outcome::Failed(Failure::Transport(
                TransportFault::Connect | TransportFault::Closed | TransportFault::Tls,
            )) => return Some(backoff),
            Outcome::ErrorStatus(answer) => answer,
            Outcome::Failed(_) | Outcome::Answer(_) | Outcome::Overtaken => return None,
        };
        let status = answer.response.status();
        let asked = evidence::wait_asked(status, answer.response.headers());
        match (status.as_u16(), asked) {
            // It is waited out in full, and a little more: so that not all come back at once, and
            // after a cool-down of the same length.
            (429 | 500..=599, Some(wait)) => (wait <= Duration::from_millis(rules.max_wait_ms))
                .then(|| wait + MARGIN + Duration::from_millis(rand::random_range(0..=50))),
            (500..=599, None) => Some(backoff),
            _ => None,
        }
    }

    /// After an instance has found the prompt too long: those that are known to take more, if there are
    /// any that `tried` leaves, are all that is left.
    pub fn keep_larger(&self, member: usize, tried: &mut Tried) -> bool {
        if self.complaint != Some(Complaint::ContextLength) {
            return false;
        }
        let Some(taken) = self.target.instances[member].context_length else {
            return false;
        };
        let is_larger = |instance: &AiInstance| instance.context_length.is_some_and(|l| l > taken);
        let instances = || self.target.instances.iter().enumerate();
        if !instances().any(|(other, instance)| is_larger(instance) && !tried.contains(other)) {
            return false;
        }
        for (other, instance) in instances() {
            if !is_larger(instance) {
                tried.mark(other);
            }
        }
        true
    }
}

/// The longest wait between two attempts at one instance that nobody asked for.
const BACKOFF_MS_MAX: u64 = 60_000;
/// Over what an instance asked for.
const MARGIN: Duration = Duration::from_millis(10);
