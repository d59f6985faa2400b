//! The format of the log is frozen: `fixtures/wal-1` is read for ever, and the same operations give the same bytes.
//!
//! `WRITE_FIXTURES=1 cargo test -p millstream-node --test wal_format` writes it anew, for a *new* version beside it.

mod wal_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use millstream_node::storage::wal::{Content, dump, verify};
use millstream_node::storage::{Wal, WalOptions};
use millstream_node::types::{LogEntry, LogPayload, Membership, PeerNode, Proposal, Vote};
use millstream_node::world::{Random, World};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use wal_support::{Disk, append, entries, log_id, run, segments, small, world};

/// Salts that are the same each time.
struct Salts(AtomicU64);

impl Random for Salts {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

fn salted_world() -> World {
    World { random: Arc::new(Salts(AtomicU64::new(1))), ..world(&Disk::default(), false).0 }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wal-1")
}

fn options() -> WalOptions {
    WalOptions { segment_bytes: 1024, spares_max: 1, ..small() }
}

fn membership() -> Membership {
    let nodes = BTreeMap::from_iter([1, 2, 3].map(|id| (id, PeerNode { peer_address: format!("node-{id}:7421") })));
    Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3])], nodes).expect("all voters have a node")
}

fn special(index: u64, payload: LogPayload) -> LogEntry {
    LogEntry { log_id: log_id(2, index), payload }
}

/// Everything that can be asked of a log. Does not close it in good order.
async fn write(path: &Path) {
    let wal = Wal::open(&salted_world(), path, options()).expect("opens");
    let (mut log, mut other) = (wal.group(0), wal.group(7));
    log.save_vote(&Vote::new(1, 1)).await.expect("saves");
    append(&mut log, entries(1, 0..8, 60)).await;
    log.barrier().await.expect("flushes");
    append(&mut log, entries(1, 8..16, 60)).await;
    log.barrier().await.expect("flushes");
    log.purge(log_id(1, 12)).await.expect("purges");
    log.barrier().await.expect("flushes");
    log.save_vote(&Vote::new_committed(2, 3)).await.expect("saves");
    log.truncate_after(Some(log_id(1, 14))).await.expect("truncates");
    let specials = [
        special(15, LogPayload::Blank),
        special(16, LogPayload::Membership(membership())),
        special(17, LogPayload::Normal(Proposal(Bytes::new()))),
    ];
    append(&mut log, specials.to_vec()).await;
    log.save_committed(Some(log_id(2, 16))).await.expect("saves");
    other.save_vote(&Vote::new(u64::MAX, u64::MAX)).await.expect("saves");
    append(&mut other, entries(5, 100..103, 20)).await;
    other.truncate_after(None).await.expect("truncates");
    other.save_committed(None).await.expect("saves");
    other.barrier().await.expect("flushes");
    // Larger than a segment, and then a segment of the usual size again.
    append(&mut log, vec![special(18, LogPayload::Normal(Proposal(vec![0xa5; 1500].into())))]).await;
    log.barrier().await.expect("flushes");
    append(&mut log, entries(2, 19..22, 30)).await;
    append(&mut other, entries(6, 100..101, 0)).await;
    log.barrier().await.expect("flushes");
}

async fn check(path: &Path) {
    let wal = Wal::open(&salted_world(), path, options()).expect("opens");
    let (mut log, mut other) = (wal.group(0), wal.group(7));
    assert_eq!(log.read_vote().await.expect("reads"), Some(Vote::new_committed(2, 3)));
    assert_eq!(log.read_committed().await.expect("reads"), Some(log_id(2, 16)));
    assert_eq!(log.get_log_state().await.expect("reads").last_purged_log_id, Some(log_id(1, 12)));
    let mut expected = entries(1, 13..15, 60);
    expected.push(special(15, LogPayload::Blank));
    expected.push(special(16, LogPayload::Membership(membership())));
    expected.push(special(17, LogPayload::Normal(Proposal(Bytes::new()))));
    expected.push(special(18, LogPayload::Normal(Proposal(vec![0xa5; 1500].into()))));
    expected.extend(entries(2, 19..22, 30));
    assert_eq!(log.try_get_log_entries(..).await.expect("reads"), expected);
    assert_eq!(other.read_vote().await.expect("reads"), Some(Vote::new(u64::MAX, u64::MAX)));
    assert_eq!(other.read_committed().await.expect("reads"), None);
    assert_eq!(other.try_get_log_entries(..).await.expect("reads"), entries(6, 100..101, 0));
    // And it goes on.
    append(&mut log, entries(2, 22..30, 60)).await;
    wal.close().await;
    assert_eq!(log.last_index(), 29);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for name in segments(from) {
        std::fs::copy(from.join(&name), to.join(&name)).expect("copies");
    }
}

#[test]
fn the_first_version_is_read_for_ever() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        copy(&fixture(), directory.path());
        let verified = verify(&salted_world(), directory.path(), &mut |_| {}).expect("verifies");
        assert_eq!((verified.segments, verified.batches, verified.entries), (4, 11, 19));
        check(directory.path()).await;
    });
}

#[test]
fn the_fixture_has_everything_in_it() {
    let world = salted_world();
    let mut kinds = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for frame in dump(&world, &fixture()).expect("reads") {
        let frame = frame.expect("reads");
        groups.insert(frame.group);
        kinds.insert(match frame.content {
            Content::Append(entry) => match entry.payload {
                LogPayload::Blank => "blank",
                LogPayload::Normal(_) => "proposal",
                LogPayload::Membership(_) => "membership",
            },
            Content::Vote(vote) if vote.committed => "committed vote",
            Content::Vote(_) => "vote",
            Content::Truncate(Some(_)) => "truncate",
            Content::Truncate(None) => "truncate all",
            Content::Purge(_) => "purge",
            Content::Committed(Some(_)) => "committed",
            Content::Committed(None) => "none committed",
            Content::Next(_) => "next",
        });
    }
    assert_eq!(groups, [0, 7].into());
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

#[test]
fn the_same_operations_give_the_same_bytes() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        write(&path).await;
        if std::env::var_os("WRITE_FIXTURES").is_some() {
            copy(&path, &fixture());
        }
        let names = segments(&path);
        assert_eq!(names, segments(&fixture()), "the same files");
        for name in names {
            let (new, old) = (std::fs::read(path.join(&name)), std::fs::read(fixture().join(&name)));
            assert!(new.expect("reads") == old.expect("reads"), "{name} differs");
        }
    });
}
