//! The core against a reference model (`millstream-streams-model`): a second implementation, written from the
//! specification of Redis Streams and not from the core, without any cleverness.
//!
//! Random commands go to both. After each, the core's outcome must be the model's, and everything that can be seen of
//! the streams concerned must be the same; every few commands, everything that can be seen at all. Where the core is free
//! to choose (an approximate trim removes whole blocks, of which the model knows nothing), the model checks the promise
//! and follows.
//!
//! - The model and the judgement of an outcome are in `node/streams/model`; the simulator uses them too.
//! - `generate.rs` makes commands, `run.rs` and `compare.rs` hold the two side by side, `shrink.rs` cuts a failing run
//!   down, `script.rs` prints it, `coverage.rs` counts what was reached.
//!
//! To run it, longer, or once again from a seed that failed:
//!
//! ```text
//! cargo test -p millstream-streams --test model -- --nocapture
//! MILLSTREAM_MODEL_COMMANDS=20000000 MILLSTREAM_MODEL_SEED=12345 cargo test -p millstream-streams --test model
//! MILLSTREAM_MODEL_COMMANDS=1 MILLSTREAM_MODEL_SEED=<seed> cargo test -p millstream-streams --test model
//! ```
//!
//! A failure prints the seed, the shortest run found that fails, as a story in the language of `tests/scripts`, and the
//! same as lines. Put the lines into a file in `tests/model/regressions` and name it in `REGRESSIONS`: unlike the seed,
//! they mean the same after the generator has changed.
//!
//! What is absent: sessions and the cluster (`tests/laws.rs` has them).
#![allow(clippy::disallowed_methods, reason = "a test may be told how long to run")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod compare;
mod coverage;
mod generate;
mod random;
mod run;
mod script;
mod shrink;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;

use coverage::Coverage;
use run::{Event, Failure, random, replay};

/// Commands of one run. Short runs shrink well, and leave states small; longer ones come to other places.
const RUN_LENGTHS: [u64; 4] = [60, 150, 300, 600];
/// The first seed unless another is given; each run takes the next one.
const FIRST_SEED: u64 = 1;
/// From how many commands on every corner should have been reached.
const COMMANDS_FOR_COVERAGE: u64 = 500_000;

/// Runs that failed once, here or with a bug planted, by name.
const REGRESSIONS: &[(&str, &str)] = &[
    ("entries_read_stops", include_str!("regressions/entries_read_stops")),
    ("ids_come_again", include_str!("regressions/ids_come_again")),
];

#[test]
fn the_core_does_as_the_model_says() {
    let commands = number("MILLSTREAM_MODEL_COMMANDS").unwrap_or(1_000_000);
    let mut seed = number("MILLSTREAM_MODEL_SEED").unwrap_or(FIRST_SEED);
    let mut coverage = Coverage::default();
    while coverage.commands < commands {
        let length = RUN_LENGTHS[(seed % RUN_LENGTHS.len() as u64) as usize];
        if let Err((events, failure)) = random(seed, length, &mut coverage) {
            panic!("{}", explain(seed, events, &failure));
        }
        seed += 1;
    }
    coverage.print();
    if commands >= COMMANDS_FOR_COVERAGE {
        let missing = coverage.missing();
        assert!(missing.is_empty(), "never reached:\n{}", missing.join("\n"));
    }
}

#[test]
fn what_failed_once_does_not_fail_again() {
    for (name, lines) in REGRESSIONS {
        if let Err(failure) = replay(&script::parse(lines)) {
            panic!("{name}, step {}: {}", failure.at + 1, failure.problem);
        }
    }
}

#[test]
fn a_run_survives_being_written_down() {
    for seed in 1..40 {
        // Whether it fails is for another test to say.
        let events = random(seed, 150, &mut Coverage::default()).unwrap_or_else(|(events, _)| events);
        assert_eq!(script::parse(&script::lines(&events)), events);
        assert!(script::story(&events).lines().count() >= events.len());
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// The failure, and the shortest run that fails as well.
fn explain(seed: u64, events: Vec<Event>, failure: &Failure) -> String {
    let taken = events.len();
    // Panics of the many attempts would drown the one that counts.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let events = shrink::shrink(events);
    std::panic::set_hook(hook);
    let mut text = format!("seed {seed} fails at command {}: {}\n", failure.at + 1, failure.problem);
    match replay(&events) {
        Ok(()) => writeln!(text, "It did not fail again: the core is not deterministic.").unwrap(),
        Err(failure) => {
            writeln!(text, "\nOf {taken} steps {} fail as well: {}", events.len(), failure.problem).unwrap();
            writeln!(text, "\n{}\n{}", script::story(&events), script::lines(&events)).unwrap();
        }
    }
    text
}
