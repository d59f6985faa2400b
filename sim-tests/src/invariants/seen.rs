//! What an invariant sees of a cluster after a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::events::{Event, Told};
use super::log::{Change, DurableLog, Entry, LeaderId, Voters};

/// A cluster after a step.
pub struct Seen<'s> {
    /// The nodes.
    pub nodes: &'s [NodeSeen<'s>],
    /// What the nodes said during the step.
    pub events: &'s [Event],
    /// What was known to be committed before the step and is now.
    pub committed: &'s Committed,
    /// Who votes.
    pub members: &'s Members,
}

/// A node after a step.
pub struct NodeSeen<'s> {
    /// Its id.
    pub id: u64,
    /// What is durable of its log.
    pub log: &'s DurableLog,
    /// What has changed there.
    pub changes: &'s [Change],
    /// The last entry that its durable state covers; `None` if that is not known.
    pub checkpoint: Option<u64>,
    /// Whether that has changed.
    pub checkpoint_changed: bool,
    /// Whether its disk is damaged: then it has lost what it cannot be blamed for.
    pub damaged: bool,
    /// Which life of its process this is.
    pub life: u64,
    /// How often its disk was replaced by an empty one.
    pub replacements: u64,
}

impl Seen<'_> {
    /// The node with this id, unless its disk is damaged.
    pub fn node(&self, id: u64) -> Option<&NodeSeen<'_>> {
        self.nodes.iter().find(|node| node.id == id && !node.damaged)
    }

    /// The nodes whose disks are as they left them.
    pub fn sound(&self) -> impl Iterator<Item = &NodeSeen<'_>> {
        self.nodes.iter().filter(|node| !node.damaged)
    }

    /// Whether these voters have a quorum among the nodes of which `holds` is true. A node with a damaged disk counts as if
    /// it were. While the members change, a majority of the new ones is enough: the entry that ends the change may be in
    /// the leader's memory only.
    pub fn has_quorum(&self, voters: &Voters, holds: impl Fn(&NodeSeen<'_>) -> bool) -> bool {
        let majority = |set: &std::collections::BTreeSet<u64>| {
            let voting = self.nodes.iter().filter(|node| set.contains(&node.id));
            let count = voting.filter(|node| node.damaged || holds(node)).count();
            set.len() < 2 * count
        };
        voters.iter().all(majority) || (1 < voters.len() && voters.last().is_some_and(majority))
    }
}

impl NodeSeen<'_> {
    /// Whether this entry is durable here, by itself or in the state.
    pub fn holds(&self, index: u64, leader: LeaderId) -> bool {
        self.covers(index) || self.log.entry(index).is_some_and(|entry| entry.leader == leader)
    }

    /// Whether the state stands for this entry.
    pub fn covers(&self, index: u64) -> bool {
        self.log.has_purged(index) || self.checkpoint.is_some_and(|checkpoint| index <= checkpoint)
    }

    /// The entries of the log that are new.
    pub fn new_entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let all = self.was_reread().then(|| self.log.entries());
        let new = self.changes.iter().filter_map(|change| match change {
            Change::Appended(index) => Some((*index, self.log.entry(*index)?)),
            _ => None,
        });
        all.into_iter().flatten().chain(new)
    }

    /// Whether its log was read anew, so that anything may have changed.
    pub fn was_reread(&self) -> bool {
        self.changes.contains(&Change::Reread)
    }
}

/// Who votes, by all that was ever durable anywhere.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<(u64, LeaderId), Arc<Voters>>);

impl Members {
    /// Takes in what is new.
    pub fn learn(&mut self, nodes: &[NodeSeen<'_>]) {
        for (index, entry) in nodes.iter().flat_map(NodeSeen::new_entries) {
            if let Some(voters) = &entry.voters {
                self.0.insert((index, entry.leader), Arc::clone(voters));
            }
        }
    }

    /// Who votes by a node's durable log, as far as `last`. `None` if that is not known.
    pub fn by_log<'m>(&'m self, log: &'m DurableLog, last: u64) -> Option<&'m Arc<Voters>> {
        let purged = log.purged.map(|purged| (purged.index, purged.leader));
        let before = || self.0.range(..=purged?).next_back().map(|(_, voters)| voters);
        log.members_at(last).or_else(before)
    }
}

/// What is known to be committed.
#[derive(Debug, Default)]
pub struct Committed {
    entries: BTreeMap<u64, Entry>,
    /// The last entry of which a node said so.
    pub last: Option<u64>,
    /// The last one before the present step.
    pub last_before: Option<u64>,
}

impl Committed {
    /// Takes in what the nodes said.
    pub fn learn(&mut self, nodes: &[NodeSeen<'_>], events: &[Event]) {
        self.last_before = self.last;
        for Event { told, .. } in events {
            let (Told::Committed { index, term } | Told::Applied { index, term, .. }) = *told else { continue };
            if Some(index) <= self.last {
                continue;
            }
            // Two leaders of one term may have proposed for this place; the one with more holders is meant.
            let mut holders: BTreeMap<LeaderId, Vec<&NodeSeen<'_>>> = BTreeMap::new();
            for node in nodes {
                if let Some(entry) = node.log.entry(index).filter(|entry| entry.leader.term == term) {
                    holders.entry(entry.leader).or_default().push(node);
                }
            }
            // By log matching, all of these have the same before it.
            if let Some(holder) = holders.values().max_by_key(|nodes| nodes.len()).and_then(|nodes| nodes.first()) {
                for missing in self.last.map_or(0, |last| last + 1).max(holder.log.first())..=index {
                    if let Some(entry) = holder.log.entry(missing) {
                        self.entries.insert(missing, entry.clone());
                    }
                }
            }
            self.last = Some(index);
        }
    }

    /// The committed entry at `index`, if it was durable anywhere when it became known.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }

    /// The last committed entry that a leader before this one proposed.
    pub fn last_of_leaders_before(&self, leader: LeaderId) -> Option<(u64, &Entry)> {
        self.entries.iter().rev().find(|(_, entry)| entry.leader < leader).map(|(index, entry)| (*index, entry))
    }

    /// The committed entries from `start` on.
    pub fn from(&self, start: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(start..).map(|(index, entry)| (*index, entry))
    }
}
