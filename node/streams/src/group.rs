//! Consumer groups: what was delivered to whom.
//!
//! The pending entries stand in one list by id; each consumer keeps the ids that are its own, so that its history and
//! its count cost nothing to find. Only the list is stored: the second order is rebuilt at a restart.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::codec;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::names::{ConsumerName, GroupName};
use crate::pending::{Pending, PendingList};
use crate::rows::{RowKey, RowMap};

/// A consumer group of a stream.
#[derive(Debug)]
pub(crate) struct Group {
    head: GroupHead,
    /// Their numbers, by name.
    numbers: BTreeMap<ConsumerName, u64>,
    /// By number.
    consumers: BTreeMap<u64, Consumer>,
    pending: PendingList,
    dirty_head: bool,
    /// Consumers that changed, or that are gone, since the last freeze.
    dirty_consumers: BTreeSet<u64>,
}

/// The head row of a group.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct GroupHead {
    /// The log index of its creation: keys of its rows.
    #[n(0)]
    incarnation: u64,
    /// The last delivered id.
    #[n(1)]
    last_id: EntryId,
    /// How many entries it has read; `None` if that cannot be known.
    #[n(2)]
    entries_read: Option<u64>,
    /// The number of its next consumer.
    #[n(3)]
    next_consumer: u64,
}

/// A consumer of a group.
#[derive(Debug)]
pub(crate) struct Consumer {
    row: ConsumerRow,
    /// The ids of the pending entries that it owns.
    pending: BTreeSet<EntryId>,
}

/// The row of a consumer.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct ConsumerRow {
    #[n(0)]
    name: ConsumerName,
    /// When it last tried to read or claim, in milliseconds since the Unix epoch.
    #[n(1)]
    seen_ms: u64,
    /// When an entry last became its own; `None`: never.
    #[n(2)]
    active_ms: Option<u64>,
}

impl Consumer {
    /// Its name.
    pub(crate) fn name(&self) -> &ConsumerName {
        &self.row.name
    }

    /// When it last tried to read or claim.
    pub(crate) fn seen_ms(&self) -> u64 {
        self.row.seen_ms
    }

    /// When an entry last became its own.
    pub(crate) fn active_ms(&self) -> Option<u64> {
        self.row.active_ms
    }

    /// The ids of its pending entries.
    pub(crate) fn pending(&self) -> &BTreeSet<EntryId> {
        &self.pending
    }
}

impl Group {
    pub(crate) fn new(incarnation: u64, last_id: EntryId, entries_read: Option<u64>) -> Group {
        Group {
            head: GroupHead { incarnation, last_id, entries_read, next_consumer: 0 },
            numbers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            pending: PendingList::default(),
            dirty_head: true,
            dirty_consumers: BTreeSet::new(),
        }
    }

    /// The log index of its creation.
    pub(crate) fn incarnation(&self) -> u64 {
        self.head.incarnation
    }

    /// The last delivered id.
    pub(crate) fn last_id(&self) -> EntryId {
        self.head.last_id
    }

    /// How many entries it has read; `None` if that cannot be known.
    pub(crate) fn entries_read(&self) -> Option<u64> {
        self.head.entries_read
    }

    /// Moves it.
    pub(crate) fn set_position(&mut self, last_id: EntryId, entries_read: Option<u64>) {
        self.head.last_id = last_id;
        self.head.entries_read = entries_read;
        self.dirty_head = true;
    }

    /// Its pending entries.
    pub(crate) fn pending(&self) -> &PendingList {
        &self.pending
    }

    /// Its consumers, by name.
    pub(crate) fn consumers(&self) -> impl ExactSizeIterator<Item = (&ConsumerName, u64)> {
        self.numbers.iter().map(|(name, number)| (name, *number))
    }

    /// The consumer of this number.
    pub(crate) fn consumer(&self, number: u64) -> Option<&Consumer> {
        self.consumers.get(&number)
    }

    /// The number of the consumer of this name.
    pub(crate) fn number(&self, name: &ConsumerName) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    /// Creates the consumer if it is missing: its number, and whether it was.
    pub(crate) fn create_consumer(&mut self, name: &ConsumerName, now_ms: u64) -> (u64, bool) {
        if let Some(number) = self.number(name) {
            return (number, false);
        }
        let number = self.head.next_consumer;
        self.head.next_consumer = number.saturating_add(1);
        self.dirty_head = true;
        self.dirty_consumers.insert(number);
        self.numbers.insert(name.clone(), number);
        let row = ConsumerRow { name: name.clone(), seen_ms: now_ms, active_ms: None };
        self.consumers.insert(number, Consumer { row, pending: BTreeSet::new() });
        (number, true)
    }

    /// The consumer tries something: creates it if it is missing, and notes the time.
    pub(crate) fn seen(&mut self, name: &ConsumerName, now_ms: u64) -> u64 {
        let (number, _) = self.create_consumer(name, now_ms);
        if let Some(consumer) = self.consumers.get_mut(&number) {
            consumer.row.seen_ms = now_ms;
            self.dirty_consumers.insert(number);
        }
        number
    }

    /// An entry became the consumer's own.
    pub(crate) fn active(&mut self, number: u64, now_ms: u64) {
        if let Some(consumer) = self.consumers.get_mut(&number) {
            consumer.row.active_ms = Some(now_ms);
            self.dirty_consumers.insert(number);
        }
    }

    /// Deletes the consumer and its pending entries; says how many those were.
    pub(crate) fn delete_consumer(&mut self, name: &ConsumerName) -> u64 {
        let Some(number) = self.numbers.remove(name) else { return 0 };
        let Some(consumer) = self.consumers.remove(&number) else { return 0 };
        self.dirty_consumers.insert(number);
        for id in &consumer.pending {
            self.pending.remove(*id);
        }
        consumer.pending.len() as u64
    }

    /// Makes an entry pending, or changes how it is; it may change owners.
    pub(crate) fn put_pending(&mut self, pending: Pending) {
        let old = self.pending.put(pending);
        if let Some(old) = old {
            if old.consumer == pending.consumer {
                return;
            }
            if let Some(owner) = self.consumers.get_mut(&old.consumer) {
                owner.pending.remove(&old.id);
            }
        }
        if let Some(owner) = self.consumers.get_mut(&pending.consumer) {
            owner.pending.insert(pending.id);
        }
    }

    /// Makes an entry pending no more; false if it was not.
    pub(crate) fn remove_pending(&mut self, id: EntryId) -> bool {
        let Some(old) = self.pending.remove(id) else { return false };
        if let Some(owner) = self.consumers.get_mut(&old.consumer) {
            owner.pending.remove(&id);
        }
        true
    }
}

/// Rows: a head, consumers by number, pages of pending entries.
impl Group {
    /// Takes the rows that changed since the last freeze.
    pub(crate) fn freeze(&mut self, stream: u64, name: &GroupName, rows: &mut RowMap) {
        let group = self.head.incarnation;
        if std::mem::take(&mut self.dirty_head) {
            rows.put(RowKey::group(stream, name), codec::encode(&self.head).into());
        }
        for number in std::mem::take(&mut self.dirty_consumers) {
            match self.consumers.get(&number) {
                Some(consumer) => rows.put(RowKey::consumer(group, number), codec::encode(&consumer.row).into()),
                None => rows.delete(RowKey::consumer(group, number)),
            }
        }
        self.pending.freeze(group, rows);
    }

    /// All rows.
    pub(crate) fn all_rows(&self, stream: u64, name: &GroupName, rows: &mut RowMap) {
        let group = self.head.incarnation;
        rows.put(RowKey::group(stream, name), codec::encode(&self.head).into());
        for (number, consumer) in &self.consumers {
            rows.put(RowKey::consumer(group, *number), codec::encode(&consumer.row).into());
        }
        self.pending.all_rows(group, rows);
    }

    /// Every row that may have been written, as deletions: the group is gone.
    pub(crate) fn delete_rows(&mut self, stream: u64, name: &GroupName, rows: &mut RowMap) {
        let group = self.head.incarnation;
        rows.delete(RowKey::group(stream, name));
        self.dirty_head = false;
        self.dirty_consumers.extend(std::mem::take(&mut self.consumers).into_keys());
        for number in std::mem::take(&mut self.dirty_consumers) {
            rows.delete(RowKey::consumer(group, number));
        }
        self.pending.delete_rows(group, rows);
    }

    /// Begins with the head row; consumers and then pages follow.
    pub(crate) fn restore(head: &[u8]) -> Result<Group, DecodeError> {
        let head: GroupHead = codec::decode(head)?;
        let mut group = Group::new(head.incarnation, head.last_id, head.entries_read);
        group.head = head;
        group.dirty_head = false;
        Ok(group)
    }

    /// Adds a consumer from its row.
    pub(crate) fn restore_consumer(&mut self, number: u64, row: &[u8]) -> Result<(), DecodeError> {
        let row: ConsumerRow = codec::decode(row)?;
        let is_new = self.numbers.insert(row.name.clone(), number).is_none();
        if !is_new || number >= self.head.next_consumer {
            return Err(DecodeError::Malformed { problem: "consumer twice, or of a number not yet given".to_owned() });
        }
        self.consumers.insert(number, Consumer { row, pending: BTreeSet::new() });
        Ok(())
    }

    /// Adds a page of pending entries from its row, after all consumers.
    pub(crate) fn restore_page(&mut self, from: EntryId, row: &[u8]) -> Result<(), DecodeError> {
        self.pending.restore_page(from, row)?;
        for pending in self.pending.iter_from(from) {
            let Some(owner) = self.consumers.get_mut(&pending.consumer) else {
                return Err(DecodeError::Malformed { problem: format!("{} is pending for nobody", pending.id) });
            };
            owner.pending.insert(pending.id);
        }
        Ok(())
    }
}
