//! `sim mutants`: plants known bugs one by one, and sees to it that the simulation finds each.
//!
//! A green sweep proves little unless the same sweep turns red when there is a bug. The bugs are planted behind the
//! feature `mutants` (`node/streams/src/mutants.rs`); one build has them all, and a child process has one of them on. A
//! mutant is *killed* by the first seed or scenario whose checks fail; a child that panics, ends or hangs kills as well.
//! The same seeds and scenarios without a mutant must pass first: one that fails then kills nobody, and fails the whole.

mod attempt;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde::{Deserialize, Serialize};

use self::attempt::{Attempt, Ended};
use crate::scenarios::SCENARIOS;

/// Names the mutant of a child process.
const VARIABLE: &str = "MILLSTREAM_MUTANT";
/// A child says so at its end, on standard error, with a number behind it.
const FAREWELL: &str = "mutant: reached ";

/// A child may use so many times the CPU time that the same run takes without a mutant, and so many seconds anyway.
const HANGS_AFTER: (u64, u64) = (10, 30);
/// CPU time that a run may take without a mutant, in seconds.
const CONTROL_SECONDS_MAX: u64 = 300;

/// What `sim mutants` may be told.
#[derive(Args, Debug, Clone)]
pub struct Arguments {
    /// Only these mutants, by name.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seeds that a mutant may survive.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of these seeds.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Seeds with which each scenario that is named for a mutant is told to it before that. 0: none is told.
    #[arg(long, default_value_t = 2)]
    scenario_seeds: u64,
    /// Only the mutants that die fast, as many as this.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "16")]
    fast: Option<usize>,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Further arguments of each run, for example `--tick-ms 5`.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true, num_args = 1..)]
    run: Vec<String>,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// List the mutants and run none.
    #[arg(long)]
    list: bool,
}

/// What is known of a mutant before it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Its name, as in the source.
    pub name: String,
    /// What it breaks.
    pub breaks: String,
    /// Which checker should see it.
    pub seen_by: String,
    /// Scenarios to try first.
    pub scenarios: Vec<String>,
}

/// The mutants of this build; none without the feature.
pub fn planted() -> Vec<Planted> {
    #[cfg(feature = "mutants")]
    let planted = millstream_streams::mutants::TABLE.iter().map(|described| Planted {
        name: described.name.to_owned(),
        breaks: described.breaks.trim().to_owned(),
        seen_by: described.seen_by.to_owned(),
        scenarios: described.scenarios.iter().map(|name| (*name).to_owned()).collect(),
    });
    #[cfg(not(feature = "mutants"))]
    let planted = std::iter::empty();
    planted.collect()
}

/// Runs the program with the mutant that the environment names, if it names one. For `main`, before anything else.
pub fn around<T>(program: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(name) = std::env::var_os(VARIABLE) else { return program() };
    select(&name)?;
    let result = program();
    eprintln!("{FAREWELL}{}", reached());
    result
}

#[cfg(feature = "mutants")]
fn select(name: &OsString) -> io::Result<()> {
    let selected = name.to_str().is_some_and(millstream_streams::mutants::select);
    // It is on in this whole process: nobody shall take what follows for the server as it is.
    eprintln!("mutant: {} is on", name.to_string_lossy());
    if selected || name == NONE { Ok(()) } else { Err(io::Error::other(format!("there is no mutant {name:?}"))) }
}

#[cfg(not(feature = "mutants"))]
fn select(name: &OsString) -> io::Result<()> {
    if name == NONE { Ok(()) } else { Err(io::Error::other(WITHOUT)) }
}

fn reached() -> u64 {
    #[cfg(feature = "mutants")]
    let reached = millstream_streams::mutants::reached();
    #[cfg(not(feature = "mutants"))]
    let reached = 0;
    reached
}

/// The name under which nothing is on: for the runs that must pass.
const NONE: &str = "none";
const WITHOUT: &str =
    "this build has no mutants: cargo run --release -p millstream-sim-tests --features mutants -- mutants";

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Its name.
    pub name: String,
    /// What it breaks.
    pub breaks: String,
    /// Which checker should see it.
    pub seen_by: String,
    /// Which check failed; `None` if it survived.
    pub killed_by: Option<String>,
    /// What that check said.
    pub problem: Option<String>,
    /// The seed or scenario that killed it.
    pub in_attempt: Option<String>,
    /// Seeds and scenarios tried, the last one included.
    pub attempts: u64,
    /// CPU time of all of them, in ms.
    pub cpu_ms: u64,
    /// How often its place was reached, as far as the processes said. 0 for a survivor: no run came by.
    pub reached: u64,
}

/// Tries the mutants and prints what became of them.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut mutants = planted();
    if mutants.is_empty() {
        return Err(io::Error::other(WITHOUT));
    }
    if let Some(unknown) = arguments.only.iter().find(|name| mutants.iter().all(|mutant| mutant.name != **name)) {
        return Err(io::Error::other(format!("there is no mutant {unknown}")));
    }
    if !arguments.only.is_empty() {
        mutants.retain(|mutant| arguments.only.contains(&mutant.name));
    }
    if let Some(count) = arguments.fast {
        let fast: Vec<_> = FAST.iter().take(count).collect();
        mutants.retain(|mutant| fast.iter().any(|name| **name == mutant.name));
    }
    if arguments.list {
        for Planted { name, breaks, seen_by, scenarios } in &mutants {
            println!("{name}: {breaks} Seen by: {seen_by}. Scenarios: {scenarios:?}");
        }
        return Ok(ExitCode::SUCCESS);
    }

    let controls = controls(&mutants, arguments)?;
    let failed: Vec<_> =
        controls.iter().filter_map(|(attempt, ended)| Some((attempt, ended.problem.as_ref()?))).collect();
    for (attempt, problem) in &failed {
        println!(
            "without any mutant this fails, so it kills nobody: {}: {}: {}",
            attempt.name(),
            problem.check,
            problem.problem
        );
    }
    let cpu_ms: u64 = controls.values().map(|ended| ended.cpu_ms).sum();
    let passed = controls.len() - failed.len();
    println!("without any mutant {passed} of {} runs pass, {:.1} s of CPU", controls.len(), cpu_ms as f64 / 1e3);

    let fates = each(&mutants, arguments.jobs, |mutant| {
        let fate = try_one(mutant, &controls, arguments)?;
        println!("{}", line(&fate));
        Ok(fate)
    })?;
    println!("{}", table(&fates));
    if let Some(path) = &arguments.report {
        std::fs::write(path, serde_json::to_string_pretty(&fates)? + "\n")?;
    }
    let survived = fates.iter().filter(|fate| fate.killed_by.is_none()).count();
    println!("{} killed, {survived} survived; {} runs fail by themselves", fates.len() - survived, failed.len());
    Ok(if survived == 0 && failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does `work` on each item in `jobs` threads. The results are in the items' order.
fn each<T: Sync, U: Send>(items: &[T], jobs: usize, work: impl Fn(&T) -> io::Result<U> + Sync) -> io::Result<Vec<U>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let worker = || -> io::Result<()> {
        while let place = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(place)
        {
            let result = work(item)?;
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(place, result);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a worker panicked")),
        })
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}

/// What a mutant has to survive, in this order: first what is likely to kill it.
fn attempts(mutant: &Planted, arguments: &Arguments) -> Vec<Attempt> {
    let seeds = |count| (arguments.first_seed..).take(count as usize);
    let known = |name: &&String| SCENARIOS.iter().any(|scenario| scenario.name == name.as_str());
    let told = mutant.scenarios.iter().filter(known);
    let told = told.flat_map(|name| seeds(arguments.scenario_seeds).map(|seed| Attempt::Scenario(name.clone(), seed)));
    told.chain(seeds(arguments.seeds).map(Attempt::Seed)).collect()
}

/// All that is to be tried, without a mutant.
fn controls(mutants: &[Planted], arguments: &Arguments) -> io::Result<BTreeMap<Attempt, Ended>> {
    let all: BTreeSet<_> = mutants.iter().flat_map(|mutant| attempts(mutant, arguments)).collect();
    let all: Vec<_> = all.into_iter().collect();
    let ended = each(&all, arguments.jobs, |attempt| attempt.run(NONE, CONTROL_SECONDS_MAX, &arguments.run))?;
    Ok(all.into_iter().zip(ended).collect())
}

fn try_one(mutant: &Planted, controls: &BTreeMap<Attempt, Ended>, arguments: &Arguments) -> io::Result<Fate> {
    let Planted { name, breaks, seen_by, .. } = mutant.clone();
    let mut fate = Fate {
        name,
        breaks,
        seen_by,
        killed_by: None,
        problem: None,
        in_attempt: None,
        attempts: 0,
        cpu_ms: 0,
        reached: 0,
    };
    for next in attempts(mutant, arguments) {
        let Some(Ended { problem: None, cpu_ms, .. }) = controls.get(&next) else { continue };
        let (times, seconds) = HANGS_AFTER;
        let ended = next.run(&mutant.name, seconds + times * cpu_ms / 1_000, &arguments.run)?;
        fate.attempts += 1;
        fate.cpu_ms += ended.cpu_ms;
        fate.reached += ended.reached.unwrap_or(0);
        if let Some(problem) = ended.problem {
            fate.killed_by = Some(problem.check);
            fate.problem = Some(problem.problem);
            fate.in_attempt = Some(next.name());
            break;
        }
    }
    Ok(fate)
}

fn line(fate: &Fate) -> String {
    let Fate { name, killed_by, in_attempt, attempts, cpu_ms, reached, .. } = fate;
    let seconds = *cpu_ms as f64 / 1e3;
    match (killed_by, in_attempt) {
        (Some(check), Some(attempt)) => {
            format!("{name:<24} killed by: {check} ({attempt}; {attempts} tried, {seconds:.1} s of CPU)")
        }
        _ => format!("{name:<24} SURVIVED {attempts}, {seconds:.1} s of CPU, its place reached {reached} times"),
    }
}

/// For the page of evidence, as Markdown.
pub fn table(fates: &[Fate]) -> String {
    let mut text = String::from(
        "\n| mutant | what it breaks | killed by | in | tried | CPU s |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for Fate { name, breaks, killed_by, in_attempt, attempts, cpu_ms, .. } in fates {
        let by = killed_by.as_deref().unwrap_or("**survived**");
        let place = in_attempt.as_deref().unwrap_or_default();
        text += &format!("| {name} | {breaks} | {by} | {place} | {attempts} | {:.1} |\n", *cpu_ms as f64 / 1e3);
    }
    text
}

/// Those that die within a seed or two, for the gate; the order is that of the CPU time they took.
const FAST: &[&str] = &[
    "VoteNotWritten",
    "AckBeforeFsync",
    "SegmentNameNotSynced",
    "NodeLocalTime",
    "AckAtLeaderOnly",
    "CheckpointNotStored",
    "CheckpointLosesRow",
    "IdsNotClamped",
    "SweepDeletesLiveRows",
    "ClaimKeepsOwner",
    "AckBeforeQuorum",
    "StaleReads",
    "DedupOff",
    "RefusedBatchKept",
    "TrimOneTooMany",
    "AnswersExchanged",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_ones_exist() {
        let planted = planted();
        if !planted.is_empty() {
            let known = |name: &&&str| planted.iter().any(|mutant| mutant.name == **name);
            assert_eq!(FAST.iter().filter(known).count(), FAST.len());
            assert!(28 <= planted.len(), "{}", planted.len());
        }
    }
}
