//! Scenarios: which faults, in which order, and what is demanded in between.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checks;
use crate::cluster::{Cluster, Failure, Setup};
use crate::entropy::Time;
use crate::history::Tally;
use crate::trace::{self, Trace};

/// How to run a simulation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed, clock and load.
    pub setup: Setup,
    /// Where to write the lines of the trace; `None`: only their hash is kept.
    pub trace_file: Option<PathBuf>,
    /// What of the nodes' and clients' logs to print, in the syntax of `RUST_LOG`; `None`: nothing.
    pub log: Option<String>,
}

/// What a simulation amounts to. Two runs of a seed give the same report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What went wrong; empty if nothing did.
    pub problems: Vec<String>,
    /// Of the trace, in hexadecimal.
    pub hash: String,
    /// Lines of the trace.
    pub events: u64,
    /// Lines of the trace, by kind.
    pub events_by_kind: BTreeMap<String, u64>,
    /// How the clients fared.
    pub tally: Tally,
    /// Entries in the stream at the end.
    pub stream_length: u64,
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
}

/// Runs the scenario. For a process of its own.
pub fn run(options: &Options) -> io::Result<Report> {
    let time = Time::default();
    time.set(Duration::ZERO);
    let trace = Trace::new(time.clone(), options.trace_file.as_deref())?;
    let subscriber = trace::subscriber(&trace, options.log.as_deref(), time.clone());
    tracing::subscriber::with_default(subscriber, || {
        let mut cluster = Cluster::new(&options.setup, time, trace.clone())?;
        let mut problems = Vec::new();
        if let Err(failure) = leader_isolated_then_power_cut(&mut cluster) {
            problems.push(failure.to_string());
        }
        let evidence = cluster.evidence();
        if problems.is_empty() {
            problems.extend(checks::check(&evidence).iter().map(ToString::to_string));
        }
        let digest = trace.digest();
        let disks = cluster.disks();
        let by_node = evidence.replicas.iter();
        Ok(Report {
            seed: options.setup.seed,
            problems,
            hash: format!("{:032x}", digest.hash),
            events: digest.events,
            events_by_kind: digest.by_kind.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            tally: cluster.tally(),
            stream_length: evidence.stream.len() as u64,
            applied_index: by_node.clone().map(|end| (end.node.clone(), end.applied_index)).collect(),
            state_digest: by_node.map(|end| (end.node.clone(), end.state_digest.clone())).collect(),
            syncs: disks.values().map(|disk| disk.syncs).sum(),
            writes_not_kept: disks.values().map(|disk| disk.writes_lost + disk.writes_torn).sum(),
            simulated_ms: cluster.elapsed().as_millis() as u64,
        })
    })
}

const ELECTION: Duration = Duration::from_secs(20);

/// The leader is isolated, its successor loses its power, and at last all nodes lose it at one instant. Clients never
/// stop, and each time they must get on with the nodes that are left.
fn leader_isolated_then_power_cut(cluster: &mut Cluster) -> Result<(), Failure> {
    let secs = Duration::from_secs;

    cluster.phase("a cluster forms, and clients start to work");
    let leader = a_leader(cluster)?;
    cluster.run_for(secs(2))?;
    work_goes_on(cluster, secs(3))?;

    cluster.phase("the leader is isolated; the others go on");
    cluster.isolate(&leader);
    cluster.run_for(secs(8))?;
    work_goes_on(cluster, secs(3))?;
    let stay = cluster.rng.duration(secs(0), secs(3));
    cluster.run_for(stay)?;

    cluster.phase("the old leader comes back");
    cluster.heal();
    cluster.run_for(secs(3))?;
    work_goes_on(cluster, secs(2))?;

    cluster.phase("the leader's process is killed and starts again at once");
    let leader = a_leader(cluster)?;
    cluster.kill(&leader)?;
    let down = cluster.rng.duration(Duration::from_millis(1), Duration::from_millis(500));
    cluster.run_for(down)?;
    cluster.restart(&leader)?;
    cluster.run_for(secs(8))?;
    work_goes_on(cluster, secs(2))?;

    cluster.phase("the leader loses its power; the others go on");
    let leader = a_leader(cluster)?;
    let leader = [leader];
    cluster.run_until_writing(&leader, 1)?;
    cluster.power_cut(&leader)?;
    cluster.run_for(secs(8))?;
    work_goes_on(cluster, secs(3))?;

    cluster.phase("it starts again from its disk");
    cluster.power_on(&leader)?;
    cluster.run_for(secs(3))?;
    work_goes_on(cluster, secs(2))?;

    cluster.phase("all nodes lose their power at one instant, and start again");
    let all = cluster.nodes();
    cluster.run_until_writing(&all, 2)?;
    cluster.power_cut(&all)?;
    let dark = cluster.rng.duration(secs(1), secs(4));
    cluster.run_for(dark)?;
    cluster.power_on(&all)?;
    a_leader(cluster)?;
    cluster.run_for(secs(4))?;
    work_goes_on(cluster, secs(3))?;

    cluster.phase("no more appends; everything is consumed and read");
    cluster.drain(secs(60))
}

fn a_leader(cluster: &mut Cluster) -> Result<String, Failure> {
    cluster.run_until("a leader", ELECTION, |cluster| cluster.leader().is_some())?;
    cluster.leader().ok_or_else(|| Failure("the leader is gone again".into()))
}

/// Within `time` clients get appends, deliveries and acknowledgements through.
fn work_goes_on(cluster: &mut Cluster, time: Duration) -> Result<(), Failure> {
    let before = cluster.tally();
    cluster.run_for(time)?;
    let after = cluster.tally();
    let moved = before.appended < after.appended
        && before.delivered < after.delivered
        && before.acknowledged < after.acknowledged;
    if moved {
        return Ok(());
    }
    Err(Failure(format!("work does not go on: within {time:?} from {before:?}; {}", cluster.describe())))
}
