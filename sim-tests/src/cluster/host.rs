//! One node on its host: how it is set up, what it is handed, and what is heard of its end.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use millstream_node::config::{
    CheckOptions, CheckpointOptions, Config, Engine, Limits, LogOptions, RaftTimes, RespOptions,
};
use millstream_node::replica::{self, Restore};
use millstream_node::server::Server;
use millstream_node::world::{Abort, FlushTask, Fs, Look, NoProbe, NoTap, OpenMode, Probe, Random, Spawn, World};
use millstream_streams::{Blocks, Outcome, State};
use tokio::runtime::RngSeed;
use tokio::sync::Notify;

use crate::clock::NodeClock;
use crate::disk::Disk;
use crate::entropy::{Rng, SimRandom, Time};
use crate::invariants::{Events, Listener};
use crate::net::{Faults, SimNet};
use crate::plan::{EnginePlan, SetupPlan};
use crate::rpc::RpcFaults;
use crate::trace::Trace;
use crate::witness::Witness;
use crate::workload::door;

const CLIENT_PORT: u16 = 7420;
const PEER_PORT: u16 = 7421;
/// A node's disk is mounted here.
const MOUNT: &str = "/data";

/// What a node is made of, life after life. Cheap to clone.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) disk: Disk,
    pub(super) clock: NodeClock,
    pub(super) timers: Timers,
    pub(super) net: SimNet,
    pub(super) random: Arc<dyn Random>,
    /// As of the next life.
    pub(super) config: Arc<Mutex<Config>>,
    pub(super) stops: Stops,
    pub(super) witness: Witness,
    pub(super) events: Events,
    pub(super) rpc: RpcFaults,
}

/// Where clients reach a node.
pub(super) fn endpoint(name: &str) -> String {
    format!("{name}:{CLIENT_PORT}")
}

/// Where a node keeps its data on its disk.
pub(super) fn data_dir() -> PathBuf {
    Path::new(MOUNT).join("millstream")
}

/// Mounts a new disk.
pub(super) fn prepare(disk: &Disk) -> io::Result<()> {
    let machine = disk.mount();
    machine.create_dir_all(Path::new(MOUNT))?;
    machine.sync_dir(Path::new("/"))
}

/// Production's defaults, except where a simulation of a minute would never see the interesting case.
/// `has_door`: it serves clients of Redis, too.
pub(super) fn config(setup: &SetupPlan, node_id: u64, name: &str, names: &[String], has_door: bool) -> Config {
    Config {
        node_id,
        data_dir: data_dir(),
        listen: format!("0.0.0.0:{CLIENT_PORT}"),
        peer_listen: format!("0.0.0.0:{PEER_PORT}"),
        advertise: endpoint(name),
        peer_advertise: format!("{name}:{PEER_PORT}"),
        initial_members: (1..).zip(names.iter().map(|name| format!("{name}:{PEER_PORT}"))).collect(),
        engine: match setup.engine {
            EnginePlan::Memory => Engine::Memory,
            EnginePlan::Redb => Engine::Redb,
        },
        limits: Limits { call_time_max: Duration::from_millis(setup.call_time_max_ms), ..Limits::default() },
        raft: RaftTimes::default(),
        log: LogOptions {
            segment_bytes: setup.segment_bytes,
            tail_bytes_max: setup.tail_bytes_max as usize,
            entries_kept: setup.entries_kept,
            bytes_kept_for_transfer: setup.transfer_bytes_kept,
            reserve_bytes: setup.reserve_bytes,
            simulated_sync: Some(Duration::from_millis(setup.sync_ms)),
            ..LogOptions::default()
        },
        checkpoint: CheckpointOptions {
            entries: setup.checkpoint_entries,
            dirty_bytes: setup.dirty_bytes,
            dirty_bytes_max: setup.dirty_bytes_max,
            ..CheckpointOptions::default()
        },
        resp: RespOptions { listen: has_door.then(|| format!("0.0.0.0:{}", door::PORT)), ..RespOptions::default() },
        checks: CheckOptions {
            scrub_bytes_per_second: setup.scrub_bytes_per_second,
            compare_interval: Duration::from_millis(setup.compare_ms),
        },
    }
}

/// Restores a backup on a machine of its own, with nothing else there: up to which log index it goes.
pub(super) fn restore(backup: &[u8], time: Time) -> Result<u64, String> {
    let words = |error: io::Error| error.to_string();
    let disk = Disk::new("scratch", Rng::stream(0, "scratch disk"), None);
    prepare(&disk).map_err(words)?;
    let file = Path::new(MOUNT).join("backup");
    disk.mount().open(&file, OpenMode::CreateNew).and_then(|file| file.write_all_at(backup, 0)).map_err(words)?;
    let world = World {
        fs: Arc::new(disk.mount()),
        clock: Arc::new(NodeClock::new(time.clone())),
        random: Arc::new(SimRandom::new(Rng::stream(0, "scratch identity"))),
        spawn: Arc::new(OneThread(disk.clone())),
        net: Arc::new(SimNet::new(Faults::default(), Trace::new(time, None).map_err(words)?)),
        rpc: Arc::new(NoTap),
        abort: Arc::new(Doom { node: "scratch".into(), disk, stops: Stops::default() }),
        probe: Arc::new(NoProbe),
    };
    let peer_advertise = format!("scratch:{PEER_PORT}");
    let segment_bytes = SetupPlan::default().segment_bytes;
    let asked =
        Restore { file, data_dir: data_dir(), node_id: 1, peer_advertise, engine: Engine::Memory, segment_bytes };
    // The log's flusher is a task, and its syncs take time, which passes here by itself.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let seed = RngSeed::from_bytes(b"restore");
    let runtime = runtime.enable_time().start_paused(true).rng_seed(seed).build().map_err(words)?;
    let restored = runtime.block_on(replica::restore(&world, &asked));
    restored.map(|restored| restored.log_index).map_err(|error| error.to_string())
}

impl Host {
    /// One life of the node's process. Never returns.
    pub(super) async fn live(self) -> Result<(), Box<dyn std::error::Error>> {
        let Self { name, disk, clock, timers, net, random, config, stops, witness, events, rpc } = self;
        let config = config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let leaps = timers.new_life();
        let world = World {
            fs: Arc::new(disk.mount()),
            clock: Arc::new(clock),
            random,
            spawn: Arc::new(OneThread(disk.clone())),
            net: Arc::new(net),
            rpc: rpc.at(config.node_id),
            abort: Arc::new(Doom { node: name.clone(), disk, stops: stops.clone() }),
            probe: Arc::new(Probes { witness: witness.probe(&name), events: events.listener(config.node_id) }),
        };
        let node = async {
            match Server::start(world, config).await {
                Ok(server) => server.failed().await,
                Err(error) => error.to_string(),
            }
        };
        let leaping = async {
            loop {
                leaps.notified().await;
                tokio::time::advance(timers.take()).await;
            }
        };
        let problem = tokio::select! {
            biased;
            never = leaping => never,
            problem = node => problem,
        };
        stops.report(&name, format!("stopped: {problem}"));
        std::future::pending().await
    }
}

/// Lets a host's timers leap: what becomes due within the leap is due at once. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Timers(Arc<Mutex<(Duration, Arc<Notify>)>>);

impl Timers {
    /// At the host's next step its time is so much later.
    pub(super) fn leap(&self, by: Duration) {
        let mut state = self.lock();
        state.0 += by;
        state.1.notify_one();
    }

    fn take(&self) -> Duration {
        std::mem::take(&mut self.lock().0)
    }

    /// What was to come concerned the life before.
    fn new_life(&self) -> Arc<Notify> {
        let mut state = self.lock();
        *state = Default::default();
        state.1.clone()
    }

    fn lock(&self) -> MutexGuard<'_, (Duration, Arc<Notify>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which nodes have ended by themselves, and with what words. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Stops(Arc<Mutex<Vec<(String, String)>>>);

impl Stops {
    fn report(&self, node: &str, words: String) {
        let mut stops = self.lock();
        // What a node says after its first words follows from them.
        if !stops.iter().any(|(stopped, _)| stopped == node) {
            stops.push((node.to_owned(), words));
        }
    }

    pub(super) fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.lock())
    }

    /// Nothing is to be heard of this node.
    pub(super) fn forget(&self, node: &str) {
        self.lock().retain(|(stopped, _)| stopped != node);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A world without threads: the flusher is a task, and blocking work blocks. Both are as slow as the disk.
struct OneThread(Disk);

impl Spawn for OneThread {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> io::Result<()> {
        tokio::spawn(self.0.clone().stalling(task.run_async()));
        Ok(())
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.0.clone().stalling_job(job))
    }
}

/// Both who watch a node from inside.
struct Probes {
    witness: Arc<dyn Probe>,
    events: Listener,
}

impl Probe for Probes {
    fn applied(&self, index: u64, term: u64, proposal: &[u8], outcome: Option<&Outcome>, repeated: bool) {
        self.events.applied(index, term, proposal, outcome, repeated);
        self.witness.applied(index, term, proposal, outcome, repeated);
    }

    fn committed(&self, index: u64, term: u64) {
        self.events.committed(index, term);
        self.witness.committed(index, term);
    }

    fn restored(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        self.events.restored(index, state, blocks);
        self.witness.restored(index, state, blocks);
    }

    fn checkpoint(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        self.events.checkpoint(index, state, blocks);
        self.witness.checkpoint(index, state, blocks);
    }

    fn started(&self, look: Weak<dyn Look>) {
        self.events.started(look.clone());
        self.witness.started(look);
    }

    fn mark(&self, name: &'static str) {
        self.witness.mark(name);
    }
}

/// The end of a process: nothing of it is written after this.
struct Doom {
    node: String,
    disk: Disk,
    stops: Stops,
}

impl Abort for Doom {
    fn abort(&self, reason: &str) {
        self.disk.kill_process();
        self.stops.report(&self.node, format!("aborted: {reason}"));
    }
}
