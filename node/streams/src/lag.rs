//! How far a group has read: the rules of Redis for `entries_read` and `lag`, without looking at entries.
//!
//! The store could count the entries behind a group's position exactly. It does not, because Redis's answer is part of
//! the contract, the `null` included: a client that knows Redis must find what it knows.

use minicbor::{Decode, Encode};

use crate::entry_id::EntryId;
use crate::limits::ENTRIES_ADDED_MAX;

/// The numbers of a stream. All but the first id stand in its head row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Counters {
    /// Entries in the stream.
    #[n(0)]
    pub(crate) length: u64,
    /// The last id generated or given; never lowered by deletion. 0-0 at birth.
    #[n(1)]
    pub(crate) last_id: EntryId,
    /// The greatest id that was deleted by id. Trimming does not count. 0-0 at birth.
    #[n(2)]
    pub(crate) max_deleted_id: EntryId,
    /// Entries ever appended.
    #[n(3)]
    pub(crate) entries_added: u64,
    /// Bytes of the entries in the stream.
    #[n(4)]
    pub(crate) bytes: u64,
    /// How many block bodies were ever made: no two have the same number.
    #[n(5)]
    pub(crate) bodies: u64,
    /// The smallest id in the stream; 0-0 if it is empty. Follows from the blocks.
    #[cbor(skip)]
    pub(crate) first_id: EntryId,
}

impl Counters {
    /// Whether an entry behind `after` may have been deleted, so that counting forward from there is no longer right.
    fn tombstones_after(&self, after: EntryId) -> bool {
        self.length > 0 && !self.max_deleted_id.is_zero() && after <= self.max_deleted_id
    }

    /// The position of `id` among all entries ever appended, counted from 1; `None` if it cannot be known.
    fn estimate(&self, id: EntryId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.length == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if !id.is_zero() && id < self.max_deleted_id {
            return None;
        }
        if id == self.last_id {
            return Some(self.entries_added);
        }
        if id > self.last_id {
            return None;
        }
        let gapless = self.max_deleted_id.is_zero() || self.max_deleted_id < self.first_id;
        let before_first = self.entries_added.saturating_sub(self.length);
        match id.cmp(&self.first_id) {
            std::cmp::Ordering::Less if gapless => Some(before_first),
            std::cmp::Ordering::Equal if gapless => Some(before_first + 1),
            _ => None,
        }
    }

    /// What `entries_read` of a group at `position` becomes when it moves on to the entry `id`.
    pub(crate) fn entries_read_after(&self, entries_read: Option<u64>, position: EntryId, id: EntryId) -> Option<u64> {
        match entries_read {
            Some(read) if position >= self.first_id && !self.tombstones_after(position) => {
                Some(read.saturating_add(1).min(ENTRIES_ADDED_MAX))
            }
            _ if self.entries_added > 0 => self.estimate(id),
            unchanged => unchanged,
        }
    }

    /// What a group may claim to have read: not more than there ever was, or its lag would be negative.
    pub(crate) fn cap_entries_read(&self, entries_read: Option<u64>) -> Option<u64> {
        entries_read.map(|read| read.min(self.entries_added))
    }

    /// How many entries wait for a group at `position`; `None` if it cannot be known.
    pub(crate) fn lag(&self, entries_read: Option<u64>, position: EntryId) -> Option<u64> {
        if self.entries_added == 0 || self.length == 0 {
            return Some(0);
        }
        if position < self.first_id && self.max_deleted_id < self.first_id {
            return Some(self.length);
        }
        match entries_read {
            Some(read) if !self.tombstones_after(position) => Some(self.entries_added.saturating_sub(read)),
            _ => Some(self.entries_added.saturating_sub(self.estimate(position)?)),
        }
    }
}
