//! `sim`: runs simulations, and proves that they are deterministic.

mod shim;
mod sim;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millstream_sim_tests::mutants;
use millstream_sim_tests::run::What;
use millstream_sim_tests::scenarios::SCENARIOS;

use crate::sim::child::Task;
use crate::sim::one::{self, Output};
use crate::sim::{Seeds, evidence, meta, regressions, seeds, shrink, sweep};

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
        /// Decides everything that is left to chance.
        #[arg(long)]
        seed: u64,
        /// Simulated milliseconds of a step: 1, 2, 5 or 10. Absent: as the seed has it.
        #[arg(long)]
        tick_ms: Option<u64>,
        /// Tell this scenario instead of the seed's own plan.
        #[arg(long)]
        scenario: Option<String>,
        /// Print the plan first.
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Prints the plan of a seed as JSON.
    Plan {
        /// Which.
        #[arg(long)]
        seed: u64,
    },
    /// Runs a plan from a file.
    Replay {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Runs many seeds, each in a process of its own. Fails if one fails, or if many seeds together miss a coverage mark.
    Sweep {
        /// Which seeds: `0..199` for the 200 from 0 to 199.
        #[arg(long, value_parser = seeds)]
        seeds: Seeds,
        /// Processes at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Keep results here, and skip the seeds that have one. Results of another build are refused.
        #[arg(long, value_name = "DIR")]
        results: Option<PathBuf>,
    },
    /// Prints what a sweep has come to, as the tables of docs/evidence.md.
    Evidence {
        /// Where `sweep --results` has kept its results. Once for each build that has run a part of the seeds.
        #[arg(long, value_name = "DIR", required = true)]
        results: Vec<PathBuf>,
        /// What `mutants --report` has written.
        #[arg(long, value_name = "FILE")]
        kills: Option<PathBuf>,
    },
    /// Makes a failing plan smaller and keeps it as a regression.
    Shrink {
        /// The seed whose plan fails.
        #[arg(long, required_unless_present = "plan", conflicts_with = "plan")]
        seed: Option<u64>,
        /// The file with the plan that fails.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// So many runs at most.
        #[arg(long, default_value_t = 200)]
        runs: u32,
        /// Where to keep it.
        #[arg(long, value_name = "DIR", default_value = regressions::DIRECTORY)]
        directory: PathBuf,
    },
    /// Runs the plans that once failed.
    Regressions {
        /// Where they are.
        #[arg(long, value_name = "DIR", default_value = regressions::DIRECTORY)]
        directory: PathBuf,
        /// Processes at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Tells scenarios.
    Scenarios {
        /// Only this one.
        #[arg(long)]
        name: Option<String>,
        /// With which seeds.
        #[arg(long, default_value = "1", value_parser = seeds)]
        seeds: Seeds,
        /// Processes at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Print their names and tell none.
        #[arg(long)]
        list: bool,
    },
    /// Runs one seed in two different processes and compares the runs, event by event if they differ.
    Meta {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Simulated milliseconds of a step. Absent: as the seed has it.
        #[arg(long)]
        tick_ms: Option<u64>,
        /// Leave the C library's clock and random source real: the runs must then differ.
        #[arg(long)]
        without_shim: bool,
    },
    /// What the gate runs: `meta` for each seed, and once without the shim, which must be noticed.
    Check {
        /// Which seeds: `5`, or `1..3` for 1, 2 and 3.
        #[arg(long, default_value = "1..3", value_parser = seeds)]
        seeds: Seeds,
        /// Simulated milliseconds of a step. Absent: as each seed has it.
        #[arg(long)]
        tick_ms: Option<u64>,
    },
    /// Plants known bugs one by one, and demands that the simulation finds each.
    Mutants(mutants::Arguments),
}

fn main() -> io::Result<ExitCode> {
    mutants::around(|| match Cli::parse().verb {
        Verb::Run { seed, tick_ms, scenario: Some(name), output, .. } => {
            let again = Task::scenario(&name, seed).command_line();
            one::run(one::scenario(&name, seed, tick_ms)?, output, &again)
        }
        Verb::Run { seed, tick_ms, scenario: None, plan: show, output } => {
            let plan = one::plan(seed, tick_ms);
            if show {
                println!("{}", plan.to_json());
            }
            one::run(What::Plan(plan), output, &Task::seed(seed, tick_ms).command_line())
        }
        Verb::Plan { seed } => {
            println!("{}", one::plan(seed, None).to_json());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Replay { file, output } => {
            one::run(What::Plan(one::read_plan(&file)?), output, &Task::plan(&file).command_line())
        }
        Verb::Sweep { seeds, jobs, results } => sweep::sweep(seeds, jobs, results),
        Verb::Evidence { results, kills } => {
            println!("{}", evidence::evidence(&results, kills.as_deref())?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Shrink { seed, plan, runs, directory } => {
            let plan = match (seed, plan) {
                (_, Some(file)) => one::read_plan(&file)?,
                (seed, None) => one::plan(seed.unwrap_or(0), None),
            };
            shrink::shrink(plan, runs, &directory)
        }
        Verb::Regressions { directory, jobs } => sweep::plans(&directory, jobs),
        Verb::Scenarios { list: true, .. } => {
            SCENARIOS.iter().for_each(|scenario| println!("{}", scenario.name));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Scenarios { name, seeds, jobs, list: false } => {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            let wanted: Vec<_> = names.iter().copied().filter(|n| name.as_ref().is_none_or(|name| name == n)).collect();
            if wanted.is_empty() {
                return Err(io::Error::other(format!("there are only these: {}", names.join(", "))));
            }
            sweep::scenarios(&wanted, seeds, jobs)
        }
        Verb::Meta { seed, tick_ms, without_shim } => {
            let task = Task::seed(seed, tick_ms);
            let same = meta::meta(&seed.to_string(), &if without_shim { task.without_shim() } else { task })?;
            Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Check { seeds, tick_ms } => meta::check(seeds, tick_ms),
        Verb::Mutants(arguments) => mutants::run(&arguments),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sim_tests::entropy;

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
}
