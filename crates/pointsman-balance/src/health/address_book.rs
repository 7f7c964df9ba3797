//! Which addresses are behind each group, as published with the verdicts.
//!
//! Snapshots share what did not change between them: ids are dealt out to pages, and a change copies
//! the page that it falls on, and one pointer for each page there is. A look-up is an index and a search
//! in one page.

use std::sync::Arc;

use super::effort;
use super::group::Address;
use crate::TargetId;

/// The addresses of all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AddressBook {
    /// By `id / IDS_OF_PAGE`.
    pages: Vec<Option<Page>>,
}

/// By ascending id.
type Page = Arc<[Entry]>;
type Entry = (TargetId, Arc<[Address]>);

impl AddressBook {
    /// A book of `entries`, which are in ascending order of ids.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let mut book = Self::default();
        for page in entries.chunk_by(|(one, _), (other, _)| number(*one) == number(*other)) {
            if let Some(&(first, _)) = page.first() {
                *book.page_mut(first) = Some(page.into());
            }
        }
        book
    }

    /// The addresses of `group`; none if it has none, or is no group.
    pub(super) fn get(&self, group: TargetId) -> &[Address] {
        let page = self.pages.get(number(group)).and_then(Option::as_deref);
        let page = page.unwrap_or_default();
        match page.binary_search_by_key(&group, |&(id, _)| id) {
            Ok(place) => &page[place].1,
            Err(_) => &[],
        }
    }

    /// Makes `addresses` those of `group`.
    pub(super) fn set(&mut self, group: TargetId, addresses: Arc<[Address]>) {
        let page = self.page_mut(group);
        let mut entries = page.as_deref().unwrap_or_default().to_vec();
        effort::spend(entries.len());
        match entries.binary_search_by_key(&group, |&(id, _)| id) {
            Ok(place) => entries[place].1 = addresses,
            Err(place) => entries.insert(place, (group, addresses)),
        }
        *page = Some(entries.into());
    }

    fn page_mut(&mut self, group: TargetId) -> &mut Option<Page> {
        let number = number(group);
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        &mut self.pages[number]
    }
}

fn number(id: TargetId) -> usize {
    id.index() / IDS_OF_PAGE
}

const IDS_OF_PAGE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> Arc<[Address]> {
        let address = |last| Address {
            ip: Some([10, 0, 0, last].into()),
            target: None,
        };
        (0..count).map(address).collect()
    }

    #[test]
    fn a_change_touches_one_page() {
        let entries: Vec<Entry> = (0..300)
            .filter(|id| id % 3 == 0)
            .map(|id| (TargetId::new(id), addresses(1)))
            .collect();
        let before = AddressBook::new(&entries);
        let mut after = before.clone();
        after.set(TargetId::new(129), addresses(2));
        after.set(TargetId::new(130), addresses(3));
        let is_shared = |number: usize| {
            let pages = [&before, &after].map(|book| book.pages[number].as_ref());
            matches!(pages, [Some(one), Some(other)] if Arc::ptr_eq(one, other))
        };
        let shared: Vec<bool> = (0..before.pages.len()).map(is_shared).collect();
        assert_eq!(shared, [true, true, false, true, true]);
        let lengths = |book: &AddressBook| {
            let ids = [126, 129, 130, 131, 132, 9999];
            ids.map(|id| book.get(TargetId::new(id)).len())
        };
        assert_eq!(lengths(&before), [1, 1, 0, 0, 1, 0]);
        assert_eq!(lengths(&after), [1, 2, 3, 0, 1, 0]);
    }

    #[test]
    fn how_it_came_about_makes_no_difference() {
        let entries: Vec<Entry> = [1, 70, 71, 500]
            .map(|id| (TargetId::new(id), addresses(1)))
            .into();
        let mut one_by_one = AddressBook::default();
        for (id, addresses) in entries.iter().rev() {
            one_by_one.set(*id, Arc::clone(addresses));
        }
        assert_eq!(one_by_one, AddressBook::new(&entries));
    }
}
