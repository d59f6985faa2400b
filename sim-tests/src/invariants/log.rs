//! What is durable of a node's log: a model with the least that the invariants need.
//!
//! Written from the drawing of the format (`docs/storage.md`, `millstream_node::storage`) and not from the code that reads
//! it, so that the two can be held against each other. Of the groups in a log, only the first is looked at: nodes have one.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// Who leads, or asks to. A later one in this order may take over from an earlier one, also within one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaderId {
    /// The term.
    pub term: u64,
    /// The node.
    pub node: u64,
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// Who proposed it.
    pub leader: LeaderId,
    /// Its index.
    pub index: u64,
}

/// A vote. The order is that in which a node may give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// Whom it is for.
    pub leader: LeaderId,
    /// Whether a quorum granted it.
    pub committed: bool,
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} of n{}", self.term, self.node)
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.leader, if self.committed { ", granted" } else { "" })
    }
}

/// Sets of voters. More than one while the members change: then a quorum needs a majority of each.
pub type Voters = Vec<BTreeSet<u64>>;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who proposed it.
    pub leader: LeaderId,
    /// Of the payload and its kind.
    pub fingerprint: u64,
    /// Of the proposal, as an onlooker sees it who is shown no bytes of other entries.
    pub proposal: u64,
    /// Who votes from this entry on, if it changes that.
    pub voters: Option<Arc<Voters>>,
}

/// A frame of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An entry.
    Append {
        /// Its index.
        index: u64,
        /// What it is.
        entry: Entry,
    },
    /// A vote.
    Vote(Vote),
    /// Entries after this one are gone; `None`: all.
    Truncate(Option<u64>),
    /// Entries up to this one are gone.
    Purge(LogId),
    /// Entries up to this one are known to be committed.
    Committed(Option<LogId>),
    /// At the start of a file: the next entry has this index.
    Next(u64),
}

/// What has changed in a durable log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The vote.
    Vote,
    /// The entry at this index is new.
    Appended(u64),
    /// Entries from this one on are gone.
    Truncated(u64),
    /// Entries up to some are gone.
    Purged,
    /// More is known to be committed.
    Committed,
    /// Everything may have: it was read anew.
    Reread,
}

/// What is durable of a node's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurableLog {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry that is gone because a checkpoint covers it.
    pub purged: Option<LogId>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    first: u64,
    entries: VecDeque<Entry>,
    /// Indexes of the entries that change who votes.
    members: VecDeque<u64>,
    /// Index that the next entry had when the oldest file began; `None` if that does not say so.
    begins: Option<u64>,
}

impl DurableLog {
    /// Index of the first entry, or of the next one if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Index of the next entry.
    pub fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entry at `index`, if it is there.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// The entries with their indexes.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> {
        self.entries.iter().enumerate().map(|(at, entry)| (self.first + at as u64, entry))
    }

    /// Who proposed the entry at `index`, if it is there or the last purged one.
    pub fn leader_of(&self, index: u64) -> Option<LeaderId> {
        let purged = self.purged.filter(|purged| purged.index == index).map(|purged| purged.leader);
        self.entry(index).map(|entry| entry.leader).or(purged)
    }

    /// Whether entries up to `index` are gone because a checkpoint covers them.
    pub fn has_purged(&self, index: u64) -> bool {
        self.purged.is_some_and(|purged| index <= purged.index)
    }

    /// The last entry at `last` or before that changes who votes.
    pub fn members_at(&self, last: u64) -> Option<&Arc<Voters>> {
        let index = self.members.iter().rev().find(|index| **index <= last)?;
        self.entry(*index)?.voters.as_ref()
    }

    /// Takes in the next frame. Fails if it does not fit to those before.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Change>, String> {
        match frame {
            Frame::Append { index, entry } => {
                let (first, next) = (self.first, self.next());
                if index != next && !(first == next && first <= index) {
                    return Err(format!("entry {index} does not follow a log of entries {first}..{next}"));
                }
                if self.entries.is_empty() {
                    self.first = index;
                }
                if entry.voters.is_some() {
                    self.members.push_back(index);
                }
                self.entries.push_back(entry);
                Ok(Some(Change::Appended(index)))
            }
            Frame::Vote(vote) => {
                let changed = self.vote != Some(vote);
                self.vote = Some(vote);
                Ok(changed.then_some(Change::Vote))
            }
            Frame::Truncate(last) => {
                let from = last.map_or(0, |last| last + 1);
                if self.next() <= from {
                    return Ok(None);
                }
                let from = from.max(self.purged.map_or(0, |purged| purged.index + 1)).min(self.next());
                self.entries.truncate(from.saturating_sub(self.first) as usize);
                // While a log is read anew, the entries before may be in a file that is gone, as they were purged later.
                self.first = self.first.min(from);
                while self.members.back().is_some_and(|index| from <= *index) {
                    self.members.pop_back();
                }
                Ok(Some(Change::Truncated(from)))
            }
            Frame::Purge(last) => {
                if self.has_purged(last.index) {
                    return Ok(None);
                }
                self.purged = Some(last);
                let first = last.index + 1;
                let gone = first.saturating_sub(self.first).min(self.entries.len() as u64);
                self.entries.drain(..gone as usize);
                self.first = if self.entries.is_empty() { first } else { self.first.max(first) };
                while self.members.front().is_some_and(|index| *index < first) {
                    self.members.pop_front();
                }
                Ok(Some(Change::Purged))
            }
            Frame::Committed(committed) => {
                let changed = committed.is_some() && self.committed != committed;
                self.committed = committed;
                Ok(changed.then_some(Change::Committed))
            }
            Frame::Next(next) => {
                // Of the oldest file only: whatever else comes first, no entry does.
                if self.entries.is_empty() && self.first == self.purged.map_or(0, |purged| purged.index + 1) {
                    self.begins.get_or_insert(next);
                }
                Ok(None)
            }
        }
    }

    /// Fails if the log begins after entries that were not purged: a file is missing. To be asked when all was read.
    pub fn check_beginning(&self) -> Result<(), String> {
        let kept_from = self.purged.map_or(0, |purged| purged.index + 1);
        match self.begins {
            Some(begins) if kept_from < begins => {
                Err(format!("entries {kept_from}..{begins} are neither in the log nor purged"))
            }
            _ => Ok(()),
        }
    }
}
