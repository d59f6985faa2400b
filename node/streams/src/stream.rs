//! A stream: its entries and its groups; and all streams by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::block::{Block, BlockError, BlockKey, Blocks};
use crate::codec;
use crate::entries::Entries;
use crate::error::Refusal;
use crate::group::Group;
use crate::lag::Counters;
use crate::names::{GroupName, StreamName};
use crate::rows::{RowKey, RowMap};

/// A stream. It exists until it is deleted, even without entries.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The log index of its creation: keys of its rows.
    incarnation: u64,
    /// Its entries.
    pub(crate) entries: Entries,
    /// Its groups, by name.
    pub(crate) groups: BTreeMap<GroupName, Group>,
    /// Groups that may have changed since the last freeze.
    dirty_groups: BTreeSet<GroupName>,
    /// Stands in [`Streams::dirty`].
    queued: bool,
}

/// The head row of a stream.
#[derive(Debug, Encode, Decode)]
pub(crate) struct StreamHead {
    #[n(0)]
    pub(crate) incarnation: u64,
    #[n(1)]
    pub(crate) counters: Counters,
}

impl Stream {
    pub(crate) fn new(incarnation: u64, entries: Entries) -> Stream {
        Stream { incarnation, entries, groups: BTreeMap::new(), dirty_groups: BTreeSet::new(), queued: false }
    }

    /// Entries and a group, to change both.
    pub(crate) fn with_group(&mut self, name: &GroupName) -> Option<(&Entries, &mut Group)> {
        let group = self.groups.get_mut(name)?;
        if !self.dirty_groups.contains(name) {
            self.dirty_groups.insert(name.clone());
        }
        Some((&self.entries, group))
    }

    /// Adds a group that is not there.
    pub(crate) fn add_group(&mut self, name: GroupName, group: Group) {
        self.dirty_groups.insert(name.clone());
        self.groups.insert(name, group);
    }

    /// Takes a group out.
    pub(crate) fn remove_group(&mut self, name: &GroupName) -> Option<Group> {
        self.dirty_groups.remove(name);
        self.groups.remove(name)
    }

    fn head(&self) -> bytes::Bytes {
        codec::encode(&StreamHead { incarnation: self.incarnation, counters: *self.entries.counters() }).into()
    }
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_name: BTreeMap<StreamName, Stream>,
    /// Names by incarnation.
    names: BTreeMap<u64, StreamName>,
    /// Incarnations of streams that may have changed since the last freeze.
    dirty: BTreeSet<u64>,
    /// Rows of streams and groups that are gone since the last freeze.
    deleted: RowMap,
}

impl Streams {
    /// The stream, to look at.
    pub(crate) fn get(&self, name: &StreamName) -> Option<&Stream> {
        self.by_name.get(name)
    }

    /// The stream, to look at; refused if it is missing.
    pub(crate) fn find(&self, name: &StreamName) -> Result<&Stream, Refusal> {
        self.get(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    /// The stream, to change.
    pub(crate) fn get_mut(&mut self, name: &StreamName) -> Option<&mut Stream> {
        let stream = self.by_name.get_mut(name)?;
        if !stream.queued {
            stream.queued = true;
            self.dirty.insert(stream.incarnation);
        }
        Some(stream)
    }

    /// The stream, to change; refused if it is missing.
    pub(crate) fn find_mut(&mut self, name: &StreamName) -> Result<&mut Stream, Refusal> {
        self.get_mut(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    /// The group, to look at; refused with `GroupNotFound` if it or its stream is missing.
    pub(crate) fn find_group(&self, stream: &StreamName, group: &GroupName) -> Result<(&Stream, &Group), Refusal> {
        self.get(stream)
            .and_then(|found| Some((found, found.groups.get(group)?)))
            .ok_or_else(|| group_not_found(stream, group))
    }

    /// The group and the entries of its stream, to change; refused with `GroupNotFound` if either is missing.
    pub(crate) fn find_group_mut(
        &mut self,
        stream: &StreamName,
        group: &GroupName,
    ) -> Result<(&Entries, &mut Group), Refusal> {
        self.get_mut(stream).and_then(|found| found.with_group(group)).ok_or_else(|| group_not_found(stream, group))
    }

    /// The stream, created if it is missing. `index` is the log index of the command.
    pub(crate) fn get_or_create(&mut self, name: &StreamName, index: u64) -> &mut Stream {
        let stream = self.by_name.entry(name.clone()).or_insert_with(|| {
            self.names.insert(index, name.clone());
            Stream::new(index, Entries::new(index))
        });
        if !stream.queued {
            stream.queued = true;
            self.dirty.insert(stream.incarnation);
        }
        stream
    }

    /// Deletes the stream and its groups; false if there is none.
    pub(crate) fn delete(&mut self, name: &StreamName) -> bool {
        let Some(mut stream) = self.by_name.remove(name) else { return false };
        self.names.remove(&stream.incarnation);
        self.dirty.remove(&stream.incarnation);
        self.deleted.delete(RowKey::stream(name));
        stream.entries.delete_rows(&mut self.deleted);
        for (group_name, group) in &mut stream.groups {
            group.delete_rows(stream.incarnation, group_name, &mut self.deleted);
        }
        true
    }

    /// Deletes the group. False if there is none; refused if there is no stream.
    pub(crate) fn delete_group(&mut self, stream: &StreamName, name: &GroupName) -> Result<bool, Refusal> {
        let found = self.find_mut(stream)?;
        let incarnation = found.incarnation;
        let Some(mut group) = found.remove_group(name) else { return Ok(false) };
        group.delete_rows(incarnation, name, &mut self.deleted);
        Ok(true)
    }

    /// The streams by name, from the first whose name is not less than `from`.
    pub(crate) fn iter_from<'a>(&'a self, from: &str) -> impl Iterator<Item = (&'a StreamName, &'a Stream)> {
        self.by_name.range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded))
    }

    /// Takes the rows that changed since the last freeze.
    pub(crate) fn freeze(&mut self, rows: &mut RowMap, frozen: &mut Vec<(BlockKey, Arc<Block>)>) {
        // Deletions first: what was made anew under the same key since is written over them.
        rows.extend(std::mem::take(&mut self.deleted));
        for incarnation in std::mem::take(&mut self.dirty) {
            let Some(name) = self.names.get(&incarnation) else { continue };
            let Some(stream) = self.by_name.get_mut(name) else { continue };
            stream.queued = false;
            if stream.entries.take_dirty_head() {
                rows.put(RowKey::stream(name), stream.head());
            }
            stream.entries.freeze(rows, frozen);
            for group_name in std::mem::take(&mut stream.dirty_groups) {
                if let Some(group) = stream.groups.get_mut(&group_name) {
                    group.freeze(incarnation, &group_name, rows);
                }
            }
        }
    }

    /// The body is stored: lets it leave memory, if it is still the present one.
    pub(crate) fn thaw(&mut self, key: BlockKey) {
        // Not a change: the stream need not be written for it.
        if let Some(stream) = self.names.get(&key.stream).and_then(|name| self.by_name.get_mut(name)) {
            stream.entries.thaw(key);
        }
    }

    /// All rows, bodies included.
    pub(crate) fn all_rows(&self, blocks: &dyn Blocks, rows: &mut RowMap) -> Result<(), BlockError> {
        for (name, stream) in &self.by_name {
            rows.put(RowKey::stream(name), stream.head());
            stream.entries.all_rows(blocks, rows)?;
            for (group_name, group) in &stream.groups {
                group.all_rows(stream.incarnation, group_name, rows);
            }
        }
        Ok(())
    }

    /// Adds a stream that was read from rows; false if there is one of that name or incarnation.
    pub(crate) fn restore(&mut self, name: StreamName, stream: Stream) -> bool {
        let is_new = self.names.insert(stream.incarnation, name.clone()).is_none();
        is_new && self.by_name.insert(name, stream).is_none()
    }

    /// The stream of this incarnation, while reading rows.
    pub(crate) fn restoring(&mut self, incarnation: u64) -> Option<&mut Stream> {
        self.by_name.get_mut(self.names.get(&incarnation)?)
    }
}

/// The refusal for a missing group.
pub(crate) fn group_not_found(stream: &StreamName, group: &GroupName) -> Refusal {
    Refusal::GroupNotFound { stream: stream.clone(), group: group.clone() }
}
