//! What the parts of a replica share.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use millstream_streams::{Blocks, NodeRecord, State};
use tokio::sync::{Notify, watch};

use super::blocks::{StoredBlocks, Uncached};
use super::compare::Digests;
use super::gate::Gate;
use super::incoming::Incoming;
use super::machine::Machine;
use super::pins::Pins;
use super::removed::Removal;
use super::scrub::Scrub;
use super::space::Room;
use super::spool::Outgoing;
use super::suspect::Suspicion;
use crate::config::Config;
use crate::storage::{DataDir, DataDirError, LogStore, StateDir};
use crate::types::{NodeId, SnapshotMeta};
use crate::watch::Watch;
use crate::world::{Look, World};

pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) data_dir: DataDir,
    pub(crate) log: LogStore,
    pub(crate) state_dir: StateDir,
    /// A std lock: held for short, plain work only, never across an await.
    machine: RwLock<Machine>,
    pub(crate) blocks: Arc<StoredBlocks>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) room: Room,
    /// Held by whoever replaces what is stored (a checkpoint, an installed snapshot), from reading the state to
    /// telling it that its rows are stored.
    pub(crate) store_writer: Arc<tokio::sync::Mutex<()>>,
    /// Snapshots on their way out.
    pub(crate) outgoing: Outgoing,
    /// A snapshot on its way in.
    pub(crate) incoming: Incoming,
    /// Where apply waits while too much is not stored yet.
    pub(crate) gate: Gate,
    /// There may be garbage in the store.
    pub(crate) garbage: Notify,
    /// What the newest synced checkpoint covers.
    checkpoint: Mutex<Option<SnapshotMeta>>,
    pub(crate) watch: Arc<Watch>,
    /// Index of the last applied entry.
    pub(crate) applied: watch::Sender<u64>,
    identities: RwLock<Identities>,
    /// Why this node must stop, once it must.
    pub(crate) failure: watch::Sender<Option<String>>,
    /// Whether the stored state can be relied on.
    pub(crate) suspicion: Suspicion,
    /// What is remembered of the state, to be compared.
    pub(crate) digests: Digests,
    /// How far the scrub is.
    pub(crate) scrub: Scrub,
    /// Whether this node was removed from its cluster.
    pub(crate) removal: Removal,
}

/// Who is who, copied from the state so that the network need not wait for its lock.
#[derive(Clone)]
pub(crate) struct Identities {
    /// Empty until known.
    pub(crate) cluster_id: Arc<str>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRecord>,
}

/// What [`Shared`] is made of at the start.
pub(crate) struct Parts {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) data_dir: DataDir,
    pub(crate) log: LogStore,
    pub(crate) state_dir: StateDir,
    pub(crate) machine: Machine,
    pub(crate) blocks: StoredBlocks,
    pub(crate) checkpoint: Option<SnapshotMeta>,
    pub(crate) watch: Arc<Watch>,
}

impl Look for Shared {
    fn look(&self, see: &mut dyn FnMut(u64, &State, &dyn Blocks)) {
        let machine = self.machine();
        see(machine.applied_index(), &machine.state, &Uncached(&self.blocks));
    }
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { world, config, data_dir, log, state_dir, machine, blocks, checkpoint, watch } = parts;
        // A node that knows its cluster keeps to it also before its state does again.
        let cluster_id: Arc<str> = data_dir.identity().cluster_id.as_deref().unwrap_or_default().into();
        let applied = watch::Sender::new(machine.applied_index());
        let room = Room::new(config.log.reserve_bytes);
        let shared = Arc::new_cyclic(|shared: &Weak<Self>| Self {
            world,
            config,
            data_dir,
            log,
            state_dir,
            machine: RwLock::new(machine),
            blocks: Arc::new(blocks.watched_by(shared.clone())),
            pins: Arc::default(),
            room,
            store_writer: Arc::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            gate: Gate::default(),
            garbage: Notify::new(),
            checkpoint: Mutex::new(checkpoint),
            watch,
            applied,
            identities: RwLock::new(Identities { cluster_id, nodes: BTreeMap::new() }),
            failure: watch::Sender::new(None),
            suspicion: Suspicion::default(),
            digests: Digests::default(),
            scrub: Scrub::default(),
            removal: Removal::default(),
        });
        shared.refresh_identities();
        shared
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.config.node_id
    }

    pub(crate) fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn machine_mut(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn checkpoint(&self) -> Option<SnapshotMeta> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_checkpoint(&self, meta: SnapshotMeta) {
        *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(meta);
        // It may have brought some.
        self.garbage.notify_one();
    }

    pub(crate) fn identities(&self) -> RwLockReadGuard<'_, Identities> {
        self.identities.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies who is who from the state, and writes the cluster's id to the data directory when it is first known.
    pub(crate) fn refresh_identities(&self) {
        let (known, nodes) = {
            let machine = self.machine();
            let nodes = machine.state.nodes().map(|node| (node.node_id, node.clone())).collect();
            (machine.state.cluster_id().map(Arc::<str>::from), nodes)
        };
        if let Some(cluster_id) = &known {
            self.keep_cluster_id(cluster_id);
        }
        let mut identities = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster_id) = known {
            identities.cluster_id = cluster_id;
        }
        identities.nodes = nodes;
    }

    /// Writes the cluster's id to the data directory if it is not there yet. Then it blocks.
    pub(crate) fn keep_cluster_id(&self, cluster_id: &str) {
        match self.data_dir.set_cluster_id(cluster_id) {
            Ok(()) => {}
            // Written at the next start, or with the next node that makes itself known.
            Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%source, "the cluster's id is not written to the data directory yet");
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// Stops this node in good order because of something that an operator must mend.
    pub(crate) fn fail(&self, sentence: String) {
        tracing::error!(reason = sentence, "this node must stop");
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(sentence);
            }
            first
        });
    }
}
