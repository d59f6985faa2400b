//! A node that was removed from its cluster finds out, and says so.
//!
//! Nobody tells it: with the change that takes it out, the leader stops speaking to it. Sometimes its own log has the
//! change; else it hears no leader any more, and asks. It goes on running, as a learner without a leader, so that what it
//! has can still be looked at: its operator decides when it ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_streams::NodeRecord;
use openraft::async_runtime::WatchReceiver;

use super::shared::Shared;
use super::{Leadership, Replica, initial_members, peer_address};
use crate::types::NodeId;

/// Between two looks: 5 s.
const INTERVAL: Duration = Duration::from_secs(5);

/// Whether this node was removed.
#[derive(Default)]
pub(crate) struct Removal {
    /// Only ever becomes true: ids are not reused.
    known: AtomicBool,
    /// A leader has spoken to this node since the last look. Who leads does not tell: a node that starts takes the leader
    /// of its last vote for that of today.
    heard: AtomicBool,
}

impl Removal {
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// A leader speaks to this node.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Whether a node was removed from the cluster, as far as this node has applied the log: it was recorded when it was a
    /// member, and is none any more.
    pub(crate) fn has_removed(&self, node_id: NodeId, incarnation: u64) -> bool {
        let machine = self.machine();
        let is_it = |record: &NodeRecord| record.incarnation == incarnation;
        machine.membership.get_node(&node_id).is_none() && machine.state.node(node_id).is_some_and(is_it)
    }
}

/// Looks now and then whether this node still belongs to its cluster.
pub(crate) fn notice_removal(replica: &Replica) {
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let shared = &replica.inner.shared;
        let mut asked = 0;
        // Looks in a row since a leader has spoken.
        let mut alone = 0;
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let leads = matches!(replica.leadership(), Leadership::Leader { .. });
            let heard = shared.removal.heard.swap(false, Ordering::Relaxed);
            alone = if leads || heard { 0 } else { alone + 1 };
            let removed = shared.has_removed(shared.node_id(), shared.data_dir.identity().incarnation)
                || (2 <= alone && ask(&replica, &mut asked).await);
            if removed {
                shared.removal.known.store(true, Ordering::Release);
                // Nobody will vote for it, and its own log may not say so: it would ask for ever.
                replica.inner.raft.runtime_config().elect(false);
                tracing::warn!(
                    node_id = shared.node_id(),
                    "this node was removed from its cluster: stop it; if the machine is to serve the cluster again, start \
                     it with an empty data directory and a new node id"
                );
                return;
            }
        }
    });
}

/// Asks the next of the other members, and the leader that it names, whether this node is one of them no more.
async fn ask(replica: &Replica, asked: &mut usize) -> bool {
    let Replica { inner } = replica;
    let (shared, raft) = (&inner.shared, &inner.raft);
    let me = shared.node_id();
    if !shared.identities().nodes.contains_key(&me) {
        // It has yet to be one of them.
        return false;
    }
    let mut others: BTreeSet<_> = initial_members(&shared.config).into_keys().collect();
    others.extend(raft.metrics().borrow_watched().membership_config.nodes().map(|(id, _)| *id));
    others.remove(&me);
    let Some(first) = others.iter().nth(*asked % others.len().max(1)) else { return false };
    *asked += 1;
    let mut next = *first;
    for _ in 0..2 {
        let initial = || shared.config.initial_members.get(&next).cloned();
        let Some(address) = peer_address(raft, next).or_else(initial) else { return false };
        let (mine, clients) = (shared.config.peer_advertise.clone(), shared.config.advertise.clone());
        match inner.peers.register(next, &address, mine, clients).await {
            Ok(outcome) if outcome.removed => return true,
            Ok(outcome) if outcome.leader_id != 0 && outcome.leader_id != next => next = outcome.leader_id,
            // Out of reach, or there is something else that it has to say, which is heard elsewhere.
            _ => return false,
        }
    }
    false
}
