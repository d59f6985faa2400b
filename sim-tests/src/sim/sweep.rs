//! Many seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream_sim_tests::marks;

use super::Seeds;
use super::child::{Task, cpu_seconds, in_parallel};
use super::results::{Build, Results, SeedResult};

/// Between two lines about progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs all seeds that have no result yet, and sums up.
pub(crate) fn sweep((first, last): Seeds, jobs: usize, directory: Option<PathBuf>) -> io::Result<ExitCode> {
    let build = Build::this()?;
    let results = match &directory {
        Some(directory) => Results::open(directory, &build)?,
        None => Results::forgotten(),
    };
    let to_do: Vec<_> = (first..=last).filter(|seed| !results.all.contains_key(seed)).collect();
    let total = to_do.len();
    println!("build {} at {}; {total} seeds to run, {jobs} at a time", build.executable, build.commit);
    struct State {
        results: Results,
        done: usize,
        failed: usize,
        cpu: f64,
        said: Instant,
    }
    let start = Instant::now();
    let state = Mutex::new(State { results, done: 0, failed: 0, cpu: cpu_seconds(), said: start });
    let cpu_before = cpu_seconds();
    in_parallel(to_do.into_iter(), jobs, |seed| {
        let task = Task::seed(seed, None);
        let report = task.report()?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let cpu = cpu_seconds();
        let result = SeedResult::new(seed, report, cpu - state.cpu);
        state.cpu = cpu;
        state.done += 1;
        if !result.problems.is_empty() {
            state.failed += 1;
            tell_failure(&result);
        }
        state.results.add(result)?;
        if PROGRESS < state.said.elapsed() {
            state.said = Instant::now();
            let per_hour = state.done as f64 * 3_600.0 / (cpu - cpu_before).max(0.001);
            let (done, failed) = (state.done, state.failed);
            println!("{done} of {total} seeds, {failed} failed, {per_hour:.0} seeds per CPU-hour");
        }
        Ok(())
    })?;
    let State { results, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of_range = results.all.range(first..=last).map(|(_, result)| result);
    Ok(sum_up(&of_range.collect::<Vec<_>>(), start.elapsed()))
}

fn tell_failure(result: &SeedResult) {
    println!("seed {} FAILED; to repeat: {}", result.seed, Task::seed(result.seed, None).command_line());
    for problem in &result.problems {
        println!("  {}: {}", problem.check, problem.problem);
    }
}

/// Tells what many seeds have come to. A failure if one of them failed, or if they have not seen enough.
fn sum_up(results: &[&SeedResult], wall: Duration) -> ExitCode {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut phases: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for result in results {
        for (name, count) in &result.marks {
            *counts.entry(name.clone()).or_default() += count;
        }
        for (name, took) in &result.phases_ms {
            phases.entry(name).or_default().push(*took);
        }
    }
    let sum = |of: fn(&SeedResult) -> u64| results.iter().map(|result| of(result)).sum::<u64>();
    let cpu = results.iter().map(|result| result.cpu_seconds).sum::<f64>().max(0.001);
    let simulated_seconds = sum(|result| result.simulated_ms) as f64 / 1e3;
    let seeds = results.len();
    println!(
        "{seeds} seeds: {:.2} simulated hours, {} appends acknowledged, {} entries delivered, {} acknowledged, {} calls \
         unknown, {} without effect",
        simulated_seconds / 3_600.0,
        sum(|result| result.tally.appended),
        sum(|result| result.tally.delivered + result.tally.claimed),
        sum(|result| result.tally.acknowledged),
        sum(|result| result.tally.unknown),
        sum(|result| result.tally.nothing_changed),
    );
    println!(
        "{cpu:.0} CPU-seconds ({:.1} a seed), {:.0} seeds and {:.1} simulated hours per CPU-hour; this took {:.0} s",
        cpu / seeds.max(1) as f64,
        seeds as f64 * 3_600.0 / cpu,
        simulated_seconds / cpu,
        wall.as_secs_f64(),
    );
    for (name, mut took) in phases {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!("phase {name}: {} ms median, {} ms 90 %, {} ms longest", at(50), at(90), at(100));
    }
    for (name, count) in &counts {
        println!("seen {name}: {count}");
    }
    let failed: Vec<_> = results.iter().filter(|result| !result.problems.is_empty()).collect();
    failed.iter().for_each(|result| tell_failure(result));
    let missing = marks::missing(&counts);
    if !missing.is_empty() {
        println!("never seen: {}", missing.join(", "));
    }
    println!("{} passed, {} failed", seeds - failed.len(), failed.len());
    let seen_enough = missing.is_empty() || (seeds as u64) < marks::SEEDS_MIN;
    if failed.is_empty() && seen_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all scenarios, or the one of this name, with these seeds.
pub(crate) fn scenarios(names: &[&str], (first, last): Seeds, jobs: usize) -> io::Result<ExitCode> {
    let tasks = names.iter().flat_map(|name| (first..=last).map(|seed| Task::scenario(name, seed)));
    run_all(tasks.collect(), jobs)
}

/// Runs all plans in a directory.
pub(crate) fn plans(directory: &Path, jobs: usize) -> io::Result<ExitCode> {
    let files = super::regressions::files(directory)?;
    run_all(files.iter().map(|file| Task::plan(file)).collect(), jobs)
}

fn run_all(tasks: Vec<Task>, jobs: usize) -> io::Result<ExitCode> {
    let failed = Mutex::new(0);
    let count = tasks.len();
    in_parallel(tasks.into_iter(), jobs, |task| {
        let start = Instant::now();
        let result = SeedResult::new(0, task.report()?, 0.0);
        let took = start.elapsed().as_secs_f64();
        let command = task.command_line();
        if result.problems.is_empty() {
            println!("passed in {took:.1} s: {command}");
            return Ok(());
        }
        *failed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let problems = result.problems.iter().map(|problem| format!("  {}: {}\n", problem.check, problem.problem));
        print!("FAILED in {took:.1} s: {command}\n{}", problems.collect::<String>());
        Ok(())
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} passed, {failed} failed", count - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
