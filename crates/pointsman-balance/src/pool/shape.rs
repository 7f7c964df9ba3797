//! What a pool is made of, for whoever explains its picks. Nothing here is on the path of a pick.

use super::{Algorithm, MemberSpec, Pool};
use crate::picker::Stage;
use crate::{Availability, Gate, TargetId};

/// Members that compete for the same turn. A later tier is asked only if nobody of an earlier one may be
/// picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Higher is used first.
    pub priority: i32,
    /// Its members have weight 0: they take what nobody else of their priority can.
    pub is_last_resort: bool,
    /// Numbers of members by rank: heaviest first, then by name.
    pub members: Vec<usize>,
}

impl Pool {
    /// How members of one priority share the requests.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Stands for all of the configuration that a pick goes by: the algorithm, and of each member in its
    /// order the name, weight, priority, and how many targets and guards judge it. The same in every
    /// process. No secret enters it.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// The tiers in the order in which they are asked. A member that can never be picked is in none.
    pub fn tiers(&self) -> impl Iterator<Item = Tier> {
        self.stages.iter().map(|stage| Tier {
            priority: stage.priority(),
            is_last_resort: stage.is_last_resort(),
            members: Stage::ranking(stage),
        })
    }

    /// Whether a member's targets let it be picked, whatever its guards say.
    ///
    /// # Panics
    ///
    /// If `member` is not below [`len`](Self::len).
    #[must_use]
    pub fn healthy(&self, member: usize, availability: &Availability) -> bool {
        let mut targets = self.targets(member).iter();
        targets.len() == 0 || targets.any(|&target| availability.usable(target))
    }

    /// Verdicts as somebody has written them down: every target and guard may be used but those that are
    /// `out`, and the circuit of the member of `trial` asks for a trial, which nobody has.
    #[must_use]
    pub fn recorded(
        &self,
        epoch: u64,
        out: impl IntoIterator<Item = TargetId>,
        trial: Option<(usize, TargetId)>,
    ) -> Availability {
        let gates = (0..self.len()).filter_map(|member| {
            let asks = trial.filter(|(tried, _)| *tried == member);
            Some((self.gate(member)?, asks.map(|(_, circuit)| circuit)))
        });
        Availability::recorded(epoch, out, gates)
    }
}

/// See [`Pool::digest`].
pub(super) fn digest(members: &[MemberSpec], algorithm: Algorithm) -> u64 {
    let tag = match algorithm {
        Algorithm::RoundRobin => 0,
        Algorithm::Chash => 1,
        Algorithm::LeastConn => 2,
        Algorithm::Ewma => 3,
    };
    members.iter().fold(fnv(OFFSET, &[tag]), |sum, member| {
        // A length before the name, so that no two lists of members are one text.
        let sum = number(sum, member.name.len() as u64);
        let sum = fnv(sum, member.name.as_bytes());
        let sum = fnv(sum, &member.weight.to_le_bytes());
        let sum = fnv(sum, &member.priority.to_le_bytes());
        let gate = member.gate.as_deref();
        let targets = gate.map_or(&*member.targets, Gate::targets);
        let sum = number(sum, targets.len() as u64);
        number(sum, gate.map_or(0, |gate| gate.guards().len()) as u64)
    })
}

fn number(sum: u64, number: u64) -> u64 {
    fnv(sum, &number.to_le_bytes())
}

/// FNV-1a: a few instructions a byte, and the standard library promises no hash that stays the same.
fn fnv(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;
