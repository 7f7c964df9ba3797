//! Why there is no pick, or no pool.

use std::fmt;

/// Why a pool had nobody to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// Every member that may be offered under these verdicts was tried by this request.
    AllTried,
    /// No member may be offered at all, whatever was tried: chash with all weights 0, or a usable
    /// member that has no place on any ring.
    NothingToPick,
}

/// Why a pool cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolError {
    /// There is no member.
    NoMember,
    /// Two members share this name.
    DuplicateName(String),
    /// More than [`MEMBERS_MAX`](super::MEMBERS_MAX) members.
    TooManyMembers {
        /// How many there are.
        members: usize,
        /// How many a pool takes.
        max: usize,
    },
    /// The weights need a hash ring of more than [`RING_POINTS_MAX`](crate::RING_POINTS_MAX) points.
    RingTooLarge {
        /// How many points the weights need, over all priorities.
        points: u64,
        /// How many a pool takes.
        max: u64,
    },
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllTried => "every usable member was tried",
            Self::NothingToPick => "no member may be picked",
        })
    }
}

impl std::error::Error for Exhausted {}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMember => f.write_str("there is no member to pick from"),
            Self::DuplicateName(name) => write!(f, "two members are named {name:?}"),
            Self::TooManyMembers { members, max } => {
                write!(f, "{members} members are more than the {max} a pool takes")
            }
            Self::RingTooLarge { points, max } => write!(
                f,
                "these weights need a hash ring of {points} points, more than {max}: use smaller weights or a common factor"
            ),
        }
    }
}

impl std::error::Error for PoolError {}
