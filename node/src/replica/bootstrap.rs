//! The replica's own tasks: forming the cluster, making this node known, keeping the members, and dying with Raft.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_streams::{Command, CreateCluster, RegisterNode};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch as channel;

use super::shared::Shared;
use super::{Leadership, Raft, Replica, StartError, View, initial_members, leadership_of, membership, peer_address};
use crate::network::PeerError;

/// Between two attempts to become known.
const INTRODUCE_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks at the members.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(1);
/// Looks that are skipped after a node was not where it says.
const READDRESS_PAUSE: u32 = 4;

/// Follows who leads.
pub(crate) fn watch_leadership(
    shared: &Arc<Shared>,
    raft: &Raft,
    mut ready: channel::Receiver<bool>,
) -> channel::Receiver<View> {
    let (shared, raft) = (Arc::downgrade(shared), raft.clone());
    let (sender, view) = channel::channel(View { leadership: Leadership::NoLeader, ready: true });
    tokio::spawn(async move {
        let mut metrics = raft.metrics();
        loop {
            let Some(strong) = shared.upgrade() else { return };
            let now = View { leadership: leadership_of(&strong, &raft), ready: *ready.borrow_and_update() };
            sender.send_if_modified(|view| {
                let changed = *view != now;
                if changed {
                    if matches!(view.leadership, Leadership::Leader { .. })
                        && !matches!(now.leadership, Leadership::Leader { .. })
                    {
                        strong.world.probe.mark("leader_stepped_down");
                    }
                    *view = now;
                }
                changed
            });
            drop(strong);
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() { break },
                changed = ready.changed() => if changed.is_err() { return },
            }
        }
        // Raft has ended, and so will the node. Until then the view stays open: whoever waits for a change in a loop would
        // be woken again and again by one that is closed, and nobody else would get a turn.
        sender.send_modify(|view| view.leadership = Leadership::NoLeader);
        while ready.changed().await.is_ok() {
            let ready = *ready.borrow_and_update();
            sender.send_modify(|view| view.ready = ready);
        }
    });
    view
}

/// Forms the cluster if this node is the one to do it: the lowest initial id, and nothing on its disk. The others wait.
pub(crate) async fn form_cluster(shared: &Shared, raft: &Raft) -> Result<(), StartError> {
    let members = initial_members(&shared.config);
    let initialized = raft.is_initialized().await.map_err(|fatal| StartError::Raft(fatal.to_string()))?;
    if initialized {
        return Ok(());
    }
    if members.is_empty() {
        tracing::info!(peer_address = shared.config.peer_advertise, "waiting to be added to a cluster");
        return Ok(());
    }
    if !members.contains_key(&shared.node_id()) {
        return Err(StartError::Config(format!(
            "node {} is not among the initial members: name it in --initial-members with its peer address, or start it \
             with --join and add it to a running cluster",
            shared.node_id()
        )));
    }
    if members.keys().next() == Some(&shared.node_id()) {
        tracing::info!(members = members.len(), "forming a new cluster");
        raft.initialize(members).await.map_err(|error| StartError::Raft(error.to_string()))?;
        shared.world.probe.mark("cluster_formed");
    }
    Ok(())
}

/// Aborts the node when openraft's core has died: it would go on answering from a state that no longer moves.
pub(crate) fn abort_with_raft(replica: &Replica) {
    let (abort, ready) = (replica.inner.shared.world.abort.clone(), replica.inner.ready.subscribe());
    let failure = replica.inner.shared.failure.subscribe();
    let mut metrics = replica.inner.raft.metrics();
    tokio::spawn(async move {
        loop {
            let state = metrics.borrow_and_update().running_state.clone();
            if let Err(fatal) = state {
                // A node that stops with a sentence is given the time to say it.
                if *ready.borrow() && failure.borrow().is_none() {
                    abort.abort(&format!("Raft has stopped: {fatal}"));
                }
                return;
            }
            if metrics.changed().await.is_err() {
                // A core that panics takes its metrics with it, and cannot say so there.
                if *ready.borrow() {
                    abort.abort("Raft has stopped: its core is gone");
                }
                return;
            }
        }
    });
}

/// Makes this node known to the cluster: its incarnation and addresses, and, as the first leader, the cluster itself.
pub(crate) fn introduce(replica: &Replica) {
    let replica = replica.clone();
    tokio::spawn(async move {
        let mut asked = 0;
        while replica.is_ready() && !is_known(&replica) && !replica.inner.shared.removal.is_known() {
            match replica.leadership() {
                Leadership::Leader { .. } => introduce_as_leader(&replica).await,
                Leadership::Follower { leader } => introduce_to(&replica, leader.node_id).await,
                Leadership::NoLeader => {
                    // Nobody leads, as far as we know: any member can tell us whether we belong here.
                    // And if this node has moved, only this tells the leader where it is.
                    let mut others: BTreeSet<_> = initial_members(&replica.inner.shared.config).into_keys().collect();
                    others.extend(
                        replica.inner.raft.metrics().borrow_watched().membership_config.nodes().map(|(id, _)| *id),
                    );
                    others.remove(&replica.inner.shared.node_id());
                    if let Some(id) = others.iter().nth(asked % others.len().max(1)) {
                        introduce_to(&replica, *id).await;
                    }
                    asked += 1;
                }
            }
            tokio::time::sleep(INTRODUCE_INTERVAL).await;
        }
    });
}

/// Whether the replicated state holds this node as it is now.
fn is_known(replica: &Replica) -> bool {
    let shared = &replica.inner.shared;
    replica.with_state(|state| {
        state.cluster_id().is_some()
            && state.node(shared.node_id()).is_some_and(|node| {
                node.incarnation == shared.data_dir.identity().incarnation
                    && node.peer_address == shared.config.peer_advertise
                    && node.client_address == shared.config.advertise
            })
    })
}

async fn introduce_as_leader(replica: &Replica) {
    let shared = &replica.inner.shared;
    if replica.with_state(|state| state.cluster_id().is_none()) {
        let random = &shared.world.random;
        let cluster_id = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        // Two leaders may both try; the state keeps the first.
        if replica.propose(None, Command::CreateCluster(CreateCluster { cluster_id })).await.is_err() {
            return;
        }
    }
    let register = RegisterNode {
        node_id: shared.node_id(),
        incarnation: shared.data_dir.identity().incarnation,
        peer_address: shared.config.peer_advertise.clone(),
        client_address: shared.config.advertise.clone(),
    };
    match replica.propose(None, Command::RegisterNode(register)).await {
        Ok(committed) => {
            if let Err(refusal) = committed.applied.outcome {
                shared.fail(format!("this node cannot take part in its cluster: {refusal}"));
            }
        }
        Err(unavailable) => tracing::debug!(?unavailable, "not registered yet"),
    }
}

async fn introduce_to(replica: &Replica, node_id: u64) {
    let shared = &replica.inner.shared;
    let address =
        peer_address(&replica.inner.raft, node_id).or_else(|| shared.config.initial_members.get(&node_id).cloned());
    let Some(address) = address else { return };
    let config = &shared.config;
    let (peer_address, client_address) = (config.peer_advertise.clone(), config.advertise.clone());
    match replica.inner.peers.register(node_id, &address, peer_address, client_address).await {
        Ok(_) | Err(PeerError::Unreachable(_)) => {}
        Err(PeerError::Identity(sentence)) => shared.fail(sentence),
        Err(PeerError::Other(problem)) => tracing::debug!(node_id, problem, "not registered yet"),
    }
}

/// Completes changes of the members that were left half done, and keeps their addresses true.
pub(crate) fn keep_members(replica: &Replica) {
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let mut pause = 0_u32;
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(MEMBERS_INTERVAL) => {}
            }
            membership::reconcile(&replica).await;
            pause = match pause.checked_sub(1) {
                Some(pause) => pause,
                // Some say they are where they are not, and will go on saying so.
                None if 0 < membership::readdress(&replica).await => READDRESS_PAUSE,
                None => 0,
            };
        }
    });
}

/// Hands leadership to a follower that has the whole log, so that the cluster need not wait for an election. Best effort.
pub(crate) async fn hand_over(replica: &Replica) {
    let raft = &replica.inner.raft;
    let me = replica.inner.shared.node_id();
    let target = {
        let receiver = raft.metrics();
        let metrics = receiver.borrow_watched();
        if metrics.state != ServerState::Leader {
            return;
        }
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        // Removed: the others have seen to that, and do not tell.
        if !voters.contains(&me) {
            return;
        }
        let followers = metrics.replication.iter().flatten().filter(|(id, _)| **id != me && voters.contains(id));
        followers.max_by_key(|(_, matched)| matched.as_ref().map_or(0, |id| id.index)).map(|(id, _)| *id)
    };
    let Some(target) = target else { return };
    if raft.trigger().transfer_leader(target).await.is_err() {
        return;
    }
    let mut metrics = raft.metrics();
    let gone = async {
        while metrics.borrow_and_update().current_leader == Some(me) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    let patience = Duration::from_millis(2 * replica.inner.shared.config.raft.election_ms_max);
    if tokio::time::timeout(patience, gone).await.is_err() {
        tracing::warn!(target, "leadership was not taken over in time");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::super::testing::Lone;

    #[tokio::test]
    async fn a_node_whose_raft_has_died_is_aborted() {
        let node = Lone::start().await;
        assert!(node.aborts.reasons().is_empty());
        // As when its core dies: nobody has told the node to stop.
        node.replica.inner.raft.shutdown().await.unwrap();
        node.until(|node| !node.aborts.reasons().is_empty()).await;
        let reasons = node.aborts.reasons();
        assert!(reasons[0].contains("Raft has stopped"), "{reasons:?}");
    }

    #[tokio::test]
    async fn a_node_that_stops_anyway_is_not() {
        let orderly = Lone::start().await;
        let aborts = orderly.aborts.clone();
        orderly.stop().await;
        let failed = Lone::start().await;
        failed.shared().fail("the disk is to be mended".into());
        failed.replica.inner.raft.shutdown().await.unwrap();
        // The watchmen see it no later than this.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!((aborts.reasons(), failed.aborts.reasons()), (vec![], vec![]));
    }
}
