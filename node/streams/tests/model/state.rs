//! What the model remembers: section 1 of the specification, in plain vectors.

use std::collections::BTreeMap;

use millstream_streams::*;

use super::groups::Level;

/// Everything, and how often each corner of the rules was reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The greatest time seen so far (section 10, "wall clock").
    pub(crate) clock_ms: u64,
    pub(crate) streams: BTreeMap<StreamName, Stream>,
    pub(crate) corners: Corners,
    /// What waiters should have been told by the last command, added up.
    pub(crate) changes: Vec<Change>,
    /// The payloads that should have come with the last reply; `None` for an entry that is gone.
    pub(crate) payloads: Vec<Option<Entry>>,
    /// The bound in bytes of all that the command returns, with its whole batch if it is one.
    pub(crate) shared: Level,
}

/// How often each rule was used, by the number of its section and a few words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Corners(pub(crate) BTreeMap<&'static str, u64>);

impl Corners {
    pub(crate) fn reach(&mut self, corner: &'static str) {
        *self.0.entry(corner).or_default() += 1;
    }

    pub(crate) fn reach_if(&mut self, reached: bool, corner: &'static str) {
        if reached {
            self.reach(corner);
        }
    }
}

/// A new one has the default settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Oldest first.
    pub(crate) entries: Vec<Entry>,
    pub(crate) last_id: EntryId,
    pub(crate) max_deleted_id: EntryId,
    pub(crate) entries_added: u64,
    pub(crate) groups: BTreeMap<GroupName, Group>,
    pub(crate) config: StreamConfig,
    pub(crate) producers: Producers,
    pub(crate) last_change_index: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    /// In the order in which they were added, oldest first, those of all producers together.
    pub(crate) keys: Vec<Remembered>,
    pub(crate) added: u64,
    pub(crate) duplicates: u64,
}

/// A producer's key, and the entry that was appended under it.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) producer: ProducerId,
    pub(crate) key: Key,
    pub(crate) id: EntryId,
}

/// What is the same when the same is appended again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Given(IdempotencyKey),
    /// The pairs of the entry, sorted: their order does not matter, their multiplicity does.
    Content(Vec<(Vec<u8>, Vec<u8>)>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) last_id: EntryId,
    /// `None`: unknown.
    pub(crate) entries_read: Option<u64>,
    /// By delivery: those given back first, in the order in which they were, then the others by the time of delivery; a
    /// new one goes behind its equals. (`pel_order` of the specification.)
    pub(crate) pending: Vec<Pending>,
    pub(crate) consumers: BTreeMap<ConsumerName, Consumer>,
}

#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) id: EntryId,
    /// `None`: given back.
    pub(crate) consumer: Option<ConsumerName>,
    pub(crate) delivered_ms: u64,
    pub(crate) delivery_count: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) seen_ms: u64,
    /// `None`: never.
    pub(crate) active_ms: Option<u64>,
}

impl Model {
    pub(crate) fn group_mut(&mut self, stream: &StreamName, group: &GroupName) -> Option<&mut Group> {
        self.streams.get_mut(stream)?.groups.get_mut(group)
    }
}

impl Stream {
    pub(crate) fn length(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    pub(crate) fn is_live(&self, id: EntryId) -> bool {
        self.entry(id).is_some()
    }

    /// The smallest live id; 0-0 if there is none.
    pub(crate) fn first_id(&self) -> EntryId {
        self.entries.first().map_or(EntryId::MIN, |entry| entry.id)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.fields.packed_len() as u64 + 16).sum()
    }

    /// Section 4.6.
    pub(crate) fn is_referenced(&self, id: EntryId) -> bool {
        let Some(min) = self.groups.values().map(|group| group.last_id).min() else { return false };
        id > min || self.groups.values().any(|group| group.find(id).is_some())
    }

    /// Makes the entry pending in no group. Says whether it was in any.
    pub(crate) fn drop_references(&mut self, id: EntryId) -> bool {
        let mut any = false;
        for group in self.groups.values_mut() {
            any |= group.take(id).is_some();
        }
        any
    }
}

impl Group {
    pub(crate) fn find(&self, id: EntryId) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.id == id)
    }

    pub(crate) fn take(&mut self, id: EntryId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.remove(at))
    }

    /// Puts one that is not in the list where it belongs.
    pub(crate) fn put(&mut self, new: Pending) {
        assert!(self.find(new.id).is_none());
        let comes_after = |old: &Pending| match (&new.consumer, &old.consumer) {
            (None, old) => old.is_some(),
            (Some(_), None) => false,
            (Some(_), Some(_)) => new.delivered_ms < old.delivered_ms,
        };
        let at = self.pending.iter().position(comes_after).unwrap_or(self.pending.len());
        self.pending.insert(at, new);
    }

    /// Ascending by id.
    pub(crate) fn by_id(&self) -> Vec<&Pending> {
        let mut pending: Vec<_> = self.pending.iter().collect();
        pending.sort_by_key(|pending| pending.id);
        pending
    }

    /// Creates the consumer if it is missing, and notes that it was seen (section 5).
    pub(crate) fn see(&mut self, consumer: &ConsumerName, now_ms: u64) {
        let seen = self.consumers.entry(consumer.clone()).or_insert(Consumer { seen_ms: now_ms, active_ms: None });
        seen.seen_ms = now_ms;
    }

    /// Notes that an entry became the consumer's (section 5).
    pub(crate) fn activate(&mut self, consumer: &ConsumerName, now_ms: u64) {
        self.consumers.get_mut(consumer).unwrap().active_ms = Some(now_ms);
    }
}
