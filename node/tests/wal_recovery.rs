//! What the log makes of damaged files: a torn last batch is cut off, anything else is refused.

mod wal_support;

use std::path::Path;
use std::sync::atomic::Ordering;

use millstream_node::storage::{Wal, WalError};
use millstream_node::types::Vote;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use wal_support::{
    Deed, Disk, Image, Seen, append, entries, log_id, open_and_use, read_image, run, segments, small, world,
    write_image,
};

/// A log whose last batch was the only one that may not have been synced: files before it, files after, what it held.
async fn log_with_tail(path: &Path) -> (Image, Image, Seen, Seen) {
    let (world, _) = world(&Disk::default(), false);
    let wal = Wal::open(&world, path, small()).expect("opens");
    let mut log = wal.group(0);
    log.save_vote(&Vote::new(3, 1)).await.expect("saves");
    for first in [0, 10, 20, 30, 40] {
        append(&mut log, entries(3, first..first + 10, 100)).await;
        log.barrier().await.expect("flushes");
    }
    log.purge(log_id(3, 4)).await.expect("purges");
    log.barrier().await.expect("flushes");
    let before = read_image(path);
    let synced = Seen {
        vote: Some(Vote::new(3, 1)),
        purged: Some(log_id(3, 4)),
        entries: log.try_get_log_entries(..).await.expect("reads"),
    };
    append(&mut log, entries(3, 50..54, 60)).await;
    log.barrier().await.expect("flushes");
    let after = read_image(path);
    let all = Seen { entries: log.try_get_log_entries(..).await.expect("reads"), ..synced.clone() };
    (before, after, synced, all)
}

/// Where the last batch is: its file, and from the first to the last byte that it changed.
fn tail_of(before: &Image, after: &Image) -> (String, usize, usize) {
    let changed = |name: &&String| before.get(*name) != after.get(*name);
    let name = after.keys().find(changed).expect("something was written").clone();
    let differs = |at: &usize| before[&name][*at] != after[&name][*at];
    let first = (0..after[&name].len()).find(differs).expect("something was written");
    let last = (0..after[&name].len()).rfind(differs).expect("something was written");
    (name, first, last + 1)
}

#[test]
fn a_torn_last_batch_is_cut_off_and_nothing_else() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (before, after, synced, all) = log_with_tail(&directory.path().join("wal")).await;
        let (name, first, end) = tail_of(&before, &after);
        assert!(300 < end - first && 1 < after.len(), "a tail worth the test, in the last of several files");
        let path = directory.path().join("damaged");
        write_image(&path, &after);
        assert_eq!(open_and_use(&path).await.expect("opens"), all, "undamaged");

        for at in first..end {
            let content = &after[&name];
            let (mut cut, mut zeroed, mut hole, mut flipped) =
                (content.clone(), content.clone(), content.clone(), content.clone());
            cut.truncate(at);
            zeroed[at..end].fill(0);
            hole[at..(at + 64).min(end)].fill(0);
            flipped[at] ^= 1 << (at % 8);
            for (what, damaged) in [("cut", cut), ("zeroed", zeroed), ("holed", hole), ("flipped", flipped)] {
                let unharmed = damaged.len() == content.len() && damaged == *content;
                let mut image = after.clone();
                image.insert(name.clone(), damaged);
                write_image(&path, &image);
                let seen = open_and_use(&path).await.unwrap_or_else(|error| panic!("{what} at {at}: {error}"));
                assert!(seen == synced || (unharmed && seen == all), "{what} at {at}: {} entries", seen.entries.len());
            }
        }
    });
}

#[test]
fn damage_to_synced_data_is_refused() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (before, after, _, all) = log_with_tail(&directory.path().join("wal")).await;
        let (last_file, last_start, _) = tail_of(&before, &after);
        let path = directory.path().join("damaged");
        let (mut refused, mut harmless) = (0, 0);
        for (name, content) in &after {
            let end = if *name == last_file { last_start } else { content.len() };
            for at in (0..end).step_by(3) {
                let mut image = after.clone();
                image.get_mut(name).expect("is there")[at] ^= 1 << (at % 8);
                write_image(&path, &image);
                match open_and_use(&path).await {
                    Err(error @ WalError::Corrupt { .. }) => {
                        refused += 1;
                        let message = error.to_string();
                        assert!(message.contains("corruption of synced data") && message.contains("new node id"));
                    }
                    Ok(seen) => {
                        // Padding and what was never written may hold anything.
                        harmless += 1;
                        assert_eq!(seen, all, "byte {at} of {name}");
                        assert_eq!(content[at], 0, "byte {at} of {name}");
                    }
                    Err(other) => panic!("byte {at} of {name}: {other}"),
                }
            }
        }
        assert!(1500 < refused && harmless < refused * 3, "refused {refused}, harmless {harmless}");
    });
}

#[test]
fn a_missing_or_emptied_file_is_refused() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (_, after, _, _) = log_with_tail(&directory.path().join("wal")).await;
        let path = directory.path().join("damaged");
        let names: Vec<_> = after.keys().cloned().collect();
        for name in &names[..names.len() - 1] {
            for content in [None, Some(Vec::new()), Some(vec![0; 4096])] {
                let mut image = after.clone();
                image.remove(name);
                image.extend(content.map(|content| (name.clone(), content)));
                write_image(&path, &image);
                let refused = matches!(open_and_use(&path).await, Err(WalError::Corrupt { .. }));
                assert!(refused, "without {name}");
            }
        }
    });
}

#[test]
fn a_file_that_was_made_ready_is_no_part_of_the_log() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (_, after, _, all) = log_with_tail(&directory.path().join("wal")).await;
        let path = directory.path().join("ready");
        let next = format!("{:016x}.wal", after.len() as u64 + 1);
        // A spare file may hold anything: nothing yet, or all of an old segment.
        let old = after.values().next().expect("is there").clone();
        for content in [Vec::new(), vec![0; 100], vec![0; 4096], old.clone()] {
            let mut image = after.clone();
            image.insert(next.replace(".wal", ".spare"), content);
            write_image(&path, &image);
            assert_eq!(open_and_use(&path).await.expect("opens"), all);
            assert!(segments(&path).iter().all(|name| name.ends_with(".wal")), "{:?}", segments(&path));
        }
        // A segment has its header before it has its name, whatever comes after the header.
        for rest in [Vec::new(), vec![0; 4032], old[64..].to_vec()] {
            let mut image = after.clone();
            image.insert(next.clone(), [header(after.len() as u64 + 1, 77, 4096).as_slice(), &rest].concat());
            write_image(&path, &image);
            assert_eq!(open_and_use(&path).await.expect("opens"), all);
        }
        // Without one, or behind a gap, something is missing.
        let far = format!("{:016x}.wal", after.len() as u64 + 2);
        let ready = |sequence| [header(sequence, 77, 4096).as_slice(), &[0; 4032]].concat();
        let number = after.len() as u64 + 1;
        let (zeros, stranger) = ((next.clone(), vec![0; 4096]), (next.clone(), old));
        for damaged in [
            vec![(next.clone(), Vec::new())],
            vec![zeros],
            vec![stranger],
            vec![(far.clone(), ready(number + 1))],
            vec![(next, ready(number)), (far, ready(number + 1))],
        ] {
            let mut image = after.clone();
            image.extend(damaged);
            write_image(&path, &image);
            assert!(matches!(open_and_use(&path).await, Err(WalError::Corrupt { .. })));
        }
    });
}

/// The header of a segment, as it is drawn in `wal/mod.rs`.
fn header(sequence: u64, salt: u64, size: u64) -> [u8; 64] {
    let mut header = [0; 64];
    for (at, number) in [0x0100_4c41_574c_494d, sequence, salt, size].into_iter().enumerate() {
        header[8 * at..8 * at + 8].copy_from_slice(&u64::to_le_bytes(number));
    }
    let crc = crc32c::crc32c(&header[..32]);
    header[32..36].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn a_payload_cannot_pass_for_a_batch() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (before, after, synced, _) = log_with_tail(&directory.path().join("wal")).await;
        let (name, first, _) = tail_of(&before, &after);
        // The bytes of a batch of another log, as a client might send them, in a batch that is then torn.
        let path = directory.path().join("fooled");
        write_image(&path, &before);
        let (world, _) = world(&Disk::default(), false);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let mut log = wal.group(0);
        let mut forged = entries(3, 50..51, 0);
        forged[0].payload = openraft::EntryPayload::Normal(millstream_node::types::Proposal(
            after[&name][first & !7..].to_vec().into(),
        ));
        append(&mut log, forged).await;
        log.barrier().await.expect("flushes");
        let mut image = read_image(&path);
        let mut last = image.last_entry().expect("there are files");
        let written = last.get().iter().rposition(|byte| *byte != 0).expect("not empty");
        last.get_mut()[written] ^= 1;
        let torn = directory.path().join("torn");
        write_image(&torn, &image);
        assert_eq!(open_and_use(&torn).await.expect("opens"), synced);
    });
}

#[test]
fn the_last_batch_is_written_and_synced_again_before_the_log_opens() {
    run(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal");
        let disk = Disk::default();
        let (world, _) = world(&disk, false);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let mut log = wal.group(0);
        append(&mut log, entries(1, 0..3, 50)).await;
        log.barrier().await.expect("flushes");
        disk.deeds.lock().expect("not poisoned").clear();
        // The sync fails: the batch can be read, and is not durable.
        disk.fail_syncs.store(true, Ordering::SeqCst);
        append(&mut log, entries(1, 3..5, 50)).await;
        log.barrier().await.expect_err("fails");
        let written = disk.deeds.lock().expect("not poisoned").clone();
        let [Deed::Write { offset, .. }] = &written[..] else { panic!("one write: {written:?}") };
        drop((wal, log));
        tokio::task::yield_now().await;

        let disk = Disk::default();
        let (world, _) = wal_support::world(&disk, false);
        let wal = Wal::open(&world, &path, small()).expect("opens");
        let deeds = disk.deeds.lock().expect("not poisoned").clone();
        let rewritten = deeds
            .iter()
            .position(|deed| matches!(deed, Deed::Write { offset: o, .. } if o == offset))
            .expect("the batch is written again");
        let Deed::Write { file, .. } = &deeds[rewritten] else { panic!("a write") };
        assert!(deeds[rewritten..].contains(&Deed::Sync { file: file.clone() }), "and synced");
        assert_eq!(wal.group(0).durable_index(), 4);
        assert_eq!(wal.group(0).try_get_log_entries(..).await.expect("reads").len(), 5);
    });
}
