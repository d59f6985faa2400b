//! A cluster under simulation, and the driver that moves it.
//!
//! The driver makes one step at a time. Faults are injected between the steps, never from inside a host, and the
//! simulation is never left to run by itself.

mod faults;
mod host;
mod panics;
mod steps;
mod views;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use millstream_node::config::Config;
use turmoil::Sim;

use self::host::{Host, Stops, Timers};
use crate::clock::NodeClock;
use crate::disk::Disk;
use crate::entropy::{EPOCH, Rng, SimRandom, Time};
use crate::history::{History, Tally};
use crate::invariants::{Events, Invariants};
use crate::marks::Marks;
use crate::net::{Between, Faults, SimNet};
use crate::plan::{Plan, SetupPlan};
use crate::rpc::RpcFaults;
use crate::trace::Trace;
use crate::witness::Witness;
use crate::workload::{Admin, Load, Observer, Order, Told, Workload};

/// The host of all clients.
pub const CLIENTS: &str = "clients";
const OBSERVER: &str = "observer";
/// Not older than this, a node's word about itself counts as present.
const FRESH: Duration = Duration::from_millis(600);
/// Under load, nodes write all the time.
pub const WRITING_SOON: Duration = Duration::from_secs(2);
/// Longer than any scenario.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How a simulation is set up, apart from its faults.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Simulated time of a step. Larger is faster and coarser.
    pub tick: Duration,
    /// The nodes.
    pub nodes: SetupPlan,
    /// What the clients do.
    pub load: Load,
}

impl Setup {
    /// The defaults, under `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, tick: Duration::from_millis(1), nodes: SetupPlan::default(), load: Load::default() }
    }

    /// As a plan has it.
    pub fn of(plan: &Plan) -> Self {
        let Plan { seed, tick_ms, setup, load, .. } = plan.clone();
        Self { seed, tick: Duration::from_millis(tick_ms), nodes: setup, load }
    }
}

/// Why a simulation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which demand was not met, in words that are the same each time.
    pub check: &'static str,
    /// What happened, with the facts.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.problem)
    }
}

impl std::error::Error for Failure {}

/// Whether a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Its process runs.
    Runs,
    /// Its machine runs, and its process does not: connections are refused, files stay as written.
    Dead,
    /// Its machine has no power: silence, and what was not synced may be lost.
    Dark,
}

/// A few nodes, their clients, and everything between them.
pub struct Cluster {
    // Never dropped: after a panic its destructors would panic again, and the process ends after one simulation.
    sim: ManuallyDrop<Sim<'static>>,
    time: Time,
    trace: Trace,
    marks: Marks,
    faults: Faults,
    latency_max: Duration,
    rpc: RpcFaults,
    nodes: Vec<Node>,
    /// What turmoil has been told of each pair of hosts that is not well.
    told: BTreeMap<(String, String), Between>,
    workload: Workload,
    admin: Admin,
    observer: Observer,
    stops: Stops,
    /// Nodes that ended by themselves, as an injected fault explains, with their words; not fetched yet.
    stopped: Vec<(String, String)>,
    witness: Witness,
    /// When something was broken or mended.
    faults_at: Vec<Duration>,
    /// No node's clock was ever wrong.
    clocks_agree: bool,
    events: Events,
    invariants: Invariants,
    /// For the scenario: when, how long, whom.
    pub rng: Rng,
}

struct Node {
    id: u64,
    name: String,
    endpoint: String,
    disk: Disk,
    clock: NodeClock,
    timers: Timers,
    /// As of its next start.
    config: Arc<Mutex<Config>>,
    /// It is, or is to be, a member of the cluster.
    is_member: bool,
    life: Life,
    /// Until when an injected fault explains that it ends by itself.
    excused_until: Duration,
    /// The highest term in which it was seen to lead.
    led_term: u64,
}

impl Cluster {
    /// Builds the cluster. Nothing runs yet.
    pub fn new(setup: &Setup, time: Time, trace: Trace, marks: Marks) -> io::Result<Self> {
        panics::keep_first();
        let Setup { seed, tick, nodes: setup, load } = setup.clone();
        let latency_max = Duration::from_millis(setup.latency_ms_max);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(Rng::stream(seed, "network").next_u64())
            .epoch(UNIX_EPOCH + EPOCH)
            .simulation_duration(DURATION_MAX)
            .tick_duration(tick)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(latency_max)
            // Also the bound on connections waiting to be accepted, beyond which turmoil panics.
            .tcp_capacity(65_536)
            .enable_random_order();
        let mut sim = builder.build();

        let faults = Faults::default();
        let net = SimNet::new(faults.clone(), trace.clone());
        let rpc = RpcFaults::new(Rng::stream(seed, "rpc"), trace.clone());
        let stops = Stops::default();
        let witness = Witness::new(trace.clone());
        let events = Events::default();
        let names: Vec<_> = (1..=setup.nodes + setup.spares).map(|number| format!("n{number}")).collect();
        let first = &names[..usize::from(setup.nodes)];
        let endpoints: Vec<_> = names.iter().map(|name| host::endpoint(name)).collect();
        let mut nodes = Vec::new();
        for (node_id, (name, endpoint)) in (1..).zip(names.iter().zip(&endpoints)) {
            let disk = Disk::new(name, Rng::stream(seed, &format!("disk {name}")), Some(trace.clone()));
            host::prepare(&disk)?;
            let host = Host {
                name: name.clone(),
                disk: disk.clone(),
                clock: NodeClock::new(time.clone()),
                timers: Timers::default(),
                net: net.at(name),
                random: Arc::new(SimRandom::new(Rng::stream(seed, &format!("identity {name}")))),
                config: Arc::new(Mutex::new(host::config(&setup, node_id, name, first, 0 < load.door_one_in))),
                stops: stops.clone(),
                witness: witness.clone(),
                events: events.clone(),
                rpc: rpc.clone(),
            };
            let is_spare = !first.contains(name);
            nodes.push(Node {
                id: node_id,
                name: name.clone(),
                endpoint: endpoint.clone(),
                disk,
                clock: host.clock.clone(),
                timers: host.timers.clone(),
                config: host.config.clone(),
                is_member: !is_spare,
                life: if is_spare { Life::Dead } else { Life::Runs },
                excused_until: Duration::ZERO,
                led_term: 0,
            });
            sim.host(name.as_str(), move || host.clone().live());
            if is_spare {
                sim.crash(name.as_str());
                faults.set_running(name, false);
            }
        }

        let workload = {
            let (history, marks) = (History::new(trace.clone()), marks.clone());
            Workload::new(net.at(CLIENTS), endpoints.clone(), load, seed, history, marks)
        };
        let clients = workload.clone().run();
        let admin = Admin::new(net.at(CLIENTS), endpoints.clone(), seed, workload.history().clone());
        let orders = admin.clone().run();
        sim.client(CLIENTS, async move {
            tokio::select! {
                biased;
                () = orders => Ok(()),
                done = clients => Ok(done?),
            }
        });
        let observer = Observer::default();
        let watching = observer.clone().run(net.at(OBSERVER), endpoints, time.clone(), seed);
        sim.client(OBSERVER, async move { Ok(watching.await?) });

        let sim = ManuallyDrop::new(sim);
        let rng = Rng::stream(seed, "nemesis");
        let (told, stopped, faults_at) = Default::default();
        Ok(Self {
            sim,
            time,
            trace,
            marks,
            faults,
            rpc,
            latency_max,
            nodes,
            told,
            workload,
            admin,
            observer,
            stops,
            stopped,
            witness,
            faults_at,
            clocks_agree: true,
            events,
            invariants: Invariants::new(),
            rng,
        })
    }

    /// Simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    /// The names of the nodes that are members, or are to be.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.is_member).map(|node| node.name.clone()).collect()
    }

    /// The names of all machines of nodes.
    pub fn machines(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// The id of the node on this machine.
    pub fn id(&self, node: &str) -> u64 {
        self.node(node).id
    }

    /// Where clients reach it.
    pub fn endpoint(&self, node: &str) -> String {
        self.node(node).endpoint.clone()
    }

    /// Where other nodes reach it.
    pub fn peer_address(&self, node: &str) -> String {
        self.node(node).config.lock().unwrap_or_else(PoisonError::into_inner).peer_advertise.clone()
    }

    /// Has the clients' host do what an operator would. Returns a number to ask for the answer by.
    pub fn order(&mut self, order: Order) -> u64 {
        self.trace.line("nemesis", format_args!("order {order:?}"));
        tracing::info!("order {order:?}");
        self.admin.order(order)
    }

    /// What came of an order; `None`: nothing yet.
    pub fn told(&self, order: u64) -> Option<Result<Told, String>> {
        self.admin.told(order)
    }

    /// What the clients did so far.
    pub fn history(&self) -> &History {
        self.workload.history()
    }

    /// Who sees what the nodes apply.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// How the clients fare.
    pub fn tally(&self) -> Tally {
        self.workload.history().tally()
    }

    /// What has been seen to happen.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// From now on clients append nothing, and consume and read until nothing is left.
    pub fn stop_appending(&self) {
        self.workload.drain();
    }

    /// Whether the clients have read everything, since [`stop_appending`](Self::stop_appending) or
    /// [`read_again`](Self::read_again).
    pub fn has_read(&self) -> bool {
        self.workload.has_read()
    }

    /// Everything is to be read once more.
    pub fn read_again(&self) {
        self.workload.read_again();
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).expect("the driver names nodes of the cluster")
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("the driver names nodes of the cluster")
    }
}

/// A demand that was not met.
pub fn failure(check: &'static str, problem: impl fmt::Display) -> Failure {
    Failure { check, problem: problem.to_string() }
}
