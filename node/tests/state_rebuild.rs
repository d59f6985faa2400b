//! A node whose state is of no use: it says so, keeps it aside, and takes part only with another one.

mod support;

use std::path::Path;

use futures::TryStreamExt;
use millstream_client::{Append, Client, Range};
use millstream_node::config::Engine;
use millstream_node::replica;
use millstream_node::server::StartError;
use millstream_node::storage::StateDir;
use millstream_node::world::World;
use support::{Cluster, run};

const STREAM: &str = "orders";

fn append(client: &Client, numbers: std::ops::Range<usize>) {
    run(async {
        for number in numbers {
            client.append(Append::to(STREAM).field("number", number.to_string())).await.expect("appended");
        }
    });
}

fn read(client: &Client) -> Vec<usize> {
    let entries: Vec<_> = run(async { client.range_all(Range::of(STREAM)).try_collect().await.expect("readable") });
    let number = |value: &[u8]| std::str::from_utf8(value).expect("text").parse().expect("a number");
    entries.iter().map(|entry| number(entry.get("number").expect("the field"))).collect()
}

/// One node that has written checkpoints.
fn node(engine: Engine, entries_kept: u64) -> Cluster {
    let cluster = Cluster::start(1, |config| {
        config.engine = engine;
        config.checkpoint.entries = 50;
        config.log.entries_kept = entries_kept;
    });
    cluster.leader();
    append(&cluster.client([1]), 0..230);
    cluster
}

fn state(cluster: &Cluster) -> std::path::PathBuf {
    cluster.data_dir(1).join("state")
}

/// Damages the file that holds most of the state.
fn damage(state: &Path) {
    let files = ["1/sled/db", "1/redb/rows.redb", "1/memory/rows"].map(|name| state.join(name));
    let path = files.iter().find(|path| path.exists()).expect("there is a store");
    let mut content = std::fs::read(path).expect("reads");
    content.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x40);
    std::fs::write(path, content).expect("writes");
}

#[test]
fn a_state_that_does_not_verify_is_replayed_from_the_whole_log() {
    for engine in [Engine::Sled, Engine::Redb, Engine::Memory] {
        let mut cluster = node(engine, 1_000_000);
        cluster.stop(1);
        damage(&state(&cluster));
        cluster.boot(1).expect("it starts on its log");
        cluster.leader();
        assert_eq!(read(&cluster.client([1])), (0..230).collect::<Vec<_>>(), "{engine:?}");
        assert!(state(&cluster).join("broken-1").exists(), "{engine:?}: the operator can look at it");
        assert!(!state(&cluster).join("REBUILD").exists(), "{engine:?}: the log has everything");

        append(&cluster.client([1]), 230..300);
        cluster.kill(1);
        cluster.boot(1).expect("it starts on its new state");
        cluster.leader();
        assert_eq!(read(&cluster.client([1])), (0..300).collect::<Vec<_>>(), "{engine:?}");
    }
}

#[test]
fn a_suspect_state_is_rebuilt_at_the_next_start() {
    let mut cluster = node(Engine::Memory, 1_000_000);
    cluster.stop(1);
    {
        let (dir, _store) = StateDir::open(&World::real(), &state(&cluster), Engine::Memory).expect("opens");
        dir.mark_suspect("it differs from the others'").expect("marks");
    }
    cluster.boot(1).expect("it starts on its log");
    cluster.leader();
    assert_eq!(read(&cluster.client([1])), (0..230).collect::<Vec<_>>());
    assert!(state(&cluster).join("broken-1").exists());
}

/// The mark is written before the old state is renamed; the next start must not take the old one back.
#[test]
fn a_start_that_dies_while_it_sets_a_state_aside_does_so_again() {
    let mut cluster = node(Engine::Memory, 1_000_000);
    cluster.stop(1);
    let world = World::real();
    {
        let (dir, _store) = StateDir::open(&world, &state(&cluster), Engine::Memory).expect("opens");
        dir.mark_suspect("it differs from the others'").expect("marks");
    }
    // The mark as a whole run of it leaves it, beside a state that was not renamed.
    let copy = cluster.directory.path().join("copy");
    std::fs::create_dir_all(copy.join("1/memory")).expect("creates");
    for name in ["CURRENT", "REBUILD", "1/BATCHES", "1/memory/rows"] {
        std::fs::copy(state(&cluster).join(name), copy.join(name)).expect("copies");
    }
    drop(StateDir::set_aside(&world, &copy, Engine::Memory, "as it was", 0).expect("sets aside"));
    std::fs::copy(copy.join("REBUILD"), state(&cluster).join("REBUILD")).expect("copies");

    cluster.boot(1).expect("it starts on its log");
    cluster.leader();
    assert_eq!(read(&cluster.client([1])), (0..230).collect::<Vec<_>>());
    assert!(state(&cluster).join("broken-1").exists());
    assert!(!state(&cluster).join("REBUILD").exists());
}

#[test]
fn without_the_whole_log_a_node_does_not_take_part_until_it_has_a_state() {
    for lost in ["damaged", "gone"] {
        let mut cluster = node(Engine::Memory, 10);
        cluster.eventually("a purge", || (0 < cluster.status(1).first_log_index).then_some(()));
        cluster.stop(1);
        let whole = cluster.directory.path().join("whole");
        std::fs::copy(state(&cluster).join("1/memory/rows"), &whole).expect("copies");
        match lost {
            "damaged" => damage(&state(&cluster)),
            // An operator may try that. The node must not start anew with an empty state under an old log.
            _ => std::fs::remove_dir_all(state(&cluster)).expect("removes"),
        }
        for attempt in 0..3 {
            let error = cluster.boot(1).expect_err("it must not start");
            let sentence = error.to_string();
            assert!(
                matches!(error, StartError::Replica(replica::StartError::Rebuild { .. })),
                "{lost}, attempt {attempt}: {sentence}"
            );
            assert!(sentence.contains("join under a new node id"), "{sentence}");
        }
        let broken = std::fs::read(state(&cluster).join("broken-1/memory/rows"));
        if lost == "damaged" {
            let (broken, whole) = (broken.expect("is kept"), std::fs::read(&whole).expect("reads"));
            assert_eq!(broken.len(), whole.len(), "repeated starts do not replace what was set aside");
        }
    }
}
