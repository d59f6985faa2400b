//! What a sweep has found, kept in a file so that it can be stopped and go on.
//!
//! The file's first line names the build; results of another build are not mixed with it. Every further line is one
//! seed. A last line without an end, which a killed sweep leaves, is cut off.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use millstream_sim_tests::history::Tally;
use millstream_sim_tests::plan;
use millstream_sim_tests::run::{Problem, Report};
use serde::{Deserialize, Serialize};

/// In a directory of results.
const FILE: &str = "results.jsonl";

/// Which program has made results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// Fingerprint of the executable.
    pub(crate) executable: String,
    /// The commit that was checked out; empty outside a repository.
    pub(crate) commit: String,
    /// Of the plans.
    pub(crate) plan_version: u32,
}

/// What became of a seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SeedResult {
    pub(crate) seed: u64,
    pub(crate) problems: Vec<Problem>,
    pub(crate) hash: String,
    pub(crate) tally: Tally,
    pub(crate) simulated_ms: u64,
    pub(crate) marks: BTreeMap<String, u64>,
    pub(crate) phases_ms: BTreeMap<String, u64>,
    /// CPU seconds that the processes had taken since the last result.
    pub(crate) cpu_seconds: f64,
}

impl Build {
    /// This program.
    pub(crate) fn this() -> io::Result<Self> {
        let executable = std::fs::read(std::env::current_exe()?)?;
        let commit = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
        let commit = commit.ok().filter(|output| output.status.success());
        Ok(Self {
            executable: format!("{:016x}", millstream_sim_tests::trace::fingerprint(&executable)),
            commit: commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
            plan_version: plan::VERSION,
        })
    }
}

impl SeedResult {
    /// From a report, or from the words with which a process ended that gave none.
    pub(crate) fn new(seed: u64, report: Result<Report, String>, cpu_seconds: f64) -> Self {
        match report {
            Ok(report) => {
                let Report { seed, problems, hash, tally, simulated_ms, marks, phases_ms, .. } = report;
                Self { seed, problems, hash, tally, simulated_ms, marks, phases_ms, cpu_seconds }
            }
            Err(problem) => {
                let problems = vec![Problem { check: "the process survives".into(), problem }];
                let (hash, tally, simulated_ms, marks, phases_ms) = Default::default();
                Self { seed, problems, hash, tally, simulated_ms, marks, phases_ms, cpu_seconds }
            }
        }
    }
}

/// A file of results.
pub(crate) struct Results {
    file: Option<File>,
    pub(crate) all: BTreeMap<u64, SeedResult>,
}

impl Results {
    /// Results that are not kept.
    pub(crate) fn forgotten() -> Self {
        Self { file: None, all: BTreeMap::new() }
    }

    /// Reads `directory/results.jsonl`, of whatever build.
    pub(crate) fn read(directory: &Path) -> io::Result<(Build, BTreeMap<u64, SeedResult>)> {
        let text = std::fs::read_to_string(directory.join(FILE))?;
        let mut lines = text.lines();
        let build = serde_json::from_str(lines.next().unwrap_or_default())?;
        let results = lines.map(|line| Ok(serde_json::from_str::<SeedResult>(line)?));
        let results = results.map(|result| result.map(|result| (result.seed, result)));
        Ok((build, results.collect::<io::Result<_>>()?))
    }

    /// Opens or begins `directory/results.jsonl`.
    pub(crate) fn open(directory: &Path, build: &Build) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(FILE);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut all = BTreeMap::new();
        match lines.next() {
            Some(line) => {
                let before: Build = serde_json::from_str(line)?;
                if before != *build {
                    return Err(io::Error::other(format!(
                        "{} holds results of another build ({before:?}; this one: {build:?}); name another directory",
                        path.display()
                    )));
                }
                for line in lines {
                    let result: SeedResult = serde_json::from_str(line)?;
                    all.insert(result.seed, result);
                }
                file.set_len(whole as u64)?;
                file.seek(SeekFrom::End(0))?;
            }
            None => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", serde_json::to_string(build)?)?;
            }
        }
        Ok(Self { file: Some(file), all })
    }

    /// One more.
    pub(crate) fn add(&mut self, result: SeedResult) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&result)?)?;
        }
        self.all.insert(result.seed, result);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_on_where_it_was_and_only_with_the_same_build() {
        let directory = std::env::temp_dir().join(format!("millstream-results-{}", std::process::id()));
        let build = Build { executable: "a".into(), commit: "b".into(), plan_version: 1 };
        let mut results = Results::open(&directory, &build).expect("new");
        results.add(SeedResult::new(7, Err("killed".into()), 1.5)).expect("written");
        results.add(SeedResult::new(9, Err("killed".into()), 1.5)).expect("written");
        drop(results);
        let path = directory.join("results.jsonl");
        let text = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &text[..text.len() - 3]).expect("cut");
        let mut results = Results::open(&directory, &build).expect("there");
        assert_eq!(results.all.keys().collect::<Vec<_>>(), [&7]);
        results.add(SeedResult::new(8, Err("killed".into()), 1.5)).expect("written");
        drop(results);
        assert_eq!(Results::open(&directory, &build).expect("there").all.len(), 2);
        assert!(Results::open(&directory, &Build { executable: "c".into(), ..build }).is_err());
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
