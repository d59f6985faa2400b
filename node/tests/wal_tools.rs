//! The log as tools see it: `verify` and `dump` read it without changing it, a scrub reads it while it is in use.

mod wal_support;

use millstream_node::storage::wal::{Content, DumpedFrame, dump, verify};
use millstream_node::storage::{ScrubCursor, Wal, WalError};
use millstream_node::types::Vote;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use wal_support::{Disk, append, entries, entry, log_id, run, segments, small, world};

#[test]
fn a_closed_log_can_be_verified_and_dumped() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let (mut log, mut other) = (wal.group(0), wal.group(7));
        log.save_vote(&Vote::new_committed(2, 1)).await.expect("saves");
        for first in (0..100).step_by(10) {
            append(&mut log, entries(2, first..first + 10, 100)).await;
            append(&mut other, vec![entry(1, first / 10, 5)]).await;
            log.barrier().await.expect("flushes");
        }
        log.truncate_after(Some(log_id(2, 97))).await.expect("truncates");
        log.save_committed(Some(log_id(2, 90))).await.expect("saves");
        log.purge(log_id(2, 3)).await.expect("purges");
        wal.close().await;
        drop((wal, log, other));
        let files = segments(&path);
        assert!(3 < files.len());

        let mut seen = Vec::new();
        let verified = verify(&world, &path, &mut |progress| seen.push(progress)).expect("verifies");
        assert_eq!((verified.segments, verified.entries), (files.len() as u64, 110));
        assert_eq!(verified.batches, seen.len() as u64);
        assert_eq!(seen.last().map(|last| (last.bytes, last.segments_left)), Some((verified.bytes, 0)));
        assert!(seen.is_sorted_by_key(|progress| progress.bytes));
        let group = &verified.groups[&0];
        assert_eq!((group.vote, group.purged), (Some(Vote::new_committed(2, 1)), Some(log_id(2, 3))));
        assert_eq!((group.first, group.last, group.committed), (4, Some(log_id(2, 97)), Some(log_id(2, 90))));
        assert_eq!(verified.groups[&7].last, Some(log_id(1, 9)));

        let frames: Vec<DumpedFrame> = dump(&world, &path).expect("reads").map(|frame| frame.expect("reads")).collect();
        assert!(frames.is_sorted_by_key(|frame| (frame.segment, frame.batch, frame.offset)));
        let appended = frames.iter().filter_map(|frame| match &frame.content {
            Content::Append(entry) if frame.group == 0 => Some(entry.clone()),
            _ => None,
        });
        assert_eq!(appended.collect::<Vec<_>>(), entries(2, 0..100, 100));
        let has = |what: &dyn Fn(&Content) -> bool| assert!(frames.iter().any(|frame| what(&frame.content)));
        has(&|content| *content == Content::Vote(Vote::new_committed(2, 1)));
        has(&|content| *content == Content::Truncate(Some(log_id(2, 97))));
        has(&|content| *content == Content::Purge(log_id(2, 3)));
        has(&|content| *content == Content::Committed(Some(log_id(2, 90))));
        has(&|content| matches!(content, Content::Next(_)));
        assert_eq!(segments(&path), files, "nothing was changed");

        // One flipped byte in the middle is found by all three.
        let damaged = path.join(&files[files.len() / 2]);
        let mut content = std::fs::read(&damaged).expect("reads");
        content[300] ^= 1;
        std::fs::write(&damaged, content).expect("writes");
        assert!(matches!(verify(&world, &path, &mut |_| {}), Err(WalError::Corrupt { .. })));
        let dumped: Vec<_> = dump(&world, &path).expect("reads").collect();
        assert!(dumped[..dumped.len() - 1].iter().all(Result::is_ok) && 1 < dumped.len());
        assert!(matches!(dumped.last(), Some(Err(WalError::Corrupt { .. }))));
    });
}

#[test]
fn nothing_verifies_as_an_empty_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (world, _) = world(&Disk::default(), false);
    let verified = verify(&world, directory.path(), &mut |_| {}).expect("verifies");
    assert_eq!((verified.segments, verified.end), (0, None));
    verify(&world, &directory.path().join("absent"), &mut |_| {}).expect_err("there is no directory");
}

#[test]
fn a_scrub_reads_what_is_synced_and_finds_damage() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let mut log = wal.group(0);
        for first in (0..200).step_by(10) {
            append(&mut log, entries(1, first..first + 10, 100)).await;
            log.barrier().await.expect("flushes");
        }
        let (mut cursor, mut bytes, mut steps) = (Some(ScrubCursor::default()), 0, 0);
        while let Some(from) = cursor {
            let scrubbed = log.scrub(from, 2000).await.expect("is sound");
            assert!(scrubbed.bytes < 5000);
            (cursor, bytes, steps) = (scrubbed.next, bytes + scrubbed.bytes, steps + 1);
        }
        assert!(200 * 100 < bytes && 5 < steps, "{bytes} bytes in {steps} steps");

        // Purged segments are skipped, also by a cursor that stands in one.
        let middle = log.scrub(ScrubCursor::default(), 1).await.expect("is sound").next.expect("there is more");
        log.purge(log_id(1, 150)).await.expect("purges");
        log.barrier().await.expect("flushes");
        tokio::task::yield_now().await;
        let rest = log.scrub(middle, u64::MAX).await.expect("is sound");
        assert!(rest.bytes < bytes / 2 && rest.next.is_none(), "{} of {bytes}", rest.bytes);

        let newest = segments(&path).into_iter().rfind(|name| name.ends_with(".wal")).expect("is there");
        let mut content = std::fs::read(path.join(&newest)).expect("reads");
        content[150] ^= 1;
        std::fs::write(path.join(&newest), content).expect("writes");
        let error = log.scrub(ScrubCursor::default(), u64::MAX).await.expect_err("is damaged");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("new node id"));
        assert_eq!(log.try_get_log_entries(151..152).await.expect("reads").len(), 1);
        wal.close().await;
    });
}
