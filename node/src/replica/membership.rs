//! Who is in the cluster: adding, promoting, removing, and handing leadership over.
//!
//! Each call names what is to be, so that a repeat does no harm. One change at a time: the leader's lock holds the calls of
//! this node apart, openraft those that a former leader left behind. A change of voters takes two steps of the log; if its
//! caller dies between them, [`reconcile`] takes the second.
//!
//! Ids are never reused. An id in the state's records that is no member is one that was removed; a node that was removed
//! before it could register is recorded in its place.
//!
//! Nothing is "already so" before it is committed: what a call finds done is looked up in the applied membership, not in
//! the newest one of the log. And once a step of a call is committed, its outcome is not "nothing happened" any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use millstream_streams::{Command, RegisterNode};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::Instant;

use super::{Inner, Leadership, Replica, Unavailable, not_leader};
use crate::network::PeerError;
use crate::types::{NodeId, PeerNode, StoredMembership, TypeConfig};

/// A node this many entries behind may vote, or lead: what it lacks is on its way.
const LAG_MAX: u64 = 2_000;
/// Between two looks at how far a node is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Why the members are not as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipError {
    /// No leader, or the outcome is not known, as of any command.
    Unavailable(Unavailable),
    /// The node is not a member.
    NotFound {
        /// Which.
        node_id: u64,
    },
    /// It may not be, now or later.
    Refused {
        /// About which node.
        node_id: u64,
        /// Why, and what to do.
        problem: String,
    },
    /// It may be later.
    NotReady {
        /// About which node; `None`: about all.
        node_id: Option<u64>,
        /// Why.
        problem: String,
    },
}

impl From<Unavailable> for MembershipError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

fn refused(node_id: u64, problem: impl Into<String>) -> MembershipError {
    MembershipError::Refused { node_id, problem: problem.into() }
}

/// What an error means for a call of which a step is committed already.
fn half_done(error: MembershipError) -> MembershipError {
    let problem = match error {
        MembershipError::Unavailable(Unavailable::CommitUnknown(_) | Unavailable::Stopped) => return error,
        MembershipError::Unavailable(unavailable) => format!("{unavailable:?}"),
        MembershipError::NotFound { node_id } => format!("node {node_id} is not a member any more"),
        MembershipError::Refused { problem, .. } | MembershipError::NotReady { problem, .. } => problem,
    };
    Unavailable::CommitUnknown(format!("a part of the change is committed, the rest is not known to be: {problem}"))
        .into()
}

fn not_ready(node_id: u64, problem: impl Into<String>) -> MembershipError {
    MembershipError::NotReady { node_id: Some(node_id), problem: problem.into() }
}

/// The members, of one membership of the log.
struct Members {
    /// The newest set of voters.
    voters: BTreeSet<NodeId>,
    /// More than one set of voters is in force.
    joint: bool,
    nodes: Vec<(NodeId, PeerNode)>,
}

impl Members {
    fn of(membership: &StoredMembership) -> Self {
        let configs = membership.membership().get_joint_config();
        Self {
            voters: configs.last().cloned().unwrap_or_default(),
            joint: 1 < configs.len(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }

    fn node(&self, node_id: NodeId) -> Option<&PeerNode> {
        self.nodes.iter().find(|(id, _)| *id == node_id).map(|(_, node)| node)
    }
}

impl Replica {
    /// Adds a node that waits to be added, without a vote. Leader only.
    pub async fn add_learner(&self, node_id: u64, peer_address: &str) -> Result<(), MembershipError> {
        let _one_at_a_time = self.begin_change().await?;
        if let Some(node) = self.applied_members().node(node_id) {
            return match node.peer_address == peer_address {
                true => Ok(()),
                false => Err(refused(
                    node_id,
                    format!(
                        "the node is a member already, at {}: remove it and add another under a new id, or give the old \
                         address",
                        node.peer_address
                    ),
                )),
            };
        }
        if self.with_state(|state| state.node(node_id).is_some()) {
            return Err(refused(
                node_id,
                "a node of this id was in the cluster before, and ids are never reused: start the new node with an empty \
                 data directory and a new node id",
            ));
        }
        if self.inner.shared.node_id() == node_id {
            return Err(refused(node_id, "this is the leader's own id"));
        }
        // Any answer will do: it shows that this very node is there, and that it knows no other cluster.
        match self.inner.peers.read_index(node_id, peer_address).await {
            Ok(_) | Err(PeerError::Other(_)) => {}
            Err(PeerError::Identity(problem)) => return Err(refused(node_id, problem)),
            Err(PeerError::Unreachable(problem)) => {
                return Err(not_ready(node_id, format!("start the node with --join first: {problem}")));
            }
        }
        let node = PeerNode { peer_address: peer_address.to_owned() };
        self.change(ChangeMembers::AddNodes([(node_id, node)].into()), true, node_id).await
    }

    /// Makes voters of learners, and removes members, voters or not, for good. Waits up to `wait` for new voters that are
    /// far behind. Leader only.
    pub async fn change_voters(
        &self,
        add: &BTreeSet<u64>,
        remove: &BTreeSet<u64>,
        wait: Duration,
    ) -> Result<(), MembershipError> {
        if let Some(node_id) = add.intersection(remove).next() {
            return Err(refused(*node_id, "it is to be added and removed at once"));
        }
        let deadline = Instant::now() + wait;
        self.lead_or_refuse()?;
        for node_id in add {
            self.wait_for_learner(*node_id, deadline).await?;
        }

        let _one_at_a_time = self.begin_change().await?;
        let members = self.applied_members();
        let is_known = |node_id: u64| self.with_state(|state| state.node(node_id).is_some());
        for node_id in add {
            if members.node(*node_id).is_none() {
                return Err(MembershipError::NotFound { node_id: *node_id });
            }
        }
        for node_id in remove {
            if members.node(*node_id).is_none() && !is_known(*node_id) {
                return Err(MembershipError::NotFound { node_id: *node_id });
            }
        }
        let removed: BTreeSet<_> = remove.iter().copied().filter(|id| members.node(*id).is_some()).collect();
        let voters: BTreeSet<_> = members.voters.union(add).filter(|id| !removed.contains(id)).copied().collect();
        if voters.is_empty() {
            let node_id = removed.first().copied().unwrap_or(0);
            return Err(refused(node_id, "no voter would remain: promote another node first"));
        }
        let unknown: BTreeSet<_> = removed.iter().copied().filter(|id| !is_known(*id)).collect();
        let me = self.inner.shared.node_id();
        if removed.contains(&me)
            && let Some(node_id) = unknown.first()
        {
            // Who is removed records nobody.
            return Err(match *node_id == me {
                true => not_ready(me, "the node has not registered yet"),
                false => refused(*node_id, "it has never registered: remove it first, and the leader in a second call"),
            });
        }
        let about = add.iter().chain(remove).next().copied().unwrap_or(0);
        // Learners first: without a vote they need no second step.
        let learners: BTreeSet<_> = removed.iter().copied().filter(|id| !members.voters.contains(id)).collect();
        let mut begun = false;
        if !learners.is_empty() {
            self.change(ChangeMembers::RemoveNodes(learners), true, about).await?;
            begun = true;
        }
        if voters != members.voters || members.joint {
            let changed = self.change(ChangeMembers::ReplaceAllVoters(voters), false, about).await;
            changed.map_err(|error| if begun { half_done(error) } else { error })?;
        }
        for node_id in unknown {
            self.record_removed(node_id).await.map_err(half_done)?;
        }
        Ok(())
    }

    /// Hands leadership to a voter, waits until it leads, and returns its term. Leader only.
    pub async fn transfer_leader(&self, node_id: u64) -> Result<u64, MembershipError> {
        let _one_at_a_time = self.begin_change().await?;
        let members = self.members();
        if members.node(node_id).is_none() {
            return Err(MembershipError::NotFound { node_id });
        }
        if !members.voters.contains(&node_id) {
            return Err(refused(node_id, "a learner cannot lead: promote it first"));
        }
        let raft = &self.inner.raft;
        if node_id == self.inner.shared.node_id() {
            return Ok(raft.metrics().borrow_watched().current_term);
        }
        let lag = self.lag(node_id);
        if LAG_MAX < lag {
            return Err(not_ready(node_id, format!("the node is {lag} entries behind")));
        }
        raft.trigger().transfer_leader(node_id).await.map_err(|_| Unavailable::Stopped)?;
        let mut metrics = raft.metrics();
        let taken_over = async {
            loop {
                {
                    let now = metrics.borrow_and_update();
                    if now.current_leader == Some(node_id) {
                        return Some(now.current_term);
                    }
                }
                if metrics.changed().await.is_err() {
                    return None;
                }
            }
        };
        let patience = Duration::from_millis(2 * self.inner.shared.config.raft.election_ms_max);
        match tokio::time::timeout(patience, taken_over).await {
            Ok(Some(term)) => Ok(term),
            Ok(None) => Err(Unavailable::Stopped.into()),
            // It has been told to, and may still do so.
            Err(_) => Err(Unavailable::CommitUnknown("the node has not taken over in time".into()).into()),
        }
    }

    fn lead_or_refuse(&self) -> Result<(), Unavailable> {
        if !self.is_ready() {
            return Err(Unavailable::NotReady);
        }
        match self.leadership() {
            Leadership::Leader { .. } => Ok(()),
            Leadership::Follower { leader } => Err(Unavailable::NotLeader(leader)),
            Leadership::NoLeader => Err(Unavailable::NoLeader),
        }
    }

    /// Waits for the change before this one, and makes sure that this node leads and its state is the newest.
    async fn begin_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, MembershipError> {
        self.lead_or_refuse()?;
        let patience = self.inner.shared.config.limits.call_time_max;
        let turn = tokio::time::timeout(patience, self.inner.membership.lock()).await;
        let turn = turn.map_err(|_| MembershipError::NotReady {
            node_id: None,
            problem: "another change of the members is under way".into(),
        })?;
        self.read_barrier(super::Freshness::Linearizable).await?;
        self.lead_or_refuse()?;
        Ok(turn)
    }

    /// As the newest entry of the log has them, committed or not.
    fn members(&self) -> Members {
        Members::of(&self.inner.raft.metrics().borrow_watched().membership_config)
    }

    /// As this node has applied them: after [`begin_change`](Self::begin_change) no older than the call.
    fn applied_members(&self) -> Members {
        Members::of(&self.inner.shared.machine().membership)
    }

    /// How many entries of the leader's log a member is not known to have.
    fn lag(&self, node_id: NodeId) -> u64 {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&node_id));
        let matched = matched.and_then(|matched| matched.as_ref()).map_or(0, |id| id.index);
        metrics.last_log_index.unwrap_or(0).saturating_sub(matched)
    }

    /// Waits until a learner is known and near the end of the log.
    async fn wait_for_learner(&self, node_id: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        loop {
            self.lead_or_refuse()?;
            let members = self.members();
            if members.node(node_id).is_none() {
                return Err(MembershipError::NotFound { node_id });
            }
            if members.voters.contains(&node_id) {
                return Ok(());
            }
            let lag = self.lag(node_id);
            let problem = if LAG_MAX < lag {
                format!("the node is {lag} entries behind: it may vote when it has caught up")
            } else if self.with_state(|state| state.node(node_id).is_none()) {
                // Without its incarnation on record, a node that lost its disk could vote twice.
                "the node has not registered yet".to_owned()
            } else {
                return Ok(());
            };
            if deadline <= Instant::now() {
                return Err(not_ready(node_id, problem));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Makes sure that a node which has left is on record, so that its id cannot come back. Not before it has left: a
    /// member that is still to register would be refused for good.
    async fn record_removed(&self, node_id: NodeId) -> Result<(), MembershipError> {
        if self.with_state(|state| state.node(node_id).is_some()) {
            return Ok(());
        }
        // Nobody's incarnation. If the node registers at this very moment, this is refused, and it is on record as well.
        let incarnation = self.inner.shared.world.random.next_u64();
        let (peer_address, client_address) = (String::new(), String::new());
        let command = RegisterNode { node_id, incarnation, peer_address, client_address };
        self.propose(None, Command::RegisterNode(command)).await?;
        Ok(())
    }

    async fn change(
        &self,
        change: ChangeMembers<NodeId, PeerNode>,
        retain: bool,
        about: NodeId,
    ) -> Result<(), MembershipError> {
        tracing::info!(%change, "changing the members");
        let patience = self.inner.shared.config.limits.call_time_max;
        match tokio::time::timeout(patience, self.inner.raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.not_changed(error, about)),
            Err(_) => Err(Unavailable::CommitUnknown("the change was not committed in time".into()).into()),
        }
    }

    fn not_changed(
        &self,
        error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
        about: NodeId,
    ) -> MembershipError {
        let change = match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                // The first of two steps may have been taken.
                let unavailable = not_leader(&self.inner.shared, &forward);
                tracing::info!(?unavailable, "leadership was lost during a change of the members");
                return Unavailable::CommitUnknown("leadership was lost during the change".into()).into();
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(change)) => change,
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_)) => {
                return Unavailable::CommitUnknown("another leader took over".into()).into();
            }
            RaftError::Fatal(_) => return Unavailable::Stopped.into(),
        };
        match change {
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                MembershipError::NotReady {
                    node_id: None,
                    problem: "another change of the members is under way".into(),
                }
            }
            ChangeMembershipError::LearnerNotFound(missing) => MembershipError::NotFound { node_id: missing.node_id },
            ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::NodeMetadataChanged(_) => refused(about, change.to_string()),
        }
    }
}

/// Takes the second step of a change whose caller died after the first: two sets of voters need two majorities. Does
/// nothing unless this node leads.
pub(crate) async fn reconcile(replica: &Replica) {
    if !replica.members().joint || !matches!(replica.leadership(), Leadership::Leader { .. }) {
        return;
    }
    // A change under way is somebody's who is alive.
    let Ok(_one_at_a_time) = replica.inner.membership.try_lock() else { return };
    let members = replica.members();
    if !members.joint {
        return;
    }
    tracing::info!(voters = ?members.voters, "completing a change of the voters that was left half done");
    let before = members.nodes;
    if let Err(error) = replica.change(ChangeMembers::ReplaceAllVoters(members.voters), false, 0).await {
        tracing::debug!(?error, "not completed yet");
        return;
    }
    // Its caller would have done this as well.
    let now = replica.members();
    for (node_id, _) in before.into_iter().filter(|(id, _)| now.node(*id).is_none()) {
        if let Err(error) = replica.record_removed(node_id).await {
            tracing::warn!(node_id, ?error, "a node that was removed is not on record");
        }
    }
}

/// Makes the membership say where its nodes are: a node that was restarted with another peer address says so when it
/// registers. Only what has proved true is taken over: the node must answer there, and the leader's own address, which it
/// cannot look at from elsewhere, changes only while there is no other member. Returns how many addresses did not prove
/// true. Does nothing unless this node leads.
pub(crate) async fn readdress(replica: &Replica) -> usize {
    let Inner { shared, peers, membership, .. } = &*replica.inner;
    let told = |members: &Members| {
        let addresses = members.nodes.iter().map(|(id, node)| (*id, node.peer_address.clone()));
        peers.set_addresses(addresses.collect());
    };
    told(&replica.members());
    if !matches!(replica.leadership(), Leadership::Leader { .. }) {
        return 0;
    }
    let Ok(_one_at_a_time) = membership.try_lock() else { return 0 };
    let members = replica.applied_members();
    let mut not_there = 0;
    for (node_id, node) in &members.nodes {
        let registered = replica.with_state(|state| state.node(*node_id).map(|record| record.peer_address.clone()));
        let Some(address) = registered.filter(|address| !address.is_empty() && *address != node.peer_address) else {
            continue;
        };
        let is_there = match *node_id == shared.node_id() {
            true => members.nodes.len() == 1 && may_replace(&node.peer_address, &address),
            false => peers.is_at(*node_id, &address).await,
        };
        if !is_there {
            not_there += 1;
            continue;
        }
        tracing::info!(node_id, from = node.peer_address, to = address, "a member has another address");
        shared.world.probe.mark("readdressed");
        let node = PeerNode { peer_address: address };
        if let Err(error) = replica.change(ChangeMembers::SetNodes([(*node_id, node)].into()), true, *node_id).await {
            tracing::debug!(?error, node_id, "its address is not changed yet");
        }
    }
    told(&replica.members());
    not_there
}

/// Whether a node's own address may take the place of another without proof: not one that others cannot reach, for one
/// that they may.
fn may_replace(old: &str, new: &str) -> bool {
    let ip = |address: &str| address.parse::<SocketAddr>().ok().map(|address| address.ip());
    let is_local = |address: &str| {
        address.starts_with("localhost:")
            || ip(address).is_some_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified())
    };
    !ip(new).is_some_and(|ip| ip.is_unspecified()) && (!is_local(new) || is_local(old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_cannot_reach_replaces_none_that_they_may() {
        for (old, new, may) in [
            ("127.0.0.1:7421", "n1:7421", true),
            ("127.0.0.1:7421", "10.0.0.1:7421", true),
            ("127.0.0.1:7421", "127.0.0.1:7431", true),
            ("127.0.0.1:7421", "0.0.0.0:7421", false),
            ("n1:7421", "127.0.0.1:7421", false),
            ("n1:7421", "[::1]:7421", false),
            ("n1:7421", "localhost:7421", false),
            ("n1:7421", "n2:7421", true),
        ] {
            assert_eq!(may_replace(old, new), may, "{old} {new}");
        }
    }

    #[test]
    fn an_error_after_the_first_step_does_not_say_that_nothing_happened() {
        let unknown = |error| matches!(half_done(error), MembershipError::Unavailable(Unavailable::CommitUnknown(_)));
        assert!(unknown(MembershipError::NotReady { node_id: None, problem: "under way".into() }));
        assert!(unknown(Unavailable::NoLeader.into()));
        assert!(unknown(Unavailable::Overloaded { limit: 1 }.into()));
        assert!(unknown(Unavailable::CommitUnknown("late".into()).into()));
        assert_eq!(half_done(Unavailable::Stopped.into()), Unavailable::Stopped.into());
    }
}
