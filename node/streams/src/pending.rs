//! The pending entries of a group: by id, and in the order in which a group read with CLAIM looks at them.
//!
//! Only the list by id is stored. Each pending entry carries the number of the put that made it what it is, so the
//! order can be rebuilt from the rows, ties included.

mod pages;

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use self::pages::Pages;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::freeze::Piece;

/// An entry that was delivered and not yet acknowledged. It may be in the stream no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Pending {
    /// The entry.
    #[n(0)]
    pub(crate) id: EntryId,
    /// The number, in its group, of the consumer that owns it. `None`: nobody does, it was given back.
    #[n(1)]
    pub(crate) consumer: Option<u64>,
    /// When it was last delivered, in milliseconds since the Unix epoch; 0 if it was given back.
    #[n(2)]
    pub(crate) delivered_ms: u64,
    /// How often it was delivered.
    #[n(3)]
    pub(crate) delivery_count: u64,
    /// The number, in its group, of the put that made it what it is: greater than those of all puts before.
    #[n(4)]
    pub(crate) put_number: u64,
}

impl Pending {
    /// Milliseconds since it was last delivered; since the epoch if it was given back.
    pub(crate) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.delivered_ms)
    }

    /// Whether it was not delivered for at least this many milliseconds, or belongs to nobody.
    pub(crate) fn is_claimable(&self, min_idle_ms: u64, now_ms: u64) -> bool {
        self.consumer.is_none() || self.idle_ms(now_ms) >= min_idle_ms || crate::mutant!(ClaimIgnoresIdle)
    }

    fn rank(&self) -> Rank {
        Rank::new(self.consumer.map(|_| self.delivered_ms), self.put_number)
    }
}

/// A place in the order of pending entries: those that were given back come first, as they came; then the others by
/// the time of their delivery, and those of one time as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// 0: given back; else one more than the time of the delivery. Not an `Option`: there may be millions of these.
    delivered: u64,
    put_number: u64,
}

impl Rank {
    /// `delivered_ms` is `None` for one that was given back.
    fn new(delivered_ms: Option<u64>, put_number: u64) -> Rank {
        Rank { delivered: delivered_ms.map_or(0, |ms| ms.saturating_add(1)), put_number }
    }
}

/// The pending entries of a group.
#[derive(Debug, Default)]
pub(crate) struct PendingList {
    pages: Pages,
    /// All of them.
    order: BTreeMap<Rank, EntryId>,
    /// How many belong to nobody.
    released: u64,
}

impl PendingList {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.order.len() as u64
    }

    /// How many of them belong to nobody.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// The one with this id.
    pub(crate) fn get(&self, id: EntryId) -> Option<&Pending> {
        self.pages.get(id)
    }

    /// Adds it; returns the one with this id that it replaces.
    pub(crate) fn put(&mut self, pending: Pending) -> Option<Pending> {
        let old = self.pages.put(pending);
        if let Some(old) = &old {
            self.leave_order(old);
        }
        let is_free = self.enter_order(&pending);
        debug_assert!(is_free);
        old
    }

    /// Removes the one with this id.
    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Pending> {
        let pending = self.pages.remove(id)?;
        self.leave_order(&pending);
        Some(pending)
    }

    /// Those from `start` on, by id.
    pub(crate) fn iter_from(&self, start: EntryId) -> impl Iterator<Item = &Pending> {
        self.pages.iter_from(start)
    }

    /// The one with the greatest id.
    pub(crate) fn last(&self) -> Option<&Pending> {
        self.pages.last()
    }

    /// Those that were given back, in the order of that; then the others, the longest idle first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Pending> {
        self.in_order_from(None)
    }

    /// The same without those delivered before `from_ms`, and without those given back. `None`: all.
    pub(crate) fn in_order_from(&self, from_ms: Option<u64>) -> impl Iterator<Item = &Pending> {
        let from = Rank::new(from_ms, 0);
        self.order.range(from..).filter_map(|(_, id)| self.pages.get(*id))
    }

    /// False if another has its place.
    fn enter_order(&mut self, pending: &Pending) -> bool {
        self.released += u64::from(pending.consumer.is_none());
        self.order.insert(pending.rank(), pending.id).is_none()
    }

    fn leave_order(&mut self, pending: &Pending) {
        self.released -= u64::from(pending.consumer.is_none());
        self.order.remove(&pending.rank());
    }
}

/// Taking back what was done.
impl PendingList {
    /// From now on, remembers how to undo what is done.
    pub(crate) fn begin(&mut self) {
        self.pages.begin();
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        self.pages.commit();
    }

    /// Undoes what was done since [`PendingList::begin`], the layout of the pages included. Returns some that are no
    /// longer what they were until now, and some that now are: one that did not change may be among both.
    pub(crate) fn rollback(&mut self) -> (Vec<Pending>, Vec<Pending>) {
        let (gone, back) = self.pages.rollback();
        for pending in &gone {
            self.leave_order(pending);
        }
        for pending in &back {
            self.enter_order(pending);
        }
        (gone, back)
    }
}

/// Rows: one for each page of the list by id.
impl PendingList {
    /// Takes the pages that changed since the last freeze. `group` is the group's incarnation.
    pub(crate) fn freeze(&mut self, group: u64, frozen: &mut Piece) {
        self.pages.freeze(group, frozen);
    }

    /// All of them.
    pub(crate) fn all_rows(&self, group: u64, frozen: &mut Piece) {
        self.pages.all_rows(group, frozen);
    }

    /// What became dirty since this was asked or since the last freeze, in bytes.
    pub(crate) fn take_dirty_bytes(&mut self) -> u64 {
        self.pages.take_dirty_bytes()
    }

    /// Adds a page from its row. Pages must come in order. Returns what it holds.
    pub(crate) fn restore_page(&mut self, from: EntryId, row: &[u8]) -> Result<Vec<Pending>, DecodeError> {
        let page = self.pages.restore_page(from, row)?.to_vec();
        for pending in &page {
            let is_whole = pending.consumer.is_some() || pending.delivered_ms == 0;
            if !self.enter_order(pending) || !is_whole {
                return Err(DecodeError::Malformed {
                    problem: format!("pending {} contradicts the others", pending.id),
                });
            }
        }
        Ok(page)
    }
}
