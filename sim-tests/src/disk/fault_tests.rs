//! The faults that are injected at run time.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use millstream_node::world::{File, Fs, OpenMode};

use super::*;

fn disk(seed: u64) -> Disk {
    Disk::new("n1", Rng::stream(seed, "disk"), None)
}

/// A file whose content and name are durable.
fn durable_file(disk: &Disk, path: &str, content: &[u8]) -> Arc<dyn File> {
    let fs = disk.mount();
    let path = Path::new(path);
    fs.create_dir_all(path.parent().expect("a path with a directory")).expect("created");
    let file = fs.open(path, OpenMode::CreateNew).expect("the file is new");
    file.write_all_at(content, 0).expect("written");
    file.sync().expect("synced");
    for directory in path.ancestors().skip(1) {
        fs.sync_dir(directory).expect("synced");
    }
    file
}

fn read(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut content = vec![0; file.len()? as usize];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

fn on_platter(disk: &Disk, path: &str) -> Vec<u8> {
    let files = disk.durable_files();
    files.into_iter().find(|(found, _)| found == Path::new(path)).expect("the name is durable").1
}

#[test]
fn each_operation_fails_at_its_turn_and_works_again() {
    let disk = disk(1);
    let fs = disk.mount();
    let file = durable_file(&disk, "/a", b"old");
    let root = Path::new("/");
    disk.inject(DiskFault::FailRead { nth: 2 });
    disk.inject(DiskFault::FailWrite { nth: 2 });
    disk.inject(DiskFault::FailSync { nth: 2 });
    disk.inject(DiskFault::FailSyncDir { nth: 2 });
    disk.inject(DiskFault::FailRename { nth: 2 });
    let outcomes = |operation: &mut dyn FnMut() -> io::Result<()>| [(); 3].map(|()| operation().is_ok());
    let once = [true, false, true];
    assert_eq!(outcomes(&mut || read(&*file).map(drop)), once);
    assert_eq!(outcomes(&mut || file.write_all_at(b"new", 0)), once);
    assert_eq!(outcomes(&mut || file.sync()), once);
    assert_eq!(outcomes(&mut || fs.sync_dir(root)), once);
    assert_eq!(outcomes(&mut || fs.rename(Path::new("/a"), Path::new("/a"))), once);
    let Counters { reads_failed, writes_failed, syncs_failed, directory_syncs_failed, renames_failed, .. } =
        disk.counters();
    assert_eq!([reads_failed, writes_failed, syncs_failed, directory_syncs_failed, renames_failed], [1; 5]);
}

#[test]
fn a_failed_sync_leaves_pages_that_are_clean_and_lost() {
    let mut left = BTreeSet::new();
    for seed in 0..40 {
        let disk = disk(seed);
        let file = durable_file(&disk, "/a", &[1; 2 * SECTOR]);
        file.write_all_at(&[2; 2 * SECTOR], 0).expect("written");
        disk.inject(DiskFault::FailSync { nth: 1 });
        file.sync().expect_err("injected");
        assert_eq!(read(&*file).expect("read"), [2; 2 * SECTOR], "what was written stays readable");
        file.sync().expect("nothing is left to be synced");
        disk.power_loss();
        let content = on_platter(&disk, "/a");
        left.insert((content[0], content[SECTOR]));
    }
    assert_eq!(left, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]), "any part may have reached the platter");
}

#[test]
fn a_full_disk_has_room_again_later() {
    let disk = disk(1);
    let file = durable_file(&disk, "/a", &[1; 100]);
    disk.inject(DiskFault::Full { bytes_left: 10 });
    assert_eq!(disk.mount().free_bytes(Path::new("/")).expect("known"), 10);
    file.write_all_at(&[2; 10], 100).expect("there is room for that");
    let full = file.write_all_at(&[2; 1], 110).expect_err("full");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[3; 110], 0).expect("this needs no room");
    disk.clear_faults();
    file.write_all_at(&[2; 1_000], 110).expect("there is room again");
    assert_eq!(disk.counters().writes_without_room, 1);
}

#[test]
fn flipped_bits_are_on_the_platter_and_in_what_is_read() {
    let disk = disk(1);
    let content = [7; 8 * SECTOR];
    let log = durable_file(&disk, "/d/wal/1", &content);
    let state = durable_file(&disk, "/d/state/1", &content);
    assert!(!disk.is_damaged());
    disk.inject(DiskFault::FlipBits { count: 3, seed: 5, area: Area::Log });
    let differing = |content: &[u8]| content.iter().map(|byte| (byte ^ 7).count_ones()).sum::<u32>();
    assert_eq!(differing(&on_platter(&disk, "/d/wal/1")), 3);
    assert_eq!(differing(&read(&*log).expect("read")), 3);
    assert_eq!(differing(&read(&*state).expect("read")), 0, "only the log was meant");
    disk.clear_faults();
    assert!(disk.is_damaged(), "damage does not heal");
    disk.replace();
    assert!(!disk.is_damaged() && disk.durable_files().is_empty());
}

#[test]
fn the_same_bits_are_flipped_whatever_was_injected_before() {
    let flipped = |others: &[DiskFault]| {
        let disk = disk(1);
        durable_file(&disk, "/a", &[7; 8 * SECTOR]);
        others.iter().for_each(|fault| disk.inject(*fault));
        disk.inject(DiskFault::FlipBits { count: 4, seed: 5, area: Area::Anywhere });
        on_platter(&disk, "/a")
    };
    let lost = DiskFault::LoseSectors { count: 2, seed: 5, area: Area::Anywhere };
    assert_eq!(flipped(&[]), flipped(&[lost, DiskFault::FailSync { nth: 1 }]));
}

#[test]
fn a_lost_sector_is_read_again_once_it_is_written() {
    let disk = disk(1);
    let file = durable_file(&disk, "/a", &[7; SECTOR]);
    disk.inject(DiskFault::LoseSectors { count: 1, seed: 5, area: Area::Anywhere });
    read(&*file).expect_err("the sector is lost");
    disk.clear_faults();
    disk.kill_process();
    let file = disk.mount().open(Path::new("/a"), OpenMode::Write).expect("open");
    read(&*file).expect_err("also for the next process");
    file.write_all_at(&[8; SECTOR], 0).expect("written");
    assert_eq!(read(&*file).expect("read"), [8; SECTOR]);
}

#[test]
fn a_misdirected_write_shows_after_the_power_was_lost() {
    for seed in 0..20 {
        let disk = disk(seed);
        let file = durable_file(&disk, "/a", &[1; 8 * SECTOR]);
        disk.inject(DiskFault::MisdirectWrite { nth: 1, seed });
        file.write_all_at(&[2; SECTOR], 2 * SECTOR as u64).expect("written");
        file.sync().expect("synced");
        let sectors = |content: &[u8]| content.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>();
        assert_eq!(sectors(&read(&*file).expect("read")), [1, 1, 2, 1, 1, 1, 1, 1]);
        disk.power_loss();
        let after = sectors(&on_platter(&disk, "/a"));
        assert!(after[2] == 1 && after.iter().filter(|byte| **byte == 2).count() == 1, "{after:?}");
    }
}

#[test]
fn any_subset_of_unsynced_writes_may_survive() {
    let mut subsets = BTreeSet::new();
    for seed in 0..400 {
        let disk = disk(seed);
        let file = durable_file(&disk, "/a", &[0; 3 * SECTOR]);
        for sector in [1, 0, 2] {
            file.write_all_at(&[1; SECTOR], (sector * SECTOR) as u64).expect("written");
        }
        // Of two writes to one place either may be the one that is found.
        file.write_all_at(&[2; SECTOR], 0).expect("written");
        disk.power_loss();
        subsets.insert(on_platter(&disk, "/a").chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>());
    }
    assert_eq!(subsets.len(), 3 * 2 * 2, "{subsets:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stall_holds_up_each_sync_of_the_flusher_once() {
    let disk = disk(1);
    let file = durable_file(&disk, "/a", b"");
    let flusher = {
        let file = Arc::clone(&file);
        async move {
            for _ in 0..3 {
                file.write_all_at(b"batch", 0).expect("written");
                tokio::time::sleep(Duration::from_millis(3)).await;
                file.sync().expect("synced");
            }
        }
    };
    disk.inject(DiskFault::Stall { ms: 500, area: Area::Anywhere });
    let start = tokio::time::Instant::now();
    disk.clone().stalling(Box::pin(flusher)).await;
    assert_eq!(start.elapsed(), Duration::from_millis(3 * 503));
    disk.clone().stalling_job(Box::new(|| {})).await;
    assert_eq!(start.elapsed(), Duration::from_millis(3 * 503 + 500));
    assert_eq!(disk.counters().stalls, 4);
    disk.inject(DiskFault::Stall { ms: 500, area: Area::Log });
    disk.clone().stalling_job(Box::new(|| {})).await;
    assert_eq!(start.elapsed(), Duration::from_millis(3 * 503 + 500), "a job is no matter of the log");
    disk.clear_faults();
    disk.stalling_job(Box::new(|| {})).await;
    assert_eq!(start.elapsed(), Duration::from_millis(3 * 503 + 500));
}
