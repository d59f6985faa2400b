//! A state from another member, for a node whose own is of no use. Before Raft starts: until then the node answers no
//! votes and no reads.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::internal::v1 as pb;
use tokio::time::Instant;

use super::identity::GROUP;
use super::incoming::{self, Incoming, Place};
use super::snapshot;
use crate::config::Config;
use crate::network::{IdentityError, NetworkOptions, PeerContext, PeerError, Peers, SnapshotSink};
use crate::storage::{DataDir, StateDir, StateStore};
use crate::types::{NodeId, SnapshotMeta};
use crate::world::World;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to go on without a byte from anybody: 60 s, and until each has been asked. An attempt in which a peer prepares
/// a snapshot lasts as long as it makes progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fetches the newest state of another member into a new generation, makes it the current one, and returns its store. It
/// has applied `least_index` at least. Goes on where it was when a connection breaks. An error is a sentence.
pub(crate) async fn fetch(
    world: &World,
    config: &Config,
    data_dir: &DataDir,
    state_dir: &StateDir,
    least_index: u64,
) -> Result<Arc<dyn StateStore>, String> {
    let others: Vec<_> = config.initial_members.iter().filter(|(id, _)| **id != config.node_id).collect();
    if others.is_empty() {
        return Err("no other member is known: name them in --initial-members, with their peer addresses".into());
    }
    let context = Arc::new(Stateless { node_id: config.node_id, identity: data_dir.identity() });
    let peers = Peers::new(world.clone(), context, NetworkOptions::default());
    let place = Place { world, data_dir, reserve_bytes: config.log.reserve_bytes };
    let incoming = Incoming::default();
    let mut deadline = Instant::now() + PATIENCE;
    // Who does not want to speak to this node. Another may: perhaps only that one's address is wrong.
    let mut refused = BTreeSet::new();
    let mut turn = 0;
    // Attempts since the last byte.
    let mut in_vain = 0;
    loop {
        let (id, address) = others[turn % others.len()];
        let before = incoming.received();
        let sink = |snapshot, length| incoming.sink(&place, snapshot, length);
        let problem;
        match peers.fetch_snapshot(*id, address, before, sink).await {
            Ok((meta, sink)) => {
                let index = meta.last_log_id.map_or(0, |id| id.index);
                if least_index <= index {
                    return build(world, state_dir, meta, sink)
                        .await
                        .map_err(|error| format!("the state of node {id} cannot be used: {error}"));
                }
                problem = format!("node {id} has applied entry {index}, and entry {least_index} is needed");
                incoming.clear();
            }
            Err(PeerError::Identity(sentence)) => {
                refused.insert(*id);
                if refused.len() == others.len() {
                    return Err(sentence);
                }
                problem = sentence;
            }
            Err(error) => {
                refused.remove(id);
                problem = error.to_string();
            }
        }
        tracing::warn!(problem, "the state is not fetched yet");
        if is_further(before, incoming.received()) {
            // What it has sent is worth most with the same one.
            deadline = Instant::now() + PATIENCE;
            in_vain = 0;
        } else {
            turn += 1;
            in_vain += 1;
        }
        if deadline <= Instant::now() && others.len() <= in_vain {
            return Err(problem);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether an attempt has brought any bytes.
fn is_further(before: Option<(u64, u64)>, after: Option<(u64, u64)>) -> bool {
    let had = |id| before.map_or(0, |(before, len)| if before == id { len } else { 0 });
    after.is_some_and(|(id, len)| had(id) < len)
}

async fn build(
    world: &World,
    state_dir: &StateDir,
    meta: SnapshotMeta,
    sink: Box<dyn SnapshotSink>,
) -> io::Result<Arc<dyn StateStore>> {
    let sink = sink.into_any().downcast::<incoming::Sink>();
    let sink = sink.map_err(|_| io::Error::other("not a snapshot that was received here"))?;
    let next = state_dir.create_next().map_err(io::Error::other)?;
    let (job, store) = (world.clone(), next.store.clone());
    world.blocking(move || snapshot::fill(&job, &*store, &meta, &sink.path())).await?;
    state_dir.switch_to(next).map_err(io::Error::other)
}

/// Speaks for a node that has no state: it knows itself and its cluster, and nobody's incarnation.
struct Stateless {
    node_id: NodeId,
    identity: crate::storage::Identity,
}

impl PeerContext for Stateless {
    fn envelope(&self, to: NodeId) -> pb::Envelope {
        pb::Envelope {
            cluster_id: self.identity.cluster_id.clone().unwrap_or_default(),
            group_id: GROUP,
            from: self.node_id,
            to,
            from_incarnation: self.identity.incarnation,
            no_room: false,
        }
    }

    fn check(&self, envelope: Option<&pb::Envelope>, from: Option<NodeId>) -> Result<(), IdentityError> {
        let Some(envelope) = envelope else {
            return Err(IdentityError::new("the message does not say who sends it"));
        };
        if envelope.to != self.node_id || envelope.group_id != GROUP {
            return Err(IdentityError::misdirected("the message is for another node: check the peer addresses"));
        }
        if from.is_some_and(|from| from != envelope.from) {
            return Err(IdentityError::new(format!(
                "node {} answers instead: check the peer addresses",
                envelope.from
            )));
        }
        match &self.identity.cluster_id {
            Some(ours) if *ours != envelope.cluster_id => Err(IdentityError::new(format!(
                "node {} belongs to cluster {}, but this node to cluster {ours}: give it the right peers",
                envelope.from, envelope.cluster_id
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_counted_in_bytes() {
        assert!(is_further(None, Some((7, 1))));
        assert!(is_further(Some((7, 5)), Some((7, 6))));
        assert!(is_further(Some((9, 5)), Some((7, 1))), "another snapshot, whatever its id");
        assert!(!is_further(Some((7, 5)), Some((7, 5))));
        assert!(!is_further(Some((7, 5)), Some((9, 0))), "an id is no progress");
        assert!(!is_further(Some((7, 5)), None));
    }
}
