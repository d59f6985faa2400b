//! The pending entries of a group, in pages: the unit in which they are stored.
//!
//! A page holds the pending ids from its key to the key of the next page; the first page ever is keyed 0-0. Ids mostly
//! come in order and leave in order, so a full last page is followed by a fresh one and not split in halves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::limits::PAGE_ENTRIES;
use crate::rows::{RowKey, RowMap};

/// An entry that was delivered and not yet acknowledged. It may be in the stream no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Pending {
    /// The entry.
    #[n(0)]
    pub(crate) id: EntryId,
    /// The number, in its group, of the consumer that owns it.
    #[n(1)]
    pub(crate) consumer: u64,
    /// When it was last delivered, in milliseconds since the Unix epoch.
    #[n(2)]
    pub(crate) delivered_ms: u64,
    /// How often it was delivered.
    #[n(3)]
    pub(crate) delivery_count: u64,
}

impl Pending {
    /// Milliseconds since it was last delivered.
    pub(crate) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.delivered_ms)
    }
}

/// Pending entries by id.
#[derive(Debug, Default)]
pub(crate) struct PendingList {
    pages: BTreeMap<EntryId, Vec<Pending>>,
    len: u64,
    /// Pages that changed, or that are gone, since the last freeze.
    dirty: BTreeSet<EntryId>,
}

impl PendingList {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The one with this id.
    pub(crate) fn get(&self, id: EntryId) -> Option<&Pending> {
        let (_, page) = self.pages.range(..=id).next_back()?;
        page.get(position(page, id).ok()?)
    }

    /// Adds it; returns the one with this id that it replaces.
    pub(crate) fn put(&mut self, pending: Pending) -> Option<Pending> {
        let id = pending.id;
        let Some((&key, page)) = self.pages.range_mut(..=id).next_back() else {
            self.dirty.insert(EntryId::MIN);
            self.pages.insert(EntryId::MIN, vec![pending]);
            self.len += 1;
            return None;
        };
        match position(page, id) {
            Ok(at) => {
                self.dirty.insert(key);
                return page.get_mut(at).map(|old| std::mem::replace(old, pending));
            }
            Err(at) if page.len() < PAGE_ENTRIES => {
                self.dirty.insert(key);
                page.insert(at, pending);
            }
            Err(at) if at == page.len() => {
                self.dirty.insert(id);
                self.pages.insert(id, vec![pending]);
            }
            Err(at) => {
                let mut right = page.split_off(PAGE_ENTRIES / 2);
                match at.checked_sub(page.len()) {
                    Some(at) if at > 0 => right.insert(at, pending),
                    _ => page.insert(at, pending),
                }
                self.dirty.insert(key);
                if let Some(first) = right.first().map(|pending| pending.id) {
                    self.dirty.insert(first);
                    self.pages.insert(first, right);
                }
            }
        }
        self.len += 1;
        None
    }

    /// Removes the one with this id.
    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Pending> {
        let (&key, page) = self.pages.range_mut(..=id).next_back()?;
        let pending = page.remove(position(page, id).ok()?);
        if page.is_empty() {
            self.pages.remove(&key);
        }
        self.dirty.insert(key);
        self.len -= 1;
        Some(pending)
    }

    /// Those from `start` on, by id.
    pub(crate) fn iter_from(&self, start: EntryId) -> impl Iterator<Item = &Pending> {
        let from = self.pages.range(..=start).next_back().map_or(start, |(key, _)| *key);
        self.pages.range(from..).flat_map(|(_, page)| page).skip_while(move |pending| pending.id < start)
    }

    /// The one with the greatest id.
    pub(crate) fn last(&self) -> Option<&Pending> {
        self.pages.last_key_value()?.1.last()
    }

    /// Takes the rows that changed since the last freeze. `group` is the group's incarnation.
    pub(crate) fn freeze(&mut self, group: u64, rows: &mut RowMap) {
        for key in std::mem::take(&mut self.dirty) {
            match self.pages.get(&key) {
                Some(page) => rows.put(RowKey::pending(group, key), encode(page)),
                None => rows.delete(RowKey::pending(group, key)),
            }
        }
    }

    /// All rows.
    pub(crate) fn all_rows(&self, group: u64, rows: &mut RowMap) {
        for (key, page) in &self.pages {
            rows.put(RowKey::pending(group, *key), encode(page));
        }
    }

    /// Every row that may have been written, as deletions: the group is gone.
    pub(crate) fn delete_rows(&mut self, group: u64, rows: &mut RowMap) {
        self.dirty.extend(std::mem::take(&mut self.pages).into_keys());
        self.freeze(group, rows);
    }

    /// Adds a page from its row. Pages must come in order.
    pub(crate) fn restore_page(&mut self, from: EntryId, row: &[u8]) -> Result<(), DecodeError> {
        let page: Vec<Pending> = codec::decode(row)?;
        let before = self.last().map(|pending| pending.id);
        let ascending = page.is_sorted_by(|a, b| a.id < b.id);
        let in_place = page.first().is_some_and(|first| from <= first.id && before.is_none_or(|before| before < from));
        if !ascending || !in_place || page.len() > PAGE_ENTRIES {
            return Err(DecodeError::Malformed { problem: "page of pending entries out of order".to_owned() });
        }
        self.len += page.len() as u64;
        self.pages.insert(from, page);
        Ok(())
    }
}

fn position(page: &[Pending], id: EntryId) -> Result<usize, usize> {
    page.binary_search_by_key(&id, |pending| pending.id)
}

fn encode(page: &Vec<Pending>) -> Bytes {
    codec::encode(page).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pending(n: u64) -> Pending {
        Pending { id: EntryId::new(n, 0), consumer: 1, delivered_ms: 0, delivery_count: 1 }
    }

    proptest! {
        /// However ids come and go, the list is the ordered set of them, and its pages restore to the same pages.
        #[test]
        fn is_an_ordered_map(steps in prop::collection::vec((any::<bool>(), 0u64..600), 0..2000)) {
            let mut list = PendingList::default();
            let mut model = BTreeSet::new();
            for (put, n) in steps {
                if put {
                    prop_assert_eq!(list.put(pending(n)).is_none(), model.insert(n));
                } else {
                    prop_assert_eq!(list.remove(EntryId::new(n, 0)).is_some(), model.remove(&n));
                }
            }
            prop_assert_eq!(list.len(), model.len() as u64);
            prop_assert!(list.iter_from(EntryId::MIN).map(|p| p.id.ms).eq(model.iter().copied()));
            prop_assert!(list.iter_from(EntryId::new(300, 0)).map(|p| p.id.ms).eq(model.range(300..).copied()));
            prop_assert!(list.pages.values().all(|page| (1..=PAGE_ENTRIES).contains(&page.len())));

            let mut restored = PendingList::default();
            for (key, page) in &list.pages {
                prop_assert!(restored.restore_page(*key, &encode(page)).is_ok());
            }
            prop_assert_eq!(restored.pages, list.pages);
        }
    }
}
