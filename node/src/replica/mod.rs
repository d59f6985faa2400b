//! One Raft group's replica on this node: its log, its state, its part in elections.
//!
//! A write: [`Replica::propose`] stamps the leader's time, encodes the proposal once and hands it to openraft, which
//! appends it to this node's log ([`crate::storage`]) and to the followers' ([`crate::network`]). When a majority has it on
//! stable storage, [`machine`] applies it and the proposer gets what became of it. A read: [`Replica::read_barrier`], then
//! [`Replica::with_state`].
//!
//! Nothing above this module knows openraft. Nothing in it fails quietly: what must not happen stops the node, by
//! `World::abort` when it may not run a moment longer, by [`Replica::failed`] when an operator has to mend something.

mod backup;
mod blocks;
mod bootstrap;
mod calls;
mod checkpoint;
mod compare;
mod driver;
mod fetch;
mod gate;
mod identity;
mod incoming;
pub(crate) mod inspect;
mod machine;
mod membership;
mod pins;
mod read;
mod recover;
mod remote;
mod removed;
mod retention;
mod rows;
mod scrub;
mod shared;
mod snapshot;
mod space;
mod spool;
mod start_error;
mod status;
mod suspect;
mod sweep;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod testing;
mod time;
mod watchdog;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use millstream_streams::{Applied, BlockKey, Blocks, Command, Proposal as CoreProposal, RequestId, State};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::{ServerState, SnapshotPolicy};
use tokio::sync::{Semaphore, SemaphorePermit, watch as channel};

use crate::config::Config;
use crate::network::{NetworkFactory, NetworkOptions, PeerContext, Peers, RaftCalls};
use crate::storage::{DataDir, LogStore};
use crate::types::{NodeId, PeerNode, Proposal, TypeConfig};
use crate::watch::Watch;
use crate::world::{Look, World};
pub use backup::{Backup, BackupError, Restore, RestoreError, Restored, restore};
use blocks::{StoredBlocks, Uncached};
pub use compare::Comparison;
use machine::StateMachine;
pub use membership::MembershipError;
use read::ReadIndex;
use recover::Recovered;
pub use scrub::ScrubStatus;
use shared::{Parts, Shared};
pub use start_error::StartError;
pub use status::{MemberStatus, Position, Role, Status};
use time::Stamper;

/// How long an orderly stop may take: 60 s.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// This cluster's Raft.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// A replica. Cheap to clone.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    raft: Raft,
    peers: Arc<Peers>,
    stamper: Stamper,
    read_index: ReadIndex,
    /// One permit for each proposal under way.
    proposals: Semaphore,
    /// One permit for each byte of them.
    proposal_bytes: Semaphore,
    view: channel::Receiver<View>,
    /// Held while this node, as the leader, changes who is in the cluster.
    membership: tokio::sync::Mutex<()>,
    /// False once the node begins to stop.
    ready: channel::Sender<bool>,
}

/// Who leads, as the waiting calls see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    leadership: Leadership,
    ready: bool,
}

/// A command that is committed and applied. Its outcome may be a refusal.
#[derive(Debug)]
pub struct Committed {
    /// Index of its log entry.
    pub log_index: u64,
    /// Term of its log entry.
    pub term: u64,
    /// What became of it.
    pub applied: Applied,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Reflects every command acknowledged before.
    Linearizable,
    /// Whatever this node has applied, but at least up to this log index.
    Local {
        /// 0: no matter how far.
        min_applied_index: u64,
    },
}

/// Where the leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Its id.
    pub node_id: u64,
    /// Where clients reach it; empty if it has not registered yet.
    pub client_address: String,
}

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This node.
    Leader {
        /// Its term.
        term: u64,
    },
    /// Another.
    Follower {
        /// Which.
        leader: LeaderHint,
    },
    /// Nobody.
    NoLeader,
}

/// Why a replica could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// Another node leads. Nothing was proposed.
    NotLeader(LeaderHint),
    /// Nobody leads. Nothing was proposed.
    NoLeader,
    /// Proposed, and the outcome is not known.
    CommitUnknown(String),
    /// Starting or stopping. Nothing was proposed.
    NotReady,
    /// The node is dying of a fault; the outcome is not known.
    Stopped,
    /// Too few voters have room on their disks. Nothing was proposed.
    DiskFull {
        /// The voters without room.
        nodes: Vec<u64>,
    },
    /// Too much under way. Nothing was proposed.
    Overloaded {
        /// The bound: calls, or bytes of proposals under way.
        limit: u64,
    },
}

/// What a replica is started with.
pub struct ReplicaParts {
    /// The node's surroundings.
    pub world: World,
    /// Its configuration.
    pub config: Config,
    /// Its data directory, locked.
    pub data_dir: DataDir,
    /// Its log, recovered.
    pub log: LogStore,
    /// Where waiting calls wait.
    pub watch: Arc<Watch>,
}

impl Inner {
    /// Counts the bytes of a proposal while it is under way.
    fn take_bytes(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Unavailable> {
        let limit = self.shared.config.limits.proposal_bytes_max;
        // One that is larger than the bound goes when it is the only one.
        let permits = u32::try_from(bytes.min(limit)).unwrap_or(u32::MAX);
        self.proposal_bytes.try_acquire_many(permits).map_err(|_| Unavailable::Overloaded { limit: limit as u64 })
    }
}

impl Replica {
    /// Restores the state from the newest checkpoint, replays the log and joins the group.
    pub async fn start(parts: ReplicaParts) -> Result<Self, StartError> {
        let ReplicaParts { world, config, data_dir, log, watch } = parts;
        snapshot::prepare_spool(&world, &data_dir.spool_path()).map_err(StartError::Spool)?;
        let recovered = recover::recover(&world, &config, &data_dir, &log).await?;
        let Recovered { state_dir, store, machine, checkpoint } = recovered;
        let stamper = Stamper::new(&*world.clock);
        let options = NetworkOptions::default();
        let raft_config = Arc::new(raft_config(&config)?);
        let proposals = Semaphore::new(config.limits.proposals_max);
        let proposal_bytes = Semaphore::new(config.limits.proposal_bytes_max.min(Semaphore::MAX_PERMITS));

        let checkpoint_index = checkpoint.as_ref().and_then(|meta| meta.last_log_id);
        let shared = Shared::new(Parts {
            world: world.clone(),
            blocks: StoredBlocks::new(store),
            config,
            data_dir,
            log: log.clone(),
            state_dir,
            machine,
            checkpoint,
            watch,
        });
        if checkpoint_index.is_some() {
            let machine = shared.machine();
            world.probe.restored(machine.applied_index(), &machine.state, &Uncached(&shared.blocks));
        }
        space::look(&shared);
        let context: Arc<dyn PeerContext> = Arc::new(identity::Identity(shared.clone()));
        let peers = Peers::new(world, context, options);
        let network = NetworkFactory(peers.clone());
        // It applies the log again, and nobody writes checkpoints yet: behind the gate it would wait for ever.
        let lifted = shared.gate.lift();
        let raft = Raft::new(shared.node_id(), raft_config, network, log, StateMachine(shared.clone()))
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        drop(lifted);

        let (ready, is_ready) = channel::channel(true);
        let view = bootstrap::watch_leadership(&shared, &raft, is_ready);
        bootstrap::form_cluster(&shared, &raft).await?;
        let read_index = ReadIndex::start(shared.clone(), raft.clone(), peers.clone());
        let membership = tokio::sync::Mutex::default();
        let inner =
            Inner { shared, raft, peers, stamper, read_index, proposals, proposal_bytes, view, membership, ready };
        let replica = Self { inner: Arc::new(inner) };
        let look: Arc<dyn Look> = replica.inner.shared.clone();
        replica.inner.shared.world.probe.started(Arc::downgrade(&look));
        bootstrap::abort_with_raft(&replica);
        bootstrap::introduce(&replica);
        driver::drive(&replica);
        bootstrap::keep_members(&replica);
        removed::notice_removal(&replica);
        watchdog::watch_disk(&replica);
        space::watch_room(&replica);
        retention::enforce(&replica);
        suspect::stop_serving(&replica);
        compare::compare_replicas(&replica);
        scrub::scrub(&replica);
        sweep::sweep(&replica);
        Ok(replica)
    }

    /// Tells whoever watches this node that something has happened.
    pub(crate) fn mark(&self, name: &'static str) {
        self.inner.shared.world.probe.mark(name);
    }

    /// Proposes a command and waits until it is applied here. Checks nothing: that is the caller's job.
    pub async fn propose(&self, request: Option<RequestId>, command: Command) -> Result<Committed, Unavailable> {
        let inner = &*self.inner;
        if !*inner.ready.borrow() {
            return Err(Unavailable::NotReady);
        }
        let limit = inner.shared.config.limits.proposals_max as u64;
        let probe = &*inner.shared.world.probe;
        let _permit = inner.proposals.try_acquire().map_err(|_| {
            probe.mark("overloaded");
            Unavailable::Overloaded { limit }
        })?;

        if command.grows() {
            space::check_growth(self).inspect_err(|_| probe.mark("disk_full_refused"))?;
        }

        // Read apart from the proposal's own place in the log: the state takes the greater of the two anyway.
        let at_ms = self.stamp_ms();
        let bytes_max = inner.shared.config.limits.response_bytes_max as u64;
        let proposal = Proposal(CoreProposal { at_ms, request, command, bytes_max }.encode());
        let _bytes = inner.take_bytes(proposal.0.len()).inspect_err(|_| probe.mark("overloaded"))?;
        let written = tokio::time::timeout(inner.shared.config.limits.call_time_max, inner.raft.client_write(proposal));
        let response = match written.await {
            Ok(Ok(response)) => response,
            // Overtaken by an orderly stop.
            Ok(Err(RaftError::Fatal(_))) if !self.is_ready() => {
                return Err(Unavailable::CommitUnknown("this node stops".into()));
            }
            Ok(Err(error)) => return Err(not_written(&inner.shared, error)),
            Err(_) if millstream_streams::mutant!(TimeoutMeansNothing) => return Err(Unavailable::NoLeader),
            Err(_) => {
                probe.mark("commit_unknown");
                return Err(Unavailable::CommitUnknown("not committed in time".into()));
            }
        };
        let (index, term) = (response.log_id.index, response.log_id.committed_leader_id().term);
        match response.data {
            Some(applied) => Ok(Committed { log_index: index, term, applied }),
            None => Err(Unavailable::CommitUnknown("the log entry held another payload".into())),
        }
    }

    /// Waits until this node's state is as fresh as asked.
    pub async fn read_barrier(&self, freshness: Freshness) -> Result<(), Unavailable> {
        if !self.is_ready() {
            return Err(Unavailable::NotReady);
        }
        let index = match freshness {
            Freshness::Local { min_applied_index } => min_applied_index,
            Freshness::Linearizable if millstream_streams::mutant!(StaleReads) => 0,
            Freshness::Linearizable => self.inner.read_index.get().await?,
        };
        let Config { raft, limits, .. } = &self.inner.shared.config;
        let patience = match (freshness, self.leadership()) {
            // The others can serve it, and this one may be cut off from all that is new.
            (Freshness::Linearizable, Leadership::Follower { .. }) => Duration::from_millis(2 * raft.election_ms_max),
            _ => limits.call_time_max,
        };
        read::applied_at_least(&self.inner.shared, index, patience).await
    }

    /// Looks at the state under its lock. Keep it short: apply waits.
    pub fn with_state<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.shared.machine().state)
    }

    /// Where stored blocks are read from.
    pub fn blocks(&self) -> Arc<dyn Blocks + Send + Sync> {
        self.inner.shared.blocks.clone()
    }

    /// The store does not have a block that the state named, however often it was asked. Stops this node if that is
    /// so. Reads some rows.
    pub fn lost_block(&self, key: BlockKey) {
        self.inner.shared.check_body(key);
    }

    /// Who waits for changes.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.inner.shared.watch
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        leadership_of(&self.inner.shared, &self.inner.raft)
    }

    /// Resolves when the leader, its term or readiness is no longer what it was when this was called.
    pub fn leadership_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut view = self.inner.view.clone();
        view.mark_unchanged();
        async move {
            // An error says that the node is being dropped, which is a change as well.
            let _ = view.changed().await;
        }
    }

    /// The greater of the wall clock and the state's: for idle times in queries.
    pub fn now_ms(&self) -> u64 {
        self.inner.shared.world.clock.wall_ms().max(self.with_state(State::clock_ms))
    }

    /// The time of a proposal made now, in milliseconds since the Unix epoch: for what becomes due by it.
    pub fn stamp_ms(&self) -> u64 {
        let state_ms = self.with_state(State::clock_ms);
        self.inner.stamper.stamp(&*self.inner.shared.world.clock, state_ms)
    }

    /// Whether the replica takes calls: false once it begins to stop.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// What other nodes may ask of this one.
    pub fn calls(&self) -> Arc<dyn RaftCalls> {
        Arc::new(calls::Calls(self.clone()))
    }

    /// Checks who speaks to whom.
    pub fn peer_context(&self) -> Arc<dyn PeerContext> {
        Arc::new(identity::Identity(self.inner.shared.clone()))
    }

    /// Resolves with a sentence for the operator when this node must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Cannot happen while `self` lives.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes no new calls, hands leadership to a follower that has the whole log, writes a checkpoint and stops. Gives up
    /// after [`SHUTDOWN_MAX`]: a log that waits for room on the disk would wait for ever.
    pub async fn shutdown(&self) -> io::Result<()> {
        let gave_up = |_| Err(io::Error::other("it takes too long; nothing that was acknowledged is lost"));
        tokio::time::timeout(SHUTDOWN_MAX, self.stop()).await.unwrap_or_else(gave_up)
    }

    async fn stop(&self) -> io::Result<()> {
        self.inner.ready.send_replace(false);
        self.inner.shared.gate.unhinge();
        bootstrap::hand_over(self).await;
        let stopped = self.inner.raft.shutdown().await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "Raft did not stop in good order");
        }
        checkpoint::write(&self.inner.shared).await.map(drop)
    }
}

/// openraft's configuration: each line that differs from the defaults has its reason in ARCHITECTURE.md.
fn raft_config(config: &Config) -> Result<openraft::Config, StartError> {
    let times = &config.raft;
    openraft::Config {
        cluster_name: "millstream".into(),
        heartbeat_interval: times.heartbeat_ms,
        election_timeout_min: times.election_ms_min,
        election_timeout_max: times.election_ms_max,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * times.election_ms_max),
        enable_leader_restore: Some(false),
        max_payload_entries: 2_048,
        max_append_entries: Some(4_096),
        snapshot_policy: SnapshotPolicy::Never,
        // The driver purges, by bytes. A follower gets a snapshot only if the log no longer goes back to it.
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        install_snapshot_timeout: 30_000,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| {
        StartError::Config(format!("{error}: check the heartbeat and election times of the configuration"))
    })
}

fn leadership_of(shared: &Shared, raft: &Raft) -> Leadership {
    let receiver = raft.metrics();
    let metrics = receiver.borrow_watched();
    match metrics.current_leader {
        _ if metrics.state == ServerState::Leader => Leadership::Leader { term: metrics.current_term },
        Some(node_id) if node_id != shared.node_id() => Leadership::Follower { leader: leader_hint(shared, node_id) },
        _ => Leadership::NoLeader,
    }
}

fn leader_hint(shared: &Shared, node_id: NodeId) -> LeaderHint {
    let client_address =
        shared.identities().nodes.get(&node_id).map(|node| node.client_address.clone()).unwrap_or_default();
    LeaderHint { node_id, client_address }
}

/// Where nodes reach a member.
fn peer_address(raft: &Raft, node_id: NodeId) -> Option<String> {
    raft.metrics().borrow_watched().membership_config.get_node(&node_id).map(|node| node.peer_address.clone())
}

fn not_leader(shared: &Shared, forward: &ForwardToLeader<TypeConfig>) -> Unavailable {
    match forward.leader_id {
        Some(node_id) if node_id != shared.node_id() => Unavailable::NotLeader(leader_hint(shared, node_id)),
        _ => Unavailable::NoLeader,
    }
}

fn not_written(shared: &Shared, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Unavailable {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(shared, &forward),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))
            if millstream_streams::mutant!(DiscardedMeansNothing) =>
        {
            Unavailable::NoLeader
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            shared.world.probe.mark("log_discarded");
            shared.world.probe.mark("commit_unknown");
            Unavailable::CommitUnknown("another leader took over".into())
        }
        // Neither can come of a plain write; nothing is proved about it.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            Unavailable::CommitUnknown(error.to_string())
        }
        RaftError::Fatal(_) => Unavailable::Stopped,
    }
}

/// The first members, as openraft wants them.
fn initial_members(config: &Config) -> std::collections::BTreeMap<NodeId, PeerNode> {
    config.initial_members.iter().map(|(id, address)| (*id, PeerNode { peer_address: address.clone() })).collect()
}
