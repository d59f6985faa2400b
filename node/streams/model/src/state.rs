//! What the model remembers: section 1 of the specification, in plain vectors.

use std::collections::BTreeMap;

use millstream_streams::*;

use crate::groups::Level;

/// Everything, and how often each corner of the rules was reached.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The greatest time seen so far (section 10, "wall clock").
    pub clock_ms: u64,
    /// By name.
    pub streams: BTreeMap<StreamName, Stream>,
    /// How often each rule was used.
    pub corners: Corners,
    /// What waiters should have been told by the last command, added up.
    pub changes: Vec<Change>,
    /// The payloads that should have come with the last reply; `None` for an entry that is gone.
    pub payloads: Vec<Option<Entry>>,
    /// The bound in bytes of all that the command returns, with its whole batch if it is one.
    pub(crate) shared: Level,
}

/// How often each rule was used, by the number of its section and a few words.
#[derive(Debug, Clone, Default)]
pub struct Corners(pub BTreeMap<&'static str, u64>);

impl Corners {
    /// Counts a use of a rule.
    pub fn reach(&mut self, corner: &'static str) {
        *self.0.entry(corner).or_default() += 1;
    }

    /// Counts it if so.
    pub fn reach_if(&mut self, reached: bool, corner: &'static str) {
        if reached {
            self.reach(corner);
        }
    }
}

/// A new one has the default settings.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// The greatest id ever given or set.
    pub last_id: EntryId,
    /// The greatest id that was deleted; 0-0 if none was.
    pub max_deleted_id: EntryId,
    /// Entries appended ever.
    pub entries_added: u64,
    /// By name.
    pub groups: BTreeMap<GroupName, Group>,
    /// Its settings.
    pub config: StreamConfig,
    /// Idempotent producers.
    pub producers: Producers,
    /// Log index of the last command that changed it or one of its groups.
    pub last_change_index: u64,
}

/// What is remembered of idempotent producers.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    /// In the order in which they were added, oldest first, those of all producers together.
    pub keys: Vec<Remembered>,
    /// Keys added ever.
    pub added: u64,
    /// Appends that were found to have been done before.
    pub duplicates: u64,
}

/// A producer's key, and the entry that was appended under it.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Whose.
    pub producer: ProducerId,
    /// Which.
    pub key: Key,
    /// The entry.
    pub id: EntryId,
}

/// What is the same when the same is appended again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The client's own.
    Given(IdempotencyKey),
    /// The pairs of the entry, sorted: their order does not matter, their multiplicity does.
    Content(Vec<(Vec<u8>, Vec<u8>)>),
}

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The last id delivered as new.
    pub last_id: EntryId,
    /// `None`: unknown.
    pub entries_read: Option<u64>,
    /// By delivery: those given back first, in the order in which they were, then the others by the time of delivery; a
    /// new one goes behind its equals. (`pel_order` of the specification.)
    pub pending: Vec<Pending>,
    /// By name.
    pub consumers: BTreeMap<ConsumerName, Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The entry, which may be gone.
    pub id: EntryId,
    /// `None`: given back.
    pub consumer: Option<ConsumerName>,
    /// When it was delivered last.
    pub delivered_ms: u64,
    /// How often.
    pub delivery_count: u64,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// When it last asked for anything.
    pub seen_ms: u64,
    /// `None`: never.
    pub active_ms: Option<u64>,
}

impl Model {
    /// A group, to be changed.
    pub fn group_mut(&mut self, stream: &StreamName, group: &GroupName) -> Option<&mut Group> {
        self.streams.get_mut(stream)?.groups.get_mut(group)
    }
}

impl Stream {
    /// Entries that are there.
    pub fn length(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entry of this id, if it is there.
    pub fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Whether there is an entry of this id.
    pub fn is_live(&self, id: EntryId) -> bool {
        self.entry(id).is_some()
    }

    /// The smallest live id; 0-0 if there is none.
    pub fn first_id(&self) -> EntryId {
        self.entries.first().map_or(EntryId::MIN, |entry| entry.id)
    }

    /// What its entries count for.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.fields.packed_len() as u64 + 16).sum()
    }

    /// Section 4.6.
    pub fn is_referenced(&self, id: EntryId) -> bool {
        let Some(min) = self.groups.values().map(|group| group.last_id).min() else { return false };
        id > min || self.groups.values().any(|group| group.find(id).is_some())
    }

    /// Makes the entry pending in no group. Says whether it was in any.
    pub fn drop_references(&mut self, id: EntryId) -> bool {
        let mut any = false;
        for group in self.groups.values_mut() {
            any |= group.take(id).is_some();
        }
        any
    }
}

impl Group {
    /// The pending entry of this id.
    pub fn find(&self, id: EntryId) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.id == id)
    }

    /// Removes the pending entry of this id.
    pub fn take(&mut self, id: EntryId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.remove(at))
    }

    /// Puts one that is not in the list where it belongs.
    pub fn put(&mut self, new: Pending) {
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
    pub fn by_id(&self) -> Vec<&Pending> {
        let mut pending: Vec<_> = self.pending.iter().collect();
        pending.sort_by_key(|pending| pending.id);
        pending
    }

    /// Creates the consumer if it is missing, and notes that it was seen (section 5).
    pub fn see(&mut self, consumer: &ConsumerName, now_ms: u64) {
        let seen = self.consumers.entry(consumer.clone()).or_insert(Consumer { seen_ms: now_ms, active_ms: None });
        seen.seen_ms = now_ms;
    }

    /// Notes that an entry became the consumer's (section 5).
    pub fn activate(&mut self, consumer: &ConsumerName, now_ms: u64) {
        self.consumers.get_mut(consumer).unwrap().active_ms = Some(now_ms);
    }
}
