//! What the driver can see of a cluster: what nodes say of themselves, and what is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_client::{NodeRole, NodeStatus};

use super::{Cluster, FRESH, Failure, Life, Node, failure, host};
use crate::checks::{Evidence, ReplicaEnd};
use crate::disk::Counters;
use crate::invariants::log::DurableLog;

/// After this, a cluster that nobody disturbs works again as if nothing had been.
const RECOVERY: Duration = Duration::from_secs(8);

impl Cluster {
    /// Demands that a backup, which is said to go up to `log_index`, lacks nothing up to `acknowledged`, and can be restored
    /// on a machine of its own.
    pub fn check_backup(&self, log_index: u64, backup: &[u8], acknowledged: u64) -> Result<(), Failure> {
        let wrong = |problem| failure("a backup holds what was acknowledged", problem);
        let restored = host::restore(backup, self.time.clone()).map_err(wrong)?;
        if log_index < acknowledged || restored != log_index {
            return Err(wrong(format!("it says {log_index}, restored {restored}, acknowledged {acknowledged}")));
        }
        Ok(())
    }

    /// The highest log index that a client was told of together with a success.
    pub fn acknowledged_index(&self) -> u64 {
        let calls = self.history().calls();
        let answered = calls.iter().filter(|call| !call.action.puts().is_empty());
        answered.filter_map(|call| call.answer.as_ref()?.index).max().unwrap_or_default()
    }

    /// What is durable of this node's log.
    pub fn durable_log(&self, node: &str) -> Option<&DurableLog> {
        self.invariants.log(self.node(node).id)
    }

    /// What the disks have been through.
    pub fn disks(&self) -> BTreeMap<String, Counters> {
        self.nodes.iter().map(|node| (node.name.clone(), node.disk.counters())).collect()
    }

    /// The node that calls itself leader, in the highest term if there are several.
    pub fn leader(&self) -> Option<String> {
        let statuses = self.nodes.iter().filter_map(|node| Some((node, self.status(node)?)));
        statuses
            .filter(|(_, status)| status.role() == NodeRole::Leader)
            .max_by_key(|(_, status)| status.term)
            .map(|(node, _)| node.name.clone())
    }

    /// What the nodes last said of themselves; `None` for one that has not answered lately.
    pub fn statuses(&self) -> Vec<(String, Option<NodeStatus>)> {
        self.nodes.iter().map(|node| (node.name.clone(), self.status(node))).collect()
    }

    pub(super) fn status(&self, node: &Node) -> Option<NodeStatus> {
        self.observer.status(&node.endpoint, self.elapsed().saturating_sub(FRESH))
    }

    /// The state of things, for people.
    pub fn describe(&self) -> String {
        let nodes = self.statuses().into_iter().map(|(name, status)| match status {
            Some(status) => format!(
                "{name}: {:?} term {} leader n{} log {} committed {} applied {} checkpoint {} digest {}",
                status.role(),
                status.term,
                status.leader_id,
                status.last_log_index,
                status.committed_index,
                status.applied_index,
                status.checkpoint_index,
                status.state_digest,
            ),
            None => format!("{name}: silent"),
        });
        let waits_for = self.workload.waits_for();
        format!("{}; {:?}; clients wait for {waits_for:?}", nodes.collect::<Vec<_>>().join(", "), self.tally())
    }

    /// Whether these nodes have applied all that is in the log.
    pub fn is_level(&self, nodes: &[String]) -> bool {
        let positions = nodes.iter().map(|name| {
            let status = self.status(self.node(name));
            status.map(|status| (status.last_log_index, status.applied_index))
        });
        let positions: BTreeSet<_> = positions.collect();
        matches!(positions.iter().collect::<Vec<_>>()[..], [Some((last, applied))] if last == applied)
    }

    /// Whether these nodes have answered lately, agree on the members and on one leader, and that leads. It may be another
    /// than these: a disk whose damage nobody has come across yet does not keep its node from leading.
    pub fn agree(&self, nodes: &[String]) -> bool {
        let statuses: Option<Vec<_>> = nodes.iter().map(|name| self.status(self.node(name))).collect();
        let Some(statuses) = statuses else { return false };
        let views: BTreeSet<_> = statuses
            .iter()
            .map(|status| {
                let members = status.members.iter().map(|member| (member.node_id, member.voter));
                (status.term, status.leader_id, members.collect::<BTreeSet<_>>())
            })
            .collect();
        let Some((term, leader_id, _)) = views.first().filter(|_| views.len() == 1) else { return false };
        let leader = self.nodes.iter().find(|node| node.id == *leader_id).and_then(|node| self.status(node));
        leader.is_some_and(|status| status.role() == NodeRole::Leader && status.term == *term)
    }

    /// Each of these nodes has answered reads by itself when everything was read, not only those that clients turn to.
    pub fn all_serve(&self, nodes: &[String]) -> Result<(), Failure> {
        let serving = self.evidence().end.serving;
        match nodes.iter().find(|node| !serving.contains(*node)) {
            Some(node) => Err(failure("each node serves reads", format!("{node} does not; {}", self.describe()))),
            None => Ok(()),
        }
    }

    /// What is left behind. Empty where the simulation did not get so far.
    pub fn evidence(&self) -> Evidence {
        // Of a node with a damaged disk nothing is demanded but what the witness holds.
        let whole = |node: &&Node| node.is_member && node.life == Life::Runs && node.excused_until != Duration::MAX;
        let running = self.nodes.iter().filter(whole);
        let replicas = running.filter_map(|node| {
            let NodeStatus { applied_index, state_digest, .. } = self.status(node)?;
            Some(ReplicaEnd { node: node.name.clone(), applied_index, state_digest })
        });
        // Nothing is broken before the first fault; after the last there must be time to recover.
        let ms = |time: Duration| time.as_millis() as u64;
        let first = self.faults_at.first().map_or(ms(self.elapsed()), |first| ms(*first));
        let last = self.faults_at.last().map_or(ms(self.elapsed()), |last| ms(*last + RECOVERY));
        let calm = vec![(0, first), (last, ms(self.elapsed()))];
        let clock_skew_ms = self.clocks_agree.then_some(0);
        Evidence { replicas: replicas.collect(), calm, clock_skew_ms, ..self.workload.evidence() }
    }
}
