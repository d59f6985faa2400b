//! One simulation, in this process.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use millstream_sim_tests::cluster::Setup;
use millstream_sim_tests::entropy;
use millstream_sim_tests::generate;
use millstream_sim_tests::plan::Plan;
use millstream_sim_tests::run::{self, Options, Report, What};
use millstream_sim_tests::scenarios::SCENARIOS;

/// CPU time that a run in a process of its own may take: some ten times what the longest takes.
const CPU_SECONDS_MAX: libc::rlim_t = 300;

/// What is left behind by a simulation, besides its report.
#[derive(Args, Clone, Default)]
pub(crate) struct Output {
    /// Write every event to this file, or to standard output.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/dev/stdout")]
    pub(crate) trace: Option<PathBuf>,
    /// Print logs of nodes and clients, for example `info` or `millstream_node=debug`.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave the C library's clock and random source real: the runs must then differ.
    #[arg(long)]
    pub(crate) without_shim: bool,
}

/// The plan of a seed, perhaps with another tick.
pub(crate) fn plan(seed: u64, tick_ms: Option<u64>) -> Plan {
    let plan = generate::plan(seed);
    Plan { tick_ms: tick_ms.unwrap_or(plan.tick_ms), ..plan }
}

/// Reads a plan from a file.
pub(crate) fn read_plan(path: &Path) -> io::Result<Plan> {
    let text = std::fs::read_to_string(path)?;
    Plan::from_json(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// A scenario by its name.
pub(crate) fn scenario(name: &str, seed: u64, tick_ms: Option<u64>) -> io::Result<What> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario =
        found.ok_or_else(|| io::Error::other(format!("there is no scenario {name}; see `sim scenarios`")))?;
    let mut setup = Setup::new(seed);
    (scenario.setup)(&mut setup);
    let tick = tick_ms.map_or(setup.tick, Duration::from_millis);
    Ok(What::Scenario(scenario, Setup { tick, ..setup }))
}

/// Runs it; `again` is the command that does so once more.
pub(crate) fn run(what: What, output: Output, again: &str) -> io::Result<ExitCode> {
    let seed = match &what {
        What::Plan(plan) => plan.seed,
        What::Scenario(_, setup) => setup.seed,
    };
    let Output { trace, log, json, without_shim } = output;
    if json {
        limit_cpu_time();
    }
    let options = Options { what, trace_file: trace, log };
    let start = Instant::now();
    // A fresh thread: whatever this one has drawn so far was real, and is remembered per thread.
    let simulation = std::thread::Builder::new().stack_size(32 << 20).spawn(move || {
        if !without_shim {
            entropy::enter_simulation(seed);
        }
        let report = run::run(&options);
        // The thread's own end is not part of the simulation.
        report.map(|report| serde_json::to_string(&report))
    })?;
    let report = simulation.join().map_err(|_| io::Error::other("the driver itself panicked"))???;
    if json {
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    let report: Report = serde_json::from_str(&report)?;
    println!("{}", summary(&report, start.elapsed()));
    println!("  phases in ms: {:?}", report.phases_ms);
    println!("  seen: {:?}", report.marks);
    for problem in &report.problems {
        println!("  {}: {}", problem.check, problem.problem);
    }
    if report.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("  to repeat: {again} --log info");
    Ok(ExitCode::FAILURE)
}

/// A simulation whose time stands still, because some task never waits, ends by a signal.
fn limit_cpu_time() {
    let limit = libc::rlimit { rlim_cur: CPU_SECONDS_MAX, rlim_max: CPU_SECONDS_MAX };
    // SAFETY: the pointer is valid for a read. Without a limit it works as well.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_CPU, &limit) };
}

/// A report in a few lines.
pub(crate) fn summary(report: &Report, wall: Duration) -> String {
    let Report { seed, hash, events, tally, stream_length, simulated_ms, syncs, writes_not_kept, .. } = report;
    format!(
        "seed {seed}: {events} events, hash {hash}; {} appends acknowledged ({} calls unknown, {} without effect), \
         {stream_length} entries stored, {} delivered, {} taken over, {} acknowledged, {} given back; {syncs} syncs, \
         {writes_not_kept} writes lost or torn by power cuts; {:.1} s simulated in {:.1} s",
        tally.appended,
        tally.unknown,
        tally.nothing_changed,
        tally.delivered,
        tally.claimed,
        tally.acknowledged,
        tally.released,
        *simulated_ms as f64 / 1e3,
        wall.as_secs_f64(),
    )
}
