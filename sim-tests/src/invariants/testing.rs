//! Clusters by hand, for the tests of the invariants: nodes with logs that hold what a test puts there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Invariant;
use super::events::{Event, Told};
use super::log::{Change, DurableLog, Entry, Frame, LeaderId, LogId, Vote, Voters};
use super::seen::{Committed, Members, NodeSeen, Seen};
use crate::trace::fingerprint;

struct Node {
    id: u64,
    log: DurableLog,
    changes: Vec<Change>,
    checkpoint: Option<u64>,
    checkpoint_changed: bool,
    damaged: bool,
    life: u64,
    replacements: u64,
}

/// A cluster and the invariant it is held against.
pub(super) struct Cluster<I> {
    invariant: I,
    nodes: Vec<Node>,
    events: Vec<Event>,
    committed: Committed,
    members: Members,
}

fn entry(leader: LeaderId, proposal: &str, voters: Option<Voters>) -> Entry {
    let fingerprint = fingerprint(proposal.as_bytes());
    Entry { leader, fingerprint, proposal: fingerprint, voters: voters.map(Arc::new) }
}

impl<I: Invariant + Default> Cluster<I> {
    /// A cluster of these voters. Entry 0 says so on all of them.
    pub(super) fn new(voters: &[u64]) -> Self {
        let mut cluster = Self {
            invariant: I::default(),
            nodes: Vec::new(),
            events: Vec::new(),
            committed: Committed::default(),
            members: Members::default(),
        };
        for id in voters {
            cluster.add_node(*id);
            cluster.change_members_at(*id, 0, 0, 0, &[voters]);
        }
        cluster.committed(voters[0], 0, 0);
        cluster.step().expect("a new cluster is in order");
        cluster
    }

    pub(super) fn add_node(&mut self, id: u64) {
        self.nodes.push(Node {
            id,
            log: DurableLog::default(),
            changes: Vec::new(),
            checkpoint: None,
            checkpoint_changed: false,
            damaged: false,
            life: 0,
            replacements: 0,
        });
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node of the cluster")
    }

    fn take(&mut self, id: u64, frame: Frame) {
        let node = self.node(id);
        let change = node.log.take(frame).expect("the frame fits");
        node.changes.extend(change);
    }

    /// The next entry of a node's log becomes durable.
    pub(super) fn append(&mut self, node: u64, term: u64, leader: u64, proposal: &str) {
        let index = self.node(node).log.next();
        let entry = entry(LeaderId { term, node: leader }, proposal, None);
        self.take(node, Frame::Append { index, entry });
    }

    /// An entry that changes who votes becomes durable.
    pub(super) fn change_members_at(&mut self, node: u64, index: u64, term: u64, leader: u64, voters: &[&[u64]]) {
        let voters = voters.iter().map(|set| set.iter().copied().collect::<BTreeSet<_>>()).collect();
        let entry = entry(LeaderId { term, node: leader }, "", Some(voters));
        self.take(node, Frame::Append { index, entry });
    }

    pub(super) fn vote(&mut self, node: u64, term: u64, leader: u64, committed: bool) {
        self.take(node, Frame::Vote(Vote { leader: LeaderId { term, node: leader }, committed }));
    }

    /// Entries after `last` are gone.
    pub(super) fn truncate(&mut self, node: u64, last: u64) {
        self.take(node, Frame::Truncate(Some(last)));
    }

    pub(super) fn purge(&mut self, node: u64, term: u64, index: u64) {
        self.take(node, Frame::Purge(LogId { leader: LeaderId { term, node: 1 }, index }));
    }

    pub(super) fn checkpoint(&mut self, node: u64, index: u64) {
        let node = self.node(node);
        (node.checkpoint, node.checkpoint_changed) = (Some(index), true);
    }

    /// Nothing is left of the log.
    pub(super) fn lose_log(&mut self, node: u64) {
        self.node(node).log = DurableLog::default();
        self.reread(node);
    }

    pub(super) fn reread(&mut self, node: u64) {
        self.node(node).changes = vec![Change::Reread];
    }

    pub(super) fn replace(&mut self, node: u64) {
        self.node(node).replacements += 1;
    }

    pub(super) fn restart(&mut self, node: u64) {
        self.node(node).life += 1;
    }

    pub(super) fn damage(&mut self, node: u64) {
        self.node(node).damaged = true;
    }

    pub(super) fn committed(&mut self, node: u64, index: u64, term: u64) {
        self.events.push(Event { node, told: Told::Committed { index, term } });
    }

    pub(super) fn applied(&mut self, node: u64, index: u64, term: u64, proposal: &str) {
        let proposal = fingerprint(proposal.as_bytes());
        self.events.push(Event { node, told: Told::Applied { index, term, proposal } });
    }

    pub(super) fn restored(&mut self, node: u64, index: u64) {
        self.events.push(Event { node, told: Told::Restored { index } });
    }

    fn step(&mut self) -> Result<(), String> {
        let nodes = self.nodes.iter().map(|node| NodeSeen {
            id: node.id,
            log: &node.log,
            changes: &node.changes,
            checkpoint: node.checkpoint,
            checkpoint_changed: node.checkpoint_changed,
            damaged: node.damaged,
            life: node.life,
            replacements: node.replacements,
        });
        let nodes = nodes.collect::<Vec<_>>();
        self.members.learn(&nodes);
        self.committed.learn(&nodes, &self.events);
        let seen = Seen { nodes: &nodes, events: &self.events, committed: &self.committed, members: &self.members };
        let result = self.invariant.check(&seen);
        for node in &mut self.nodes {
            node.changes.clear();
            node.checkpoint_changed = false;
        }
        self.events.clear();
        result
    }

    /// Makes a step, after which the invariant must hold.
    pub(super) fn holds(&mut self) {
        self.step().expect("the invariant holds");
    }

    /// Makes a step, after which the invariant must not hold, with these words.
    pub(super) fn is_violated(&mut self, words: &str) {
        let problem = self.step().expect_err("the invariant is violated");
        assert!(problem.contains(words), "{problem}");
    }
}
