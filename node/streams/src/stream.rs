//! A stream: its entries, its groups, its producers and its settings.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::block::{BlockError, Blocks};
use crate::config::{Retention, StreamConfig};
use crate::entries::Entries;
use crate::freeze::Piece;
use crate::group::Group;
use crate::lag::Counters;
use crate::names::{GroupName, StreamName};
use crate::producers::{ProducerCounters, Producers};

/// What a group counts for when it becomes dirty, in bytes, beside what commands say.
const GROUP_DIRTY_BYTES: u64 = 192;

/// A stream. It exists until it is deleted, even without entries.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The number of its creation: keys of its rows.
    incarnation: u64,
    name: StreamName,
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
    /// The number of the freeze that will take what has changed in it; `None`: nothing has.
    pub(crate) dirty_for: Option<u64>,
    /// A freeze has handed out rows of it.
    stored: bool,
    /// What became dirty in it and is not yet counted in that of all streams.
    pub(crate) dirty_bytes: u64,
    /// How to undo what was done since [`Stream::begin`].
    journal: Option<Box<Journal>>,
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
    pub(crate) fn new(incarnation: u64, name: StreamName) -> Stream {
        let entries = Entries::new(incarnation);
        Stream {
            incarnation,
            name,
            entries,
            groups: BTreeMap::new(),
            producers: Producers::default(),
            settings: Settings { config: StreamConfig::default(), last_change_index: 0 },
            dirty_head: true,
            dirty_groups: BTreeSet::new(),
            gone_groups: Vec::new(),
            dirty_for: None,
            stored: false,
            dirty_bytes: 0,
            journal: None,
        }
    }

    /// A stream that was read from rows; its groups follow.
    pub(crate) fn restored(name: StreamName, head: &StreamHead, entries: Entries, producers: Producers) -> Stream {
        let &StreamHead { incarnation, config, last_change_index, .. } = head;
        Stream {
            entries,
            producers,
            settings: Settings { config, last_change_index },
            dirty_head: false,
            stored: true,
            ..Stream::new(incarnation, name)
        }
    }

    /// The number of its creation.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Its name.
    pub(crate) fn name(&self) -> &StreamName {
        &self.name
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
        self.dirty_bytes += group.take_dirty_bytes();
        if !self.dirty_groups.contains(name) {
            self.dirty_groups.insert(name.clone());
            self.dirty_bytes += GROUP_DIRTY_BYTES;
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
    pub(crate) fn begin(&mut self) -> bool {
        if self.journal.is_some() {
            return false;
        }
        self.journal = Some(Box::new(Journal { settings: self.settings, undo: Vec::new() }));
        self.entries.begin();
        self.producers.begin();
        true
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
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
    pub(crate) fn rollback(&mut self) {
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
    fn head(&self) -> StreamHead {
        StreamHead {
            incarnation: self.incarnation,
            counters: *self.entries.counters(),
            config: self.settings.config,
            last_change_index: self.settings.last_change_index,
            producers: self.producers.counters(),
        }
    }

    /// Takes what changed since the last freeze.
    pub(crate) fn freeze(&mut self, frozen: &mut Piece) {
        self.stored = true;
        self.dirty_for = None;
        self.dirty_bytes = 0;
        if !self.gone_groups.is_empty() {
            frozen.gone_groups.push((self.incarnation, std::mem::take(&mut self.gone_groups)));
        }
        let dirty_counters = self.entries.take_dirty_head();
        if std::mem::take(&mut self.dirty_head) || dirty_counters {
            frozen.heads.push((self.name.clone(), self.head()));
        }
        self.entries.freeze(frozen);
        self.producers.freeze(self.incarnation, frozen);
        for group_name in std::mem::take(&mut self.dirty_groups) {
            if let Some(group) = self.groups.get_mut(&group_name) {
                group.freeze(self.incarnation, &group_name, frozen);
            }
        }
    }

    /// All of it.
    pub(crate) fn all_rows(&self, blocks: &dyn Blocks, frozen: &mut Piece) -> Result<(), BlockError> {
        frozen.heads.push((self.name.clone(), self.head()));
        self.entries.all_rows(blocks, frozen)?;
        self.producers.all_rows(self.incarnation, frozen);
        for (group_name, group) in &self.groups {
            group.all_rows(self.incarnation, group_name, frozen);
        }
        Ok(())
    }

    /// Whether a freeze has handed out rows of it.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }

    /// Groups that were deleted since the last freeze.
    pub(crate) fn gone_groups(&self) -> &[(GroupName, Group)] {
        &self.gone_groups
    }
}
