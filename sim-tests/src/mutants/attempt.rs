//! One run of the simulation in a process of its own, under a mutant or under none.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{FAREWELL, VARIABLE};
use crate::run::Problem;

/// A child may wait for the processor so many times longer than it may use it.
const WAIT_FACTOR: u32 = 20;

/// One way to run the simulation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attempt {
    /// The plan of this seed.
    Seed(u64),
    /// This scenario, with this seed.
    Scenario(String, u64),
}

impl Attempt {
    /// Its arguments of `sim`: it must print a report, of which only `problems` is looked at, as one line of JSON.
    fn arguments(&self) -> Vec<String> {
        let (seed, scenario) = match self {
            Self::Seed(seed) => (seed, None),
            Self::Scenario(name, seed) => (seed, Some(["--scenario".to_owned(), name.clone()])),
        };
        let always = ["run", "--json", "--seed", &seed.to_string()].map(str::to_owned);
        always.into_iter().chain(scenario.into_iter().flatten()).collect()
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Seed(seed) => format!("seed {seed}"),
            Self::Scenario(name, seed) => format!("{name}, seed {seed}"),
        }
    }

    /// Runs it under the mutant of this name, for `seconds_max` of CPU at most, with further arguments.
    pub(super) fn run(&self, mutant: &str, seconds_max: u64, further: &[String]) -> io::Result<Ended> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(self.arguments())
            .args(further)
            .env(VARIABLE, mutant)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (output, errors) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let (status, cpu_ms) = wait(&mut child, Duration::from_secs(seconds_max))?;
        let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
        let died = |how: String| Problem { check: "the run ends".into(), problem: how };
        let problem = match status {
            None => Some(died(format!("it hangs: it has not ended within {seconds_max} s of CPU"))),
            Some(status) => match problems(&output) {
                Some(problems) => problems.into_iter().next(),
                None => {
                    let said = errors.lines().filter(|line| !line.starts_with("mutant: ")).take(3).collect::<Vec<_>>();
                    Some(died(format!("it died: {status}; {}", said.join(" / "))))
                }
            },
        };
        Ok(Ended { problem, cpu_ms, reached: farewell(&errors) })
    }
}

/// What became of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// The first problem; `None` if all checks passed.
    pub(super) problem: Option<Problem>,
    /// CPU time, in ms.
    pub(super) cpu_ms: u64,
    /// How often the place of the mutant was reached; `None` if the process did not get to say so.
    pub(super) reached: Option<u64>,
}

/// CPU time of a process so far, in ms. `None` if it is gone, or where the system does not tell.
fn cpu_ms(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything; user and system time are the 12th and 13th behind it.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // There are 100 ticks in a second on every Linux.
    Some((ticks(11)? + ticks(12)?) * 10)
}

/// Reads all, so that the child never waits for its reader.
fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What came before an error counts.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the child, whose status is `None` if it was ended because it took too long. Also says what CPU time it took,
/// in ms, as of the last look: a machine that is busy with other things is no reason to call a child hanging, unless it
/// does nothing at all.
fn wait(child: &mut Child, time_max: Duration) -> io::Result<(Option<ExitStatus>, u64)> {
    let end = Instant::now() + time_max * WAIT_FACTOR;
    let mut used = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((Some(status), used));
        }
        used = cpu_ms(child.id()).map_or(used, |now| now.max(used));
        if time_max.as_millis() <= u128::from(used) || end <= Instant::now() {
            child.kill()?;
            child.wait()?;
            return Ok((None, used));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often the place was reached.
fn farewell(errors: &str) -> Option<u64> {
    errors.lines().rev().find_map(|line| line.strip_prefix(FAREWELL))?.parse().ok()
}

/// The problems in a report; `None` if this is none.
fn problems(output: &str) -> Option<Vec<Problem>> {
    #[derive(Deserialize)]
    struct Report {
        problems: Vec<Problem>,
    }
    let line = output.lines().rev().find(|line| line.starts_with('{'))?;
    serde_json::from_str::<Report>(line).ok().map(|report| report.problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_is_understood() {
        assert_eq!(farewell("mutant: X is on\nnoise\nmutant: reached 12\n"), Some(12));
        assert_eq!(farewell("mutant: X is on\n"), None);
        let found = Problem { check: "a".into(), problem: "b".into() };
        let line = "note\n{\"seed\":1,\"problems\":[{\"check\":\"a\",\"problem\":\"b\"}]}\n";
        assert_eq!(problems(line), Some(vec![found]));
        assert_eq!(problems("{\"seed\":1,\"problems\":[]}\n"), Some(Vec::new()));
        assert_eq!(problems("{\"seed\":1"), None);
        assert_eq!(problems(""), None);
        assert!(cpu_ms(std::process::id()).is_some());
    }

    #[test]
    fn a_scenario_has_a_seed() {
        let arguments = Attempt::Scenario("x".into(), 3).arguments();
        assert_eq!(arguments, ["run", "--json", "--seed", "3", "--scenario", "x"]);
        assert_eq!(Attempt::Seed(4).arguments(), ["run", "--json", "--seed", "4"]);
    }
}
