//! Crash points: a node's storage does everything it can do, on a simulated disk, and is stopped at every step of it.
//!
//! The script ([`script`]) creates a data directory, votes, appends until segments roll, commits checkpoints, purges,
//! truncates, spools a snapshot and sends it, receives one and installs it, sets its state aside and fetches another.
//! It is run once to count the steps of the disk, and then once for each step and each kind of fault: the process
//! dies there, or the power fails there and the seed decides what is left of what was not synced. Each time the
//! storage is opened again and held against what had been acknowledged ([`promises`]), must go on working, and must
//! still know everything after another power failure.
//!
//! The same for each write and sync that fails, for a disk that is full, and for a restore ([`restore`]).

mod promises;
mod restore;
mod script;

use std::collections::{BTreeMap, BTreeSet};

use millstream_node::config::Engine;
use millstream_sim_tests::disk::{Disk, Faults, Step};
use millstream_sim_tests::entropy::Rng;

use crate::promises::Promises;
use crate::script::{Ended, Machine};

const ENGINES: [Engine; 2] = [Engine::Memory, Engine::Redb];

/// How often the power fails at each step, each time with other luck. What is redb's own is tested by redb.
fn power_losses(engine: Engine) -> u64 {
    match engine {
        Engine::Redb => 1,
        _ => 3,
    }
}

/// What becomes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ProcessDies,
    PowerFails { seed: u64 },
}

fn machine(engine: Engine, seed: u64, faults: Faults) -> Machine {
    let disk = Disk::new("n1", Rng::stream(seed, "disk"), None);
    let machine = Machine::new(disk, engine);
    machine.disk.plan(faults);
    machine
}

/// How many steps the whole script takes.
fn steps(engine: Engine) -> u64 {
    let machine = machine(engine, 0, Faults::default());
    let mut promises = Promises::default();
    assert_eq!(machine.run(&mut promises), Ended::AtItsEnd, "without a fault the script runs to its end");
    let steps = machine.disk.steps();
    promises.hold_on(&machine).expect("without a fault everything is there");
    steps
}

/// Runs the script with a fault, ends it, and holds what is left against what was promised.
fn try_one(engine: Engine, faults: Faults, end: End) -> (Machine, Ended) {
    let seed = match end {
        End::ProcessDies => 0,
        End::PowerFails { seed } => seed,
    };
    let machine = machine(engine, seed, faults);
    let mut promises = Promises::default();
    let ended = machine.run(&mut promises);
    let failed = machine.disk.failed();
    match end {
        End::ProcessDies => machine.disk.kill_process(),
        End::PowerFails { .. } => machine.disk.power_loss(),
    }
    machine.disk.plan(Faults::default());
    let holds = promises.hold_on(&machine).and_then(|()| {
        // What was found and relied on must be durable by now, and the storage must work.
        machine.goes_on(&mut promises).map_err(|problem| format!("it does not go on: {problem}"))?;
        machine.disk.power_loss();
        promises.hold_on(&machine).map_err(|problem| format!("after another power failure: {problem}"))
    });
    if let Err(problem) = holds {
        panic!("{engine:?}, {faults:?} ({failed:?}), {end:?}, the script ended {ended:?}: {problem}");
    }
    (machine, ended)
}

fn ends(engine: Engine, step: u64) -> impl Iterator<Item = End> {
    let losses = (0..power_losses(engine)).map(move |luck| End::PowerFails { seed: 10 * step + luck });
    [End::ProcessDies].into_iter().chain(losses)
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_acknowledged() {
    for engine in ENGINES {
        let steps = steps(engine);
        assert!(200 < steps, "only {steps} steps: has the script become shorter?");
        for step in 1..=steps {
            for end in ends(engine, step) {
                let faults = Faults { crash_at: Some(step), ..Faults::default() };
                let (machine, ended) = try_one(engine, faults, end);
                let came = ended == Ended::Early || machine.crashed_in_time();
                assert!(came, "step {step} did not come: the script is not deterministic");
            }
        }
        println!("{engine:?}: {steps} steps, {} crashes", steps * (1 + power_losses(engine)));
    }
}

#[test]
fn a_write_or_sync_that_fails_ends_the_node_and_loses_nothing() {
    for engine in ENGINES {
        let mut unnoticed = BTreeMap::new();
        for step in 1..=steps(engine) {
            for end in ends(engine, step) {
                let faults = Faults { fail_at: Some(step), ..Faults::default() };
                let (machine, ended) = try_one(engine, faults, end);
                // A segment that nobody needs any more may stay for a while instead of becoming a spare.
                let retires = machine.failed_name().is_some_and(|name| name.ends_with(".spare"));
                if ended == Ended::AtItsEnd && !machine.is_unimportant(step) && !retires {
                    unnoticed.entry(machine.failed_in_time()).or_insert_with(BTreeSet::new).insert(step);
                }
            }
        }
        // A segment that nobody needs any more may stay for a while; all else must be noticed.
        let harmless = [Some(Step::Remove), Some(Step::SyncDir)];
        assert!(unnoticed.keys().all(|step| harmless.contains(step)), "{engine:?}: went on after {unnoticed:?}");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    for engine in ENGINES {
        for quota in (0..60_000).step_by(500) {
            for end in ends(engine, quota) {
                try_one(engine, Faults { quota: Some(quota), ..Faults::default() }, end);
            }
        }
    }
}
