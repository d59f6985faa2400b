//! What a checkpoint writes: taken from the state in a moment, made into rows afterwards.
//!
//! [`State::freeze`](crate::State::freeze) runs under the lock that commands wait for. So it copies small things and
//! shares large ones: nothing is encoded, no body is copied, and what was deleted is handed over as it is. Where many
//! streams have changed, it is done in steps, between which commands are applied.
//! [`Frozen::into_rows`] does the rest, wherever there is time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{Block, BlockKey};
use crate::codec;
use crate::entries::{GoneBlock, IndexRow};
use crate::entry_id::EntryId;
use crate::group::{ConsumerRow, Group, GroupHead};
use crate::names::{GroupName, StreamName};
use crate::pending::Pending;
use crate::producers::{self, Record};
use crate::rows::{DeadRow, RowKey};
use crate::session::{self, SessionHead, SessionRecord};
use crate::stream::{Stream, StreamHead};

/// A page of pending entries.
type SharedPage = Arc<Vec<Pending>>;

/// What changed since the last freeze.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Small ones: a large one would be moved as it grows.
    pub(crate) pieces: Vec<Piece>,
}

/// Some of what changed: of a stream all or nothing.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Rows that are few.
    pub(crate) rows: Vec<(RowKey, Bytes)>,
    pub(crate) heads: Vec<(StreamName, StreamHead)>,
    /// By stream.
    pub(crate) index: Vec<(u64, EntryId, IndexRow)>,
    pub(crate) bodies: Vec<FrozenBody>,
    /// By stream.
    pub(crate) gone_blocks: Vec<(u64, Vec<GoneBlock>)>,
    pub(crate) gone_streams: Vec<BTreeMap<u64, Box<Stream>>>,
    /// By stream.
    pub(crate) groups: Vec<(u64, GroupName, GroupHead)>,
    pub(crate) gone_groups: Vec<(u64, Vec<(GroupName, Group)>)>,
    /// By group and number; `None`: gone.
    pub(crate) consumers: Vec<(u64, u64, Option<ConsumerRow>)>,
    /// By group; `None`: gone.
    pub(crate) pending: Vec<(u64, EntryId, Option<SharedPage>)>,
    /// By stream and page.
    pub(crate) producers: Vec<(u64, u64, Vec<Record>)>,
    pub(crate) sessions: Vec<(u64, Option<SessionHead>)>,
    /// By session and page.
    pub(crate) replies: Vec<(u64, u64, Vec<SessionRecord>)>,
}

/// What a checkpoint writes, in one atomic batch.
#[derive(Debug, Clone, Default)]
pub struct FrozenRows {
    /// Every row that changed since the last freeze, in key order, bodies of blocks included. `None`: delete the row; it
    /// may be that it was never written.
    pub rows: Vec<(RowKey, Option<Bytes>)>,
    /// The bodies among the rows: for a cache, and for [`State::thaw`](crate::State::thaw) once the rows are stored.
    pub bodies: Vec<FrozenBody>,
}

/// Entries of a block that were written.
#[derive(Debug, Clone)]
pub struct FrozenBody {
    /// The block.
    pub key: BlockKey,
    /// The position in the body of the first entry that was written now.
    pub written_from: u32,
    /// The position in the body of the first entry of `entries`: not greater than `written_from`.
    pub held_from: u32,
    /// Entries of the body up to the last that is written.
    pub entries: Arc<Block>,
}

impl FrozenBody {
    /// How many entries of the body are written now.
    pub fn written(&self) -> u32 {
        self.held_from + self.entries.entries().len() as u32
    }
}

impl Frozen {
    /// The rows. Takes its time: encodes whatever was frozen, and frees what the streams that were deleted held.
    pub fn into_rows(self) -> FrozenRows {
        let (mut rows, mut bodies) = (Rows(Vec::new()), Vec::new());
        for piece in self.pieces {
            piece.list(&mut rows, &mut bodies);
        }
        FrozenRows { rows: rows.into_sorted(), bodies }
    }
}

impl From<Piece> for Frozen {
    fn from(piece: Piece) -> Frozen {
        Frozen { pieces: vec![piece] }
    }
}

impl Piece {
    pub(crate) fn put(&mut self, key: RowKey, value: Bytes) {
        self.rows.push((key, value));
    }

    fn list(self, rows: &mut Rows, bodies: &mut Vec<FrozenBody>) {
        // Deletions first: what was made anew under the same key since is written over them.
        for (stream, blocks) in self.gone_blocks {
            blocks.iter().for_each(|block| block.list(stream, rows));
        }
        for (stream, groups) in self.gone_groups {
            groups.into_iter().for_each(|(name, group)| list_group(stream, &name, &group, rows));
        }
        for (incarnation, stream) in self.gone_streams.into_iter().flatten() {
            list_stream(incarnation, &stream, rows);
        }
        rows.0.extend(self.rows.into_iter().map(|(key, value)| (key, Some(value))));
        for (name, head) in self.heads {
            rows.put(RowKey::stream(&name), codec::encode(&head));
        }
        for (stream, first, row) in self.index {
            rows.put(RowKey::block_index(stream, first), codec::encode(&row));
        }
        for FrozenBody { key, written_from, held_from, entries } in &self.bodies {
            rows.put(RowKey::body(key, *written_from), entries.encode_from((written_from - held_from) as usize));
        }
        for (stream, name, head) in self.groups {
            rows.put(RowKey::group(stream, &name), codec::encode(&head));
        }
        for (group, number, consumer) in self.consumers {
            rows.put_or_delete(RowKey::consumer(group, number), consumer.map(|row| codec::encode(&row)));
        }
        for (group, from, page) in self.pending {
            rows.put_or_delete(RowKey::pending(group, from), page.map(|page| codec::encode(&*page)));
        }
        for (stream, page, records) in self.producers {
            rows.put_or_delete(RowKey::producers(stream, page), producers::encode_page(&records));
        }
        for (session, head) in self.sessions {
            rows.put_or_delete(RowKey::session(session), head.map(|head| codec::encode(&head)));
        }
        for (session, page, records) in self.replies {
            rows.put_or_delete(RowKey::replies(session, page), session::encode_page(&records));
        }
        bodies.extend(self.bodies);
    }
}

fn list_stream(incarnation: u64, stream: &Stream, rows: &mut Rows) {
    // Its groups' heads are among the rows of a dead stream.
    let gone = stream.gone_groups().iter().map(|(_, group)| group);
    for group in stream.groups.values().chain(gone).filter(|group| group.is_stored()) {
        rows.put(RowKey::dead(group.incarnation()), codec::encode(&DeadRow {}));
    }
    if stream.is_stored() {
        rows.delete(RowKey::stream(stream.name()));
        rows.put(RowKey::dead(incarnation), codec::encode(&DeadRow {}));
    }
}

fn list_group(stream: u64, name: &GroupName, group: &Group, rows: &mut Rows) {
    if group.is_stored() {
        rows.delete(RowKey::group(stream, name));
        rows.put(RowKey::dead(group.incarnation()), codec::encode(&DeadRow {}));
    }
}

/// Rows to write and, as `None`, to delete. The last word on a key counts.
#[derive(Debug)]
pub(crate) struct Rows(Vec<(RowKey, Option<Bytes>)>);

impl Rows {
    fn put(&mut self, key: RowKey, value: Vec<u8>) {
        self.0.push((key, Some(value.into())));
    }

    pub(crate) fn delete(&mut self, key: RowKey) {
        self.0.push((key, None));
    }

    fn put_or_delete(&mut self, key: RowKey, value: Option<Vec<u8>>) {
        self.0.push((key, value.map(Bytes::from)));
    }

    /// In key order, each key once.
    fn into_sorted(self) -> Vec<(RowKey, Option<Bytes>)> {
        let Rows(mut rows) = self;
        // Stable: of several words on one key the last is the last.
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        rows.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        rows
    }
}
