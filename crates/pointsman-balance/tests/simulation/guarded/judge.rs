//! Who may be picked, and whether as a trial.

use pointsman_balance::{Algorithm, Exhausted};

use super::Judged;
use crate::model::Model;

/// What a pick must come to.
pub(super) struct Expected {
    pub(super) fail_open: bool,
    /// Who may be tried. On a ring it depends on the key whether anybody is.
    pub(super) trials: Vec<usize>,
    /// Who may be picked otherwise.
    pub(super) members: Vec<usize>,
}

impl Judged {
    pub(super) fn judge(&self, model: &Model, tried: &[usize]) -> Result<Expected, Exhausted> {
        let rank = |&at: &usize| (self.members[at].priority, self.members[at].weight > 0);
        let all = || (0..self.members.len()).filter(|&at| self.has_place(at));
        let fail_open = !self.members.iter().any(|member| model.usable(member));
        let offered: Vec<usize> = all()
            .filter(|&at| fail_open || model.usable(&self.members[at]))
            .collect();
        let left = offered.iter().copied().filter(|at| !tried.contains(at));
        let Some(best) = left.clone().map(|at| rank(&at)).max() else {
            return Err(match offered.is_empty() {
                true => Exhausted::NothingToPick,
                false => Exhausted::AllTried,
            });
        };
        // In place of somebody who would come no earlier, and only for a request without an attempt.
        let asking: Vec<usize> = all()
            .filter(|at| tried.is_empty() && (fail_open || rank(at) >= best))
            .filter(|&at| model.asks(&self.members[at]).is_some())
            .collect();
        let first = asking.iter().map(rank).max();
        let of =
            |wanted, from: Vec<usize>| from.into_iter().filter(|at| rank(at) == wanted).collect();
        Ok(Expected {
            fail_open,
            trials: match first {
                Some(_) if self.algorithm == Algorithm::Chash => asking,
                Some(first) => of(first, asking),
                None => Vec::new(),
            },
            members: of(best, left.collect()),
        })
    }

    /// A ring gives no place to a priority of weight 0.
    fn has_place(&self, at: usize) -> bool {
        let priority = self.members[at].priority;
        let mut peers = self.members.iter().filter(|peer| peer.priority == priority);
        self.algorithm != Algorithm::Chash || peers.any(|peer| peer.weight > 0)
    }
}
