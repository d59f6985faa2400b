//! Segments whose files were segments before: what is left of the old ones is neither believed nor held against the new.

mod wal_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use millstream_node::storage::wal::verify;
use millstream_node::storage::{Wal, WalError, WalOptions};
use millstream_node::types::{LogEntry, Vote};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use wal_support::{
    Deed, Disk, Image, append, entries, log_id, open_and_use, read_image, run, segments, small, world, write_image,
};

/// Works through many segments and purges behind, so that files are used again and again.
async fn churn(wal: &Wal) {
    let mut log = wal.group(0);
    log.save_vote(&Vote::new(3, 1)).await.expect("saves");
    for first in (0..300).step_by(10) {
        append(&mut log, entries(3, first..first + 10, 100)).await;
        log.barrier().await.expect("flushes");
        if 40 < first {
            log.purge(log_id(3, first - 40)).await.expect("purges");
            log.barrier().await.expect("flushes");
        }
    }
}

/// What is in a log that was closed without a word, if it opens.
async fn look(path: &Path) -> Result<(Option<Vote>, Vec<LogEntry>), WalError> {
    open_and_use(path).await.map(|seen| (seen.vote, seen.entries))
}

#[test]
fn files_are_used_again_without_zeroing_and_few_are_kept() {
    for threads in [false, true] {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("wal");
            let disk = Disk::default();
            let (world, _) = world(&disk, threads);
            let wal = Wal::open(&world, &path, small()).expect("opens");
            churn(&wal).await;
            let files = segments(&path);
            assert!(files.iter().filter(|name| name.ends_with(".spare")).count() <= 2, "{files:?}");
            let last = files.iter().rfind(|name| name.ends_with(".wal")).expect("there are files");
            let content = std::fs::read(path.join(last)).expect("reads");
            // A new segment's file would be written full of zeros.
            let is_zeroing = |deed: &&Deed| matches!(deed, Deed::Write { offset: 64, length, .. } if 4000 < *length);
            let zeroed = disk.deeds.lock().expect("not poisoned").iter().filter(is_zeroing).count();
            let sequence = u64::from_str_radix(last.trim_end_matches(".wal"), 16).expect("a number");
            assert!((zeroed as u64) < sequence / 2, "{zeroed} of {sequence} segments were zeroed");
            assert!(content[3000..].iter().any(|byte| *byte != 0), "the remains of another segment");
            wal.close().await;
            drop(wal);
            verify(&world, &path, &mut |_| {}).expect("verifies");
            let (_, found) = look(&path).await.expect("opens");
            assert_eq!(found, entries(3, found[0].log_id.index..300, 100));
            assert!(found[0].log_id.index <= 251);
        });
    }
}

#[test]
fn a_file_that_somebody_reads_is_not_used_again() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        let disk = Disk::default();
        let (world, _) = world(&disk, true);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let mut log = wal.group(0);
        append(&mut log, entries(3, 0..10, 100)).await;
        log.barrier().await.expect("flushes");
        let read_from = path.join(segments(&path).into_iter().find(|name| name.ends_with(".wal")).expect("one"));
        append(&mut log, entries(3, 10..100, 100)).await;
        log.barrier().await.expect("flushes");

        disk.reads.hold();
        let mut reader = log.clone();
        let reading = tokio::spawn(async move { reader.try_get_log_entries(0..10).await });
        while disk.reads.waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Meanwhile nobody else needs them, and new segments are made of old files.
        for first in (100..400).step_by(10) {
            append(&mut log, entries(4, first..first + 10, 100)).await;
            log.purge(log_id(if first < 140 { 3 } else { 4 }, first - 40)).await.expect("purges");
            log.barrier().await.expect("flushes");
        }
        while read_from.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.reads.release();
        let found = reading.await.expect("no panic").expect("what was there is read");
        assert_eq!(found, entries(3, 0..10, 100));

        let deeds = disk.deeds.lock().expect("not poisoned").clone();
        let kept: BTreeSet<_> = deeds
            .into_iter()
            .filter_map(|deed| match deed {
                Deed::Rename { from, to } if to.extension().is_some_and(|kind| kind == "spare") => Some(from),
                _ => None,
            })
            .collect();
        assert!(!kept.is_empty() && !kept.contains(&read_from), "{kept:?}");
        wal.close().await;
    });
}

/// A log in a file that was another segment: before and after its last batch, which may not have been synced.
async fn with_tail(path: &Path) -> (Image, Image) {
    let (world, _) = world(&Disk::default(), false);
    let wal = Wal::open(&world, path, small()).expect("opens");
    churn(&wal).await;
    let mut log = wal.group(0);
    // The last batches are in a file with old ones behind them: in one that was just begun.
    let newest = || segments(path).into_iter().rfind(|name| name.ends_with(".wal")).expect("there are files");
    let (begun, mut next) = (newest(), 300);
    while newest() == begun {
        append(&mut log, entries(3, next..next + 1, 300)).await;
        log.barrier().await.expect("flushes");
        next += 1;
    }
    append(&mut log, entries(3, next..next + 2, 60)).await;
    log.barrier().await.expect("flushes");
    let before = read_image(path);
    append(&mut log, entries(3, next + 2..next + 6, 60)).await;
    log.barrier().await.expect("flushes");
    (before, read_image(path))
}

#[test]
fn a_torn_last_batch_over_old_ones_is_cut_off_and_nothing_else() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (before, after) = with_tail(&directory.path().join("wal")).await;
        let changed: Vec<&String> = after.keys().filter(|name| before.get(*name) != after.get(*name)).collect();
        let [name] = changed[..] else { panic!("one file: {changed:?}") };
        let (old, new) = (&before[name], &after[name]);
        let first = (0..new.len()).find(|at| old[*at] != new[*at]).expect("something was written");
        let end = (0..new.len()).rfind(|at| old[*at] != new[*at]).expect("something was written") + 1;
        assert!(new[end..].iter().any(|byte| *byte != 0), "the remains of another segment");
        let path = directory.path().join("damaged");
        write_image(&path, &after);
        let all = look(&path).await.expect("opens");
        write_image(&path, &before);
        let synced = look(&path).await.expect("opens");
        assert_eq!(all.1.len() - synced.1.len(), 4);

        for at in first..end {
            // The sectors that did not make it hold what was there before.
            let (mut torn, mut hole, mut zeroed, mut flipped) = (new.clone(), new.clone(), new.clone(), new.clone());
            torn[at..end].copy_from_slice(&old[at..end]);
            let until = (at + 64).min(end);
            hole[at..until].copy_from_slice(&old[at..until]);
            zeroed[at..end].fill(0);
            flipped[at] ^= 1 << (at % 8);
            for (what, damaged) in [("torn", torn), ("holed", hole), ("zeroed", zeroed), ("flipped", flipped)] {
                let unharmed = damaged == *new;
                let mut image = after.clone();
                image.insert(name.clone(), damaged);
                write_image(&path, &image);
                let seen = look(&path).await.unwrap_or_else(|error| panic!("{what} at {at}: {error}"));
                assert!(seen == synced || (unharmed && seen == all), "{what} at {at}: {} entries", seen.1.len());
            }
        }
    });
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let origin = directory.path().join("wal");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, &origin, WalOptions { segment_bytes: 2048, ..small() }).expect("opens");
        churn(&wal).await;
        wal.close().await;
        drop(wal);
        let image = read_image(&origin);
        let path = directory.path().join("damaged");
        write_image(&path, &image);
        let all = look(&path).await.expect("opens");
        write_image(&path, &image);
        // The mark that an orderly end leaves is the last batch: what was synced before it is all that counts.
        let (mut found, mut harmless) = (0, 0);
        for (name, content) in &image {
            // Spare files are not even opened.
            let step = if name.ends_with(".spare") { 500 } else { 1 };
            for at in (0..content.len()).step_by(step) {
                let mut damaged = content.clone();
                damaged[at] ^= 1 << (at % 8);
                std::fs::write(path.join(name), &damaged).expect("writes");
                match verify(&world, &path, &mut |_| {}) {
                    Err(WalError::Corrupt { .. }) => found += 1,
                    Err(other) => panic!("byte {at} of {name}: {other}"),
                    Ok(verified) => {
                        harmless += 1;
                        let group = &verified.groups[&0];
                        let last = all.1.last().map(|entry| entry.log_id);
                        assert_eq!((group.last, group.vote), (last, all.0), "byte {at} of {name}");
                        assert_eq!(Some(group.first), all.1.first().map(|entry| entry.log_id.index));
                    }
                }
            }
            std::fs::write(path.join(name), content).expect("writes");
        }
        assert!(3000 < found && 100 < harmless, "found {found}, harmless {harmless}");
    });
}

#[test]
fn a_log_that_begins_too_late_or_not_at_all_is_refused() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let origin = directory.path().join("wal");
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, &origin, small()).expect("opens");
        let mut log = wal.group(0);
        append(&mut log, entries(3, 0..10, 300)).await;
        log.barrier().await.expect("flushes");
        // More than what is left of the segment: the next one begins, and holds no entry of this group.
        let mut other = wal.group(7);
        append(&mut other, entries(3, 0..1, 3900)).await;
        other.barrier().await.expect("flushes");
        wal.close().await;
        drop((wal, log, other));
        let files = segments(&origin);
        let oldest = files.first().expect("there are files");
        std::fs::remove_file(origin.join(oldest)).expect("removes");
        let Err(error) = Wal::open(&world, &origin, small()) else { panic!("entries 0 to 9 are missing") };
        assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
        assert!(matches!(verify(&world, &origin, &mut |_| {}), Err(WalError::Corrupt { .. })));

        for name in &files {
            let _ = std::fs::remove_file(origin.join(name));
        }
        let must_exist = WalOptions { must_exist: true, ..small() };
        let Err(error) = Wal::open(&world, &origin, must_exist.clone()) else { panic!("there is no log") };
        assert!(matches!(error, WalError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("is missing") && error.to_string().contains("new node id"));
        assert!(segments(&origin).is_empty(), "and none is begun");
        Wal::open(&world, &origin, small()).expect("opens").close().await;
        Wal::open(&world, &origin, must_exist).expect("now there is one").close().await;
    });
}

#[test]
fn the_newest_entries_are_in_memory_after_a_restart() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        let (world, _) = world(&Disk::default(), false);
        let options = WalOptions { segment_bytes: 64 << 10, tail_bytes_max: 20_000, ..small() };
        let wal = Wal::open(&world, &path, options.clone()).expect("opens");
        let mut log = wal.group(0);
        for first in (0..1000).step_by(20) {
            append(&mut log, entries(3, first..first + 20, 100)).await;
            log.barrier().await.expect("flushes");
        }
        wal.close().await;
        drop((wal, log));
        let wal = Wal::open(&world, &path, options).expect("opens");
        let mut log = wal.group(0);
        assert_eq!(log.try_get_log_entries(..).await.expect("reads"), entries(3, 0..1000, 100));
        // With the files gone, what can still be read is what is in memory: 20,000 bytes of about 232 each.
        for name in segments(&path) {
            std::fs::write(path.join(name), []).expect("writes");
        }
        let mut fresh = wal.group(0);
        assert_eq!(fresh.try_get_log_entries(920..).await.expect("is in memory"), entries(3, 920..1000, 100));
        fresh.try_get_log_entries(800..).await.expect_err("is in files");
        append(&mut log, entries(3, 1000..1001, 100)).await;
        assert_eq!(fresh.try_get_log_entries(999..).await.expect("reads").len(), 2);
    });
}

#[test]
fn appends_wait_while_too_much_is_not_durable_and_votes_do_not() {
    use std::time::Duration;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (world, _) = world(&Disk::default(), false);
        let latency = Some(Duration::from_millis(100));
        let options =
            WalOptions { segment_bytes: 1 << 20, unsynced_bytes_max: 2000, simulated_sync_latency: latency, ..small() };
        let wal = Wal::open(&world, directory.path(), options).expect("opens");
        let mut log = wal.group(0);
        let start = tokio::time::Instant::now();
        append(&mut log, entries(1, 0..1, 3000)).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "one may always be larger");
        let mut other = wal.group(1);
        let vote = async {
            other.save_vote(&Vote::new(1, 1)).await.expect("saves");
            start.elapsed()
        };
        let second = async {
            append(&mut log, entries(1, 1..2, 10)).await;
            start.elapsed()
        };
        let (voted, appended) = tokio::join!(vote, second);
        assert!(Duration::from_millis(100) <= appended, "{appended:?}");
        assert!(voted <= Duration::from_millis(300), "{voted:?}");
        wal.close().await;
    });
}

/// A segment that holds nothing is no loss if it is the last. With two of them, the first would look like one whose synced
/// batches are gone.
#[test]
fn a_segment_is_made_ready_only_behind_one_that_holds_a_synced_batch() {
    for threads in [false, true] {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Disk::default();
            let (world, _) = world(&disk, threads);
            let wal = Wal::open(&world, &directory.path().join("wal"), small()).expect("opens");
            churn(&wal).await;
            wal.close().await;

            // Files by the name under which they were opened: written beyond the header, and then synced.
            let (mut written, mut holds_a_batch) = (BTreeSet::new(), BTreeSet::new());
            let (mut opened_as, mut made) = (BTreeMap::new(), 0);
            for deed in disk.deeds.lock().expect("not poisoned").iter() {
                let segment = match deed {
                    // A header: what the file held before, zeros or batches, does not count.
                    Deed::Write { file, offset: 0, .. } => {
                        written.remove(file);
                        holds_a_batch.remove(file);
                        continue;
                    }
                    Deed::Write { file, offset: 64, .. } => {
                        written.insert(file.clone());
                        continue;
                    }
                    Deed::Sync { file } if written.contains(file) => {
                        holds_a_batch.insert(file.clone());
                        continue;
                    }
                    Deed::Create { file } => {
                        opened_as.insert(file.clone(), file.clone());
                        file
                    }
                    Deed::Rename { from, to } => {
                        opened_as.insert(to.clone(), from.clone());
                        to
                    }
                    _ => continue,
                };
                let name = segment.file_name().and_then(|name| name.to_str()).expect("has a name");
                let Some(sequence) = name.strip_suffix(".wal").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
                    continue;
                };
                if 1 < sequence {
                    let before = segment.with_file_name(format!("{:016x}.wal", sequence - 1));
                    let handle = opened_as.get(&before).expect("the one before was made");
                    assert!(holds_a_batch.contains(handle), "{name} was made ready too early");
                    made += 1;
                }
            }
            assert!(10 < made, "{made}");
        });
    }
}
