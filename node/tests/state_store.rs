//! The data directory, the state stores and snapshot files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::{
    Batch, DataDir, DataDirError, SnapshotFile, SnapshotWriter, StateDir, StateStore, StoreError,
};
use millstream_node::world::World;
use proptest::prelude::*;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

// --- stores: every test on every engine ---

const ENGINES: [Engine; 2] = [Engine::Sled, Engine::Memory];

fn open(path: &Path, engine: Engine) -> Result<(StateDir, Arc<dyn StateStore>), StoreError> {
    StateDir::open(&World::real(), path, engine)
}

fn all(store: &dyn StateStore) -> BTreeMap<Vec<u8>, Bytes> {
    store.scan(b"", &[0xff; 8]).map(|row| row.expect("verifies")).collect()
}

fn put(key: &[u8], value: impl Into<Bytes>) -> (Vec<u8>, Option<Bytes>) {
    (key.to_vec(), Some(value.into()))
}

/// A value whose every byte depends on its place.
fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|at| (at / 251 + at + seed) as u8).collect()
}

#[test]
fn rows_are_put_found_scanned_and_deleted() {
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(store.get(b"a").expect("reads"), None);

        store.commit(vec![put(b"b", "2"), put(b"a", "1"), put(b"a\0", "1b"), put(b"", "0")]).expect("commits");
        assert_eq!(store.get(b"a").expect("reads"), Some("1".into()));
        let keys: Vec<_> = store.scan(b"a", b"b").map(|row| row.expect("verifies").0).collect();
        assert_eq!(keys, [b"a".to_vec(), b"a\0".to_vec()], "start counts, end does not, a prefix comes first");
        assert_eq!(store.scan(b"b", b"a").count(), 0);

        store.commit(vec![(b"a".to_vec(), None), (b"nowhere".to_vec(), None), put(b"b", "3")]).expect("commits");
        assert_eq!(store.get(b"a").expect("reads"), None);
        assert_eq!(all(&*store).into_values().collect::<Vec<_>>(), ["0", "1b", "3"]);
        store.commit(Batch::new()).expect("an empty batch is fine");
    }
}

#[test]
fn large_values_are_split_joined_shrunk_and_deleted() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        let sizes = [0, 1, 24 * 1024 - 1, 24 * 1024, 24 * 1024 + 1, 1 << 20];
        for (from, first) in sizes.iter().enumerate() {
            for (to, second) in sizes.iter().enumerate() {
                store.commit(vec![put(b"large", pattern(*first, from)), put(b"largf", "next")]).expect("commits");
                assert_eq!(store.get(b"large").expect("reads"), Some(pattern(*first, from)));
                store.commit(vec![put(b"large", pattern(*second, to))]).expect("commits");
                assert_eq!(all(&*store).remove(&b"large"[..]), Some(pattern(*second, to)));
            }
        }
        drop((dir, store));
        let (_dir, store) = open(directory.path(), engine).expect("opens again");
        assert_eq!(store.get(b"large").expect("reads"), Some(pattern(1 << 20, sizes.len() - 1)));
        store.commit(vec![(b"large".to_vec(), None)]).expect("commits");
        assert_eq!(all(&*store).into_keys().collect::<Vec<_>>(), [b"largf".to_vec()], "no piece is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_an_ordered_map_that_survives(
        batches in prop::collection::vec(
            prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..4), prop::option::weighted(0.7, 0..60_000_usize)),
                0..8,
            ),
            1..8,
        )
    ) {
        for engine in ENGINES {
            let directory = temporary();
            let mut model = BTreeMap::new();
            for batch in &batches {
                let (_dir, store) = open(directory.path(), engine).expect("opens");
                // A key is named once: what a batch means does not depend on its order.
                let changes: BTreeMap<_, _> = batch.iter().cloned().collect();
                let mut rows = Batch::new();
                for (key, length) in changes {
                    let value = length.map(|length| pattern(length, key.len()));
                    match &value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(&key)),
                    }
                    rows.push((key, value));
                }
                store.commit(rows).expect("commits");
                assert_eq!(all(&*store), model);
            }
            let (_dir, store) = open(directory.path(), engine).expect("opens");
            assert_eq!(all(&*store), model);
            for (key, value) in &model {
                assert_eq!(store.get(key).expect("reads").as_ref(), Some(value));
            }
        }
    }
}

/// The file that holds most of an engine's rows.
fn main_file(path: &Path, engine: Engine) -> PathBuf {
    path.join("1").join(match engine {
        Engine::Sled => "sled/db",
        Engine::Memory => "memory/rows",
    })
}

#[test]
fn a_damaged_byte_is_never_served() {
    let needle = b"a value that is easy to find in a file";
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", &needle[..]), put(b"other", "fine")]).expect("commits");
        drop((dir, store));

        let path = main_file(directory.path(), engine);
        let mut content = std::fs::read(&path).expect("reads");
        let at = content.windows(needle.len()).position(|bytes| bytes == needle).expect("the value is in the file");
        // sled has a checksum of its own over each of its messages; so damage what it believes to be whole, too.
        content[at + 5] ^= 1;
        std::fs::write(&path, content).expect("writes");

        let found = open(directory.path(), engine).and_then(|(_dir, store)| store.get(b"row"));
        assert!(!matches!(&found, Ok(Some(_))), "{engine:?} served {found:?}");
        if engine == Engine::Memory {
            assert!(matches!(found, Err(StoreError::Corrupt { .. })));
        }
    }
}

#[test]
fn a_value_that_its_engine_believes_in_is_verified_too() {
    let directory = temporary();
    let (dir, store) = open(directory.path(), Engine::Sled).expect("opens");
    store.commit(vec![put(b"row", "value"), put(b"wide", pattern(100_000, 0))]).expect("commits");
    drop((dir, store));
    {
        let config = sled::Config::new().path(directory.path().join("1/sled")).segment_size(8 << 20);
        let tree = config.open().and_then(|db| db.open_tree("rows")).expect("sled opens");
        for (nth, row) in tree.iter().enumerate() {
            let (key, mut value) = row.expect("sled reads");
            // After the number of the batch: the first value, and the second piece of the second one.
            if nth == 1 || nth == 3 {
                let last = value.len() - 1;
                value[last] ^= 1;
                tree.insert(key, value).expect("sled writes");
            }
        }
        tree.flush().expect("sled flushes");
    }
    let (_dir, store) = open(directory.path(), Engine::Sled).expect("opens");
    for key in [&b"row"[..], b"wide"] {
        assert!(matches!(store.get(key), Err(StoreError::Corrupt { .. })), "get");
        let mut scan = store.scan(key, &[0xff]);
        assert!(matches!(scan.next(), Some(Err(StoreError::Corrupt { .. }))), "scan");
        drop(scan);
        store.commit(vec![put(key, "mended")]).expect("a damaged row can be replaced");
        assert_eq!(store.get(key).expect("reads"), Some("mended".into()));
    }
}

/// sled itself opens all of these without a word: cut files with the state of some earlier moment, files with a damaged
/// head with no rows at all. The number of the last batch gives it away.
#[test]
fn a_store_that_has_lost_batches_does_not_open() {
    let directory = temporary();
    let (dir, store) = open(directory.path(), Engine::Sled).expect("opens");
    for round in 0..20_u8 {
        let rows = (0..20_u8).map(|row| put(&[row], pattern(3000, (round ^ row) as usize))).collect();
        store.commit(rows).expect("commits");
    }
    drop((dir, store));
    let content = std::fs::read(main_file(directory.path(), Engine::Sled)).expect("reads");
    for part in 1..16 {
        let at = content.len() * part / 16;
        let (mut zeroed, mut noisy) = (content.clone(), content.clone());
        zeroed[at..(at + 5000).min(content.len())].fill(0);
        noisy[..at.min(4000)].fill(0xa5);
        for damaged in [&content[..at], &zeroed, &noisy] {
            let copy = temporary();
            copy_all(directory.path(), copy.path());
            std::fs::write(main_file(copy.path(), Engine::Sled), damaged).expect("writes");
            let opened = open(copy.path(), Engine::Sled);
            assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "part {part}: {:?}", opened.err());
        }
    }
}

#[test]
fn a_store_that_fails_at_open_is_an_error() {
    let directory = temporary();
    drop(open(directory.path(), Engine::Sled).expect("opens"));
    std::fs::write(directory.path().join("1/sled/conf"), b"segment_size: what\n").expect("writes");
    assert!(open(directory.path(), Engine::Sled).is_err());
    std::fs::remove_dir_all(directory.path().join("1/sled")).expect("removes");
    std::fs::write(directory.path().join("1/sled"), b"a file where a directory should be").expect("writes");
    assert!(matches!(open(directory.path(), Engine::Sled), Err(StoreError::Io(_))));
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

// --- generations ---

#[test]
fn a_generation_replaces_the_one_before_at_once() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", "old")]).expect("commits");

        let abandoned = dir.create_next().expect("creates");
        abandoned.store.commit(vec![put(b"row", "half")]).expect("commits");
        drop(abandoned);
        assert!(!directory.path().join("2").exists(), "what is not used is removed");

        let next = dir.create_next().expect("creates");
        assert_eq!(all(&*next.store).len(), 0);
        next.store.commit(vec![put(b"row", "new")]).expect("commits");
        assert_eq!(store.get(b"row").expect("reads"), Some("old".into()));
        let new = dir.switch_to(next).expect("switches");
        assert_eq!(store.get(b"row").expect("reads"), Some("old".into()), "a reader keeps what it has");
        drop(store);
        assert!(!directory.path().join("1").exists(), "the old one goes with its last reader");
        assert_eq!(new.get(b"row").expect("reads"), Some("new".into()));
        drop((dir, new));

        std::fs::create_dir(directory.path().join("9")).expect("creates");
        let (_dir, store) = open(directory.path(), engine).expect("opens again");
        assert_eq!(store.get(b"row").expect("reads"), Some("new".into()));
        assert!(!directory.path().join("9").exists(), "leftovers are removed");
    }
}

#[test]
fn a_state_of_another_engine_or_without_its_files_is_refused() {
    let directory = temporary();
    drop(open(directory.path(), Engine::Memory).expect("opens"));
    let error = open(directory.path(), Engine::Sled).err().expect("refuses").to_string();
    assert!(error.contains("start with engine memory"), "{error}");

    std::fs::remove_dir_all(directory.path().join("1")).expect("removes");
    assert!(matches!(open(directory.path(), Engine::Memory), Err(StoreError::Corrupt { .. })));
    std::fs::write(directory.path().join("CURRENT"), b"x").expect("writes");
    assert!(matches!(open(directory.path(), Engine::Memory), Err(StoreError::Corrupt { .. })));
}

// --- snapshot files ---

#[test]
fn a_snapshot_file_returns_what_was_written_or_an_error() {
    let (world, directory) = (World::real(), temporary());
    let path = directory.path().join("snapshot");
    let rows: Vec<_> = (0..200_usize).map(|row| (vec![row as u8; row % 9], pattern(row * 37, row))).collect();
    let mut writer = SnapshotWriter::create(&world, &path).expect("creates");
    for (key, value) in &rows {
        writer.row(key, value).expect("writes");
    }
    let len = writer.finish().expect("finishes");
    assert_eq!(len, std::fs::metadata(&path).expect("is there").len());
    let read: Result<Vec<_>, _> = SnapshotFile::open(&world, &path).expect("opens").collect();
    assert_eq!(read.expect("verifies"), rows);

    let content = std::fs::read(&path).expect("reads");
    for at in (0..content.len()).step_by(997).chain(content.len() - 40..content.len()) {
        let mut flipped = content.clone();
        flipped[at] ^= 0x10;
        for damaged in [&flipped[..], &content[..at]] {
            std::fs::write(&path, damaged).expect("writes");
            let read: Result<Vec<_>, _> = SnapshotFile::open(&world, &path).and_then(|file| file.collect());
            assert!(read.is_err(), "damage at byte {at} is seen");
        }
    }

    SnapshotWriter::create(&world, &path).expect("replaces").finish().expect("finishes");
    assert_eq!(SnapshotFile::open(&world, &path).expect("opens").count(), 0);
}

// --- the data directory ---

#[test]
fn a_data_directory_knows_whose_it_is() {
    let (world, parent) = (World::real(), temporary());
    let path = parent.path().join("data/of/1");
    let created = DataDir::open(&world, &path, 1).expect("creates");
    let identity = created.identity();
    assert!(created.is_new() && identity.node_id == 1 && identity.cluster_id.is_none());

    let in_use = DataDir::open(&world, &path, 1).err().expect("refuses");
    assert!(matches!(in_use, DataDirError::InUse { .. }), "{in_use}");

    created.set_cluster_id("blue").expect("joins");
    created.set_cluster_id("blue").expect("is a member already");
    let other = created.set_cluster_id("red").expect_err("refuses");
    assert!(other.to_string().contains("belongs to cluster blue"), "{other}");
    drop(created);

    let opened = DataDir::open(&world, &path, 1).expect("opens");
    assert!(!opened.is_new());
    assert_eq!(opened.identity().incarnation, identity.incarnation);
    assert_eq!(opened.identity().cluster_id.as_deref(), Some("blue"));
    drop(opened);

    let other = DataDir::open(&world, &path, 2).err().expect("refuses");
    assert!(other.to_string().contains("belongs to node 1, not to node 2"), "{other}");
}

#[test]
fn a_data_directory_that_is_not_ours_is_left_alone() {
    let (world, parent) = (World::real(), temporary());
    std::fs::write(parent.path().join("thesis.txt"), b"x").expect("writes");
    let foreign = DataDir::open(&world, parent.path(), 1).err().expect("refuses");
    assert!(matches!(foreign, DataDirError::Foreign { .. }), "{foreign}");
    assert_eq!(std::fs::read_dir(parent.path()).expect("lists").count(), 1, "not even a lock was left");

    let empty = parent.path().join("empty");
    std::fs::create_dir(&empty).expect("creates");
    assert!(DataDir::open(&world, &empty, 1).expect("opens").is_new());
}

#[test]
fn every_changed_byte_of_an_identity_is_noticed() {
    let (world, parent) = (World::real(), temporary());
    let path = parent.path().join("data");
    let identity = DataDir::open(&world, &path, 7).expect("creates").identity();
    let file = path.join("identity");
    let content = std::fs::read(&file).expect("reads");
    for at in 0..content.len() {
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).expect("writes");
        match DataDir::open(&world, &path, 7) {
            // White space may change.
            Ok(opened) => assert_eq!(opened.identity(), identity),
            Err(error) => assert!(matches!(error, DataDirError::Damaged { .. }), "{error}"),
        }
    }
}
