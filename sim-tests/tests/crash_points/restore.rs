//! Restoring a backup: whatever stops it, there is a whole node afterwards, or nothing that is taken for one.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use millstream_node::config::{Config, Engine};
use millstream_node::replica::{Replica, ReplicaParts, Restore, restore};
use millstream_node::storage::{DataDir, Restoring, SnapshotFile, SnapshotWriter, StateDir, Wal};
use millstream_node::watch::Watch;
use millstream_node::world::OpenMode;
use millstream_sim_tests::disk::{Disk, Faults};
use millstream_sim_tests::entropy::Rng;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use crate::promises::{Promises, Rows, all_rows};
use crate::script::{DATA, Machine, options, run};
use crate::{End, ends, machine};

const BACKUP: &str = "/disk/backup";

/// A backup: that of a cluster of one node, which ran on a disk of its own, with some rows more.
fn backup() -> Vec<u8> {
    let elsewhere = Machine::new(Disk::new("n2", Rng::stream(2, "disk"), None), Engine::Memory);
    let world = elsewhere.world();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let taken = runtime.block_on(async {
        let mut config = Config::single_node();
        (config.engine, config.data_dir) = (Engine::Memory, DATA.into());
        (config.raft.heartbeat_ms, config.raft.election_ms_min, config.raft.election_ms_max) = (20, 60, 100);
        let data_dir = DataDir::open(&world, Path::new(DATA), 1).expect("opens");
        let wal = Wal::open(&world, &data_dir.wal_path(), options()).expect("opens");
        let parts = ReplicaParts { world: world.clone(), config, data_dir, log: wal.group(0), watch: Watch::new(1) };
        let replica = Replica::start(parts).await.expect("starts");
        while replica.with_state(|state| state.node(1).is_none()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let backup = replica.backup().await.expect("a leader makes one");
        let taken = backup.read(0, backup.length() as usize).await.expect("reads");
        drop(backup);
        replica.shutdown().await.expect("stops");
        wal.close().await;
        taken
    });
    let (taken_path, path) = (Path::new("/disk/taken"), Path::new(BACKUP));
    let file = world.fs.open(taken_path, OpenMode::CreateNew).expect("opens");
    file.write_all_at(&taken, 0).expect("writes");
    let mut writer = SnapshotWriter::create(&world, path).expect("opens");
    let rows: Rows = SnapshotFile::open(&world, taken_path).expect("a backup").map(|row| row.expect("a row")).collect();
    assert!(2 < rows.len(), "what it covers, the cluster, and its node");
    // Rows that a restore hands on as they are.
    let more = (0..10).map(|n| (vec![1, 240, n], Bytes::from(vec![n; 2_000])));
    for (key, value) in rows.into_iter().chain(more) {
        writer.row(&key, &value).expect("writes");
    }
    writer.finish().expect("writes");
    world.fs.read(path).expect("reads")
}

/// A machine with a backup, and with a directory to restore to if `is_there`.
fn with_backup(engine: Engine, seed: u64, backup: &[u8], is_there: bool) -> Machine {
    let machine = machine(engine, seed, Faults::default());
    let fs = machine.world().fs;
    fs.write_atomically(Path::new(BACKUP), backup).expect("written");
    if is_there {
        fs.create_dir_all(Path::new(DATA)).expect("created");
        fs.sync_dir(Path::new("/disk")).expect("synced");
    }
    machine
}

fn try_restore(machine: &Machine) -> Result<(), String> {
    let restore_to = Restore {
        file: BACKUP.into(),
        data_dir: DATA.into(),
        node_id: 1,
        peer_advertise: "n1:7421".into(),
        engine: machine.engine,
        segment_bytes: options().segment_bytes,
    };
    run(restore(&machine.world(), &restore_to)).map(drop).map_err(|error| error.to_string())
}

/// What must be found once it is restored.
fn promised(machine: &Machine) -> Promises {
    try_restore(machine).expect("without a fault it is restored");
    let world = machine.world();
    let data_dir = DataDir::open(&world, Path::new(DATA), 1).expect("opens");
    let (vote, purged) = run(async {
        let wal = Wal::open(&world, &data_dir.wal_path(), options()).expect("opens");
        let mut log = wal.group(0);
        let vote = log.read_vote().await.expect("reads");
        let purged = log.get_log_state().await.expect("reads").last_purged_log_id.expect("the log goes on");
        wal.close().await;
        (vote, purged)
    });
    let (_state_dir, store) = StateDir::open(&world, &data_dir.state_path(), machine.engine).expect("opens");
    let rows = all_rows(&*store).expect("reads");
    assert!(10 < rows.len());
    let terms = vec![purged.leader_id.term; purged.index as usize];
    Promises {
        incarnation: None,
        vote,
        vote_asked: vote,
        terms_asked: terms.clone(),
        terms,
        kept: purged.index,
        purge_asked: purged.index,
        rows_asked: rows.clone(),
        rows,
        elsewhere: None,
    }
}

/// What is left after a fault is a node that goes on, or can be restored to once more.
fn is_whole_or_nothing(machine: &Machine, restored: bool, promised: &Promises) -> Result<(), String> {
    let is_nothing = Restoring::is_possible(&machine.world(), Path::new(DATA)).map_err(|error| error.to_string())?;
    if is_nothing && restored {
        return Err("it is not there any more".into());
    }
    if is_nothing {
        try_restore(machine)?;
    }
    let mut promises = promised.clone();
    promises.hold_on(machine)?;
    machine.goes_on(&mut promises).map_err(|problem| format!("it does not go on: {problem}"))?;
    machine.disk.power_loss();
    promises.hold_on(machine).map_err(|problem| format!("after another power failure: {problem}"))
}

#[test]
fn a_restore_that_is_stopped_anywhere_leaves_a_node_or_nothing() {
    let backup = backup();
    for (engine, is_there) in [(Engine::Memory, false), (Engine::Memory, true), (Engine::Redb, false)] {
        let whole = with_backup(engine, 0, &backup, is_there);
        whole.disk.plan(Faults::default());
        let promised = promised(&whole);
        let fresh = with_backup(engine, 0, &backup, is_there);
        fresh.disk.plan(Faults::default());
        try_restore(&fresh).expect("restored");
        let steps = fresh.disk.steps();
        assert!(20 < steps, "only {steps} steps");
        println!("{engine:?}, directory there: {is_there}: {steps} steps");
        for step in 1..=steps {
            for end in ends(engine, step) {
                // What a call that fails leaves behind is what a crash there leaves: once is enough.
                let faults: &[bool] = if end == End::ProcessDies { &[false, true] } else { &[false] };
                for &fails in faults {
                    let seed = match end {
                        End::ProcessDies => 0,
                        End::PowerFails { seed } => seed,
                    };
                    let machine = with_backup(engine, seed, &backup, is_there);
                    let (crash_at, fail_at) = if fails { (None, Some(step)) } else { (Some(step), None) };
                    machine.disk.plan(Faults { crash_at, fail_at, ..Faults::default() });
                    let restored = try_restore(&machine);
                    let failed = (machine.disk.failed(), machine.disk.failed_name());
                    match end {
                        End::ProcessDies => machine.disk.kill_process(),
                        End::PowerFails { .. } => machine.disk.power_loss(),
                    }
                    machine.disk.plan(Faults::default());
                    if let Err(problem) = is_whole_or_nothing(&machine, restored.is_ok(), &promised) {
                        panic!(
                            "{engine:?}, there: {is_there}, step {step} {failed:?}, {end:?}, {restored:?}: {problem}"
                        );
                    }
                }
            }
        }
    }
}
