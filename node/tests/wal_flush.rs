//! How the log flushes: together, in order, and never again after a failure.

mod wal_support;

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use millstream_node::storage::{LogStore, Wal, WalOptions};
use millstream_node::types::{LogEntry, TypeConfig, Vote};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use wal_support::{Disk, append, entries, entry, log_id, run, segments, small, world};

/// Appends; the returned future is ready when the callback was called.
async fn append_with(log: &mut LogStore, entries: Vec<LogEntry>) -> impl FusedFuture<Output = io::Result<()>> + use<> {
    let (tell, told) = <TypeConfig as openraft::type_config::TypeConfigExt>::oneshot();
    let appended = log.append(entries, IOFlushed::signal(tell)).await;
    let flushed = async move {
        let flushed = told.await.expect("the callback is called");
        assert!(appended.is_ok() || flushed.is_err());
        flushed
    };
    flushed.fuse()
}

#[test]
fn entries_are_readable_at_once_and_durable_later() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, directory.path(), small()).expect("opens");
        let mut log = wal.group(0);
        let mut reader = log.get_log_reader().await;
        append(&mut log, entries(1, 1..4, 10)).await;
        // Nobody else has run yet.
        assert_eq!(reader.try_get_log_entries(..).await.expect("reads"), entries(1, 1..4, 10));
        assert_eq!((log.first_index(), log.last_index(), log.durable_index()), (1, 3, 0));
        log.barrier().await.expect("flushes");
        assert_eq!(log.durable_index(), 3);
        assert!((3 * 10..3 * 100).contains(&log.bytes()));
        log.truncate_after(Some(log_id(1, 1))).await.expect("truncates");
        assert_eq!((log.last_index(), log.durable_index()), (1, 1));
        append(&mut log, entries(2, 2..3, 10)).await;
        assert_eq!(log.durable_index(), 1, "the new entry 2 is not durable");
        log.barrier().await.expect("flushes");
        assert_eq!(log.durable_index(), 2);
        log.purge(log_id(2, 2)).await.expect("purges");
        assert_eq!((log.first_index(), log.last_index(), log.bytes()), (3, 2, 0));
    });
}

#[test]
fn what_gathers_during_a_sync_is_flushed_together_and_told_in_order() {
    for threads in [false, true] {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Disk::default();
            let (world, _) = world(&disk, threads);
            let options = WalOptions { segment_bytes: 1 << 20, ..small() };
            let wal = Wal::open(&world, directory.path(), options).expect("opens");
            let mut log = wal.group(0);
            let before = disk.syncs.load(Ordering::SeqCst);
            let mut waits = Vec::new();
            for index in 0..500 {
                waits.push(Box::pin(append_with(&mut log, vec![entry(1, index, 100)]).await));
            }
            // Whenever one has been told, so have all before.
            for upto in [3, 100, 101, 499] {
                (&mut waits[upto]).await.expect("flushes");
                assert!(upto as u64 <= log.durable_index());
                for wait in &mut waits[..upto] {
                    if !wait.is_terminated() {
                        // Tokio makes those who ask too often wait.
                        tokio::task::unconstrained(wait).now_or_never().expect("was told before").expect("flushes");
                    }
                }
            }
            let syncs = disk.syncs.load(Ordering::SeqCst) - before;
            // A thread may be quick enough to take a few alone, while zeroing the next segment takes two.
            assert!(if threads { syncs <= 502 } else { syncs <= 2 }, "{syncs} syncs");
            wal.close().await;
        });
    }
}

#[test]
fn the_committed_id_costs_no_sync_of_its_own() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::default();
        let (world, _) = world(&disk, false);
        let wal = Wal::open(&world, directory.path(), small()).expect("opens");
        let mut log = wal.group(0);
        log.blocking_append(entries(1, 0..3, 10)).await.expect("appends");
        let before = disk.syncs.load(Ordering::SeqCst);
        for index in 0..3 {
            log.save_committed(Some(log_id(1, index))).await.expect("saves");
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.syncs.load(Ordering::SeqCst), before);
        log.blocking_append(entries(1, 3..4, 10)).await.expect("appends");
        assert_eq!(disk.syncs.load(Ordering::SeqCst), before + 1);
        drop(wal.close());
        wal.close().await;
        let mut log = Wal::open(&world, directory.path(), small()).expect("opens").group(0);
        assert_eq!(log.read_committed().await.expect("reads"), Some(log_id(1, 2)));
    });
}

#[test]
fn a_failed_sync_or_write_ends_the_node_and_fails_everyone() {
    for (threads, writes) in [(false, false), (true, false), (false, true), (true, true)] {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Disk::default();
            let (world, aborts) = world(&disk, threads);
            let wal = Wal::open(&world, directory.path(), WalOptions { segment_bytes: 1 << 20, ..small() });
            let wal = wal.expect("opens");
            let mut log = wal.group(0);
            log.blocking_append(entries(1, 0..1, 10)).await.expect("appends");
            let fault = if writes { &disk.fail_writes } else { &disk.fail_syncs };
            fault.store(true, Ordering::SeqCst);
            let mut waits = Vec::new();
            for index in 1..20 {
                waits.push(append_with(&mut log, vec![entry(1, index, 10)]).await);
            }
            for wait in waits {
                wait.await.expect_err("fails");
            }
            let reasons = aborts.0.lock().expect("not poisoned").clone();
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            assert!(reasons[0].contains("log"), "{reasons:?}");
            // The fault has gone, but what it did is not known.
            fault.store(false, Ordering::SeqCst);
            let syncs = disk.syncs.load(Ordering::SeqCst);
            append_with(&mut log, vec![entry(1, 20, 10)]).await.await.expect_err("fails");
            log.save_vote(&Vote::new(2, 1)).await.expect_err("fails");
            log.barrier().await.expect_err("fails");
            log.purge(log_id(1, 0)).await.expect_err("fails");
            assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs, "nothing is tried again");
            assert_eq!(log.durable_index(), 0);
            wal.close().await;
        });
    }
}

#[test]
fn purged_segments_are_removed_and_what_they_said_is_not_forgotten() {
    for threads in [false, true] {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("wal");
            let (world, _) = world(&Disk::default(), threads);
            let wal = Wal::open(&world, &path, small()).expect("opens");
            let (mut log, mut other) = (wal.group(0), wal.group(7));
            log.save_vote(&Vote::new_committed(5, 2)).await.expect("saves");
            other.save_vote(&Vote::new(6, 3)).await.expect("saves");
            append(&mut other, entries(6, 0..1, 10)).await;
            for first in (0..200).step_by(10) {
                append(&mut log, entries(5, first..first + 10, 200)).await;
                log.save_committed(Some(log_id(5, first))).await.expect("saves");
                log.barrier().await.expect("flushes");
            }
            log.purge(log_id(5, 150)).await.expect("purges");
            log.barrier().await.expect("flushes");
            let with_other = segments(&path).len();
            assert!(10 < with_other, "the entry of the other group is in the oldest file");
            other.purge(log_id(6, 0)).await.expect("purges");
            other.barrier().await.expect("flushes");
            wal.close().await;
            drop((wal, log, other));

            let wal = Wal::open(&world, &path, small()).expect("opens");
            wal.close().await;
            assert!(segments(&path).len() < with_other - 9, "{:?}", segments(&path));
            drop(wal);
            let wal = Wal::open(&world, &path, small()).expect("opens");
            let (mut log, mut other) = (wal.group(0), wal.group(7));
            assert_eq!(log.read_vote().await.expect("reads"), Some(Vote::new_committed(5, 2)));
            assert_eq!(log.read_committed().await.expect("reads"), Some(log_id(5, 190)));
            assert_eq!(log.try_get_log_entries(..).await.expect("reads"), entries(5, 151..200, 200));
            assert_eq!(other.read_vote().await.expect("reads"), Some(Vote::new(6, 3)));
            assert_eq!(other.get_log_state().await.expect("reads").last_log_id, Some(log_id(6, 0)));
            wal.close().await;
        });
    }
}

#[test]
fn portions_are_bounded_and_never_empty() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), false);
        for tail_bytes_max in [0, 1 << 30] {
            let options = WalOptions { segment_bytes: 16 << 20, tail_bytes_max, ..small() };
            let path = directory.path().join(tail_bytes_max.to_string());
            let wal = Wal::open(&world, &path, options).expect("opens");
            let mut log = wal.group(0);
            append(&mut log, entries(1, 0..60, 300_000)).await;
            append(&mut log, entries(1, 60..61, 5_000_000)).await;
            append(&mut log, entries(1, 61..100, 1000)).await;
            log.barrier().await.expect("flushes");
            let mut next = 0;
            while next < 100 {
                let portion = log.limited_get_log_entries(next, 100).await.expect("reads");
                let bytes: usize = portion.iter().map(payload).sum();
                assert!(!portion.is_empty() && (bytes <= (2 << 20) + 300_000 || portion.len() == 1), "{bytes}");
                for got in portion {
                    assert_eq!(got.log_id.index, next);
                    next += 1;
                }
            }
            assert_eq!(log.limited_get_log_entries(60, 100).await.expect("reads")[0], entry(1, 60, 5_000_000));
            log.purge(log_id(1, 10)).await.expect("purges");
            log.limited_get_log_entries(5, 20).await.expect_err("a follower must not be sent a gap");
            wal.close().await;
        }
    });
}

fn payload(entry: &LogEntry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => proposal.0.len(),
        _ => 0,
    }
}

#[test]
fn a_reader_keeps_up_with_a_writer() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), true);
        let options = WalOptions { segment_bytes: 64 << 10, ..small() };
        let wal = Wal::open(&world, directory.path(), options).expect("opens");
        let (mut log, mut reader) = (wal.group(0), wal.group(0));
        let mut read = 0;
        for index in 0..2000 {
            append(&mut log, vec![entry(1, index, 100 + index as usize % 50)]).await;
            if index % 7 == 0 {
                for got in reader.try_get_log_entries(read..).await.expect("reads") {
                    assert_eq!(got, entry(1, read, 100 + read as usize % 50));
                    read += 1;
                }
            }
            if index % 50 == 0 {
                log.barrier().await.expect("flushes");
            }
        }
        wal.close().await;
    });
}

#[test]
fn a_committed_id_whose_entry_is_not_there_is_not_believed() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, directory.path(), small()).expect("opens");
        let mut log = wal.group(0);
        append(&mut log, entries(1, 0..3, 10)).await;
        log.save_committed(Some(log_id(1, 1))).await.expect("saves");
        // As when the entries after it did not make it to the disk, or those that are there were to be replaced.
        log.save_committed(Some(log_id(2, 2))).await.expect("saves");
        wal.close().await;
        let wal = Wal::open(&world, directory.path(), small()).expect("opens");
        assert_eq!(wal.group(0).read_committed().await.expect("reads"), Some(log_id(1, 1)));
        wal.close().await;
    });
}

#[test]
fn an_entry_that_was_replaced_during_its_sync_does_not_make_its_successor_durable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), false);
        let options = WalOptions { simulated_sync_latency: Some(Duration::from_millis(10)), ..small() };
        let wal = Wal::open(&world, directory.path(), options).expect("opens");
        let mut log = wal.group(0);
        append(&mut log, entries(1, 0..5, 10)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        log.truncate_after(Some(log_id(1, 2))).await.expect("truncates");
        append(&mut log, entries(2, 3..5, 10)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(log.durable_index() <= 2, "only the old entries 3 and 4 are");
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(log.durable_index(), 4);
        wal.close().await;
    });
}
