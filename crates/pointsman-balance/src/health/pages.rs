//! Verdicts by id, in pages that snapshots share.
//!
//! A change copies the page that it falls on, and one pointer for each page there is: it costs the same
//! whether ten targets are watched or a hundred thousand. A page of which nothing needs to be said (every
//! target usable, nothing expected) is not kept, so ids that were given out long ago cost a pointer for a
//! few hundred of them.

use std::sync::Arc;

use super::availability::Comeback;
use super::effort;
use super::guard::HalfOpen;
use crate::TargetId;
use crate::sync::AtomicU64;

/// What is published of all ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Arc<Page>>>,
    /// Gates that ask for trials, on all pages.
    asking: usize,
}

/// What is published of [`IDS`] ids in a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// A set bit is a target that may *not* be picked, so that what is not stored is usable.
    pub(super) unusable: [u64; WORDS],
    /// A set bit is a target to which a further success means something. No verdict: it saves traffic
    /// from reporting what would change nothing.
    pub(super) unsettled: [u64; WORDS],
    /// A set bit is a gate that asks for a trial.
    pub(super) asking: [u64; WORDS],
    /// A set bit is a gate whose trial is under way: no need to ask whether it is to be had. One set of
    /// words for all snapshots; they are there where a gate has asked.
    pub(super) under_way: [Option<Arc<AtomicU64>>; WORDS],
    /// The circuits that asking gates wait for, by id of the gate.
    half_open: Vec<(TargetId, HalfOpen)>,
    /// When those that may not be picked may be again at the soonest, as far as that is known; by id.
    comebacks: Vec<(TargetId, Comeback)>,
}

/// Words of a page.
pub(super) const WORDS: usize = 8;
/// Ids of a page.
const IDS: usize = WORDS * u64::BITS as usize;

impl Pages {
    pub(super) const fn new() -> Self {
        Self {
            pages: Vec::new(),
            asking: 0,
        }
    }

    /// Whether any gate asks for a trial.
    #[inline]
    pub(super) const fn has_asking(&self) -> bool {
        self.asking != 0
    }

    /// The page of a word, and which of its words that is.
    #[inline]
    pub(super) fn of_word(&self, word: usize) -> Option<(&Page, usize)> {
        let page = self.pages.get(word / WORDS)?.as_deref()?;
        Some((page, word % WORDS))
    }

    fn of(&self, id: TargetId) -> Option<&Page> {
        self.pages.get(id.index() / IDS)?.as_deref()
    }

    /// Says of one id whether its bit of `bits` is set.
    pub(super) fn set(&mut self, id: TargetId, bits: fn(&mut Page) -> &mut [u64; WORDS], to: bool) {
        self.change(id, to, |page| {
            let (word, bit) = place(id);
            let word = &mut bits(page)[word];
            if to {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        });
    }

    /// The circuit whose trial a gate asks for.
    pub(super) fn asks(&self, gate: TargetId) -> Option<&HalfOpen> {
        let asks = &self.of(gate)?.half_open;
        let place = asks.binary_search_by_key(&gate, |&(id, _)| id);
        place.ok().map(|place| &asks[place].1)
    }

    /// Publishes the circuit whose trial a gate asks for, or that it asks for none.
    pub(super) fn ask(&mut self, gate: TargetId, circuit: Option<HalfOpen>) {
        let had = self.asks(gate).is_some();
        self.asking = self.asking + usize::from(circuit.is_some()) - usize::from(had);
        self.change(gate, circuit.is_some(), |page| page.ask(gate, circuit));
    }

    /// When a target may be usable again, as far as that is known.
    pub(super) fn comeback(&self, target: TargetId) -> Option<Comeback> {
        let all = &self.of(target)?.comebacks;
        let place = all.binary_search_by_key(&target, |&(id, _)| id).ok()?;
        Some(all[place].1)
    }

    /// Publishes when a target may be usable again, or that nothing is known of that.
    pub(super) fn expect(&mut self, target: TargetId, comeback: Option<Comeback>) {
        self.change(target, comeback.is_some(), |page| {
            let place = page.comebacks.binary_search_by_key(&target, |&(id, _)| id);
            match (place, comeback) {
                (Ok(place), Some(comeback)) => page.comebacks[place].1 = comeback,
                (Ok(place), None) => drop(page.comebacks.remove(place)),
                (Err(place), Some(comeback)) => page.comebacks.insert(place, (target, comeback)),
                (Err(_), None) => {}
            }
        });
    }

    /// Those of whom a comeback is expected.
    pub(super) fn expected(&self) -> impl Iterator<Item = TargetId> {
        let pages = self.pages.iter().flatten();
        pages.flat_map(|page| page.comebacks.iter().map(|&(id, _)| id))
    }

    /// Changes the page of `id`. One that is not kept is made only if something is to be set on it.
    fn change(&mut self, id: TargetId, is_set: bool, change: impl FnOnce(&mut Page)) {
        let number = id.index() / IDS;
        if !is_set && self.pages.get(number).is_none_or(Option::is_none) {
            return;
        }
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        let kept = &mut self.pages[number];
        let page = kept.get_or_insert_default();
        effort::spend(1);
        // Copied only if a snapshot before has it, too.
        if Arc::get_mut(page).is_none() {
            effort::spend(WORDS + page.half_open.len() + page.comebacks.len());
        }
        let page = Arc::make_mut(page);
        change(page);
        if page.is_blank() {
            *kept = None;
        }
    }

    /// How many pointers a copy copies.
    pub(super) const fn len(&self) -> usize {
        self.pages.len()
    }
}

impl Page {
    fn ask(&mut self, gate: TargetId, circuit: Option<HalfOpen>) {
        let (word, bit) = place(gate);
        let place = self.half_open.binary_search_by_key(&gate, |&(id, _)| id);
        let Some(circuit) = circuit else {
            self.asking[word] &= !bit;
            if let Ok(place) = place {
                self.half_open.remove(place);
            }
            return;
        };
        self.asking[word] |= bit;
        let under_way = self.under_way[word].get_or_insert_default();
        // A trial of an earlier period says nothing about this one.
        if !circuit.is_claimed() {
            under_way.fetch_and(!bit, std::sync::atomic::Ordering::Relaxed);
        }
        match place {
            Ok(place) => self.half_open[place].1 = circuit,
            Err(place) => self.half_open.insert(place, (gate, circuit)),
        }
    }

    /// Whether a page that is not there would say the same. Who has a trial that is under way has its
    /// word, too; should the gate ask again meanwhile, the circuit itself says that it is claimed.
    fn is_blank(&self) -> bool {
        let is_zero = |words: &[u64; WORDS]| words.iter().all(|&word| word == 0);
        self.half_open.is_empty()
            && self.comebacks.is_empty()
            && is_zero(&self.unusable)
            && is_zero(&self.unsettled)
            && is_zero(&self.asking)
    }
}

/// The word of an id on its page, and its bit.
const fn place(id: TargetId) -> (usize, u64) {
    let bit = id.index() as u32 % u64::BITS;
    (id.index() / u64::BITS as usize % WORDS, 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(pages: &mut Pages, id: u32, to: bool) {
        pages.set(TargetId::new(id), |page| &mut page.unusable, to);
    }

    fn is_down(pages: &Pages, id: usize) -> bool {
        let word = pages.of_word(id / 64);
        word.is_some_and(|(page, word)| page.unusable[word] >> (id % 64) & 1 == 1)
    }

    #[test]
    fn a_change_copies_one_page_and_leaves_the_others_shared() {
        let mut before = Pages::new();
        for id in [5, 700, 1_500] {
            down(&mut before, id, true);
        }
        let mut after = before.clone();
        let ((), spent) = effort::of(|| down(&mut after, 701, true));
        assert!(spent <= 1 + WORDS, "{spent}");
        let is_shared = |number: usize| match (&before.pages[number], &after.pages[number]) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        assert_eq!([0, 1, 2].map(is_shared), [true, false, true]);
        assert!(!is_down(&before, 701) && is_down(&after, 701) && is_down(&after, 700));
    }

    #[test]
    fn pages_that_say_nothing_are_not_kept() {
        let mut pages = Pages::new();
        down(&mut pages, 1_000_000, false);
        assert_eq!(pages.len(), 0);
        down(&mut pages, 1_000_000, true);
        pages.expect(TargetId::new(1_000_001), None);
        let kept = |pages: &Pages| pages.pages.iter().flatten().count();
        assert_eq!(kept(&pages), 1);
        down(&mut pages, 1_000_000, false);
        assert_eq!(kept(&pages), 0);
        assert!(!is_down(&pages, 1_000_000));
    }
}
