//! Values that several calls share, and their way from and to the wire.

use std::time::Duration;

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::{Client, EntryId, Error, Rpc};

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

/// What becomes of the references that consumer groups hold to an entry when it is removed from its stream. A group
/// refers to an entry that it has yet to deliver, and to one that is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum References {
    /// They stay: the entry remains pending without being in the stream (KEEPREF).
    #[default]
    Keep,
    /// The entry is pending no more, in any group (DELREF).
    Delete,
    /// Entries to which a group refers are not removed (ACKED).
    Acked,
}

impl From<References> for pb::References {
    fn from(references: References) -> Self {
        match references {
            References::Keep => Self::Keep,
            References::Delete => Self::Delete,
            References::Acked => Self::Acked,
        }
    }
}

impl From<pb::References> for References {
    fn from(references: pb::References) -> Self {
        match references {
            pb::References::Unspecified | pb::References::Keep => Self::Keep,
            pb::References::Delete => Self::Delete,
            pb::References::Acked => Self::Acked,
        }
    }
}

/// What became of an entry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is not in the stream now.
    Deleted,
    /// There was none. Of [`Client::ack_and_delete`](crate::Client::ack_and_delete): it was not pending, and nothing
    /// was done.
    NotFound,
    /// It stays, because a group refers to it. Of [`Client::ack_and_delete`](crate::Client::ack_and_delete): it was
    /// acknowledged nevertheless.
    Referenced,
    /// A newer server's word, which this version does not know.
    Unknown,
}

impl From<pb::Removal> for Removal {
    fn from(removal: pb::Removal) -> Self {
        match removal {
            pb::Removal::Deleted => Self::Deleted,
            pb::Removal::NotFound => Self::NotFound,
            pb::Removal::Referenced => Self::Referenced,
            pb::Removal::Unspecified => Self::Unknown,
        }
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

    /// Removes only whole blocks of entries: never more than exact trimming would, and cheaper (`~`). Unless references
    /// are kept, it goes by entries like exact trimming.
    pub fn approximate(mut self) -> Self {
        self.0.precision = pb::TrimPrecision::Approximate.into();
        self
    }

    /// Removes at most this many entries; only with [`approximate`](Self::approximate). Default 10,000; 0 means no
    /// limit.
    pub fn limit(mut self, entries: u64) -> Self {
        self.0.limit = Some(entries);
        self
    }

    /// What becomes of the groups' references. Default: they are kept. With [`References::Acked`], entries that are
    /// referred to stay, and the oldest of the others go; one trim passes over 10,000 entries at most, that of an
    /// append over 1,000.
    pub fn references(mut self, references: References) -> Self {
        self.0.references = pb::References::from(references).into();
        self
    }

    fn new(threshold: pb::trim_policy::Threshold) -> Self {
        let precision = pb::TrimPrecision::Exact.into();
        let references = pb::References::Keep.into();
        Self(pb::TrimPolicy { threshold: Some(threshold), precision, limit: None, references })
    }
}

impl From<Trim> for pb::TrimPolicy {
    fn from(trim: Trim) -> Self {
        trim.0
    }
}

/// An answer of the wire, and what a caller is given in its place.
pub(crate) trait Answer {
    type Value;
    fn value(self) -> Self::Value;
}

impl Client {
    /// [`Client::call`], with the answer in the types of this library.
    pub(crate) async fn ask<R: Rpc>(&self, request: R) -> Result<<R::Response as Answer>::Value, Error>
    where
        R::Response: Answer,
    {
        Ok(self.call(request).await?.value())
    }
}

pub(crate) fn to_id(id: EntryId) -> pb::EntryId {
    pb::EntryId { ms: id.ms, seq: id.seq }
}

/// An absent id reads as 0-0, as an absent number reads as 0.
pub(crate) fn id(id: Option<pb::EntryId>) -> EntryId {
    id.map_or(EntryId::MIN, |id| EntryId::new(id.ms, id.seq))
}

pub(crate) fn to_ids(ids: impl IntoIterator<Item = EntryId>) -> Vec<pb::EntryId> {
    ids.into_iter().map(to_id).collect()
}

/// Longer than the store can count is for ever.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn receipt(receipt: Option<pb::Receipt>) -> Receipt {
    let pb::Receipt { log_index, term, group_id } = receipt.unwrap_or_default();
    Receipt { log_index, term, group_id }
}

/// One for each, so that they keep their places: prost's own accessor leaves out those it does not know.
pub(crate) fn removals(removals: Vec<i32>) -> Vec<Removal> {
    removals.into_iter().map(|removal| pb::Removal::try_from(removal).unwrap_or_default().into()).collect()
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
