//! Pending entries by id, in pages: the unit in which they are stored.
//!
//! A page holds the pending ids from its key to the key of the next page; the first page ever is keyed 0-0. Ids mostly
//! come in order and leave in order, so a full last page is followed by a fresh one and not split in halves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Pending;
use crate::codec;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::freeze::Piece;
use crate::limits::PAGE_ENTRIES;

/// What a page that changes counts for as state that a checkpoint writes, in bytes, and each entry in it. Less than it
/// takes in the store: it is in memory anyway, so only the time of the checkpoint is bounded.
const PAGE_DIRTY_BYTES: u64 = 64;
const ENTRY_DIRTY_BYTES: u64 = 8;

/// Pending entries by id.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Shared with whoever writes them to the store: a page that changes meanwhile is copied.
    pages: BTreeMap<EntryId, Arc<Vec<Pending>>>,
    marks: Marks,
}

/// What is noted of each page that changes.
#[derive(Debug, Default)]
struct Marks {
    /// Pages that changed, or that are gone, since the last freeze.
    dirty: BTreeSet<EntryId>,
    /// The pages that changed since [`Pages::begin`], as they were then; `None`: there was none under that key.
    saved: Option<BTreeMap<EntryId, Option<Arc<Vec<Pending>>>>>,
    /// What the pages that became dirty count for.
    dirty_bytes: u64,
}

impl Marks {
    /// A page is about to change. To be called with the page as it is, or with `None` if there is none.
    fn change(&mut self, key: EntryId, before: Option<&Arc<Vec<Pending>>>) {
        if self.dirty.insert(key) {
            let entries = before.map_or(0, |page| page.len() as u64);
            self.dirty_bytes += PAGE_DIRTY_BYTES + ENTRY_DIRTY_BYTES * entries;
        }
        if let Some(saved) = &mut self.saved {
            saved.entry(key).or_insert_with(|| before.cloned());
        }
    }
}

impl Pages {
    /// The one with this id.
    pub(super) fn get(&self, id: EntryId) -> Option<&Pending> {
        let (_, page) = self.pages.range(..=id).next_back()?;
        page.get(position(page, id).ok()?)
    }

    /// Adds it; returns the one with this id that it replaces.
    pub(super) fn put(&mut self, pending: Pending) -> Option<Pending> {
        let id = pending.id;
        let Some((&key, page)) = self.pages.range_mut(..=id).next_back() else {
            self.marks.change(EntryId::MIN, None);
            self.pages.insert(EntryId::MIN, Arc::new(vec![pending]));
            return None;
        };
        match position(page, id) {
            Ok(at) => {
                self.marks.change(key, Some(page));
                return Arc::make_mut(page).get_mut(at).map(|old| std::mem::replace(old, pending));
            }
            Err(at) if page.len() < PAGE_ENTRIES => {
                self.marks.change(key, Some(page));
                Arc::make_mut(page).insert(at, pending);
            }
            Err(at) if at == page.len() => {
                self.marks.change(id, None);
                self.pages.insert(id, Arc::new(vec![pending]));
            }
            Err(at) => {
                self.marks.change(key, Some(page));
                let page = Arc::make_mut(page);
                let mut right = page.split_off(PAGE_ENTRIES / 2);
                match at.checked_sub(page.len()) {
                    Some(at) if at > 0 => right.insert(at, pending),
                    _ => page.insert(at, pending),
                }
                if let Some(first) = right.first().map(|pending| pending.id) {
                    self.marks.change(first, None);
                    self.pages.insert(first, Arc::new(right));
                }
            }
        }
        None
    }

    /// Removes the one with this id.
    pub(super) fn remove(&mut self, id: EntryId) -> Option<Pending> {
        let (&key, page) = self.pages.range_mut(..=id).next_back()?;
        let at = position(page, id).ok()?;
        self.marks.change(key, Some(page));
        let page = Arc::make_mut(page);
        let pending = page.remove(at);
        if page.is_empty() {
            self.pages.remove(&key);
        }
        Some(pending)
    }

    /// Those from `start` on, by id.
    pub(super) fn iter_from(&self, start: EntryId) -> impl Iterator<Item = &Pending> {
        let from = self.pages.range(..=start).next_back().map_or(start, |(key, _)| *key);
        self.pages.range(from..).flat_map(|(_, page)| page.iter()).skip_while(move |pending| pending.id < start)
    }

    /// The one with the greatest id.
    pub(super) fn last(&self) -> Option<&Pending> {
        self.pages.last_key_value()?.1.last()
    }
}

/// Taking back what was done.
impl Pages {
    /// From now on, keeps each page as it was before it changed.
    pub(super) fn begin(&mut self) {
        self.marks.saved = Some(BTreeMap::new());
    }

    /// What was done stands.
    pub(super) fn commit(&mut self) {
        self.marks.saved = None;
    }

    /// Puts the pages back as they were. Returns what the changed pages held until now, and what they hold again.
    pub(super) fn rollback(&mut self) -> (Vec<Pending>, Vec<Pending>) {
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        for (key, before) in self.marks.saved.take().unwrap_or_default() {
            gone.extend(self.pages.remove(&key).iter().flat_map(|page| page.iter()));
            if let Some(page) = before {
                back.extend_from_slice(&page);
                self.pages.insert(key, page);
            }
        }
        (gone, back)
    }
}

/// Rows: one for each page.
impl Pages {
    /// Takes the pages that changed since the last freeze. `group` is the group's incarnation.
    pub(super) fn freeze(&mut self, group: u64, frozen: &mut Piece) {
        for key in std::mem::take(&mut self.marks.dirty) {
            frozen.pending.push((group, key, self.pages.get(&key).cloned()));
        }
        self.marks.dirty_bytes = 0;
    }

    /// All of them.
    pub(super) fn all_rows(&self, group: u64, frozen: &mut Piece) {
        frozen.pending.extend(self.pages.iter().map(|(key, page)| (group, *key, Some(page.clone()))));
    }

    /// What became dirty since this was asked or since the last freeze, in bytes.
    pub(super) fn take_dirty_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.marks.dirty_bytes)
    }

    /// Adds a page from its row. Pages must come in order. Returns what it holds.
    pub(super) fn restore_page(&mut self, from: EntryId, row: &[u8]) -> Result<&[Pending], DecodeError> {
        let mut page: Vec<Pending> = codec::decode(row)?;
        if crate::mutant!(DeliveryCountsForgotten) {
            page.iter_mut().for_each(|pending| pending.delivery_count = 1);
        }
        let before = self.last().map(|pending| pending.id);
        let ascending = page.is_sorted_by(|a, b| a.id < b.id);
        let in_place = page.first().is_some_and(|first| from <= first.id && before.is_none_or(|before| before < from));
        if !ascending || !in_place || page.len() > PAGE_ENTRIES {
            return Err(DecodeError::Malformed { problem: "page of pending entries out of order".to_owned() });
        }
        Ok(self.pages.entry(from).insert_entry(Arc::new(page)).into_mut())
    }
}

fn position(page: &[Pending], id: EntryId) -> Result<usize, usize> {
    page.binary_search_by_key(&id, |pending| pending.id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pending(n: u64) -> Pending {
        Pending { id: EntryId::new(n, 0), consumer: Some(1), delivered_ms: 0, delivery_count: 1, put_number: n }
    }

    fn steps() -> impl Strategy<Value = Vec<(bool, u64)>> {
        prop::collection::vec((any::<bool>(), 0u64..600), 0..2000)
    }

    /// Ids that only grow fill pages to the brim; then a put in the middle splits one.
    fn filled() -> Pages {
        let mut pages = Pages::default();
        (0..600).step_by(2).for_each(|n| _ = pages.put(pending(n)));
        pages
    }

    proptest! {
        /// However ids come and go, the list is the ordered set of them, and its pages restore to the same pages.
        #[test]
        fn is_an_ordered_map(steps in steps()) {
            let mut pages = filled();
            let mut model: BTreeSet<u64> = (0..600).step_by(2).collect();
            for (put, n) in steps {
                if put {
                    prop_assert_eq!(pages.put(pending(n)).is_none(), model.insert(n));
                } else {
                    prop_assert_eq!(pages.remove(EntryId::new(n, 0)).is_some(), model.remove(&n));
                }
            }
            prop_assert!(pages.iter_from(EntryId::MIN).map(|p| p.id.ms).eq(model.iter().copied()));
            prop_assert!(pages.iter_from(EntryId::new(300, 0)).map(|p| p.id.ms).eq(model.range(300..).copied()));
            prop_assert!(pages.pages.values().all(|page| (1..=PAGE_ENTRIES).contains(&page.len())));

            let mut restored = Pages::default();
            for (key, page) in &pages.pages {
                prop_assert_eq!(restored.restore_page(*key, &codec::encode(&**page)), Ok(&page[..]));
            }
            prop_assert_eq!(restored.pages, pages.pages);
        }

        /// A rollback restores the layout of the pages, and says what came and went.
        #[test]
        fn rolls_back_to_the_same_pages(before in steps(), since in steps()) {
            let mut pages = filled();
            let apply = |pages: &mut Pages, steps: Vec<(bool, u64)>, number| {
                for (put, n) in steps {
                    if put {
                        pages.put(Pending { put_number: number, ..pending(n) });
                    } else {
                        pages.remove(EntryId::new(n, 0));
                    }
                }
            };
            apply(&mut pages, before, 1000);
            let expected = pages.pages.clone();
            pages.begin();
            apply(&mut pages, since, 2000);
            let held: BTreeMap<EntryId, Pending> = pages.iter_from(EntryId::MIN).map(|p| (p.id, *p)).collect();
            let (gone, back) = pages.rollback();
            prop_assert_eq!(&pages.pages, &expected);
            let mut again = held;
            again.retain(|_, p| !gone.contains(p));
            again.extend(back.into_iter().map(|p| (p.id, p)));
            prop_assert!(pages.iter_from(EntryId::MIN).eq(again.values()));
        }
    }
}
