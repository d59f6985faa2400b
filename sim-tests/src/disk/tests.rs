//! The promises of the disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millstream_node::world::{File, Fs, OpenMode};

use super::*;

fn disk(seed: u64) -> Disk {
    Disk::new("n1", Rng::stream(seed, "disk"), None)
}

fn write_new(fs: &SimFs, path: &str, content: &[u8]) -> Arc<dyn File> {
    let file = fs.open(Path::new(path), OpenMode::CreateNew).expect("the file is new");
    file.write_all_at(content, 0).expect("written");
    file
}

fn read(disk: &Disk, path: &str) -> Option<Vec<u8>> {
    match disk.mount().read(Path::new(path)) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

#[test]
fn synced_content_under_a_synced_name_survives_a_power_loss() {
    for seed in 0..50 {
        let disk = disk(seed);
        let fs = disk.mount();
        write_new(&fs, "/a", b"kept").sync().expect("synced");
        fs.sync_dir(Path::new("/")).expect("synced");
        disk.power_loss();
        assert_eq!(read(&disk, "/a").as_deref(), Some(&b"kept"[..]));
    }
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let survivors = (0..50)
        .filter(|seed| {
            let disk = disk(*seed);
            write_new(&disk.mount(), "/a", b"content").sync().expect("synced");
            disk.power_loss();
            read(&disk, "/a").is_some()
        })
        .count();
    assert!((1..50).contains(&survivors), "{survivors} of 50 unsynced names survived");
}

#[test]
fn a_directory_of_directories_needs_a_sync_at_each_level() {
    let lost = (0..50).any(|seed| {
        let disk = disk(seed);
        let fs = disk.mount();
        fs.create_dir_all(Path::new("/data/wal")).expect("created");
        write_new(&fs, "/data/wal/1", b"x").sync().expect("synced");
        fs.sync_dir(Path::new("/data/wal")).expect("synced");
        fs.sync_dir(Path::new("/data")).expect("synced");
        disk.power_loss();
        read(&disk, "/data/wal/1").is_none()
    });
    assert!(lost, "the name /data was never synced, and yet it survived every time");
}

#[test]
fn an_unsynced_write_is_lost_kept_or_torn() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = disk(seed);
        let fs = disk.mount();
        let file = write_new(&fs, "/a", &[1; 4 * SECTOR]);
        file.sync().expect("synced");
        fs.sync_dir(Path::new("/")).expect("synced");
        assert!(!disk.is_writing());
        file.write_all_at(&[2; 2 * SECTOR], SECTOR as u64).expect("written");
        assert!(disk.is_writing());
        disk.power_loss();
        assert!(!disk.is_writing());
        let content = read(&disk, "/a").expect("the name was synced");
        assert_eq!(content.len(), 4 * SECTOR);
        let sectors = content.chunks(SECTOR).map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is written as a whole");
            sector[0]
        });
        match sectors.collect::<Vec<_>>()[..] {
            [1, 1, 1, 1] => lost += 1,
            [1, 2, 2, 1] => kept += 1,
            [1, 1, 2, 1] | [1, 2, 1, 1] => torn += 1,
            ref other => panic!("sectors {other:?}"),
        }
    }
    assert!(lost > 20 && kept > 20 && torn > 20, "lost {lost}, kept {kept}, torn {torn}");
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let hole = (0..100).any(|seed| {
        let disk = disk(seed);
        let fs = disk.mount();
        let file = write_new(&fs, "/a", b"");
        fs.sync_dir(Path::new("/")).expect("synced");
        file.write_all_at(&[1; SECTOR], 0).expect("written");
        file.write_all_at(&[2; SECTOR], SECTOR as u64).expect("written");
        disk.power_loss();
        read(&disk, "/a").is_some_and(|content| content.len() == 2 * SECTOR && content[0] == 0 && content[SECTOR] == 2)
    });
    assert!(hole, "no seed reordered two writes");
}

#[test]
fn after_a_killed_process_unsynced_data_is_readable_but_not_durable() {
    let lost = (0..50).any(|seed| {
        let disk = disk(seed);
        let fs = disk.mount();
        let file = write_new(&fs, "/a", b"unsynced");
        disk.kill_process();
        assert_eq!(read(&disk, "/a").as_deref(), Some(&b"unsynced"[..]));
        assert!(file.write_all_at(b"late", 0).is_err(), "the old life is over");
        assert!(fs.exists(Path::new("/a")).is_err(), "the old life is over");
        disk.power_loss();
        read(&disk, "/a").is_none()
    });
    assert!(lost, "reading made it durable");
}

#[test]
fn a_sync_in_the_next_life_makes_the_last_lifes_writes_durable() {
    for seed in 0..50 {
        let disk = disk(seed);
        write_new(&disk.mount(), "/a", b"written");
        disk.kill_process();
        let fs = disk.mount();
        fs.open(Path::new("/a"), OpenMode::Write).expect("open").sync().expect("synced");
        fs.sync_dir(Path::new("/")).expect("synced");
        disk.power_loss();
        assert_eq!(read(&disk, "/a").as_deref(), Some(&b"written"[..]));
    }
}

#[test]
fn an_atomic_write_leaves_the_old_or_the_new_content() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed);
        let fs = disk.mount();
        fs.write_atomically(Path::new("/a"), b"old").expect("written");
        // The steps of write_atomically, without the last sync.
        write_new(&fs, "/a.new", b"new").sync().expect("synced");
        fs.rename(Path::new("/a.new"), Path::new("/a")).expect("renamed");
        disk.power_loss();
        seen.insert(read(&disk, "/a").expect("one of the two is there"));

        let fs = disk.mount();
        fs.write_atomically(Path::new("/a"), b"newest").expect("written");
        disk.power_loss();
        assert_eq!(read(&disk, "/a").as_deref(), Some(&b"newest"[..]));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
}

#[test]
fn a_removal_may_come_undone() {
    let (mut back, mut gone) = (0, 0);
    for seed in 0..50 {
        let disk = disk(seed);
        let fs = disk.mount();
        fs.create_dir_all(Path::new("/d")).expect("created");
        write_new(&fs, "/d/a", b"x").sync().expect("synced");
        fs.sync_dir(Path::new("/d")).expect("synced");
        fs.sync_dir(Path::new("/")).expect("synced");
        fs.remove_dir_all(Path::new("/d")).expect("removed");
        assert!(!fs.exists(Path::new("/d")).expect("looked up"));
        disk.power_loss();
        if read(&disk, "/d/a").is_some() {
            back += 1;
        } else {
            gone += 1;
        }
    }
    assert!(back > 0 && gone > 0, "back {back}, gone {gone}");
}

#[test]
fn a_lock_is_held_until_dropped_or_the_process_ends() {
    let disk = disk(1);
    let fs = disk.mount();
    let first = fs.lock(Path::new("/lock")).expect("free");
    let refused = fs.lock(Path::new("/lock")).err().expect("held");
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    drop(first);
    let second = fs.lock(Path::new("/lock")).expect("free again");
    disk.kill_process();
    let third = disk.mount().lock(Path::new("/lock")).expect("freed by the end of the process");
    // A destructor that runs late must not free the next life's lock.
    drop(second);
    assert!(disk.mount().lock(Path::new("/lock")).is_err());
    drop(third);
}

#[test]
fn errors_are_those_of_the_contract() {
    let disk = disk(1);
    let fs = disk.mount();
    let kind = |result: io::Result<Arc<dyn File>>| result.err().expect("an error").kind();
    assert_eq!(kind(fs.open(Path::new("/a"), OpenMode::Read)), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.open(Path::new("/d/a"), OpenMode::CreateNew)), io::ErrorKind::NotFound);
    let file = write_new(&fs, "/a", b"1234");
    assert_eq!(kind(fs.open(Path::new("/a"), OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.open(Path::new("/"), OpenMode::Read)), io::ErrorKind::IsADirectory);
    let short = file.read_exact_at(&mut [0; 2], 3).expect_err("ends first");
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    let reader = fs.open(Path::new("/a"), OpenMode::Read).expect("open");
    assert_eq!(reader.write_all_at(b"x", 0).expect_err("refused").kind(), io::ErrorKind::PermissionDenied);
    fs.create_dir_all(Path::new("/b/c")).expect("created");
    write_new(&fs, "/b/z", b"");
    assert_eq!(fs.list(Path::new("/b")).expect("listed"), ["c", "z"]);
}

#[test]
fn the_same_seed_loses_the_same_things() {
    let run = |seed| {
        let disk = disk(seed);
        let fs = disk.mount();
        for number in 0..20_u8 {
            let file = write_new(&fs, &format!("/{number}"), &[number; 3_000]);
            file.set_len(2_000 + u64::from(number)).expect("cut");
        }
        disk.power_loss();
        (disk.durable_files(), disk.counters())
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4), run(5));
    let counters = run(4).1;
    assert_eq!(counters.writes_lost + counters.writes_kept + counters.writes_torn, 40);
    assert_eq!(counters.names_lost + counters.names_kept, 20);
}

#[test]
fn the_room_of_a_replaced_file_comes_back_when_nobody_needs_it() {
    let disk = disk(1);
    let fs = disk.mount();
    let root = Path::new("/");
    let old = write_new(&fs, "/a", &[1; 100]);
    old.sync().expect("synced");
    fs.sync_dir(root).expect("synced");
    disk.inject(DiskFault::Full { bytes_left: 150 });
    let free = || fs.free_bytes(root).expect("known");

    drop(write_new(&fs, "/a.new", &[2; 100]));
    fs.rename(Path::new("/a.new"), Path::new("/a")).expect("renamed");
    assert_eq!(free(), 50, "a power loss may bring the old name back");
    fs.sync_dir(root).expect("synced");
    assert_eq!(free(), 50, "the old one is still open");
    let mut content = [0; 100];
    old.read_exact_at(&mut content, 0).expect("and can be read");
    assert_eq!(content, [1; 100]);
    drop(old);
    assert_eq!(free(), 150);

    drop(write_new(&fs, "/b", &[3; 100]));
    fs.remove_file(Path::new("/b")).expect("removed");
    fs.sync_dir(root).expect("synced");
    assert_eq!(free(), 150);
    assert_eq!(read(&disk, "/a").as_deref(), Some(&[2; 100][..]));
}
