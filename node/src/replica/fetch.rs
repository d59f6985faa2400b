//! A state from another member, for a node whose own is of no use. Before Raft starts: until then the node answers no
//! votes and no reads.

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_proto::internal::v1 as pb;
use tokio::time::Instant;

use super::identity::GROUP;
use super::snapshot;
use super::spool::check_room;
use crate::config::Config;
use crate::network::{IdentityError, NetworkOptions, PeerContext, PeerError, Peers, SnapshotSink};
use crate::storage::{DataDir, StateDir, StateStore};
use crate::types::{NodeId, SnapshotMeta};
use crate::world::{File, OpenMode, World};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to go on without a byte from anybody: 60 s. An attempt in which a peer prepares a snapshot lasts as long as it
/// says so.
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
    let path = data_dir.spool_path().join("fetched");
    let had: Arc<Mutex<Option<Arc<Fetched>>>> = Arc::default();
    let mut deadline = Instant::now() + PATIENCE;
    // Who does not want to speak to this node. Another may: perhaps only that one's address is wrong.
    let mut refused = BTreeSet::new();
    let mut turn = 0;
    loop {
        let (id, address) = others[turn % others.len()];
        let before = received(&had);
        let problem;
        match fetch_from(world, config, &peers, *id, address, &path, &had).await {
            Ok(meta) => {
                let index = meta.last_log_id.map_or(0, |id| id.index);
                if least_index <= index {
                    let store = build(world, state_dir, meta, path.clone()).await;
                    // It is in the store now, or no good.
                    let _ = world.fs.remove_file(&path);
                    return store.map_err(|error| format!("the state of node {id} cannot be used: {error}"));
                }
                problem = format!("node {id} has applied entry {index}, and entry {least_index} is needed");
                *had.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
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
        if is_further(before, received(&had)) {
            // What it has sent is worth most with the same one.
            deadline = Instant::now() + PATIENCE;
        } else {
            turn += 1;
        }
        if deadline <= Instant::now() {
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

fn received(had: &Mutex<Option<Arc<Fetched>>>) -> Option<(u64, u64)> {
    let had = had.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    had.as_ref().map(|fetched| (fetched.id, fetched.len()))
}

async fn fetch_from(
    world: &World,
    config: &Config,
    peers: &Peers,
    id: NodeId,
    address: &str,
    path: &std::path::Path,
    had: &Mutex<Option<Arc<Fetched>>>,
) -> Result<SnapshotMeta, PeerError> {
    let place = |snapshot: u64, length: u64| {
        // Once as a file, and once as a store.
        let len = received(had).map_or(0, |(id, len)| if id == snapshot { len } else { 0 });
        check_room(world, &config.data_dir, length.saturating_mul(2).saturating_sub(len), config.log.reserve_bytes)?;
        let mut had = had.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fetched = match had.take().filter(|fetched| fetched.id == snapshot) {
            Some(fetched) => fetched,
            None => Arc::new(Fetched::create(world, path, snapshot)?),
        };
        *had = Some(fetched.clone());
        Ok(Box::new(Sink(fetched)) as Box<dyn SnapshotSink>)
    };
    let (meta, _) = peers.fetch_snapshot(id, address, received(had), place).await?;
    Ok(meta)
}

async fn build(
    world: &World,
    state_dir: &StateDir,
    meta: SnapshotMeta,
    path: PathBuf,
) -> io::Result<Arc<dyn StateStore>> {
    let next = state_dir.create_next().map_err(io::Error::other)?;
    let (job, store) = (world.clone(), next.store.clone());
    world.blocking(move || snapshot::fill(&job, &*store, &meta, &path)).await?;
    state_dir.switch_to(next).map_err(io::Error::other)
}

/// The first bytes of a snapshot.
struct Fetched {
    id: u64,
    file: Arc<dyn File>,
    len: Mutex<u64>,
}

impl Fetched {
    fn create(world: &World, path: &std::path::Path, id: u64) -> io::Result<Self> {
        if world.fs.exists(path)? {
            world.fs.remove_file(path)?;
        }
        Ok(Self { id, file: world.fs.open(path, OpenMode::CreateNew)?, len: Mutex::new(0) })
    }

    fn len(&self) -> u64 {
        *self.len.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Sink(Arc<Fetched>);

impl SnapshotSink for Sink {
    fn received(&self) -> u64 {
        self.0.len()
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut len = self.0.len.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.0.file.write_all_at(chunk, *len)?;
        *len += chunk.len() as u64;
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
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
