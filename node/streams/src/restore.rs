//! Building the state from its rows, whatever their order. Rows that do not fit together are an error and never
//! guessed at: the node then sets the store aside.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec;
use crate::entries::{Entries, IndexRow};
use crate::entry_id::EntryId;
use crate::error::{DecodeError, RestoreError};
use crate::group::Group;
use crate::names::{GroupName, StreamName};
use crate::producers::Producers;
use crate::rows::{Row, RowKey};
use crate::state::{Meta, NodeRecord, State};
use crate::stream::{Stream, StreamHead};

/// The rows by kind: those that need others first wait here.
#[derive(Default)]
struct Parts {
    meta: Option<Meta>,
    nodes: Vec<NodeRecord>,
    heads: BTreeMap<StreamName, StreamHead>,
    blocks: BTreeMap<u64, BTreeMap<EntryId, IndexRow>>,
    producers: BTreeMap<u64, BTreeMap<u64, Bytes>>,
    groups: BTreeMap<(u64, GroupName), Group>,
    consumers: BTreeMap<(u64, u64), Bytes>,
    pages: BTreeMap<(u64, EntryId), Bytes>,
    sessions: BTreeMap<u64, Bytes>,
    replies: BTreeMap<(u64, u64), Bytes>,
    /// Incarnations of streams and groups that were deleted.
    dead: BTreeSet<u64>,
}

impl State {
    /// Builds the state from its rows. Bodies of blocks may be left out; they are skipped. No rows at all are the state
    /// before the first command.
    pub fn restore<E>(rows: impl IntoIterator<Item = Result<(RowKey, Bytes), E>>) -> Result<State, RestoreError<E>> {
        let mut parts = Parts::default();
        let mut is_empty = true;
        for row in rows {
            let (key, value) = row.map_err(RestoreError::Source)?;
            is_empty = false;
            parts.add(&key, value).map_err(|error| RestoreError::Row { key: format!("{key:?}"), error })?;
        }
        if is_empty {
            return Ok(State::new());
        }
        parts.assemble().map_err(|problem| RestoreError::Inconsistent { problem })
    }
}

impl Parts {
    fn add(&mut self, key: &RowKey, value: Bytes) -> Result<(), DecodeError> {
        let row = key.parse().ok_or_else(|| DecodeError::Malformed { problem: "key of no known kind".to_owned() })?;
        match row {
            Row::Meta => self.meta = Some(codec::decode(&value)?),
            Row::Node { node_id } => {
                let node: NodeRecord = codec::decode(&value)?;
                if node.node_id != node_id {
                    return Err(DecodeError::Malformed { problem: "node under the key of another".to_owned() });
                }
                self.nodes.push(node);
            }
            Row::Stream { name } => {
                self.heads.insert(name, codec::decode(&value)?);
            }
            Row::BlockIndex { stream, first } => {
                self.blocks.entry(stream).or_default().insert(first, codec::decode(&value)?);
            }
            Row::Producers { stream, page } => {
                self.producers.entry(stream).or_default().insert(page, value);
            }
            Row::Group { stream, name } => {
                self.groups.insert((stream, name), Group::restore(&value)?);
            }
            Row::Consumer { group, consumer } => {
                self.consumers.insert((group, consumer), value);
            }
            Row::Pending { group, from } => {
                self.pages.insert((group, from), value);
            }
            Row::Session { session } => {
                self.sessions.insert(session, value);
            }
            Row::Replies { session, page } => {
                self.replies.insert((session, page), value);
            }
            Row::Dead { incarnation } => {
                self.dead.insert(incarnation);
            }
            Row::DeadBodies { .. } | Row::Body { .. } => {}
        }
        Ok(())
    }

    /// Leaves out what deleted streams and groups have left behind.
    fn bury(&mut self) -> Result<(), String> {
        let dead = &self.dead;
        if let Some((name, _)) = self.heads.iter().find(|(_, head)| dead.contains(&head.incarnation)) {
            return Err(format!("stream {name:?} is there and deleted"));
        }
        self.blocks.retain(|stream, _| !dead.contains(stream));
        self.producers.retain(|stream, _| !dead.contains(stream));
        self.groups.retain(|(stream, _), _| !dead.contains(stream));
        self.consumers.retain(|(group, _), _| !dead.contains(group));
        self.pages.retain(|(group, _), _| !dead.contains(group));
        match self.groups.iter().find(|(_, group)| dead.contains(&group.incarnation())) {
            Some(((_, name), _)) => Err(format!("group {name:?} is there and deleted")),
            None => Ok(()),
        }
    }

    fn assemble(mut self) -> Result<State, String> {
        self.bury()?;
        let meta = self.meta.ok_or("no meta row")?;
        let mut state = State::from_meta(meta, self.nodes);
        for (name, head) in self.heads {
            let incarnation = head.incarnation;
            let wrong = |error| format!("stream {name:?}: {error}");
            let rows = self.blocks.remove(&incarnation).unwrap_or_default();
            let entries = Entries::restore(incarnation, head.counters, rows).map_err(wrong)?;
            let pages = self.producers.remove(&incarnation).unwrap_or_default();
            let producers = Producers::restore(head.producers, pages).map_err(wrong)?;
            if !state.streams.restore_stream(Stream::restored(name.clone(), &head, entries, producers)) {
                return Err(format!("two streams of incarnation {incarnation}, or one not yet given"));
            }
        }
        if let Some(stream) = self.blocks.keys().chain(self.producers.keys()).next() {
            return Err(format!("blocks or producers of no stream {stream}"));
        }

        // Consumers and pages know their group by its incarnation alone.
        let mut groups: BTreeMap<u64, (u64, GroupName, Group)> = BTreeMap::new();
        for ((stream, name), group) in self.groups {
            if let Some((_, other, _)) = groups.insert(group.incarnation(), (stream, name, group)) {
                return Err(format!("two groups of the incarnation of {other:?}"));
            }
        }
        for ((group, number), row) in self.consumers {
            let (_, name, group) = groups.get_mut(&group).ok_or_else(|| format!("consumer of no group {group}"))?;
            group.restore_consumer(number, &row).map_err(|error| format!("group {name:?}: {error}"))?;
        }
        for ((group, from), row) in self.pages {
            let (_, name, group) = groups.get_mut(&group).ok_or_else(|| format!("pending of no group {group}"))?;
            group.restore_page(from, &row).map_err(|error| format!("group {name:?}: {error}"))?;
        }
        for (stream, name, group) in groups.into_values() {
            let stream = state.streams.restoring(stream).ok_or_else(|| format!("group {name:?} of no stream"))?;
            stream.groups.insert(name, group);
        }

        for (session, row) in self.sessions {
            state.sessions.restore(session, &row).map_err(|error| format!("session {session}: {error}"))?;
        }
        for ((session, page), row) in self.replies {
            state.sessions.restore_page(session, page, &row).map_err(|error| format!("session {session}: {error}"))?;
        }
        Ok(state)
    }
}
