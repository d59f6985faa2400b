//! From the core to the wire.

use millstream_proto::v1 as pb;
use millstream_streams::{Entry, EntryId};

use crate::replica::Position;

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
