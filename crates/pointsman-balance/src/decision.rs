//! What a pick went by beside the ask and the verdicts, written down so that it can be made again.
//!
//! A picker reads something that changes from pick to pick: a position, a load, a draw. A pick that is
//! asked to notes what it has read, as a value; the same pick, given that value, comes to the same
//! member. Nobody else reads a decision: no live pick goes by one.

/// Where a pick finds what changes from pick to pick.
#[derive(Debug, Clone, Copy)]
pub enum Basis<'a> {
    /// The state of the moment, which the pick moves on.
    Live,
    /// The same, and the pick says what that was.
    Noted,
    /// What an earlier pick has said. Moves nothing on. Without a decision no picker offers anybody.
    Given(Option<&'a Decision>),
}

/// A [`Basis`], or [`Live`] alone: then it is known while the code is compiled, and all that notes and
/// replays is left out of the path.
pub(crate) trait Source: Copy {
    fn basis(&self) -> Basis<'_>;
}

/// The state of the moment, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live;

impl Source for Live {
    #[inline(always)]
    fn basis(&self) -> Basis<'_> {
        Basis::Live
    }
}

impl Source for Basis<'_> {
    #[inline(always)]
    fn basis(&self) -> Basis<'_> {
        *self
    }
}

/// What a picker has read.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Round robin: the position in the cycle of its tier from which on it looked for a turn.
    Position(u64),
    /// Chash: the hash of the key, by which a member owns it. The key itself is not kept.
    Hash(u32),
    /// `least_conn`: what was under way.
    InFlight {
        /// The rank that was first among equals.
        first: u32,
        /// Requests under way, by rank in the tier: heaviest first, then by name.
        counts: Box<[u32]>,
    },
    /// `ewma`: the two that were drawn.
    Drawn {
        /// Taken unless the other is quicker.
        one: Drawn,
        /// `None` if nobody else was eligible.
        other: Option<Drawn>,
    },
}

/// A member that `ewma` drew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Its number in the pool.
    pub member: usize,
    /// The moving average of its response times, faded to that moment, in seconds; 0 before the first.
    pub latency: f32,
}

/// Larger tiers of `least_conn` note nothing: the note would cost more than the pick.
pub const NOTED_MAX: usize = 256;
