//! Any byte of a node's files changes: what was written comes back, or an error. Never something else, never a panic,
//! and never a log that has forgotten what was synced.
//!
//! The one exception is in the nature of things: a change in the very last batch of a log that was not closed in good
//! order cannot be told from a write that the crash has torn. Only entries of that batch can be lost so. An orderly end
//! writes a batch that holds nothing, so that there is nothing to lose.

mod support;
mod wal_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use millstream_client::{Append, Client, CreateGroup, EntryId, GroupPosition, Range, ReadGroup};
use millstream_node::config::{Config, Engine};
use millstream_node::server::StartError;
use millstream_node::storage::{SnapshotFile, SnapshotWriter, StateDir, StateStore, StoreError, Wal, WalError, store};
use millstream_node::types::Vote;
use millstream_node::world::World;
use openraft::storage::RaftLogStorage;
use support::{Cluster, image, write_image};
use wal_support::{Disk, Seen, append, entries, log_id, segments, small, world};

/// A directory in memory, if the machine has one: thousands of copies are made.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

/// Positions worth a try: all of a small file, else the beginning and some `tries` where there is something.
fn positions(content: &[u8], tries: usize) -> Vec<usize> {
    const HEAD: usize = 96;
    if content.len() <= 4 * HEAD {
        return (0..content.len()).collect();
    }
    let used: Vec<usize> = (HEAD..content.len()).filter(|at| content[*at] != 0).collect();
    let step = (used.len() / tries).max(1);
    (0..HEAD).chain(used.into_iter().step_by(step)).collect()
}

/// Changes one bit; which one depends on the place.
fn flip(content: &mut [u8], at: usize) {
    content[at] ^= 1 << (at % 8);
}

// --- the log ---

async fn look(path: &Path) -> Result<Seen, WalError> {
    let (world, _) = world(&Disk::default(), false);
    let wal = Wal::open(&world, path, small())?;
    let mut log = wal.group(0);
    let seen = Seen::of(&mut log).await;
    wal.close().await;
    Ok(seen)
}

/// A log of several files with all that can be in one. Returns it as it is on disk after an orderly end or after a
/// crash, and what is in it.
async fn written(path: &Path, orderly: bool) -> (BTreeMap<PathBuf, Vec<u8>>, Seen) {
    let (world, _) = world(&Disk::default(), false);
    let wal = Wal::open(&world, path, small()).expect("opens");
    let mut log = wal.group(0);
    // Leaders come and go, and each takes back what the one before had not committed.
    for (term, indices) in [(1_u64, 0_u64..50), (2, 40..75), (4, 60..110)] {
        if let Some(last) = indices.start.checked_sub(1) {
            let before = [1, 1, 1, 1, 2][term as usize];
            log.truncate_after(Some(log_id(before, last))).await.expect("truncates");
        }
        let vote = Vote { leader_id: log_id(term, 0).leader_id, committed: true };
        log.save_vote(&vote).await.expect("saves");
        for batch in indices.step_by(5) {
            append(&mut log, entries(term, batch..batch + 5, 40)).await;
            log.barrier().await.expect("syncs");
            log.save_committed(Some(log_id(term, batch))).await.expect("saves");
        }
    }
    log.purge(log_id(1, 10)).await.expect("purges");
    log.barrier().await.expect("syncs");
    append(&mut log, entries(4, 110..115, 40)).await;
    log.barrier().await.expect("syncs");
    let crashed = image(path);
    let seen = Seen::of(&mut log).await;
    wal.close().await;
    (if orderly { image(path) } else { crashed }, seen)
}

/// Where the last batch of a log starts: its file, and the byte.
fn last_batch(files: &BTreeMap<PathBuf, Vec<u8>>) -> (PathBuf, usize) {
    const MAGIC: [u8; 4] = 0x3142_534d_u32.to_le_bytes();
    let found = files.iter().rev().find_map(|(name, content)| {
        let starts = (0..content.len().saturating_sub(4)).step_by(8);
        Some((name.clone(), starts.rev().find(|at| content[*at..*at + 4] == MAGIC)?))
    });
    found.expect("a batch")
}

fn log_survives_changes(orderly: bool) {
    let directory = temporary();
    wal_support::run(async {
        let (files, expected) = written(&directory.path().join("wal"), orderly).await;
        let (last_file, last_at) = last_batch(&files);
        assert!(3 <= files.len() && 50 < expected.entries.len(), "the log is worth a test: {:?}", files.keys());
        let (mut same, mut refused, mut cut) = (0, 0, 0);
        let path = directory.path().join("changed");
        for (name, content) in &files {
            // Most of the bytes behind the last batch are zeros: a change there is a torn write, or nothing.
            let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| (at + 200).min(content.len()));
            for at in 0..used {
                let mut changed = files.clone();
                flip(changed.get_mut(name).expect("is there"), at);
                if path.exists() {
                    support::wipe(&path);
                }
                write_image(&path, &changed);
                match look(&path).await {
                    Ok(seen) if seen == expected => same += 1,
                    Ok(seen) => {
                        let in_last = *name == last_file && last_at <= at;
                        let lost = expected.entries.len() - seen.entries.len();
                        assert!(in_last && !orderly && lost <= 5, "byte {at} of {}: {seen:?}", name.display());
                        assert_eq!(seen.entries, expected.entries[..seen.entries.len()]);
                        assert_eq!((seen.vote, seen.purged), (expected.vote, expected.purged));
                        cut += 1;
                    }
                    Err(error @ WalError::Corrupt { .. }) => {
                        assert!(error.to_string().contains("rejoin under a new node id"), "{error}");
                        refused += 1;
                    }
                    Err(error) => panic!("byte {at} of {}: {error}", name.display()),
                }
            }
        }
        println!("{same} changes did no harm, {refused} were refused, {cut} were taken for a torn write");
        assert!(same < refused && (orderly || 0 < cut));
    });
}

#[test]
fn a_changed_byte_of_a_log_is_refused_or_does_no_harm() {
    log_survives_changes(true);
}

#[test]
fn a_changed_byte_of_a_crashed_log_costs_at_most_its_last_batch() {
    log_survives_changes(false);
}

// --- the state, on every engine ---

const ENGINES: [Engine; 3] = [Engine::Sled, Engine::Redb, Engine::Memory];

fn rows_of(store: &dyn StateStore) -> Result<BTreeMap<Vec<u8>, Bytes>, StoreError> {
    store.scan(&[], &[0xff; 8]).collect()
}

/// Opens a state and reads everything in it, in all ways.
fn read_state(path: &Path, engine: Engine) -> Result<BTreeMap<Vec<u8>, Bytes>, StoreError> {
    let (directory, opened): (StateDir, Arc<dyn StateStore>) = StateDir::open(&World::real(), path, engine)?;
    let verified = store::verify_all(&*opened, |_| ())?;
    let rows = rows_of(&*opened);
    if let Some(what) = verified.damaged.first() {
        return Err(StoreError::Corrupt { what: what.clone() });
    }
    let rows = rows?;
    for (key, value) in &rows {
        assert_eq!(opened.get(key)?.as_ref(), Some(value), "two ways to read a row agree");
    }
    drop((opened, directory));
    Ok(rows)
}

/// A state with rows of many sizes, some of them rewritten and some deleted.
fn write_state(path: &Path, engine: Engine) {
    let (directory, opened) = StateDir::open(&World::real(), path, engine).expect("opens");
    for round in 0..6_u8 {
        let rows = (0..40_u8).map(|row| {
            let length = [0, 7, 100, 900, 30_000][usize::from(row % 5)];
            let value = (0..length).map(|at: usize| (at / 7) as u8 ^ row ^ round).collect::<Vec<u8>>();
            let deleted = row % 8 == round;
            (vec![1, row, 0, row], (!deleted).then(|| Bytes::from(value)))
        });
        opened.commit(rows.collect()).expect("commits");
    }
    drop((opened, directory));
}

#[test]
fn a_changed_byte_of_a_state_is_never_served() {
    for engine in ENGINES {
        let directory = temporary();
        let original = directory.path().join("original");
        write_state(&original, engine);
        let expected = read_state(&original, engine).expect("is sound");
        assert!(30 < expected.len());
        let files = image(&original);
        let path = directory.path().join("changed");
        let (mut same, mut refused) = (0, 0);
        for (name, content) in &files {
            for at in positions(content, 150) {
                let mut changed = files.clone();
                flip(changed.get_mut(name).expect("is there"), at);
                if path.exists() {
                    support::wipe(&path);
                }
                write_image(&path, &changed);
                match read_state(&path, engine) {
                    Ok(rows) if rows == expected => same += 1,
                    Ok(rows) => panic!(
                        "{engine:?}: byte {at} of {}: {} rows instead of {}",
                        name.display(),
                        rows.len(),
                        expected.len()
                    ),
                    Err(_) => refused += 1,
                }
            }
        }
        println!("{engine:?}: {same} changes did no harm, {refused} were refused");
        assert!(0 < refused);
    }
}

// --- snapshots on their way ---

#[test]
fn a_changed_byte_of_a_snapshot_is_refused() {
    let (world, directory) = (World::real(), temporary());
    let path = directory.path().join("snapshot");
    let mut writer = SnapshotWriter::create(&world, &path).expect("creates");
    for row in 0..60_usize {
        writer.row(&[row as u8; 5], &vec![row as u8; row * 11]).expect("writes");
    }
    writer.finish().expect("finishes");
    let content = std::fs::read(&path).expect("reads");
    for at in 0..content.len() {
        let mut changed = content.clone();
        flip(&mut changed, at);
        std::fs::write(&path, changed).expect("writes");
        let read: std::io::Result<Vec<_>> = SnapshotFile::open(&world, &path).and_then(Iterator::collect);
        assert!(read.is_err(), "byte {at}");
    }
}

// --- whole nodes ---

async fn fill(client: &Client) {
    client
        .create_group(CreateGroup::new("orders", "billing", GroupPosition::After(EntryId::MIN)).create_stream())
        .await
        .expect("created");
    for number in 0..150 {
        client.append(Append::to("orders").field("number", number.to_string())).await.expect("appended");
    }
    client.read_group(ReadGroup::new("billing", "ada").new_entries("orders").count(70)).await.expect("delivered");
}

/// All that a client can see of what [`fill`] has made.
async fn content(client: &Client) -> Result<(Vec<(EntryId, Vec<u8>)>, u64), millstream_client::Error> {
    let entries: Vec<_> = client.range_all(Range::of("orders")).try_collect().await?;
    let entries = entries.iter().map(|entry| (entry.id, entry.get("number").expect("the field").to_vec())).collect();
    Ok((entries, client.get_pending("orders", "billing").await?.count))
}

fn small_node(config: &mut Config) {
    config.checkpoint.entries = 60;
    config.checkpoint.interval = std::time::Duration::from_millis(20);
    config.log.segment_bytes = 16 << 10;
    config.checks.compare_interval = std::time::Duration::ZERO;
}

/// Damage in the log is for a person to decide about: the node must not vote with a log that has lost entries.
#[test]
fn a_node_with_a_damaged_log_refuses_to_start() {
    let mut cluster = Cluster::start(3, small_node);
    cluster.leader();
    support::run(fill(&cluster.client([1, 2, 3])));
    cluster.converged();
    cluster.kill(2);
    let wal = cluster.data_dir(2).join("wal");
    let first = segments(&wal).remove(0);
    let file = wal.join(first);
    let mut bytes = std::fs::read(&file).expect("reads");
    let half = bytes.iter().rposition(|byte| *byte != 0).expect("is used") / 2;
    // The zeros between two batches have no checksum.
    let middle = half + bytes[half..].iter().position(|byte| *byte != 0).expect("is used");
    flip(&mut bytes, middle);
    std::fs::write(&file, &bytes).expect("writes");
    match cluster.boot(2) {
        Err(StartError::Wal(error @ WalError::Corrupt { .. })) => {
            let sentence = error.to_string();
            assert!(sentence.contains("remove this node's data directory and let it rejoin"), "{sentence}");
        }
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("it starts on a damaged log"),
    }
    // It says so again, and has changed nothing.
    assert!(cluster.boot(2).is_err());
    assert_eq!(std::fs::read(&file).expect("reads"), bytes);
    // The others do not need it.
    support::run(async { content(&cluster.client([1, 3])).await.expect("is served") });
}

/// Changes something in the largest file of a node's state.
fn damage_state(state: &Path) {
    let files = image(state);
    let (name, content) = files.into_iter().max_by_key(|(_, content)| content.len()).expect("has files");
    let mut changed = content;
    let used: Vec<usize> = (0..changed.len()).filter(|at| changed[*at] != 0).collect();
    // In several places, so that it does not only hit what nobody reads.
    for part in 1..40 {
        flip(&mut changed, used[used.len() * part / 40]);
    }
    std::fs::write(state.join(name), changed).expect("writes");
}

fn heals(engine: Engine, adjust: impl Fn(&mut Config)) {
    let mut cluster = Cluster::start(3, |config| {
        small_node(config);
        config.engine = engine;
        adjust(config);
    });
    cluster.leader();
    let client = cluster.client([1, 2, 3]);
    support::run(fill(&client));
    cluster.converged();
    let expected = support::run(content(&client)).expect("is served");
    cluster.eventually("a checkpoint", || (0 < cluster.status(2).checkpoint_index).then_some(()));
    cluster.stop(2);
    damage_state(&cluster.data_dir(2).join("state"));

    cluster.boot(2).expect("it sets its state aside and starts");
    cluster.converged();
    let local = cluster.client([2]).with_freshness(millstream_client::Freshness::Local);
    assert_eq!(support::run(content(&local)).expect("is served"), expected);
    // It stays healed.
    cluster.kill(2);
    cluster.boot(2).expect("it starts");
    cluster.converged();
}

/// Damages the bodies of all blocks in the state of a stopped node, below the checksums of rows. The index stays sound,
/// so that nothing is noticed at the start.
fn damage_bodies(state: &Path) {
    let db = sled::Config::new().path(state.join("1/sled")).segment_size(8 << 20).open().expect("opens");
    let tree = db.open_tree("rows").expect("opens");
    let mut damaged = 0;
    for row in tree.scan_prefix([1, 240]) {
        let (key, mut value) = row.expect("reads");
        *value.last_mut().expect("has bytes") ^= 1;
        tree.insert(key, value).expect("writes");
        damaged += 1;
    }
    assert!(0 < damaged);
    db.flush().expect("flushes");
}

/// A cluster of which node 2 has damaged bodies and has just been started.
fn with_damaged_bodies(adjust: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::start(3, |config| {
        small_node(config);
        // `damage_bodies` knows the rows of this one.
        config.engine = Engine::Sled;
        adjust(config);
    });
    cluster.leader();
    support::run(fill(&cluster.client([1, 2, 3])));
    cluster.converged();
    cluster.stop(2);
    damage_bodies(&cluster.data_dir(2).join("state"));
    cluster.boot(2).expect("the index is sound");
    cluster
}

/// After node 2 has stopped because of its state: the next start heals it.
fn heals_at_the_next_start(mut cluster: Cluster) {
    let sentence = support::run(cluster.server(2).failed());
    assert!(sentence.contains("cannot be relied on") && sentence.contains("start it again"), "{sentence}");
    cluster.eventually("end of its service", || (!cluster.server(2).replica().is_ready()).then_some(()));
    cluster.stop(2);
    let expected = support::run(content(&cluster.client([1, 3]))).expect("is served");
    cluster.boot(2).expect("it sets its state aside and starts");
    cluster.leader();
    cluster.converged();
    let local = cluster.client([2]).with_freshness(millstream_client::Freshness::Local);
    assert_eq!(support::run(content(&local)).expect("is served"), expected);
}

#[test]
fn a_damaged_block_that_a_query_finds_stops_the_node_and_the_next_start_heals_it() {
    let cluster = with_damaged_bodies(|config| config.checks.scrub_bytes_per_second = 0);
    let local = cluster.client([2]).with_freshness(millstream_client::Freshness::Local);
    support::run(async {
        tokio::select! {
            // A client may look for another node.
            answer = content(&local) => assert!(answer.is_err(), "it is never served"),
            _ = cluster.server(2).failed() => {}
        }
    });
    heals_at_the_next_start(cluster);
}

#[test]
fn a_damaged_block_that_the_scrub_finds_stops_the_node_and_the_next_start_heals_it() {
    heals_at_the_next_start(with_damaged_bodies(|config| config.checks.scrub_bytes_per_second = 1 << 30));
}

#[test]
fn the_scrub_goes_round_and_finds_damage_in_a_log() {
    let cluster = Cluster::start(1, |config| {
        small_node(config);
        config.checks.scrub_bytes_per_second = 1 << 30;
    });
    cluster.leader();
    support::run(fill(&cluster.client([1])));
    cluster.eventually("a round of the scrub", || (1 < cluster.status(1).scrub.rounds).then_some(()));
    let wal = cluster.data_dir(1).join("wal");
    let file = wal.join(segments(&wal).remove(0));
    let mut bytes = std::fs::read(&file).expect("reads");
    flip(&mut bytes, 400);
    std::fs::write(&file, &bytes).expect("writes");
    let sentence = support::run(cluster.server(1).failed());
    assert!(sentence.contains("is damaged at byte") && sentence.contains("rejoin under a new node id"), "{sentence}");
}

#[test]
fn a_node_with_a_damaged_state_heals_from_its_log() {
    for engine in ENGINES {
        heals(engine, |_| ());
    }
}

#[test]
fn a_node_with_a_damaged_state_and_a_short_log_heals_from_the_others() {
    for engine in ENGINES {
        heals(engine, |config| config.log.entries_kept = 20);
    }
}
