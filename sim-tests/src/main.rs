//! `sim`: runs simulations, and proves that they are deterministic.

mod shim;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use millstream_sim_tests::cluster::Setup;
use millstream_sim_tests::scenarios::{self, Options, Report};
use millstream_sim_tests::{entropy, trace};

/// Simulates Millstream clusters: network, disk and time under one seed.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs one seed and checks what the clients saw.
    Run {
        #[command(flatten)]
        seed: Seed,
        /// Write every event to this file, or to standard output.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/dev/stdout")]
        trace: Option<PathBuf>,
        /// Print logs of nodes and clients, for example `info` or `millstream_node=debug`.
        #[arg(long, value_name = "FILTER")]
        log: Option<String>,
        /// Print the report as one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs one seed in two different processes and compares the runs, event by event if they differ.
    Meta {
        #[command(flatten)]
        seed: Seed,
    },
    /// What the gate runs: `meta` for each seed, and once without the shim, which must be noticed.
    Check {
        /// Which seeds: `5`, or `1..3` for 1, 2 and 3.
        #[arg(long, default_value = "1..3", value_parser = seeds)]
        seeds: (u64, u64),
        /// Simulated milliseconds of a step.
        #[arg(long, default_value_t = 1)]
        tick_ms: u64,
    },
}

#[derive(Args, Clone, Copy)]
struct Seed {
    /// Decides everything that is left to chance.
    #[arg(long)]
    seed: u64,
    /// Simulated milliseconds of a step.
    #[arg(long, default_value_t = 1)]
    tick_ms: u64,
    /// Leave the C library's clock and random source real: the runs must then differ.
    #[arg(long)]
    without_shim: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok((first, last)) } else { Err("the last seed is smaller than the first".into()) }
}

fn main() -> io::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run { seed, trace, log, json } => run(seed, trace, log, json),
        Verb::Meta { seed } => {
            let same = meta(seed)?;
            Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Check { seeds, tick_ms } => check(seeds, tick_ms),
    }
}

fn run(seed: Seed, trace_file: Option<PathBuf>, log: Option<String>, json: bool) -> io::Result<ExitCode> {
    let setup = Setup { tick: Duration::from_millis(seed.tick_ms), ..Setup::new(seed.seed) };
    let options = Options { setup, trace_file, log };
    let start = Instant::now();
    // A fresh thread: whatever this one has drawn so far was real, and is remembered per thread.
    let simulation = std::thread::Builder::new().stack_size(32 << 20).spawn(move || {
        if !seed.without_shim {
            entropy::enter_simulation(seed.seed);
        }
        let report = scenarios::run(&options);
        // The thread's own end is not part of the simulation.
        report.map(|report| serde_json::to_string(&report))
    })?;
    let report = simulation.join().map_err(|_| io::Error::other("the driver itself panicked"))???;
    let wall = start.elapsed();
    if json {
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    let report: Report = serde_json::from_str(&report)?;
    println!("{}", summary(&report, wall));
    for problem in &report.problems {
        println!("  {problem}");
    }
    if report.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("  to repeat: sim run --seed {} --tick-ms {} --log info", seed.seed, seed.tick_ms);
    Ok(ExitCode::FAILURE)
}

fn summary(report: &Report, wall: Duration) -> String {
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

/// Runs a seed twice; says what differs. True if the runs are equal and without problems.
fn meta(seed: Seed) -> io::Result<bool> {
    let start = Instant::now();
    let (first, second) = run_twice(seed, None)?;
    println!("{}", summary(&first, start.elapsed()));
    for problem in &first.problems {
        println!("  {problem}");
    }
    if first == second {
        println!("  the same in two processes{}", if first.problems.is_empty() { "" } else { ", but wrong" });
        return Ok(first.problems.is_empty());
    }
    println!("  NOT the same in two processes: {} and {}", first.hash, second.hash);
    for problem in second.problems.iter().filter(|problem| !first.problems.contains(problem)) {
        println!("  only in the second: {problem}");
    }
    let directory = std::env::temp_dir().join(format!("millstream-sim-{}-{}", seed.seed, std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let files = [directory.join("first.trace"), directory.join("second.trace")];
    run_twice(seed, Some(&files))?;
    println!("  {}", first_difference(&files)?);
    println!("  the traces are in {}", directory.display());
    Ok(false)
}

/// Two processes as different as one machine makes them.
fn run_twice(seed: Seed, traces: Option<&[PathBuf; 2]>) -> io::Result<(Report, Report)> {
    let [first, second] = [(Path::new("/"), "1", 1), (&std::env::temp_dir(), "4", 4_000)];
    let start = |(directory, arenas, padding): (&Path, &str, usize), trace: Option<&PathBuf>| -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["run", "--json", "--seed", &seed.seed.to_string(), "--tick-ms", &seed.tick_ms.to_string()])
            .args(seed.without_shim.then_some("--without-shim"))
            .current_dir(directory)
            .env("MALLOC_ARENA_MAX", arenas)
            .env("SIM_PADDING", "x".repeat(padding))
            .stdout(Stdio::piped());
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        command.spawn()
    };
    let first = start(first, traces.map(|traces| &traces[0]))?;
    let second = start(second, traces.map(|traces| &traces[1]))?;
    Ok((report_of(first)?, report_of(second)?))
}

fn report_of(child: Child) -> io::Result<Report> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("a run ended with {}", output.status)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn first_difference([first, second]: &[PathBuf; 2]) -> io::Result<String> {
    let lines = |path| File::open(path).map(|file| BufReader::new(file).lines());
    let (mut first, mut second) = (lines(first)?, lines(second)?);
    let mut before = String::from("(none)");
    for number in 1_u64.. {
        let (left, right) = (first.next().transpose()?, second.next().transpose()?);
        if left == right {
            match left {
                Some(line) => before = line,
                None => return Ok("the second pair of runs does not differ".into()),
            }
            continue;
        }
        let end = || "(the end)".to_owned();
        let (left, right) = (left.unwrap_or_else(end), right.unwrap_or_else(end));
        return Ok(format!(
            "first difference, line {number}:\n    before: {before}\n    first:  {left}\n    second: {right}"
        ));
    }
    unreachable!("there are fewer than 2^64 lines")
}

fn check((first, last): (u64, u64), tick_ms: u64) -> io::Result<ExitCode> {
    if !trace::packets_are_traced() {
        println!("note: this build of `tracing` drops turmoil's packet events; bytes read and written are traced");
    }
    let (mut passed, mut failed) = (0, 0);
    let mut count = |ok: bool| if ok { passed += 1 } else { failed += 1 };
    for seed in first..=last {
        count(meta(Seed { seed, tick_ms, without_shim: false })?);
    }
    // A comparison that cannot fail proves nothing.
    let (one, other) = run_twice(Seed { seed: first, tick_ms, without_shim: true }, None)?;
    let noticed = one.hash != other.hash;
    println!(
        "seed {first} without the shim: the runs {}",
        if noticed { "differ, as they must" } else { "do NOT differ" }
    );
    count(noticed);
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_include_their_end() {
        assert_eq!(seeds("5"), Ok((5, 5)));
        assert_eq!(seeds("1..3"), Ok((1, 3)));
        assert!(seeds("3..1").is_err());
        assert!(seeds("x").is_err());
    }

    #[test]
    fn the_shim_answers_only_inside_a_simulation() {
        let draw = || {
            std::thread::spawn(|| {
                entropy::enter_simulation(9);
                let map: std::collections::HashMap<u32, u32> = (0..20).map(|number| (number, number)).collect();
                (rand::random::<u64>(), map.into_keys().collect::<Vec<_>>(), std::time::SystemTime::now())
            })
        };
        let (first, second) = (draw().join().expect("no panic"), draw().join().expect("no panic"));
        assert_eq!(first, second);
        assert_eq!(first.2, std::time::UNIX_EPOCH + entropy::EPOCH);
        assert_ne!(rand::random::<u64>(), rand::random::<u64>());
        assert!(std::time::SystemTime::now() != first.2);
    }

    #[test]
    fn the_first_difference_is_found() {
        let directory = std::env::temp_dir().join(format!("millstream-sim-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("created");
        let files = [directory.join("a"), directory.join("b")];
        std::fs::write(&files[0], "one\ntwo\nthree\n").expect("written");
        std::fs::write(&files[1], "one\ntwo\ndrei\n").expect("written");
        let difference = first_difference(&files).expect("readable");
        assert!(difference.contains("line 3") && difference.contains("three") && difference.contains("drei"));
        std::fs::write(&files[1], "one\ntwo\n").expect("written");
        assert!(first_difference(&files).expect("readable").contains("(the end)"));
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
