//! The same seed in two processes must be the same run.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::time::Instant;

use millstream_sim_tests::run::Report;
use millstream_sim_tests::trace;

use super::Seeds;
use super::child::{Task, report_of};
use super::one::summary;

/// Runs a seed twice; says what differs. True if the runs are equal and without problems.
pub(crate) fn meta(name: &str, task: &Task) -> io::Result<bool> {
    let start = Instant::now();
    let (first, second) = run_twice(task, None)?;
    println!("{}", summary(&first, start.elapsed()));
    for problem in &first.problems {
        println!("  {}: {}", problem.check, problem.problem);
    }
    if first == second {
        println!("  the same in two processes{}", if first.problems.is_empty() { "" } else { ", but wrong" });
        return Ok(first.problems.is_empty());
    }
    println!("  NOT the same in two processes: {} and {}", first.hash, second.hash);
    for problem in second.problems.iter().filter(|problem| !first.problems.contains(problem)) {
        println!("  only in the second: {}: {}", problem.check, problem.problem);
    }
    let directory = std::env::temp_dir().join(format!("millstream-sim-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let files = [directory.join("first.trace"), directory.join("second.trace")];
    run_twice(task, Some(&files))?;
    println!("  {}", first_difference(&files)?);
    println!("  the traces are in {}", directory.display());
    Ok(false)
}

/// Two processes as different as one machine makes them.
fn run_twice(task: &Task, traces: Option<&[PathBuf; 2]>) -> io::Result<(Report, Report)> {
    let [first, second] = [(Path::new("/"), "1", 1), (&std::env::temp_dir(), "4", 4_000)];
    let start = |(directory, arenas, padding): (&Path, &str, usize), trace: Option<&PathBuf>| -> io::Result<Child> {
        let mut command = task.command()?;
        command.current_dir(directory).env("MALLOC_ARENA_MAX", arenas).env("SIM_PADDING", "x".repeat(padding));
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        command.spawn()
    };
    let first = start(first, traces.map(|traces| &traces[0]))?;
    let second = start(second, traces.map(|traces| &traces[1]))?;
    let report = |child| report_of(child)?.map_err(io::Error::other);
    Ok((report(first)?, report(second)?))
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

/// `meta` for each seed, and once without the shim, which must be noticed.
pub(crate) fn check((first, last): Seeds, tick_ms: Option<u64>) -> io::Result<ExitCode> {
    if !trace::packets_are_traced() {
        println!("note: this build of `tracing` drops turmoil's packet events; bytes read and written are traced");
    }
    let (mut passed, mut failed) = (0, 0);
    let mut count = |ok: bool| if ok { passed += 1 } else { failed += 1 };
    for seed in first..=last {
        count(meta(&seed.to_string(), &Task::seed(seed, tick_ms))?);
    }
    // A comparison that cannot fail proves nothing.
    let (one, other) = run_twice(&Task::seed(first, tick_ms).without_shim(), None)?;
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
