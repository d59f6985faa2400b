//! A cluster under simulation, and the driver that moves it.
//!
//! The driver makes one step at a time. Faults are injected between the steps, never from inside a host, and the
//! simulation is never left to run by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use millstream_client::{NodeRole, NodeStatus};
use millstream_node::config::{CheckOptions, CheckpointOptions, Config, Engine, Limits, LogOptions, RaftTimes};
use millstream_node::server::Server;
use millstream_node::world::{Abort, FlushTask, Fs, Spawn, World};
use turmoil::Sim;

use crate::checks::{Evidence, ReplicaEnd};
use crate::disk::{Counters, Disk};
use crate::entropy::{EPOCH, Rng, SimClock, SimRandom, Time};
use crate::history::{History, Tally};
use crate::net::{Faults, SimNet};
use crate::trace::Trace;
use crate::workload::{Load, Observer, Workload};

const CLIENTS: &str = "clients";
const OBSERVER: &str = "observer";
const NODES: u64 = 3;
const CLIENT_PORT: u16 = 7420;
const PEER_PORT: u16 = 7421;
/// A node's disk is mounted here.
const MOUNT: &str = "/data";
/// Not older than this, a node's word about itself counts as present.
const FRESH: Duration = Duration::from_millis(600);
/// Under load, nodes write all the time.
const WRITING_SOON: Duration = Duration::from_secs(2);
/// Longer than any scenario.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How a simulation is set up, apart from its faults.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Simulated time of a step. Larger is faster and coarser.
    pub tick: Duration,
    /// What the clients do.
    pub load: Load,
}

impl Setup {
    /// The defaults, under `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, tick: Duration::from_millis(1), load: Load::default() }
    }
}

/// Why a simulation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Three nodes, their clients, and everything between them.
pub struct Cluster {
    // Never dropped: after a panic its destructors would panic again, and the process ends after one simulation.
    sim: ManuallyDrop<Sim<'static>>,
    time: Time,
    trace: Trace,
    faults: Faults,
    nodes: Vec<Node>,
    /// Links that turmoil has been told to break, by direction.
    broken: BTreeSet<(String, String)>,
    workload: Workload,
    observer: Observer,
    fatal: Fatal,
    /// For the scenario: when, how long, whom.
    pub rng: Rng,
}

struct Node {
    name: String,
    endpoint: String,
    disk: Disk,
}

/// The first thing that must not happen. Cheap to clone.
#[derive(Clone, Default)]
struct Fatal(Arc<Mutex<Option<String>>>);

impl Fatal {
    fn set(&self, problem: String) {
        self.lock().get_or_insert(problem);
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Builds the cluster. Nothing runs yet.
    pub fn new(setup: &Setup, time: Time, trace: Trace) -> io::Result<Self> {
        keep_first_panic();
        let Setup { seed, tick, load } = setup.clone();
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(Rng::stream(seed, "network").next_u64())
            .epoch(UNIX_EPOCH + EPOCH)
            .simulation_duration(DURATION_MAX)
            .tick_duration(tick)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(12))
            // Also the bound on connections waiting to be accepted, beyond which turmoil panics.
            .tcp_capacity(65_536)
            .enable_random_order();
        let mut sim = builder.build();

        let faults = Faults::default();
        let net = SimNet::new(faults.clone(), trace.clone());
        let fatal = Fatal::default();
        let names: Vec<_> = (1..=NODES).map(|number| format!("n{number}")).collect();
        let endpoints: Vec<_> = names.iter().map(|name| format!("{name}:{CLIENT_PORT}")).collect();
        let mut nodes = Vec::new();
        for (node_id, (name, endpoint)) in (1..).zip(names.iter().zip(&endpoints)) {
            let disk = Disk::new(name, Rng::stream(seed, &format!("disk {name}")), Some(trace.clone()));
            let machine = disk.mount();
            machine.create_dir_all(Path::new(MOUNT))?;
            machine.sync_dir(Path::new("/"))?;
            let config = config(node_id, name, &names);
            let random = Arc::new(SimRandom::new(Rng::stream(seed, &format!("identity {name}"))));
            let host = {
                let (name, disk, net, time, fatal) =
                    (name.clone(), disk.clone(), net.at(name), time.clone(), fatal.clone());
                move || {
                    let world = World {
                        // A new life of the process.
                        fs: Arc::new(disk.mount()),
                        clock: Arc::new(SimClock(time.clone())),
                        random: random.clone(),
                        spawn: Arc::new(OneThread),
                        net: Arc::new(net.clone()),
                        abort: Arc::new(Doom { node: name.clone(), fatal: fatal.clone() }),
                    };
                    let (name, config, fatal) = (name.clone(), config.clone(), fatal.clone());
                    async move {
                        let problem = match Server::start(world, config).await {
                            Ok(server) => server.failed().await,
                            Err(error) => error.to_string(),
                        };
                        fatal.set(format!("{name} stopped: {problem}"));
                        std::future::pending().await
                    }
                }
            };
            sim.host(name.as_str(), host);
            nodes.push(Node { name: name.clone(), endpoint: endpoint.clone(), disk });
        }

        let workload = Workload::new(net.at(CLIENTS), endpoints.clone(), load, seed, History::new(trace.clone()));
        let clients = workload.clone().run();
        sim.client(CLIENTS, async move { Ok(clients.await?) });
        let observer = Observer::default();
        let watching = observer.clone().run(net.at(OBSERVER), endpoints, time.clone(), seed);
        sim.client(OBSERVER, async move { Ok(watching.await?) });

        let sim = ManuallyDrop::new(sim);
        let rng = Rng::stream(seed, "nemesis");
        Ok(Self { sim, time, trace, faults, nodes, broken: BTreeSet::new(), workload, observer, fatal, rng })
    }

    /// Simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    /// The nodes' names.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// How the clients fare.
    pub fn tally(&self) -> Tally {
        self.workload.history().tally()
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

    fn status(&self, node: &Node) -> Option<NodeStatus> {
        self.observer.status(&node.endpoint, self.elapsed().saturating_sub(FRESH))
    }

    /// Announces what comes next.
    pub fn phase(&self, what: &str) {
        self.trace.line("phase", format_args!("{what}"));
        tracing::info!("{what}");
    }

    /// One step.
    pub fn step(&mut self) -> Result<(), Failure> {
        match catch_unwind(AssertUnwindSafe(|| self.sim.step())) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure(format!("a host failed: {error}"))),
            Err(_) => return Err(Failure(format!("panic: {}", first_panic()))),
        }
        self.time.set(self.sim.elapsed());
        match self.fatal.lock().take() {
            Some(problem) => Err(Failure(problem)),
            None => Ok(()),
        }
    }

    /// Steps for this long.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = self.elapsed() + duration;
        while self.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until `condition` holds. `what` is demanded within `limit`.
    pub fn run_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let end = self.elapsed() + limit;
        while !condition(self) {
            if end <= self.elapsed() {
                return Err(Failure(format!("{what}: not within {limit:?}; {}", self.describe())));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Steps until at least `count` of these nodes are writing to their disks, which is when a power cut can do harm. Goes
    /// on without if that moment does not come soon.
    pub fn run_until_writing(&mut self, nodes: &[String], count: usize) -> Result<(), Failure> {
        let end = self.elapsed() + WRITING_SOON;
        while self.elapsed() < end && nodes.iter().filter(|node| self.disk(node).is_writing()).count() < count {
            self.step()?;
        }
        Ok(())
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
        format!("{}; {:?}", nodes.collect::<Vec<_>>().join(", "), self.tally())
    }

    /// Cuts a node off from the other nodes and from the clients.
    pub fn isolate(&mut self, node: &str) {
        self.nemesis(format_args!("isolate {node}"));
        for other in self.nodes().iter().map(String::as_str).chain([CLIENTS]) {
            if other != node {
                self.faults.cut(node, other);
            }
        }
        self.apply_links();
    }

    /// Mends all links.
    pub fn heal(&mut self) {
        self.nemesis(format_args!("heal"));
        self.faults.mend_all();
        self.apply_links();
    }

    /// Takes the power from these nodes at one instant: silence, and of what was not synced the seed decides.
    pub fn power_cut(&mut self, nodes: &[String]) -> Result<(), Failure> {
        self.nemesis(format_args!("power cut {nodes:?}"));
        for node in nodes {
            self.faults.set_power(node, false);
        }
        // Before the crash: a machine without power does not close its connections.
        self.apply_links();
        for node in nodes {
            self.disk(node).power_loss();
            self.end_process(node)?;
        }
        Ok(())
    }

    /// Gives the power back: the nodes start from what is on their disks.
    pub fn power_on(&mut self, nodes: &[String]) -> Result<(), Failure> {
        self.nemesis(format_args!("power on {nodes:?}"));
        for node in nodes {
            self.faults.set_power(node, true);
        }
        self.apply_links();
        nodes.iter().try_for_each(|node| self.start_process(node))
    }

    /// Kills a node's process. Its machine goes on: connections are closed, new ones refused, files stay as written.
    pub fn kill(&mut self, node: &str) -> Result<(), Failure> {
        self.nemesis(format_args!("kill {node}"));
        self.disk(node).kill_process();
        self.faults.set_running(node, false);
        self.end_process(node)
    }

    /// Starts a killed node again.
    pub fn restart(&mut self, node: &str) -> Result<(), Failure> {
        self.nemesis(format_args!("restart {node}"));
        self.faults.set_running(node, true);
        self.start_process(node)
    }

    /// No more appends; steps until the clients have consumed and read everything, and the nodes are level.
    pub fn drain(&mut self, limit: Duration) -> Result<(), Failure> {
        self.workload.drain();
        self.run_until("the group is drained and the stream read", limit, |c| c.workload.ending().is_some())?;
        self.run_until("all nodes are level", limit, Self::is_level)
    }

    /// Whether all nodes have applied all that is in the log.
    pub fn is_level(&self) -> bool {
        let positions: BTreeSet<_> = self
            .statuses()
            .into_iter()
            .map(|(_, status)| status.map(|status| (status.last_log_index, status.applied_index)))
            .collect();
        matches!(positions.iter().collect::<Vec<_>>()[..], [Some((last, applied))] if last == applied)
    }

    /// What is left behind. Empty where the simulation did not get so far.
    pub fn evidence(&self) -> Evidence {
        let replicas = self.statuses().into_iter().filter_map(|(node, status)| {
            let NodeStatus { applied_index, state_digest, .. } = status?;
            Some(ReplicaEnd { node, applied_index, state_digest })
        });
        let ending = self.workload.ending();
        let (stream, group) = ending.map(|ending| (ending.stream, ending.group)).unwrap_or_default();
        Evidence { calls: self.workload.history().calls(), stream, group, replicas: replicas.collect() }
    }

    fn nemesis(&self, action: fmt::Arguments<'_>) {
        self.trace.line("nemesis", action);
        tracing::info!("{action}");
    }

    fn disk(&self, node: &str) -> &Disk {
        let node = self.nodes.iter().find(|candidate| candidate.name == node);
        &node.expect("scenarios name nodes of the cluster").disk
    }

    fn end_process(&mut self, node: &str) -> Result<(), Failure> {
        self.guarded(|sim| sim.crash(node))?;
        // What destructors complained of would not have happened: a process that ends so has none.
        self.fatal.lock().take();
        Ok(())
    }

    fn start_process(&mut self, node: &str) -> Result<(), Failure> {
        self.guarded(|sim| sim.bounce(node))
    }

    fn guarded(&mut self, action: impl FnOnce(&mut Sim<'static>)) -> Result<(), Failure> {
        catch_unwind(AssertUnwindSafe(|| action(&mut self.sim)))
            .map_err(|_| Failure(format!("panic: {}", first_panic())))
    }

    /// Tells turmoil which links are broken, in a fixed order.
    fn apply_links(&mut self) {
        let hosts: Vec<_> = self.nodes().into_iter().chain([CLIENTS.into(), OBSERVER.into()]).collect();
        for from in &hosts {
            for to in hosts.iter().filter(|to| *to != from) {
                let link = (from.clone(), to.clone());
                match (self.faults.carries(from, to), self.broken.contains(&link)) {
                    (false, false) => {
                        self.sim.partition_oneway(from.as_str(), to.as_str());
                        self.broken.insert(link);
                    }
                    (true, true) => {
                        self.sim.repair_oneway(from.as_str(), to.as_str());
                        self.broken.remove(&link);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Production's defaults, except where a simulation of a minute would never see the interesting case.
fn config(node_id: u64, name: &str, names: &[String]) -> Config {
    Config {
        node_id,
        data_dir: Path::new(MOUNT).join("millstream"),
        listen: format!("0.0.0.0:{CLIENT_PORT}"),
        peer_listen: format!("0.0.0.0:{PEER_PORT}"),
        advertise: format!("{name}:{CLIENT_PORT}"),
        peer_advertise: format!("{name}:{PEER_PORT}"),
        initial_members: (1..).zip(names.iter().map(|name| format!("{name}:{PEER_PORT}"))).collect(),
        engine: Engine::Memory,
        limits: Limits::default(),
        raft: RaftTimes::default(),
        log: LogOptions {
            // Many segments, and a node that was away for some seconds needs a snapshot.
            segment_bytes: 128 << 10,
            tail_bytes_max: 64 << 10,
            entries_kept: 300,
            reserve_bytes: 0,
            simulated_sync: Some(Duration::from_millis(3)),
            ..LogOptions::default()
        },
        checkpoint: CheckpointOptions { entries: 250, dirty_bytes: 256 << 10, ..CheckpointOptions::default() },
        checks: CheckOptions { compare_interval: Duration::from_secs(2), ..CheckOptions::default() },
    }
}

/// A world without threads: the flusher is a task, and blocking work blocks.
struct OneThread;

impl Spawn for OneThread {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> io::Result<()> {
        tokio::spawn(task.run_async());
        Ok(())
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { job() })
    }
}

/// No fault that is injected today gives a node a reason to abort, so an abort fails the simulation.
struct Doom {
    node: String,
    fatal: Fatal,
}

impl Abort for Doom {
    fn abort(&self, reason: &str) {
        self.fatal.set(format!("{} aborted: {reason}", self.node));
    }
}

/// turmoil reports a panic of a detached task as a panic of its own, without the words that matter.
static FIRST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn keep_first_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let mut first = FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| {
            // The backtrace is empty unless RUST_BACKTRACE asks for it.
            let problem = format!("{panic}\n{}", std::backtrace::Backtrace::capture());
            // Said at once: a panic in a destructor may end the process before anyone asks for the first one.
            eprintln!("{problem}");
            problem
        });
    }));
}

fn first_panic() -> String {
    let first = FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
    first.clone().unwrap_or_else(|| "of unknown cause".into())
}
