//! The verdicts of one moment, as a pick reads them.
//!
//! One bit per target ever issued, in [pages](super::pages), so a look-up is two indexes and a shift. The
//! bit of a target that has left the configuration stays as it last was: a request that began under the
//! old configuration must not see a dead target come to life because it was removed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::address_book::AddressBook;
use super::gate::Gate;
use super::group::Address;
use super::guard::HalfOpen;
use super::pages::Pages;
use crate::{TargetId, Trial};

/// Which targets may be picked: an immutable snapshot, shared behind an `Arc`.
#[derive(Debug, Clone)]
pub struct Availability {
    epoch: u64,
    /// Ids below this were issued before the snapshot.
    issued: usize,
    /// What is known of each.
    pages: Pages,
    /// The addresses behind each group; shared by snapshots between which none changed.
    groups: Option<Arc<AddressBook>>,
}

/// When a target may be usable again at the soonest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Comeback {
    /// Then, by itself.
    At(Instant),
    /// When enough probes in a row have succeeded, of which one is made after each `interval`, and the
    /// first was due at `first`.
    Probes {
        first: Instant,
        interval: Duration,
        needed: u32,
    },
}

impl Availability {
    /// Knows no target: for pools without checks.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            epoch: 0,
            issued: 0,
            pages: Pages::new(),
            groups: None,
        }
    }

    /// Every target may be picked, whatever its id: health checks switched off.
    #[must_use]
    pub const fn all_usable() -> Self {
        Self {
            epoch: 0,
            issued: usize::MAX,
            pages: Pages::new(),
            groups: None,
        }
    }

    /// Verdicts as somebody has written them down: every target and guard may be used but those that are
    /// `out`. Of `gates` the verdicts are worked out; one that comes with its circuit asks for a trial, which
    /// nobody has.
    pub(crate) fn recorded<'g>(
        epoch: u64,
        out: impl IntoIterator<Item = TargetId>,
        gates: impl IntoIterator<Item = (&'g Gate, Option<TargetId>)>,
    ) -> Self {
        let mut recorded = Self::all_usable();
        recorded.epoch = epoch;
        for target in out {
            recorded.set_usable(target, false);
        }
        for (gate, asks) in gates {
            let usable = asks.is_none() && gate.usable(&recorded);
            recorded.settle_gate(gate.id(), usable, asks.map(HalfOpen::of));
        }
        recorded
    }

    /// Grows whenever a verdict flips or a target comes or goes, and never otherwise.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the target may be picked.
    ///
    /// The target must have been issued before this snapshot was taken, which holds if a pool is
    /// published no earlier than the snapshot that knows its targets. In test builds a violation
    /// panics; otherwise such a target counts as usable.
    #[must_use]
    #[inline]
    pub fn usable(&self, target: TargetId) -> bool {
        debug_assert!(
            target.index() < self.issued,
            "{target:?} is newer than this snapshot"
        );
        let (word, bit) = Self::place(target);
        let page = self.pages.of_word(word);
        page.is_none_or(|(page, word)| page.unusable[word] & bit == 0)
    }

    /// Where a target's verdict stands, in every snapshot: the index of a word, and one bit of it.
    #[must_use]
    #[inline]
    pub(crate) const fn place(target: TargetId) -> (usize, u64) {
        let bit = target.index() as u32 % u64::BITS;
        (target.index() / u64::BITS as usize, 1 << bit)
    }

    /// Those of `bits` of one word that stand for targets that may be picked; as with
    /// [`usable`](Self::usable), all of them must have been issued.
    #[must_use]
    #[inline]
    pub(crate) fn usable_among(&self, word: usize, bits: u64) -> u64 {
        debug_assert!(
            word * u64::BITS as usize + (bits.ilog2() as usize) < self.issued,
            "bits {bits:#x} of word {word} are newer than this snapshot"
        );
        match self.pages.of_word(word) {
            Some((page, word)) => bits & !page.unusable[word],
            None => bits,
        }
    }

    /// Turns this into the snapshot that follows it.
    pub(super) fn advance(
        &mut self,
        issued: usize,
        verdicts: impl IntoIterator<Item = (TargetId, bool)>,
    ) {
        self.epoch += 1;
        self.issued = issued;
        for (target, usable) in verdicts {
            self.set_usable(target, usable);
        }
    }

    fn set_usable(&mut self, target: TargetId, usable: bool) {
        self.pages.set(target, |page| &mut page.unusable, !usable);
    }

    /// Whether successes of traffic to this target need not be reported: it is healthy, and nothing
    /// counts against it.
    #[must_use]
    pub fn settled(&self, target: TargetId) -> bool {
        let (word, bit) = Self::place(target);
        let page = self.pages.of_word(word);
        page.is_none_or(|(page, word)| page.unsettled[word] & bit == 0)
    }

    pub(super) fn settle(&mut self, target: TargetId, settled: bool) {
        self.pages.set(target, |page| &mut page.unsettled, !settled);
    }

    /// How many pointers a copy copies.
    pub(super) const fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Whether any gate asks for a trial.
    #[inline]
    pub(crate) const fn has_asking(&self) -> bool {
        self.pages.has_asking()
    }

    /// Those of `bits` of one word that stand for gates whose trial may be had.
    #[inline]
    pub(crate) fn asking_among(&self, word: usize, bits: u64) -> u64 {
        let Some((page, word)) = self.pages.of_word(word) else {
            return 0;
        };
        let asking = bits & page.asking[word];
        if asking == 0 {
            return 0;
        }
        // Relaxed: it saves looking further, and decides nothing.
        let under_way = page.under_way[word].as_ref();
        asking & !under_way.map_or(0, |bits| bits.load(Ordering::Relaxed))
    }

    /// The circuit whose trial a gate asks for.
    pub(crate) fn asks(&self, gate: TargetId) -> Option<&HalfOpen> {
        self.pages.asks(gate)
    }

    /// The trial that a gate asks for, if it does and nobody has it.
    pub(crate) fn claim(&self, gate: TargetId) -> Option<Trial> {
        let (word, bit) = Self::place(gate);
        let (page, word) = self.pages.of_word(word)?;
        let under_way = page.under_way[word].as_ref()?;
        self.asks(gate)?.claim(under_way, bit)
    }

    /// Publishes the verdict of a gate, and the circuit whose trial it asks for.
    pub(super) fn settle_gate(&mut self, gate: TargetId, usable: bool, asks: Option<HalfOpen>) {
        self.set_usable(gate, usable);
        self.pages.ask(gate, asks);
    }

    /// How long it takes until the target may be usable again; `None` if that is not known. Zero if it is
    /// usable.
    pub(crate) fn comeback(&self, target: TargetId, now: Instant) -> Option<Duration> {
        if self.usable(target) {
            return Some(Duration::ZERO);
        }
        let addresses = self.addresses(target);
        if !addresses.is_empty() {
            let targets = addresses.iter().filter_map(|address| address.target);
            return targets.filter_map(|id| self.comeback(id, now)).min();
        }
        match self.pages.comeback(target)? {
            Comeback::At(at) => Some(at.saturating_duration_since(now)),
            Comeback::Probes {
                first,
                interval,
                needed,
            } => {
                let late = now.saturating_duration_since(first);
                let passed = late.as_nanos().div_ceil(interval.as_nanos().max(1));
                let passed = u32::try_from(passed).unwrap_or(u32::MAX);
                let next = first.checked_add(interval.checked_mul(passed)?)?;
                let more = interval.checked_mul(needed.saturating_sub(1))?;
                Some(next.saturating_duration_since(now) + more)
            }
        }
    }

    pub(super) fn expect(&mut self, target: TargetId, comeback: Option<Comeback>) {
        self.pages.expect(target, comeback);
    }

    /// Forgets what is known of a target that has left, but for its verdict.
    pub(super) fn forget(&mut self, target: TargetId) {
        self.settle(target, true);
        self.expect(target, None);
    }

    /// Forgets when those come back that nobody waits for.
    pub(super) fn expect_only(this: &mut Arc<Self>, is_awaited: impl Fn(TargetId) -> bool) {
        let others = this.pages.expected().filter(|&id| !is_awaited(id));
        let others: Vec<TargetId> = others.collect();
        if !others.is_empty() {
            let this = Arc::make_mut(this);
            for id in others {
                this.expect(id, None);
            }
        }
    }

    /// The addresses behind a group; empty if none is known, or this is no group.
    #[must_use]
    pub fn addresses(&self, group: TargetId) -> &[Address] {
        self.groups.as_ref().map_or(&[], |book| book.get(group))
    }

    /// The addresses of a group that may be dialled, beginning with the one whose turn it is when
    /// `turns` came before. If none may be, all are offered: that is for requests that are sent although
    /// nobody is usable. Empty if no address is known.
    pub fn dialable(&self, group: TargetId, turns: usize) -> impl Iterator<Item = IpAddr> + '_ {
        let addresses = self.addresses(group);
        let may = |address: &Address| address.target.is_none_or(|target| self.usable(target));
        let is_any = addresses.iter().any(may);
        let offered = addresses
            .iter()
            .filter(move |address| !is_any || may(address))
            .filter_map(|address| address.ip);
        let count = offered.clone().count();
        let first = turns.checked_rem(count).unwrap_or_default();
        offered.cycle().skip(first).take(count)
    }

    /// Whether an address may still be dialled that [`dialable`](Self::dialable) has offered for a group.
    #[must_use]
    pub fn may_dial(&self, group: TargetId, ip: IpAddr) -> bool {
        let mut offered = self.dialable(group, 0).peekable();
        offered.peek().is_none() || offered.any(|offered| offered == ip)
    }

    /// Whether `book` says what this snapshot does.
    pub(super) fn has_groups(&self, book: &AddressBook) -> bool {
        match &self.groups {
            Some(groups) => **groups == *book,
            None => *book == AddressBook::default(),
        }
    }

    pub(super) fn replace_groups(&mut self, book: AddressBook) {
        self.groups = Some(Arc::new(book));
    }

    /// Makes `addresses` those of one group.
    pub(super) fn regroup(&mut self, group: TargetId, addresses: Arc<[Address]>) {
        let book = self.groups.get_or_insert_default();
        Arc::make_mut(book).set(group, addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_sets_and_clears_single_bits() {
        let mut availability = Availability::empty();
        let id = TargetId::new;
        availability.advance(200, [(id(0), false), (id(130), false), (id(63), true)]);
        let down = |availability: &Availability| {
            (0..200)
                .filter(|&index| !availability.usable(id(index)))
                .collect::<Vec<_>>()
        };
        assert_eq!(down(&availability), [0, 130]);
        availability.advance(200, [(id(0), true), (id(1), false), (id(131), false)]);
        assert_eq!(down(&availability), [1, 130, 131]);
        assert_eq!(availability.epoch(), 2);
    }

    #[test]
    #[should_panic(expected = "newer than this snapshot")]
    fn a_target_from_the_future_is_a_bug() {
        let _ = Availability::empty().usable(TargetId::new(0));
    }

    #[test]
    fn without_checks_everything_is_usable() {
        assert!(Availability::all_usable().usable(TargetId::new(7)));
    }
}
