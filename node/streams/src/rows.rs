//! Rows: how the state lies in the store.
//!
//! The first byte of a key is the kind of the row; numbers follow in big-endian order, names as they are, so that keys
//! sort as the state does. The kinds are for ever.
//!
//! ```text
//!   1 meta           | -
//!   2 node           | node id: 8
//!   3 stream head    | name
//!   4 block index    | stream: 8 | first ms: 8 | first seq: 8
//!   5 group head     | stream: 8 | group name
//!   6 consumer       | group: 8  | consumer: 8
//!   7 pending page   | group: 8  | from ms: 8  | from seq: 8        pending ids from here to the next page
//!   8 session head   | session: 8
//!   9 session page   | session: 8 | sequence / 128: 8
//!  10 producer page  | stream: 8 | number / 128: 8                  idempotency keys, by the number of their append
//!  11 dead           | incarnation: 8                              a stream or a group that was deleted
//!  12 dead bodies    | number: 8                                   keys of bodies that nobody needs any more
//! 240 block body     | stream: 8 | first ms: 8 | first seq: 8 | version: 8
//! 240 part of a body | stream: 8 | first ms: 8 | first seq: 8 | version: 8 | position: 4
//! ```
//!
//! `stream` and `group` are incarnations: numbers that are given once. Bodies come last, so that one scan up to them
//! reads all that a restart needs. Values carry no checksum: the store adds one to each row, and splits long values.
//!
//! A body has one row, unless checkpoints came while its block was open for more: each wrote the entries that were new,
//! and the position in the body of the first of them stands in the key. A row is never written twice.
//!
//! *Garbage* is what a deletion leaves behind, so that deleting costs nothing at the time: of a dead stream the rows of
//! the kinds 4, 5, 10 and 240, of a dead group those of 6 and 7, and the bodies that a row of kind 12 lists. It is no
//! part of the state: a restart passes over it, and the node sweeps it away ([`garbage_range`] and what follows).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::block::{Block, BlockKey};
use crate::codec;
use crate::entries::IndexRow;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::names::{GroupName, StreamName};
use crate::state::Meta;

/// First byte of the row of clock, digest and cluster id.
pub const META_PREFIX: u8 = 1;
/// First byte of the rows of nodes.
pub const NODE_PREFIX: u8 = 2;
/// First byte of the rows of stream heads.
pub const STREAM_PREFIX: u8 = 3;
/// First byte of the rows of block indexes.
pub const BLOCK_INDEX_PREFIX: u8 = 4;
/// First byte of the rows of group heads.
pub const GROUP_PREFIX: u8 = 5;
/// First byte of the rows of consumers.
pub const CONSUMER_PREFIX: u8 = 6;
/// First byte of the rows of pending entries.
pub const PENDING_PREFIX: u8 = 7;
/// First byte of the rows of session heads.
pub const SESSION_PREFIX: u8 = 8;
/// First byte of the rows of sessions' replies.
pub const REPLIES_PREFIX: u8 = 9;
/// First byte of the rows of producers' idempotency keys.
pub const PRODUCERS_PREFIX: u8 = 10;
/// First byte of the rows that name a deleted stream or group of which rows may be left.
pub const DEAD_PREFIX: u8 = 11;
/// First byte of the rows that list bodies to be deleted.
pub const DEAD_BODIES_PREFIX: u8 = 12;
/// First byte of the rows of block bodies: greater than all others.
pub const BODY_PREFIX: u8 = 240;

/// The key of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(Vec<u8>);

impl RowKey {
    /// The bytes for the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes from the store. Whether they make sense shows when the row is read.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> RowKey {
        RowKey(bytes.into())
    }

    /// Whether the row holds a block's body, which a restart leaves where it is.
    pub fn is_body(&self) -> bool {
        self.0.first() == Some(&BODY_PREFIX)
    }

    pub(crate) fn meta() -> RowKey {
        RowKey(vec![META_PREFIX])
    }

    pub(crate) fn node(node_id: u64) -> RowKey {
        numbers(NODE_PREFIX, &[node_id])
    }

    pub(crate) fn stream(name: &StreamName) -> RowKey {
        RowKey([&[STREAM_PREFIX], name.as_str().as_bytes()].concat())
    }

    pub(crate) fn block_index(stream: u64, first: EntryId) -> RowKey {
        numbers(BLOCK_INDEX_PREFIX, &[stream, first.ms, first.seq])
    }

    pub(crate) fn group(stream: u64, name: &GroupName) -> RowKey {
        RowKey([&[GROUP_PREFIX][..], &stream.to_be_bytes(), name.as_str().as_bytes()].concat())
    }

    pub(crate) fn consumer(group: u64, consumer: u64) -> RowKey {
        numbers(CONSUMER_PREFIX, &[group, consumer])
    }

    pub(crate) fn pending(group: u64, from: EntryId) -> RowKey {
        numbers(PENDING_PREFIX, &[group, from.ms, from.seq])
    }

    pub(crate) fn session(session: u64) -> RowKey {
        numbers(SESSION_PREFIX, &[session])
    }

    pub(crate) fn replies(session: u64, page: u64) -> RowKey {
        numbers(REPLIES_PREFIX, &[session, page])
    }

    pub(crate) fn producers(stream: u64, page: u64) -> RowKey {
        numbers(PRODUCERS_PREFIX, &[stream, page])
    }

    pub(crate) fn dead(incarnation: u64) -> RowKey {
        numbers(DEAD_PREFIX, &[incarnation])
    }

    /// The row of the body that begins with the entry at `position`. The first has the plain key.
    pub(crate) fn body(key: &BlockKey, position: u32) -> RowKey {
        let BlockKey { stream, first, version } = key;
        let RowKey(mut bytes) = numbers(BODY_PREFIX, &[*stream, first.ms, first.seq, *version]);
        if position > 0 {
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        RowKey(bytes)
    }

    /// Of the row of a body: which body, and the position of the row's first entry in it. `None` for other rows.
    pub fn body_part(&self) -> Option<(BlockKey, u32)> {
        match self.parse()? {
            Row::Body { key, position } => Some((key, position)),
            _ => None,
        }
    }

    /// What the key says; `None` if it is no key of ours.
    pub(crate) fn parse(&self) -> Option<Row> {
        let (&kind, mut rest) = self.0.split_first()?;
        let rest = &mut rest;
        let row = match kind {
            META_PREFIX => Row::Meta,
            NODE_PREFIX => Row::Node { node_id: take(rest)? },
            STREAM_PREFIX => Row::Stream { name: StreamName::new(take_text(rest)?).ok()? },
            BLOCK_INDEX_PREFIX => Row::BlockIndex { stream: take(rest)?, first: take_id(rest)? },
            GROUP_PREFIX => Row::Group { stream: take(rest)?, name: GroupName::new(take_text(rest)?).ok()? },
            CONSUMER_PREFIX => Row::Consumer { group: take(rest)?, consumer: take(rest)? },
            PENDING_PREFIX => Row::Pending { group: take(rest)?, from: take_id(rest)? },
            SESSION_PREFIX => Row::Session { session: take(rest)? },
            REPLIES_PREFIX => Row::Replies { session: take(rest)?, page: take(rest)? },
            PRODUCERS_PREFIX => Row::Producers { stream: take(rest)?, page: take(rest)? },
            DEAD_PREFIX => Row::Dead { incarnation: take(rest)? },
            DEAD_BODIES_PREFIX => Row::DeadBodies { number: take(rest)? },
            BODY_PREFIX => {
                let key = BlockKey { stream: take(rest)?, first: take_id(rest)?, version: take(rest)? };
                Row::Body { key, position: take_position(rest)? }
            }
            _ => return None,
        };
        rest.is_empty().then_some(row)
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Some(row) => row.fmt(f),
            None => write!(f, "RowKey({:02x?})", self.0),
        }
    }
}

/// A key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    Meta,
    Node { node_id: u64 },
    Stream { name: StreamName },
    BlockIndex { stream: u64, first: EntryId },
    Group { stream: u64, name: GroupName },
    Consumer { group: u64, consumer: u64 },
    Pending { group: u64, from: EntryId },
    Session { session: u64 },
    Replies { session: u64, page: u64 },
    Producers { stream: u64, page: u64 },
    Dead { incarnation: u64 },
    DeadBodies { number: u64 },
    Body { key: BlockKey, position: u32 },
}

/// The value of a row of a dead stream or group.
#[derive(Debug, Encode, Decode)]
pub(crate) struct DeadRow {}

/// The value of a row of dead bodies.
#[derive(Debug, Encode, Decode)]
struct DeadBodiesRow {
    #[n(0)]
    keys: Vec<ByteVec>,
}

/// The keys of all garbage's own rows: from the first to before the second.
pub fn garbage_range() -> (RowKey, RowKey) {
    (RowKey(vec![DEAD_PREFIX]), RowKey(vec![DEAD_BODIES_PREFIX + 1]))
}

/// What a row within [`garbage_range`] says is garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbage {
    /// All rows in these ranges of keys, each from the first to before the second.
    Ranges(Vec<(RowKey, RowKey)>),
    /// These rows.
    Rows(Vec<RowKey>),
}

impl Garbage {
    /// Reads a row. `None`: it is none of garbage.
    pub fn read(key: &RowKey, value: &[u8]) -> Result<Option<Garbage>, DecodeError> {
        match key.parse() {
            Some(Row::Dead { incarnation }) => {
                codec::decode::<DeadRow>(value)?;
                // Of a stream, then of a group: a number is given to one of them only.
                let kinds =
                    [BLOCK_INDEX_PREFIX, GROUP_PREFIX, PRODUCERS_PREFIX, BODY_PREFIX, CONSUMER_PREFIX, PENDING_PREFIX];
                let ranges = kinds.map(|kind| {
                    let end = incarnation.checked_add(1).map_or(RowKey(vec![kind + 1]), |next| numbers(kind, &[next]));
                    (numbers(kind, &[incarnation]), end)
                });
                Ok(Some(Garbage::Ranges(ranges.to_vec())))
            }
            Some(Row::DeadBodies { .. }) => {
                let DeadBodiesRow { keys } = codec::decode(value)?;
                let keys: Vec<RowKey> = keys.into_iter().map(|key| RowKey(key.into())).collect();
                if keys.iter().any(|key| key.body_part().is_none()) {
                    return Err(DecodeError::Malformed {
                        problem: "a dead body under the key of another row".to_owned(),
                    });
                }
                Ok(Some(Garbage::Rows(keys)))
            }
            _ => Ok(None),
        }
    }

    /// The row that lists bodies to be deleted. `number` must be one that no such row in the store has.
    pub fn bodies(number: u64, keys: &[RowKey]) -> (RowKey, Bytes) {
        let keys = keys.iter().map(|key| ByteVec::from(key.0.clone())).collect();
        (numbers(DEAD_BODIES_PREFIX, &[number]), codec::encode(&DeadBodiesRow { keys }).into())
    }
}

/// The rows of the body that a block's index row names. None for other rows.
pub fn body_rows(key: &RowKey, value: &[u8]) -> Result<Vec<RowKey>, DecodeError> {
    match key.parse() {
        Some(Row::BlockIndex { stream, first }) => {
            codec::decode::<IndexRow>(value).map(|row| row.body_rows(stream, first).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Whether a block is what the value of its index row says of it: how many entries, which of them live, how large.
pub fn describes(value: &[u8], block: &Arc<Block>) -> Result<bool, DecodeError> {
    Ok(codec::decode::<IndexRow>(value)?.describes(block))
}

/// The body that a block's index row names, and how many entries of it. `None` for other rows, and for an index row that
/// holds the body itself, as those of open blocks once did.
pub fn body_of(key: &RowKey, value: &[u8]) -> Result<Option<(BlockKey, u32)>, DecodeError> {
    match key.parse() {
        Some(Row::BlockIndex { stream, first }) => {
            codec::decode::<IndexRow>(value).map(|row| row.body_of(stream, first))
        }
        _ => Ok(None),
    }
}

/// What becomes of a row when the state goes on in another cluster: the meta row gets that one's id, and the records of
/// nodes stay behind (`None`).
pub fn in_new_cluster(key: &RowKey, value: Bytes, cluster_id: &str) -> Result<Option<Bytes>, DecodeError> {
    match key.parse() {
        Some(Row::Meta) => {
            let meta: Meta = codec::decode(&value)?;
            Ok(Some(codec::encode(&Meta { cluster_id: Some(cluster_id.to_owned()), ..meta }).into()))
        }
        Some(Row::Node { .. }) => Ok(None),
        _ => Ok(Some(value)),
    }
}

fn numbers(kind: u8, numbers: &[u64]) -> RowKey {
    let mut key = Vec::with_capacity(1 + 8 * numbers.len());
    key.push(kind);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    RowKey(key)
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_be_bytes(*number))
}

fn take_id(rest: &mut &[u8]) -> Option<EntryId> {
    Some(EntryId::new(take(rest)?, take(rest)?))
}

/// What follows the key of a body: nothing if it is the first row.
fn take_position(rest: &mut &[u8]) -> Option<u32> {
    if rest.is_empty() {
        return Some(0);
    }
    let (position, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*position)).filter(|position| *position > 0)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(std::mem::take(rest)).ok()
}
