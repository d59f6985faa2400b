//! One run: a plan from boot to the last look, and what it amounts to.
//!
//! Boot, then faults while clients work. Then everything is mended, or first only a majority, and recovery is demanded
//! within a deadline: one leader, the same members everywhere, fresh appends acknowledged and consumed. Then clients
//! consume what is left, and all that was seen is held against every property. At last all nodes lose their power at
//! one instant, and what they then have on their disks must be the same.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checks::{self, Violation};
use crate::cluster::{Cluster, Failure, Life, Setup, failure};
use crate::entropy::Time;
use crate::history::Tally;
use crate::marks::Marks;
use crate::nemesis::Nemesis;
use crate::plan::{EnginePlan, Heal, Plan};
use crate::scenarios::Scenario;
use crate::trace::{self, Trace};

/// A cluster has a leader within this time after its start.
pub const ELECTION: Duration = Duration::from_secs(20);
/// Clients work undisturbed before the first fault.
const PEACE: Duration = Duration::from_secs(2);
/// So much must be done after the last fault.
const FRESH_WORK: u64 = 5;
/// An operator who tries again and again has replaced a member within this time, once everything is mended.
const CHANGE: Duration = Duration::from_secs(60);
/// Everything is consumed and read within this time.
const DRAIN: Duration = Duration::from_secs(60);
/// How long all nodes stay without power at the end.
const DARK: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone)]
pub enum What {
    /// A plan.
    Plan(Plan),
    /// A scenario, under a setup.
    Scenario(&'static Scenario, Setup),
}

/// How to run a simulation.
#[derive(Clone)]
pub struct Options {
    /// What.
    pub what: What,
    /// Where to write the lines of the trace; `None`: only their hash is kept.
    pub trace_file: Option<PathBuf>,
    /// What of the nodes' and clients' logs to print, in the syntax of `RUST_LOG`; `None`: nothing.
    pub log: Option<String>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which demand or property, in words that are the same each time.
    pub check: String,
    /// What happened, with the facts.
    pub problem: String,
}

/// What a simulation amounts to. Two runs of a seed give the same report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What went wrong; empty if nothing did.
    pub problems: Vec<Problem>,
    /// Of the trace, in hexadecimal.
    pub hash: String,
    /// Lines of the trace.
    pub events: u64,
    /// Lines of the trace, by kind.
    pub events_by_kind: BTreeMap<String, u64>,
    /// How the clients fared.
    pub tally: Tally,
    /// Entries in all streams at the end.
    pub stream_length: u64,
    /// How often which reason of the error contract was given.
    pub reasons: BTreeMap<String, u64>,
    /// Last log index applied at the end, by node.
    pub applied_index: BTreeMap<String, u64>,
    /// Digest of the state at the end, by node.
    pub state_digest: BTreeMap<String, String>,
    /// Syncs of files, on all nodes.
    pub syncs: u64,
    /// Unsynced writes that power losses undid or tore, on all nodes.
    pub writes_not_kept: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// What was seen to happen, and how often.
    pub marks: BTreeMap<String, u64>,
    /// How long the phases took, in simulated milliseconds.
    pub phases_ms: BTreeMap<String, u64>,
}

/// Runs a simulation. For a process of its own.
pub fn run(options: &Options) -> io::Result<Report> {
    let time = Time::default();
    time.set(Duration::ZERO);
    let trace = Trace::new(time.clone(), options.trace_file.as_deref())?;
    let subscriber = trace::subscriber(&trace, options.log.as_deref(), time.clone());
    tracing::subscriber::with_default(subscriber, || {
        let setup = match &options.what {
            What::Plan(plan) => Setup::of(plan),
            What::Scenario(_, setup) => setup.clone(),
        };
        let marks = Marks::default();
        let mut phases = BTreeMap::new();
        let mut cluster = Cluster::new(&setup, time, trace.clone(), marks.clone())?;
        let outcome = match &options.what {
            What::Plan(plan) => Run::new(&mut cluster, plan, &mut phases).and_then(|run| run.whole(plan)),
            What::Scenario(scenario, _) => (scenario.run)(&mut cluster).map_err(|failure| vec![failure.into()]),
        };
        let evidence = cluster.evidence();
        let problems = match outcome {
            Ok(()) => violations(&cluster),
            // Also where the simulation did not get so far: the log may say why.
            Err(problems) => problems.into_iter().chain(in_the_log(&cluster)).collect(),
        };
        note_marks(&cluster, &setup);
        let digest = trace.digest();
        let disks = cluster.disks();
        let by_node = evidence.replicas.iter();
        Ok(Report {
            seed: setup.seed,
            problems,
            hash: format!("{:032x}", digest.hash),
            events: digest.events,
            events_by_kind: digest.by_kind.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            tally: cluster.tally(),
            stream_length: evidence.end.streams.values().map(|entries| entries.len() as u64).sum(),
            reasons: checks::reasons(&evidence.calls),
            applied_index: by_node.clone().map(|end| (end.node.clone(), end.applied_index)).collect(),
            state_digest: by_node.map(|end| (end.node.clone(), end.state_digest.clone())).collect(),
            syncs: disks.values().map(|disk| disk.syncs).sum(),
            writes_not_kept: disks.values().map(|disk| disk.writes_lost + disk.writes_torn).sum(),
            simulated_ms: cluster.elapsed().as_millis() as u64,
            marks: marks.counts(),
            phases_ms: phases,
        })
    })
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self { check: failure.check.to_owned(), problem: failure.problem }
    }
}

/// Holds all that was seen against every property.
fn violations(cluster: &Cluster) -> Vec<Problem> {
    let violations = checks::check(&cluster.evidence()).into_iter().map(Problem::from);
    violations.chain(in_the_log(cluster)).collect()
}

/// Holds the log that the nodes applied against the model, and against what clients saw.
fn in_the_log(cluster: &Cluster) -> Vec<Problem> {
    cluster.witness().check(&cluster.evidence()).into_iter().map(Problem::from).collect()
}

impl From<Violation> for Problem {
    fn from(found: Violation) -> Self {
        Self { check: found.property.to_owned(), problem: found.problem }
    }
}

fn note_marks(cluster: &Cluster, setup: &Setup) {
    let marks = cluster.marks();
    let tally = cluster.tally();
    marks.add("outcome_unknown", tally.unknown);
    marks.add("promise_nothing_changed", tally.nothing_changed);
    marks.add("entry_taken_over", tally.claimed);
    marks.add("entry_given_back", tally.released);
    for disk in cluster.disks().values() {
        marks.add("write_lost", disk.writes_lost);
        marks.add("write_torn", disk.writes_torn);
        marks.add("name_lost", disk.names_lost);
    }
    for (mark, count) in cluster.witness().marks() {
        marks.add(mark, count);
    }
    marks.mark(match setup.nodes.engine {
        EnginePlan::Memory => "engine_memory",
        EnginePlan::Redb => "engine_redb",
    });
    marks.mark(if setup.nodes.nodes == 5 { "five_voters" } else { "three_voters" });
}

/// A cluster and its nemesis.
struct Run<'a> {
    cluster: &'a mut Cluster,
    nemesis: Nemesis,
    settle: Duration,
    phases: &'a mut BTreeMap<String, u64>,
}

impl<'a> Run<'a> {
    /// Boots the cluster and lets clients work for a while.
    fn new(cluster: &'a mut Cluster, plan: &Plan, phases: &'a mut BTreeMap<String, u64>) -> Result<Self, Vec<Problem>> {
        let mut boot = || {
            cluster.phase("a cluster forms, and clients start to work");
            cluster.run_until("a cluster forms", ELECTION, |cluster| cluster.leader().is_some())?;
            cluster.run_for(PEACE)
        };
        boot().map_err(|failure: Failure| vec![failure.into()])?;
        let nemesis = Nemesis::new(plan, cluster.elapsed());
        Ok(Self { cluster, nemesis, settle: Duration::from_millis(plan.settle_ms), phases })
    }

    fn whole(mut self, plan: &Plan) -> Result<(), Vec<Problem>> {
        let problem = |failure: Failure| vec![failure.into()];
        self.faults(plan).map_err(problem)?;
        self.recovery(plan.heal).map_err(problem)?;
        self.drain().map_err(problem)?;
        let found = violations(self.cluster);
        if !found.is_empty() {
            return Err(found);
        }
        self.power_cycle().map_err(problem)
    }

    fn faults(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.cluster.phase("faults");
        let end = self.cluster.elapsed() + Duration::from_millis(plan.faults_ms);
        while self.cluster.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn recovery(&mut self, heal: Heal) -> Result<(), Failure> {
        self.nemesis.heal(self.cluster)?;
        if !self.nemesis.members_are_settled() {
            self.cluster.phase("changes of members come to their end");
            let start = self.cluster.elapsed();
            while !self.nemesis.members_are_settled() {
                if start + CHANGE <= self.cluster.elapsed() {
                    let problem = format!("not within {CHANGE:?}; {}", self.cluster.describe());
                    return Err(failure("changes of members come to their end", problem));
                }
                self.step()?;
            }
            self.note("members settle", start);
        }
        let able = self.able();
        if let Heal::Core { first, dark } = heal {
            self.cluster.phase("a majority recovers alone");
            let all = self.cluster.nodes();
            let start = usize::from(first).saturating_sub(1);
            let round = (0..all.len()).map(|n| &all[(start + n) % all.len()]).filter(|node| able.contains(node));
            let core: Vec<_> = round.take(all.len() / 2 + 1).cloned().collect();
            self.nemesis.leave_alone(self.cluster, &core, dark)?;
            self.recovered(&core, "core")?;
            self.cluster.marks().mark("core_alone");
            self.nemesis.heal(self.cluster)?;
        }
        self.cluster.phase("everything recovers");
        self.recovered(&able, "all")
    }

    /// Demands a leader, agreement and progress.
    fn recovered(&mut self, nodes: &[String], who: &str) -> Result<(), Failure> {
        let start = self.cluster.elapsed();
        self.until("one leader, and all agree on it and on the members", self.settle, |c| c.agree(nodes))?;
        self.note(&format!("{who} agree"), start);
        let (before, start) = (self.cluster.tally(), self.cluster.elapsed());
        self.until("fresh appends are acknowledged and consumed", self.settle, |cluster| {
            let Tally { appended, delivered, acknowledged, .. } = cluster.tally();
            before.appended + FRESH_WORK <= appended
                && before.delivered + FRESH_WORK <= delivered
                && before.acknowledged + FRESH_WORK <= acknowledged
        })?;
        self.note(&format!("{who} work"), start);
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Failure> {
        self.cluster.phase("no more appends; everything is consumed and read");
        let start = self.cluster.elapsed();
        self.cluster.stop_appending();
        self.until("everything is consumed and read", DRAIN, Cluster::has_read)?;
        self.level()?;
        self.cluster.all_serve(&self.able())?;
        self.note("drain", start);
        Ok(())
    }

    fn level(&mut self) -> Result<(), Failure> {
        let able = self.able();
        self.until("all nodes are level", self.settle, |cluster| cluster.is_level(&able))
    }

    fn power_cycle(&mut self) -> Result<(), Failure> {
        self.cluster.phase("all nodes lose their power at one instant, and start from their disks");
        let start = self.cluster.elapsed();
        let lives = |life| self.cluster.nodes().into_iter().map(|node| (node, life)).collect();
        let (off, on) = (lives(Life::Dark), lives(Life::Runs));
        self.cluster.set_lives(&off)?;
        self.cluster.run_for(DARK)?;
        self.cluster.set_lives(&on)?;
        let able = self.able();
        self.until("one leader, and all agree on it and on the members", self.settle, |c| c.agree(&able))?;
        self.cluster.read_again();
        self.until("everything is read once more", DRAIN, Cluster::has_read)?;
        self.level()?;
        self.note("power cycle", start);
        Ok(())
    }

    /// The nodes whose disks no fault has damaged for good.
    fn able(&self) -> Vec<String> {
        self.cluster.nodes().into_iter().filter(|node| !self.cluster.is_damaged(node)).collect()
    }

    fn step(&mut self) -> Result<(), Failure> {
        self.cluster.step()?;
        self.nemesis.act(self.cluster)
    }

    fn until(
        &mut self,
        what: &'static str,
        limit: Duration,
        condition: impl Fn(&Cluster) -> bool,
    ) -> Result<(), Failure> {
        let end = self.cluster.elapsed() + limit;
        while !(self.cluster.is_time_to_look() && condition(self.cluster)) {
            if end <= self.cluster.elapsed() {
                return Err(failure(what, format!("not within {limit:?}; {}", self.cluster.describe())));
            }
            self.step()?;
        }
        Ok(())
    }

    fn note(&mut self, phase: &str, start: Duration) {
        let took = self.cluster.elapsed().saturating_sub(start);
        self.phases.insert(phase.to_owned(), took.as_millis() as u64);
    }
}
