//! What Raft promises at every moment, held against the *durable* images of all nodes after each step of a simulation.
//!
//! The checks of [`checks`](crate::checks) look at what clients saw, at the end. These look at the disks, all the time: a
//! promise that is kept by luck, because no power cut came between the word and the deed, is broken here at once. A node that
//! acknowledges before its sync is found at its first commit; one that forgets a vote at the next election.
//!
//! - `log`: what is durable of a node's log, read by a small reader of its own, only what is new.
//! - `checkpoint`: the log index that a node's durable state covers.
//! - one file per invariant; each sees what `Seen` holds and remembers what it needs.
//!
//! What a damaged disk ([`Disk::is_damaged`]) has lost is not held against its node: a quorum counts it as if it held all.
//!
//! What is absent: anything that is in memory only, but for the entries that nodes apply ([`Events`]).

mod applied_grows;
pub mod checkpoint;
mod committed_is_durable;
mod committed_stays;
pub mod events;
mod frames;
mod indexes_in_order;
mod leader_completeness;
mod leaders_are_elected;
pub mod log;
mod log_matching;
pub mod reader;
pub mod seen;
mod terms_grow;
#[cfg(test)]
mod testing;
mod votes_grow;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use self::checkpoint::CheckpointReader;
pub use self::events::{Event, Events, Listener};
use self::log::{Change, DurableLog};
use self::reader::Reader;
use self::seen::{Committed, Members, NodeSeen, Seen};
use crate::disk::Disk;

/// Something that must hold after every step.
trait Invariant {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Looks at what is new. The error says what is wrong.
    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String>;
}

/// A node, as it is after a step.
pub struct NodeView<'v> {
    /// Its id.
    pub id: u64,
    /// Its disk.
    pub disk: &'v Disk,
    /// Its data directory.
    pub directory: &'v Path,
}

/// A cluster, as it is after a step.
pub struct TickView<'v> {
    /// Simulated time since the start.
    pub at: Duration,
    /// The nodes, in the same order at each step. New ones come last.
    pub nodes: &'v [NodeView<'v>],
    /// What the nodes said during the step ([`Events::take`]).
    pub events: &'v [Event],
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// Simulated time since the start.
    pub at: Duration,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, at, problem } = self;
        write!(f, "{invariant} does not hold at {:.3} s: {problem}", at.as_secs_f64())
    }
}

impl std::error::Error for Violation {}

/// The invariant that the parts of a log fit together. Held by [`Reader`].
const LOG_IS_WHOLE: &str = "log_is_whole";

/// What is read of a node's disk.
struct Readers {
    log: Reader,
    checkpoint: CheckpointReader,
    version: Option<u64>,
}

/// All invariants, and what they remember of a cluster.
pub struct Invariants {
    invariants: Vec<Box<dyn Invariant>>,
    readers: BTreeMap<u64, Readers>,
    committed: Committed,
    members: Members,
}

impl Default for Invariants {
    fn default() -> Self {
        Self::new()
    }
}

impl Invariants {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(votes_grow::VotesGrow::default()),
            Box::new(terms_grow::TermsGrow),
            Box::new(log_matching::LogMatching::default()),
            Box::new(leaders_are_elected::LeadersAreElected::default()),
            Box::new(leader_completeness::LeaderCompleteness::default()),
            Box::new(committed_is_durable::CommittedIsDurable),
            Box::new(committed_stays::CommittedStays::default()),
            Box::new(applied_grows::AppliedGrows::default()),
            Box::new(indexes_in_order::IndexesInOrder::default()),
        ];
        let (committed, members) = (Committed::default(), Members::default());
        Self { invariants, readers: BTreeMap::new(), committed, members }
    }

    /// What is durable of a node's log.
    pub fn log(&self, node: u64) -> Option<&DurableLog> {
        self.readers.get(&node).map(|readers| &readers.log.log)
    }

    /// Holds all invariants against the cluster as it is now. Looks only at what changed since the last call.
    pub fn check(&mut self, view: &TickView<'_>) -> Result<(), Violation> {
        let violation = |invariant, problem| Violation { invariant, at: view.at, problem };
        let mut news = Vec::with_capacity(view.nodes.len());
        let mut quiet = view.events.is_empty();
        for node in view.nodes {
            let readers = self.readers.entry(node.id).or_insert_with(|| Readers::new(node.directory));
            let (changes, checkpoint_changed) = readers
                .read(node.disk)
                .map_err(|problem| violation(LOG_IS_WHOLE, format!("n{}: {problem}", node.id)))?;
            quiet &= changes.is_empty() && !checkpoint_changed;
            news.push((changes, checkpoint_changed));
        }
        if quiet {
            return Ok(());
        }
        let nodes = view.nodes.iter().zip(&news).filter_map(|(node, (changes, checkpoint_changed))| {
            let readers = self.readers.get(&node.id)?;
            Some(NodeSeen {
                id: node.id,
                log: &readers.log.log,
                changes,
                checkpoint: readers.checkpoint.index,
                checkpoint_changed: *checkpoint_changed,
                damaged: node.disk.is_damaged(),
                life: node.disk.life(),
                replacements: node.disk.replacements(),
            })
        });
        let nodes: Vec<_> = nodes.collect();
        self.members.learn(&nodes);
        self.committed.learn(&nodes, view.events);
        let seen = Seen { nodes: &nodes, events: view.events, committed: &self.committed, members: &self.members };
        for invariant in &mut self.invariants {
            let name = invariant.name();
            invariant.check(&seen).map_err(|problem| violation(name, problem))?;
        }
        Ok(())
    }
}

impl Readers {
    fn new(directory: &Path) -> Self {
        let log = Reader::new(&directory.join("wal"));
        let checkpoint = CheckpointReader::new(&directory.join("state"));
        Self { log, checkpoint, version: None }
    }

    /// What is new in the log, and whether the checkpoint is.
    fn read(&mut self, disk: &Disk) -> Result<(Vec<Change>, bool), String> {
        let version = disk.durable_version();
        if self.version == Some(version) {
            return Ok((Vec::new(), false));
        }
        self.version = Some(version);
        let changes = match self.log.read(disk) {
            // A damaged log makes no sense, and that is not its node's fault.
            Err(_) if disk.is_damaged() => Vec::new(),
            read => read?,
        };
        Ok((changes, self.checkpoint.read(disk)))
    }
}
