//! Rows: how the state lies in the store.
//!
//! The first byte of a key is the kind of the row; numbers follow in big-endian order, names as they are, so that keys
//! sort as the state does. The kinds are for ever.
//!
//! ```text
//!   1 meta           | -
//!   2 node           | node id: 8
//!   3 stream head    | name
//!   4 block index    | stream: 8 | first ms: 8 | first seq: 8       the open tail carries its body along
//!   5 group head     | stream: 8 | group name
//!   6 consumer       | group: 8  | consumer: 8
//!   7 pending page   | group: 8  | from ms: 8  | from seq: 8        pending ids from here to the next page
//!   8 session head   | session: 8
//!   9 session page   | session: 8 | sequence / 128: 8
//!  10 producer page  | stream: 8 | number / 128: 8                  idempotency keys, by the number of their append
//! 240 block body     | stream: 8 | first ms: 8 | first seq: 8 | version: 8
//! ```
//!
//! `stream` and `group` are incarnations: numbers that are given once. Bodies come last, so that one scan up to them
//! reads all that a restart needs. Values carry no checksum: the store adds one to each row, and splits long values.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::block::BlockKey;
use crate::entry_id::EntryId;
use crate::names::{GroupName, StreamName};

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

    pub(crate) fn body(key: &BlockKey) -> RowKey {
        let BlockKey { stream, first, version } = key;
        numbers(BODY_PREFIX, &[*stream, first.ms, first.seq, *version])
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
            BODY_PREFIX => Row::Body(BlockKey { stream: take(rest)?, first: take_id(rest)?, version: take(rest)? }),
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

/// Rows to write and, as `None`, to delete. The last word on a key counts.
#[derive(Debug, Default)]
pub(crate) struct RowMap(BTreeMap<RowKey, Option<Bytes>>);

impl RowMap {
    pub(crate) fn put(&mut self, key: RowKey, value: Bytes) {
        self.0.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: RowKey) {
        self.0.insert(key, None);
    }

    pub(crate) fn extend(&mut self, later: RowMap) {
        self.0.extend(later.0);
    }

    /// In key order.
    pub(crate) fn into_rows(self) -> Vec<(RowKey, Option<Bytes>)> {
        self.0.into_iter().collect()
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
    Body(BlockKey),
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

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(std::mem::take(rest)).ok()
}
