//! `sim evidence`: what a sweep has come to, as tables for `docs/evidence.md`. The figures on that page are not typed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use millstream_sim_tests::mutants::Fate;
use millstream_sim_tests::{marks, plan};

use super::results::{Build, Results, SeedResult};

/// A part of a sweep: the seeds that one build has run.
type Part = (Build, BTreeMap<u64, SeedResult>);

/// The tables as Markdown: of the sweep whose parts are in `results`, and of the planted bugs in `kills`, which
/// `sim mutants --report` has written.
pub(crate) fn evidence(results: &[PathBuf], kills: Option<&Path>) -> io::Result<String> {
    let parts = results.iter().map(|directory| Results::read(directory)).collect::<io::Result<Vec<Part>>>()?;
    let mut seen = BTreeSet::new();
    if let Some(seed) = parts.iter().flat_map(|(_, results)| results.keys()).find(|seed| !seen.insert(**seed)) {
        return Err(io::Error::other(format!("seed {seed} is in two of the directories")));
    }
    let mut text = sweep(&parts);
    if let Some(kills) = kills {
        let fates: Vec<Fate> = serde_json::from_slice(&std::fs::read(kills)?)?;
        text += "\n## Planted bugs\n";
        text += &millstream_sim_tests::mutants::table(&fates);
    }
    Ok(text)
}

/// What is summed up over all seeds: its name, and what a seed adds.
type Tally = (&'static str, fn(&SeedResult) -> u64);

fn sweep(parts: &[Part]) -> String {
    let results: BTreeMap<u64, &SeedResult> =
        parts.iter().flat_map(|(_, part)| part.values()).map(|result| (result.seed, result)).collect();
    let results: Vec<&SeedResult> = results.into_values().collect();
    let sum = |of: fn(&SeedResult) -> u64| results.iter().map(|result| of(result)).sum::<u64>();
    let cpu: f64 = results.iter().map(|result| result.cpu_seconds).sum();
    let failed = results.iter().filter(|result| !result.problems.is_empty()).count();
    let simulated_hours = sum(|result| result.simulated_ms) as f64 / 3_600_000.0;
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for result in &results {
        for (name, count) in &result.marks {
            let (seeds, times) = counts.entry(name).or_default();
            (*seeds, *times) = (*seeds + 1, *times + count);
        }
    }
    let part = |(build, results): &Part| {
        let Build { executable, commit, plan_version } = build;
        let seeds = spans(results.keys().copied());
        ("commit", format!("{commit}, build {executable}, plans of version {plan_version}: seeds {seeds}"))
    };
    let mut rows: Vec<_> = parts.iter().map(part).collect();
    rows.extend([
        ("seeds", thousands(results.len() as u64)),
        ("seeds that failed", failed.to_string()),
        ("simulated time", format!("{simulated_hours:.1} h")),
        ("CPU time", format!("{:.1} h, {:.2} s a seed", cpu / 3_600.0, cpu / results.len().max(1) as f64)),
    ]);
    let tallies: [Tally; 8] = [
        ("appends acknowledged", |result| result.tally.appended),
        ("entries delivered", |result| result.tally.delivered),
        ("entries claimed", |result| result.tally.claimed),
        ("entries given back", |result| result.tally.released),
        ("entries acknowledged", |result| result.tally.acknowledged),
        ("calls whose outcome is unknown", |result| result.tally.unknown),
        ("calls promised to have had no effect", |result| result.tally.nothing_changed),
        ("steps of all plans", |result| {
            plan::ACTIONS.iter().map(|name| result.marks.get(*name).copied().unwrap_or_default()).sum()
        }),
    ];
    rows.extend(tallies.map(|(name, of)| (name, thousands(sum(of)))));
    let mut text = String::from("\n## The sweep\n\n| | |\n| --- | --- |\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let mut table = |title: &str, names: &mut dyn Iterator<Item = &str>| {
        let _ = write!(text, "\n## {title}\n\n| what | times | in seeds |\n| --- | --- | --- |\n");
        for name in names {
            let (seeds, times) = counts.get(name).copied().unwrap_or_default();
            let _ = writeln!(text, "| {} | {} | {} |", name.replace('_', " "), thousands(times), thousands(seeds));
        }
    };
    table("Faults by kind", &mut plan::ACTIONS.iter().copied());
    let others = counts.keys().copied().chain(marks::EXPECTED.iter().copied());
    let others: BTreeSet<_> = others.filter(|name| !plan::ACTIONS.contains(name)).collect();
    table("What was seen to happen", &mut others.into_iter());
    text
}

/// `0..4, 7`: each run of numbers without a gap by its ends.
fn spans(numbers: impl Iterator<Item = u64>) -> String {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => spans.push((number, number)),
        }
    }
    let spans = spans.into_iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}..{last}") }
        },
    );
    spans.collect::<Vec<_>>().join(", ")
}

/// `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(spans([0, 1, 2, 5, 7, 8].into_iter()), "0..2, 5, 7..8");
        assert_eq!(spans([].into_iter()), "");
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_tables_hold_what_the_seeds_saw() {
        let build = Build { executable: "e".into(), commit: "c".into(), plan_version: 1 };
        let mut one = SeedResult::new(3, Err("gone".into()), 2.0);
        one.marks = [("kill".to_owned(), 1_500), ("leader_elected".to_owned(), 2)].into();
        let other = SeedResult { seed: 4, problems: Vec::new(), ..one.clone() };
        let later = Build { commit: "d".into(), ..build.clone() };
        let text = sweep(&[(build, [(3, one)].into()), (later, [(4, other)].into())]);
        for line in [
            "| commit | c, build e, plans of version 1: seeds 3 |",
            "| commit | d, build e, plans of version 1: seeds 4 |",
            "| seeds | 2 |",
            "| seeds that failed | 1 |",
            "| kill | 3,000 | 2 |",
            "| leader elected | 4 | 2 |",
            "| ring | 0 | 0 |",
            "| name lost | 0 | 0 |",
            "| steps of all plans | 3,000 |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
