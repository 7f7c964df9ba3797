//! Where addresses were down when they left their last group.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::TargetId;
use crate::health::monitor::Monitor;

/// Where something was down when it left its last group.
#[derive(Debug)]
pub(super) struct Departed<P>(VecDeque<(P, Instant)>);

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Whether what is at `place` is known to be down under some name.
    pub(in super::super) fn is_known_down(&mut self, place: &P, now: Instant) -> bool {
        let mut here = self.groups.places.get(place).into_iter().flatten();
        let is_down = |id: &TargetId| {
            let target = self.targets.get(id);
            target.is_some_and(|target| !target.state.status.usable())
        };
        here.any(is_down) || self.groups.departed.has(place, now)
    }

    /// Where addresses of groups are down that are not among `staying`.
    pub(in super::super) fn down_places_but(&self, staying: &HashSet<TargetId>) -> Vec<P> {
        let leaves_down = |id: &TargetId| {
            let target = self.targets.get(id).filter(|_| !staying.contains(id));
            target.is_some_and(|target| !target.state.status.usable())
        };
        let places = self.groups.place_of.iter();
        let places = places.filter(|(id, _)| leaves_down(id));
        places.map(|(_, place)| place.clone()).collect()
    }

    /// Remembers that these were down when they left.
    pub(in super::super) fn depart(&mut self, places: impl IntoIterator<Item = P>, now: Instant) {
        let groups = &mut self.groups;
        // While others are there, they say how it is.
        groups
            .departed
            .0
            .retain(|(place, _)| !groups.places.contains_key(place));
        for place in places {
            if !groups.places.contains_key(&place) {
                groups.departed.remember(place, now);
            }
        }
    }
}

impl<P> Default for Departed<P> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<P: Eq> Departed<P> {
    pub(super) fn remember(&mut self, place: P, now: Instant) {
        if self.0.len() >= DEPARTED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((place, now));
    }

    pub(super) fn forget(&mut self, place: &P) {
        self.0.retain(|(other, _)| other != place);
    }

    pub(super) fn has(&mut self, place: &P, now: Instant) -> bool {
        while let Some((_, since)) = self.0.front()
            && now.saturating_duration_since(*since) > DEPARTED_FOR
        {
            self.0.pop_front();
        }
        self.0.iter().any(|(other, _)| other == place)
    }
}

/// Places of which is known that they were down.
const DEPARTED_MAX: usize = 1024;
/// How long that counts. Names whose answers rotate bring an address back within minutes.
const DEPARTED_FOR: Duration = Duration::from_secs(600);
