//! From the core to the wire: one function for each answer, named like its call. The call itself and a batch use the same;
//! the call adds who answered and where the command stands in the log.

mod batch;
mod groups;
mod streams;

use millstream_proto::v1 as pb;
use millstream_streams::{Entry, EntryId, Removal};

use super::convert::Result;
use super::errors::Failure;
use crate::replica::Position;

pub(super) use batch::batch_result;
pub(super) use groups::*;
pub(super) use streams::*;

pub(super) fn id(id: EntryId) -> pb::EntryId {
    pb::EntryId { ms: id.ms, seq: id.seq }
}

pub(super) fn ids(ids: impl IntoIterator<Item = EntryId>) -> Vec<pb::EntryId> {
    ids.into_iter().map(id).collect()
}

/// The fields share the memory of the entry.
pub(super) fn entry(entry: &Entry) -> pb::Entry {
    let fields = entry.fields.iter_bytes().map(|(name, value)| pb::Field { name, value }).collect();
    pb::Entry { id: Some(id(entry.id)), fields }
}

pub(super) fn entries(entries: &[Entry]) -> Vec<pb::Entry> {
    entries.iter().map(entry).collect()
}

/// An id without its fields: not asked for, or no longer there.
pub(super) fn bare_entry(id: EntryId) -> pb::Entry {
    pb::Entry { id: Some(self::id(id)), fields: Vec::new() }
}

pub(super) fn header(position: &Position) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: position.cluster_id.to_string(),
        node_id: position.node_id,
        term: position.term,
        applied_index: position.applied_index,
        group_id: 0,
    })
}

fn removals(removals: &[Removal]) -> Vec<i32> {
    let removal = |removal: &Removal| match removal {
        Removal::Deleted => pb::Removal::Deleted.into(),
        Removal::NotFound => pb::Removal::NotFound.into(),
        Removal::Referenced => pb::Removal::Referenced.into(),
    };
    removals.iter().map(removal).collect()
}

/// The payloads that come with a reply, to be handed out in the order of its ids.
pub(super) struct Payloads(std::vec::IntoIter<Option<Entry>>);

impl Payloads {
    pub(super) fn new(entries: Vec<Option<Entry>>) -> Self {
        Self(entries.into_iter())
    }

    /// The payload of the next id; `None` if the entry is no longer in the stream.
    fn next(&mut self) -> Result<Option<Entry>> {
        self.0.next().ok_or_else(Failure::mismatched)
    }

    /// The next entries, without fields where they are no longer in the stream.
    fn entries(&mut self, ids: &[EntryId]) -> Result<Vec<pb::Entry>> {
        ids.iter().map(|id| Ok(self.next()?.as_ref().map_or_else(|| bare_entry(*id), entry))).collect()
    }
}

/// How many bytes an answer has room for: for rows, whose names make them differ much in size.
pub(super) struct Room(usize);

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Takes the bytes of a row, if they are left. Once a row did not fit, none does.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.0;
        self.0 = if fits { self.0 - bytes } else { 0 };
        fits
    }

    /// Cuts rows to what fits, but leaves at least one, or the next page would be this one. Returns whether it cut any.
    fn cut<T>(&mut self, rows: &mut Vec<T>, bytes: impl Fn(&T) -> usize) -> bool {
        let kept = rows.iter().take_while(|row| self.take(bytes(row))).count().max(1);
        let cuts = kept < rows.len();
        rows.truncate(kept);
        cuts
    }
}
