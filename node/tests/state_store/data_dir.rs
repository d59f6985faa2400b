//! Snapshot files, and the data directory itself.

use millstream_node::storage::{DataDir, DataDirError, SnapshotFile, SnapshotWriter};
use millstream_node::world::World;

use crate::support::{pattern, temporary};

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
