//! Values that several calls share, and their way from and to the wire.

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::EntryId;

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id, unique in its stream.
    pub id: EntryId,
    /// Names and values: arbitrary bytes, in the order of the append, duplicates kept. Empty where a call was asked for
    /// ids only.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// The first value of this name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name.as_ref()).map(|(_, value)| value)
    }
}

/// Where a command stands in the replicated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Index of its log entry. Read at least as new as this with [`Freshness::AtLeast`].
    pub log_index: u64,
    /// Term of that log entry.
    pub term: u64,
    /// The Raft group whose log it is; 0 today.
    pub group_id: u32,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// It reflects every command acknowledged before the call. Costs a round of the cluster.
    #[default]
    Linearizable,
    /// It reflects what the asked node, any of the endpoints, has applied; it may be behind.
    Local,
    /// As `Local`, and at least the command of this receipt: reads one's own write.
    AtLeast(Receipt),
}

impl Freshness {
    /// Any node can answer, not best the leader.
    pub(crate) fn any_node(self) -> bool {
        self != Freshness::Linearizable
    }
}

impl From<Freshness> for pb::ReadOptions {
    fn from(freshness: Freshness) -> Self {
        let (consistency, min_applied_index) = match freshness {
            Freshness::Linearizable => (pb::Consistency::Linearizable, 0),
            Freshness::Local => (pb::Consistency::Local, 0),
            Freshness::AtLeast(receipt) => (pb::Consistency::Local, receipt.log_index),
        };
        Self { consistency: consistency.into(), min_applied_index }
    }
}

/// What to trim from the old end of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trim(pb::TrimPolicy);

impl Trim {
    /// Keeps at most this many entries.
    pub fn max_length(entries: u64) -> Self {
        Self::new(pb::trim_policy::Threshold::MaxLength(entries))
    }

    /// Removes entries whose id is smaller than this.
    pub fn min_id(id: EntryId) -> Self {
        Self::new(pb::trim_policy::Threshold::MinId(to_id(id)))
    }

    /// Removes only whole blocks of entries: never more than exact trimming would, and cheaper.
    pub fn approximate(mut self) -> Self {
        self.0.precision = pb::TrimPrecision::Approximate.into();
        self
    }

    /// Removes at most this many entries; only with [`approximate`](Self::approximate). Default 10,000; 0 means no limit.
    pub fn limit(mut self, entries: u64) -> Self {
        self.0.limit = Some(entries);
        self
    }

    fn new(threshold: pb::trim_policy::Threshold) -> Self {
        let precision = pb::TrimPrecision::Exact.into();
        Self(pb::TrimPolicy { threshold: Some(threshold), precision, limit: None })
    }
}

impl From<Trim> for pb::TrimPolicy {
    fn from(trim: Trim) -> Self {
        trim.0
    }
}

pub(crate) fn to_id(id: EntryId) -> pb::EntryId {
    pb::EntryId { ms: id.ms, seq: id.seq }
}

/// An absent id reads as 0-0, as an absent number reads as 0.
pub(crate) fn id(id: Option<pb::EntryId>) -> EntryId {
    id.map_or(EntryId::MIN, |id| EntryId::new(id.ms, id.seq))
}

pub(crate) fn receipt(receipt: Option<pb::Receipt>) -> Receipt {
    let pb::Receipt { log_index, term, group_id } = receipt.unwrap_or_default();
    Receipt { log_index, term, group_id }
}

pub(crate) fn entry(entry: pb::Entry) -> Entry {
    let fields = entry.fields.into_iter().map(|field| (field.name, field.value)).collect();
    Entry { id: id(entry.id), fields }
}

pub(crate) fn entries(entries: Vec<pb::Entry>) -> Vec<Entry> {
    entries.into_iter().map(entry).collect()
}

/// One end of a range. `None` is the end of the stream.
pub(crate) fn bound(bound: std::ops::Bound<EntryId>) -> Option<pb::IdBound> {
    use std::ops::Bound;
    let bound = match bound {
        Bound::Included(id) => pb::id_bound::Bound::Inclusive(to_id(id)),
        Bound::Excluded(id) => pb::id_bound::Bound::Exclusive(to_id(id)),
        Bound::Unbounded => return None,
    };
    Some(pb::IdBound { bound: Some(bound) })
}
