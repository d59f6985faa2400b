//! A stream: its entries, its groups, its producers and its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::block::{Block, BlockError, BlockKey, Blocks};
use crate::codec;
use crate::config::{Retention, StreamConfig};
use crate::entries::Entries;
use crate::error::Refusal;
use crate::group::Group;
use crate::lag::Counters;
use crate::names::{GroupName, StreamName};
use crate::producers::{ProducerCounters, Producers};
use crate::rows::{RowKey, RowMap};

/// A stream. It exists until it is deleted, even without entries.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The number of its creation: keys of its rows.
    incarnation: u64,
    /// Its entries.
    pub(crate) entries: Entries,
    /// Its groups, by name.
    pub(crate) groups: BTreeMap<GroupName, Group>,
    /// Who appends under idempotency keys.
    pub(crate) producers: Producers,
    settings: Settings,
    dirty_head: bool,
    /// Groups that may have changed since the last freeze.
    dirty_groups: BTreeSet<GroupName>,
    /// Groups that were deleted since the last freeze.
    gone_groups: Vec<(GroupName, Group)>,
    /// Stands in [`Streams::dirty`].
    queued: bool,
    /// How to undo what was done since [`Stream::begin`].
    journal: Option<Journal>,
}

/// What a stream has but once.
#[derive(Debug, Clone, Copy)]
struct Settings {
    config: StreamConfig,
    /// The log index of the last command that changed the stream or one of its groups.
    last_change_index: u64,
}

#[derive(Debug)]
struct Journal {
    settings: Settings,
    /// In the order in which it was done.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// This group was created.
    Created(GroupName),
    /// The last of the groups that are gone was deleted.
    Deleted,
    /// This group was opened for changes.
    Opened(GroupName),
}

/// The head row of a stream.
#[derive(Debug, Encode, Decode)]
pub(crate) struct StreamHead {
    #[n(0)]
    pub(crate) incarnation: u64,
    #[n(1)]
    pub(crate) counters: Counters,
    #[n(2)]
    pub(crate) config: StreamConfig,
    #[n(3)]
    pub(crate) last_change_index: u64,
    #[n(4)]
    pub(crate) producers: ProducerCounters,
}

impl Stream {
    pub(crate) fn new(incarnation: u64) -> Stream {
        Stream::from_parts(incarnation, Entries::new(incarnation), Producers::default(), StreamConfig::default(), 0)
    }

    /// A stream that was read from rows; its groups follow.
    pub(crate) fn from_parts(
        incarnation: u64,
        entries: Entries,
        producers: Producers,
        config: StreamConfig,
        last_change_index: u64,
    ) -> Stream {
        Stream {
            incarnation,
            entries,
            groups: BTreeMap::new(),
            producers,
            settings: Settings { config, last_change_index },
            dirty_head: true,
            dirty_groups: BTreeSet::new(),
            gone_groups: Vec::new(),
            queued: false,
            journal: None,
        }
    }

    /// Its settings.
    pub(crate) fn config(&self) -> &StreamConfig {
        &self.settings.config
    }

    /// Changes its settings.
    pub(crate) fn set_config(&mut self, config: StreamConfig) {
        self.settings.config = config;
        self.dirty_head = true;
    }

    /// The log index of the last command that changed the stream or one of its groups.
    pub(crate) fn last_change_index(&self) -> u64 {
        self.settings.last_change_index
    }

    /// Notes that the command at `index` changed the stream or one of its groups. To be called by every command that did.
    pub(crate) fn touch(&mut self, index: u64) {
        self.settings.last_change_index = index;
        self.dirty_head = true;
    }

    /// Whether there is anything that time may remove.
    pub(crate) fn is_retained(&self) -> bool {
        let Retention { max_length, min_id, max_age_ms, max_bytes, references: _ } = self.settings.config.retention;
        max_length.is_some()
            || min_id.is_some()
            || max_age_ms.is_some()
            || max_bytes.is_some()
            || self.producers.keys() > 0
    }

    /// Entries and a group, to change the group.
    pub(crate) fn with_group(&mut self, name: &GroupName) -> Option<(&Entries, &mut Group)> {
        let group = self.groups.get_mut(name)?;
        if let Some(journal) = &mut self.journal
            && group.begin()
        {
            journal.undo.push(Undo::Opened(name.clone()));
        }
        if !self.dirty_groups.contains(name) {
            self.dirty_groups.insert(name.clone());
        }
        Some((&self.entries, group))
    }

    /// Adds a group that is not there.
    pub(crate) fn add_group(&mut self, name: GroupName, group: Group) {
        if let Some(journal) = &mut self.journal {
            journal.undo.push(Undo::Created(name.clone()));
        }
        self.dirty_groups.insert(name.clone());
        self.groups.insert(name, group);
    }

    /// Deletes a group; false if there is none.
    pub(crate) fn delete_group(&mut self, name: &GroupName) -> bool {
        let Some(group) = self.groups.remove(name) else { return false };
        if let Some(journal) = &mut self.journal {
            journal.undo.push(Undo::Deleted);
        }
        self.gone_groups.push((name.clone(), group));
        true
    }
}

/// Taking back what was done.
impl Stream {
    /// From now on, remembers how to undo what is done. False if it does already.
    fn begin(&mut self) -> bool {
        if self.journal.is_some() {
            return false;
        }
        self.journal = Some(Journal { settings: self.settings, undo: Vec::new() });
        self.entries.begin();
        self.producers.begin();
        true
    }

    /// What was done stands.
    fn commit(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        self.entries.commit();
        self.producers.commit();
        for undo in journal.undo {
            if let Undo::Opened(name) = undo
                && let Some(group) = self.groups.get_mut(&name)
            {
                group.commit();
            }
        }
    }

    /// Undoes what was done since [`Stream::begin`].
    fn rollback(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        self.entries.rollback();
        self.producers.rollback();
        self.settings = journal.settings;
        for undo in journal.undo.into_iter().rev() {
            match undo {
                Undo::Created(name) => {
                    self.groups.remove(&name);
                }
                Undo::Deleted => {
                    if let Some((name, group)) = self.gone_groups.pop() {
                        self.groups.insert(name, group);
                    }
                }
                Undo::Opened(name) => {
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.rollback();
                    }
                }
            }
        }
    }
}

/// Rows: a head, and those of its parts.
impl Stream {
    fn head(&self) -> Bytes {
        codec::encode(&StreamHead {
            incarnation: self.incarnation,
            counters: *self.entries.counters(),
            config: self.settings.config,
            last_change_index: self.settings.last_change_index,
            producers: self.producers.counters(),
        })
        .into()
    }

    /// Takes the rows that changed since the last freeze.
    pub(crate) fn freeze(&mut self, name: &StreamName, rows: &mut RowMap, frozen: &mut Vec<(BlockKey, Arc<Block>)>) {
        // Deletions first: what was made anew under the same key since is written over them.
        for (group_name, mut group) in std::mem::take(&mut self.gone_groups) {
            group.delete_rows(self.incarnation, &group_name, rows);
        }
        let dirty_counters = self.entries.take_dirty_head();
        if std::mem::take(&mut self.dirty_head) || dirty_counters {
            rows.put(RowKey::stream(name), self.head());
        }
        self.entries.freeze(rows, frozen);
        self.producers.freeze(self.incarnation, rows);
        for group_name in std::mem::take(&mut self.dirty_groups) {
            if let Some(group) = self.groups.get_mut(&group_name) {
                group.freeze(self.incarnation, &group_name, rows);
            }
        }
    }

    /// All rows, bodies included.
    pub(crate) fn all_rows(&self, name: &StreamName, blocks: &dyn Blocks, rows: &mut RowMap) -> Result<(), BlockError> {
        rows.put(RowKey::stream(name), self.head());
        self.entries.all_rows(blocks, rows)?;
        self.producers.all_rows(self.incarnation, rows);
        for (group_name, group) in &self.groups {
            group.all_rows(self.incarnation, group_name, rows);
        }
        Ok(())
    }

    /// Every row that may have been written, as deletions: the stream is gone.
    pub(crate) fn delete_rows(&mut self, name: &StreamName, rows: &mut RowMap) {
        rows.delete(RowKey::stream(name));
        self.entries.delete_rows(rows);
        self.producers.delete_rows(self.incarnation, rows);
        self.gone_groups.extend(std::mem::take(&mut self.groups));
        for (group_name, mut group) in std::mem::take(&mut self.gone_groups) {
            group.delete_rows(self.incarnation, &group_name, rows);
        }
    }

    /// What was read from rows is no change.
    pub(crate) fn restored(mut self) -> Stream {
        self.dirty_head = false;
        self
    }
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_name: BTreeMap<StreamName, Stream>,
    /// Names by incarnation.
    names: BTreeMap<u64, StreamName>,
    /// How many incarnations were given: the next is one more.
    incarnations: u64,
    /// Incarnations of streams that may have changed since the last freeze.
    dirty: BTreeSet<u64>,
    /// Streams from which time may remove something.
    retained: BTreeSet<StreamName>,
    /// Streams that were deleted since the last freeze, as they were deleted.
    gone: Vec<BTreeMap<StreamName, Stream>>,
    /// How to undo what was done since [`Streams::begin`].
    journal: Option<StreamsJournal>,
}

#[derive(Debug)]
struct StreamsJournal {
    incarnations: u64,
    /// In the order in which it was done.
    undo: Vec<StreamsUndo>,
}

#[derive(Debug)]
enum StreamsUndo {
    /// This stream was created.
    Created(StreamName),
    /// The last of those that are gone were deleted.
    Deleted,
    /// This stream was opened for changes.
    Opened(StreamName),
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
        if let Some(journal) = &mut self.journal
            && stream.begin()
        {
            journal.undo.push(StreamsUndo::Opened(name.clone()));
        }
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

    /// The group and the entries of its stream, to change the group; refused with `GroupNotFound` if either is missing.
    pub(crate) fn find_group_mut(
        &mut self,
        stream: &StreamName,
        group: &GroupName,
    ) -> Result<(&Entries, &mut Group), Refusal> {
        self.get_mut(stream).and_then(|found| found.with_group(group)).ok_or_else(|| group_not_found(stream, group))
    }

    /// Notes that the command at `index` changed the stream or one of its groups.
    pub(crate) fn touch(&mut self, name: &StreamName, index: u64) {
        if let Some(stream) = self.by_name.get_mut(name) {
            stream.touch(index);
        }
    }

    /// A number for a stream or a group, never given before.
    pub(crate) fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The stream, created if it is missing.
    pub(crate) fn get_or_create(&mut self, name: &StreamName) -> &mut Stream {
        let stream = self.by_name.entry(name.clone()).or_insert_with(|| {
            self.incarnations += 1;
            self.names.insert(self.incarnations, name.clone());
            if let Some(journal) = &mut self.journal {
                journal.undo.push(StreamsUndo::Created(name.clone()));
            }
            Stream::new(self.incarnations)
        });
        if let Some(journal) = &mut self.journal
            && stream.begin()
        {
            journal.undo.push(StreamsUndo::Opened(name.clone()));
        }
        if !stream.queued {
            stream.queued = true;
            self.dirty.insert(stream.incarnation);
        }
        stream
    }

    /// Deletes the stream and its groups; false if there is none.
    pub(crate) fn delete(&mut self, name: &StreamName) -> bool {
        let Some((name, stream)) = self.by_name.remove_entry(name) else { return false };
        self.names.remove(&stream.incarnation);
        self.retained.remove(&name);
        self.bury(BTreeMap::from([(name, stream)]));
        true
    }

    /// Deletes all streams; says how many there were.
    pub(crate) fn delete_all(&mut self) -> u64 {
        let all = std::mem::take(&mut self.by_name);
        let streams = all.len() as u64;
        self.names.clear();
        self.retained.clear();
        if streams > 0 {
            self.bury(all);
        }
        streams
    }

    fn bury(&mut self, streams: BTreeMap<StreamName, Stream>) {
        if let Some(journal) = &mut self.journal {
            journal.undo.push(StreamsUndo::Deleted);
        }
        self.gone.push(streams);
    }

    /// The streams by name, from the first whose name is not less than `from`.
    pub(crate) fn iter_from<'a>(&'a self, from: &str) -> impl Iterator<Item = (&'a StreamName, &'a Stream)> {
        self.by_name.range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded))
    }

    /// The streams from which time may remove something, by name, those after `after`.
    pub(crate) fn retained_after(&self, after: Option<&StreamName>) -> impl Iterator<Item = (&StreamName, &Stream)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let names = self.retained.range::<StreamName, _>((from, std::ops::Bound::Unbounded));
        names.filter_map(|name| Some((name, self.by_name.get(name)?)))
    }

    /// Notes whether time may remove something from the stream. To be called by every command that may change that:
    /// those that change its settings or its producers.
    pub(crate) fn refresh_retained(&mut self, name: &StreamName) {
        match self.by_name.get(name) {
            Some(stream) if stream.is_retained() => self.retained.insert(name.clone()),
            _ => self.retained.remove(name),
        };
    }
}

/// Taking back what was done: for batches that are done as a whole or not at all.
impl Streams {
    /// From now on, remembers how to undo what is done.
    pub(crate) fn begin(&mut self) {
        self.journal = Some(StreamsJournal { incarnations: self.incarnations, undo: Vec::new() });
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        for undo in self.journal.take().map(|journal| journal.undo).unwrap_or_default() {
            if let StreamsUndo::Opened(name) = undo
                && let Some(stream) = self.by_name.get_mut(&name)
            {
                stream.commit();
            }
        }
    }

    /// Undoes what was done since [`Streams::begin`].
    pub(crate) fn rollback(&mut self) {
        let Some(StreamsJournal { incarnations, undo }) = self.journal.take() else { return };
        self.incarnations = incarnations;
        for undo in undo.into_iter().rev() {
            match undo {
                StreamsUndo::Created(name) => {
                    if let Some(stream) = self.by_name.remove(&name) {
                        self.names.remove(&stream.incarnation);
                        self.dirty.remove(&stream.incarnation);
                    }
                    self.retained.remove(&name);
                }
                StreamsUndo::Deleted => {
                    for (name, stream) in self.gone.pop().unwrap_or_default() {
                        self.names.insert(stream.incarnation, name.clone());
                        self.by_name.insert(name.clone(), stream);
                        self.refresh_retained(&name);
                    }
                }
                StreamsUndo::Opened(name) => {
                    if let Some(stream) = self.by_name.get_mut(&name) {
                        stream.rollback();
                    }
                    self.refresh_retained(&name);
                }
            }
        }
    }
}

/// Rows.
impl Streams {
    /// How many incarnations were given. Part of the meta row.
    pub(crate) fn incarnations(&self) -> u64 {
        self.incarnations
    }

    /// Takes the rows that changed since the last freeze.
    pub(crate) fn freeze(&mut self, rows: &mut RowMap, frozen: &mut Vec<(BlockKey, Arc<Block>)>) {
        // Deletions first: what was made anew under the same key since is written over them.
        for (name, mut stream) in std::mem::take(&mut self.gone).into_iter().flatten() {
            self.dirty.remove(&stream.incarnation);
            stream.delete_rows(&name, rows);
        }
        for incarnation in std::mem::take(&mut self.dirty) {
            if let Some(name) = self.names.get(&incarnation)
                && let Some(stream) = self.by_name.get_mut(name)
            {
                stream.queued = false;
                stream.freeze(name, rows, frozen);
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
        self.by_name.iter().try_for_each(|(name, stream)| stream.all_rows(name, blocks, rows))
    }

    /// Begins with the meta row; streams follow.
    pub(crate) fn restore(incarnations: u64) -> Streams {
        Streams { incarnations, ..Streams::default() }
    }

    /// Adds a stream that was read from rows; false if there is one of that name or incarnation.
    pub(crate) fn restore_stream(&mut self, name: StreamName, stream: Stream) -> bool {
        let is_new = self.names.insert(stream.incarnation, name.clone()).is_none();
        if stream.is_retained() {
            self.retained.insert(name.clone());
        }
        is_new && stream.incarnation <= self.incarnations && self.by_name.insert(name, stream).is_none()
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
