//! A cluster under simulation, and the driver that moves it.
//!
//! The driver makes one step at a time. Faults are injected between the steps, never from inside a host, and the
//! simulation is never left to run by itself.

mod host;
mod panics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use millstream_client::{NodeRole, NodeStatus};
use millstream_node::config::Config;
use turmoil::Sim;

use self::host::{Host, Stops, Timers};
use crate::checks::{Evidence, ReplicaEnd};
use crate::clock::NodeClock;
use crate::disk::{Counters, Disk};
use crate::entropy::{EPOCH, Rng, SimRandom, Time};
use crate::history::{History, Tally};
use crate::invariants::log::DurableLog;
use crate::invariants::{Events, Invariants, NodeView, TickView};
use crate::marks::Marks;
use crate::net::{Between, Faults, Links, SimNet};
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
/// How often conditions are looked at, in milliseconds. A multiple of any tick in use.
const LOOK_MS: u128 = 50;
/// After this, a cluster that nobody disturbs works again as if nothing had been.
const RECOVERY: Duration = Duration::from_secs(8);
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
    /// Machines beside those of the first nodes, on which a node starts when it is told to ([`Cluster::join`]).
    pub spares: u8,
}

impl Setup {
    /// The defaults, under `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, tick: Duration::from_millis(1), nodes: SetupPlan::default(), load: Load::default(), spares: 0 }
    }

    /// As a plan has it.
    pub fn of(plan: &Plan) -> Self {
        let Plan { seed, tick_ms, setup, load, .. } = plan.clone();
        Self { seed, tick: Duration::from_millis(tick_ms), nodes: setup, load, spares: 0 }
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
        let Setup { seed, tick, nodes: setup, load, spares } = setup.clone();
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
        let names: Vec<_> = (1..=setup.nodes + spares).map(|number| format!("n{number}")).collect();
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
                config: Arc::new(Mutex::new(host::config(&setup, node_id, name, first))),
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

        let workload = Workload::new(net.at(CLIENTS), endpoints.clone(), load, seed, History::new(trace.clone()));
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

    /// Starts a node on this machine that waits until it is added to the cluster. If one ran there before, its disk is
    /// replaced by an empty one, and it has another id now.
    pub fn join(&mut self, node: &str, id: u64) -> Result<(), Failure> {
        self.nemesis(format_args!("{node} starts with an empty disk as node {id} and waits to be added"));
        self.set_lives(&BTreeMap::from([(node.to_owned(), Life::Dead)]))?;
        let machine = self.node_mut(node);
        if machine.disk.life() != 0 {
            machine.disk.replace();
            host::prepare(&machine.disk).map_err(|error| failure("a disk can be prepared", error))?;
        }
        machine.id = id;
        machine.is_member = true;
        machine.excused_until = Duration::ZERO;
        let mut config = machine.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.node_id = id;
        config.initial_members.clear();
        drop(config);
        self.set_lives(&BTreeMap::from([(node.to_owned(), Life::Runs)]))
    }

    /// From now on nothing is expected of this machine, whether a node runs there or not.
    pub fn leave(&mut self, node: &str) {
        self.node_mut(node).is_member = false;
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

    /// Restores a backup on a machine of its own: up to which log index it goes, or what is wrong with it.
    pub fn restore(&self, backup: &[u8]) -> Result<u64, String> {
        host::restore(backup, self.time.clone())
    }

    /// What the clients did so far.
    pub fn history(&self) -> &History {
        self.workload.history()
    }

    /// What is durable of this node's log.
    pub fn durable_log(&self, node: &str) -> Option<&DurableLog> {
        self.invariants.log(self.node(node).id)
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

    /// What befalls the calls between nodes.
    pub fn rpc(&self) -> &RpcFaults {
        &self.rpc
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
            Ok(Err(error)) => return Err(failure("no host fails", error)),
            Err(_) => return Err(failure("nothing panics", panics::first())),
        }
        self.time.set(self.sim.elapsed());
        self.check_invariants()?;
        self.look()
    }

    /// What is looked at after every step.
    fn look(&mut self) -> Result<(), Failure> {
        let now = self.elapsed();
        if let Some(violation) = self.witness.violation() {
            return Err(failure(violation.property, violation.problem));
        }
        for (name, words) in self.stops.take() {
            let Some(node) = self.nodes.iter().find(|node| node.name == name) else { continue };
            // A process that is dying anyway may say anything.
            let is_excused = now < node.excused_until || node.disk.has_crashed() || node.life != Life::Runs;
            if !is_excused {
                return Err(failure("no node stops without a reason", format!("{name} {words}")));
            }
            self.trace.line("nemesis", format_args!("{name} {words}"));
            tracing::info!("{name} {words}");
            self.stopped.push((name, words));
        }
        if !self.is_time_to_look() {
            return Ok(());
        }
        let all_is_well = self.told.values().all(|between| *between == Between::default())
            && self.nodes.iter().all(|node| !node.is_member || node.life == Life::Runs);
        for node in &mut self.nodes {
            let Some(status) = self.observer.status(&node.endpoint, now.saturating_sub(FRESH)) else { continue };
            if status.role() == NodeRole::Leader && node.led_term < status.term {
                node.led_term = status.term;
                self.marks.mark("leader_elected");
                if !all_is_well {
                    self.marks.mark("leader_elected_under_fault");
                }
            }
        }
        Ok(())
    }

    fn check_invariants(&mut self) -> Result<(), Failure> {
        let directory = host::data_dir();
        let nodes = self.nodes.iter().map(|node| NodeView { id: node.id, disk: &node.disk, directory: &directory });
        let (nodes, events) = (nodes.collect::<Vec<_>>(), self.events.take());
        let view = TickView { at: self.time.elapsed(), nodes: &nodes, events: &events };
        self.invariants.check(&view).map_err(|violation| failure(violation.invariant, violation.problem))
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
    pub fn run_until(
        &mut self,
        what: &'static str,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let end = self.elapsed() + limit;
        while !(self.is_time_to_look() && condition(self)) {
            if end <= self.elapsed() {
                return Err(failure(what, format!("not within {limit:?}; {}", self.describe())));
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

    /// Says what is wrong with the links, instead of what was.
    pub fn set_links(&mut self, links: Links) {
        self.faults.set_links(links);
        self.apply_links();
    }

    /// Says who lives; all at one instant. A node that is not named goes on as it is.
    pub fn set_lives(&mut self, lives: &BTreeMap<String, Life>) -> Result<(), Failure> {
        let changed: Vec<_> = lives.iter().filter(|(name, life)| self.node(name).life != **life).collect();
        for (name, life) in &changed {
            self.nemesis(format_args!("{name} from now on: {life:?}"));
            self.faults.set_power(name, **life != Life::Dark);
            // Without power nobody refuses; whoever starts, refuses until it listens.
            self.faults.set_running(name, **life == Life::Runs);
        }
        // Before the crash: a machine without power does not close its connections.
        self.apply_links();
        for (name, life) in changed {
            let node = self.node_mut(name);
            let before = std::mem::replace(&mut node.life, *life);
            match life {
                Life::Runs => self.guarded(|sim| sim.bounce(name.as_str()))?,
                Life::Dead if before == Life::Dark => {}
                Life::Dead => {
                    node.disk.kill_process();
                    self.end_process(name)?;
                }
                Life::Dark => {
                    node.disk.power_loss();
                    self.end_process(name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether this node lives.
    pub fn life(&self, node: &str) -> Life {
        self.node(node).life
    }

    /// Until `until`, an injected fault explains that this node ends by itself. [`Duration::MAX`]: for ever, and it may
    /// not come back.
    pub fn expect_stop(&mut self, node: &str, until: Duration) {
        let node = self.node_mut(node);
        node.excused_until = node.excused_until.max(until);
    }

    /// Whether what was injected has damaged this node's disk for good, so that it may never come back.
    pub fn is_damaged(&self, node: &str) -> bool {
        self.node(node).excused_until == Duration::MAX
    }

    /// The nodes that have ended by themselves since this was last asked, with their words.
    pub fn take_stopped(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.stopped)
    }

    /// This node's timers and monotonic clock are at once so much later.
    pub fn leap(&mut self, node: &str, by: Duration) {
        let node = self.node(node);
        if node.life == Life::Runs {
            node.timers.leap(by);
        }
    }

    /// A node's clock, to be put wrong.
    pub fn clock(&mut self, node: &str) -> &NodeClock {
        self.clocks_agree = false;
        &self.node(node).clock
    }

    /// A node's disk.
    pub fn disk(&self, node: &str) -> &Disk {
        &self.node(node).disk
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

    /// Whether these nodes have applied all that is in the log.
    pub fn is_level(&self, nodes: &[String]) -> bool {
        let positions = nodes.iter().map(|name| {
            let status = self.status(self.node(name));
            status.map(|status| (status.last_log_index, status.applied_index))
        });
        let positions: BTreeSet<_> = positions.collect();
        matches!(positions.iter().collect::<Vec<_>>()[..], [Some((last, applied))] if last == applied)
    }

    /// Conditions are looked at now and then: it costs time, and what they look at is not newer than the nodes' last
    /// word about themselves.
    pub fn is_time_to_look(&self) -> bool {
        let ms = self.elapsed().as_millis();
        ms.is_multiple_of(LOOK_MS)
    }

    /// Whether these nodes have answered lately, agree on the members and on one leader, and that leads. It may be another
    /// than these: a disk whose damage nobody has come across yet does not keep its node from leading.
    pub fn agree(&self, nodes: &[String]) -> bool {
        let statuses: Option<Vec<_>> = nodes.iter().map(|name| self.status(self.node(name))).collect();
        let Some(statuses) = statuses else { return false };
        let views: BTreeSet<_> = statuses
            .iter()
            .map(|status| {
                let members = status.members.iter().map(|member| (member.node_id, member.voter));
                (status.term, status.leader_id, members.collect::<BTreeSet<_>>())
            })
            .collect();
        let Some((term, leader_id, _)) = views.first().filter(|_| views.len() == 1) else { return false };
        let leader = self.nodes.iter().find(|node| node.id == *leader_id).and_then(|node| self.status(node));
        leader.is_some_and(|status| status.role() == NodeRole::Leader && status.term == *term)
    }

    /// What is left behind. Empty where the simulation did not get so far.
    pub fn evidence(&self) -> Evidence {
        // Of a node with a damaged disk nothing is demanded but what the witness holds.
        let whole = |node: &&Node| node.is_member && node.life == Life::Runs && node.excused_until != Duration::MAX;
        let running = self.nodes.iter().filter(whole);
        let replicas = running.filter_map(|node| {
            let NodeStatus { applied_index, state_digest, .. } = self.status(node)?;
            Some(ReplicaEnd { node: node.name.clone(), applied_index, state_digest })
        });
        // Nothing is broken before the first fault; after the last there must be time to recover.
        let ms = |time: Duration| time.as_millis() as u64;
        let first = self.faults_at.first().map_or(ms(self.elapsed()), |first| ms(*first));
        let last = self.faults_at.last().map_or(ms(self.elapsed()), |last| ms(*last + RECOVERY));
        let calm = vec![(0, first), (last, ms(self.elapsed()))];
        let clock_skew_ms = self.clocks_agree.then_some(0);
        Evidence { replicas: replicas.collect(), calm, clock_skew_ms, ..self.workload.evidence() }
    }

    /// Notes what the nemesis does.
    pub fn nemesis(&mut self, action: fmt::Arguments<'_>) {
        self.faults_at.push(self.elapsed());
        self.trace.line("nemesis", action);
        tracing::info!("{action}");
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).expect("the driver names nodes of the cluster")
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("the driver names nodes of the cluster")
    }

    fn end_process(&mut self, name: &str) -> Result<(), Failure> {
        self.guarded(|sim| sim.crash(name))?;
        // What destructors complained of would not have happened: a process that ends so has none.
        self.stops.forget(name);
        Ok(())
    }

    fn guarded(&mut self, action: impl FnOnce(&mut Sim<'static>)) -> Result<(), Failure> {
        catch_unwind(AssertUnwindSafe(|| action(&mut self.sim))).map_err(|_| failure("nothing panics", panics::first()))
    }

    /// Tells turmoil what is wrong with each pair of hosts, in a fixed order.
    ///
    /// turmoil's faults are not independent: a release heals what was cut, and repairing what is held leaves it stuck
    /// for ever. So a pair that changes is released first, and then gets all that is wrong with it.
    fn apply_links(&mut self) {
        let hosts: Vec<_> = self.machines().into_iter().chain([CLIENTS.into(), OBSERVER.into()]).collect();
        for (index, a) in hosts.iter().enumerate() {
            for b in hosts.iter().skip(index + 1) {
                let (key, between) = ((a.clone(), b.clone()), self.faults.between(a, b));
                let told = self.told.get(&key).cloned().unwrap_or_default();
                if told == between {
                    continue;
                }
                if told.slow != between.slow {
                    let latency_max = between.slow.unwrap_or(self.latency_max).max(self.latency_max);
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency_max);
                }
                self.sim.release(a.as_str(), b.as_str());
                if between.held {
                    self.sim.hold(a.as_str(), b.as_str());
                }
                if between.cut_there {
                    self.sim.partition_oneway(a.as_str(), b.as_str());
                }
                if between.cut_back {
                    self.sim.partition_oneway(b.as_str(), a.as_str());
                }
                self.told.insert(key, between);
            }
        }
    }
}

/// A demand that was not met.
pub fn failure(check: &'static str, problem: impl fmt::Display) -> Failure {
    Failure { check, problem: problem.to_string() }
}
