//! Files that are not what they were: an error or the right value, never a wrong one, and never a panic.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::{StoreError, verify_all};

use crate::support::{ENGINES, all, copy_all, files, main_file, open, pattern, put, read_all, temporary};

/// In memory where there is such a directory: thousands of stores are opened, and each open syncs.
fn fast_temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temporary())
}

/// A store with rows of many sizes, some of them replaced and deleted, over several lives.
fn small_store(state: &Path, engine: Engine) -> BTreeMap<Vec<u8>, Bytes> {
    for life in 0..3_usize {
        let (_dir, store) = open(state, engine).expect("opens");
        for batch in 0..4_usize {
            let seed = life * 4 + batch;
            let mut rows: Vec<_> = (0..12_usize)
                .map(|row| put(&[(row * 3 + batch) as u8; 5], pattern((row * 97 + seed * 31) % 1_100, seed)))
                .collect();
            rows.push(put(b"wide", pattern(30_000 + seed, seed)));
            rows.push((vec![seed as u8; 5], None));
            store.commit(rows).expect("commits");
        }
    }
    all(&*open(state, engine).expect("opens").1)
}

/// Opens a store that may be damaged and reads all of it in every way.
fn served(state: &Path, engine: Engine, expected: &BTreeMap<Vec<u8>, Bytes>) -> Result<(), StoreError> {
    let (_dir, store) = open(state, engine)?;
    for (key, value) in expected {
        match store.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "get {}", key.escape_ascii()),
            Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
        }
    }
    assert_eq!(store.get(b"nowhere").unwrap_or_default(), None);
    let scanned = read_all(&*store);
    let verified = verify_all(&*store, |_| {});
    match &scanned {
        Ok(rows) => assert!(rows == expected, "{} rows of {} are scanned", rows.len(), expected.len()),
        Err(_) => assert!(verified.as_ref().map_or(true, |verified| !verified.damaged.is_empty())),
    }
    scanned.and(verified.map(drop))
}

/// What a test does to one file of a store.
fn damage_files(engine: Engine, mut damage: impl FnMut(&Path, &[u8], &mut dyn FnMut(Option<&[u8]>, &str))) {
    let whole = fast_temporary();
    let expected = small_store(whole.path(), engine);
    let copy = fast_temporary();
    let (mut tried, mut noticed) = (0, 0);
    for path in files(whole.path()) {
        let name = path.strip_prefix(whole.path()).expect("below it").to_owned();
        let content = std::fs::read(&path).expect("reads");
        damage(&name, &content, &mut |content, what| {
            let state = copy.path().join("state");
            let _ = std::fs::remove_dir_all(&state);
            copy_all(whole.path(), &state);
            match content {
                Some(content) => std::fs::write(state.join(&name), content).expect("writes"),
                None => std::fs::remove_file(state.join(&name)).expect("removes"),
            }
            tried += 1;
            let shown = format!("{engine:?}: {} {what}", name.display());
            let result = std::panic::catch_unwind(|| served(&state, engine, &expected));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(StoreError::Corrupt { .. })) => noticed += 1,
                Ok(Err(error)) => panic!("{shown}: {error} is for an operator to mend"),
                Err(_) => panic!("{shown}: see above"),
            }
        });
    }
    println!("{engine:?}: {noticed} of {tried} changes made a difference");
    assert!(0 < noticed);
}

/// Bytes at which a file has content: zeros for long are space that is not used.
fn content_at(content: &[u8], step: usize) -> Vec<usize> {
    let used =
        |at: &usize| content[at.saturating_sub(300)..(*at + 300).min(content.len())].iter().any(|byte| *byte != 0);
    (0..content.len()).step_by(step).filter(used).collect()
}

/// Every 97th byte of redb's, and of all with `MILLSTREAM_FLIPS=all`; fewer otherwise.
fn flip_bytes(engine: Engine) {
    let all = std::env::var("MILLSTREAM_FLIPS").is_ok_and(|flips| flips == "all");
    // What is wrong in a page of redb's tree may hide rows; few bytes of a small store are such.
    let most = if all || engine == Engine::Redb { usize::MAX } else { 80 };
    damage_files(engine, |_, content, damage| {
        let places = content_at(content, 97.min(content.len() / 40).max(1));
        let every = places.len().div_ceil(most).max(1);
        for at in places.into_iter().step_by(every) {
            let mut flipped = content.to_vec();
            flipped[at] ^= 1 << (at % 8);
            damage(Some(&flipped), &format!("changed at {at}"));
        }
    });
}

#[test]
fn sled_never_serves_a_flipped_byte() {
    flip_bytes(Engine::Sled);
}

#[test]
fn redb_never_serves_a_flipped_byte() {
    flip_bytes(Engine::Redb);
}

#[test]
fn memory_never_serves_a_flipped_byte() {
    flip_bytes(Engine::Memory);
}

#[test]
fn cut_missing_and_empty_files_are_noticed_or_not_needed() {
    for engine in ENGINES {
        damage_files(engine, |_, content, damage| {
            damage(None, "missing");
            damage(Some(b""), "empty");
            for part in 1..16 {
                let length = content.len() * part / 16;
                damage(Some(&content[..length]), &format!("cut to {length}"));
            }
            damage(Some(&[content, &[0; 5_000]].concat()), "longer by zeros");
            damage(Some(&[content, &[0xa5; 5_000]].concat()), "longer by noise");
        });
    }
}

/// Changes that hit a whole page or sector, as disks make them: zeros, noise, and the content of another place.
#[test]
fn lost_and_misdirected_writes_are_noticed_or_not_needed() {
    for engine in ENGINES {
        damage_files(engine, |_, content, damage| {
            let places: Vec<usize> = content_at(content, 4_096).into_iter().filter(|at| at % 4_096 == 0).collect();
            for at in places.iter().copied().step_by(places.len().div_ceil(12).max(1)) {
                let end = (at + 4_096).min(content.len());
                for what in ["zeros", "noise", "another page"] {
                    let mut changed = content.to_vec();
                    match what {
                        "zeros" => changed[at..end].fill(0),
                        "noise" => changed[at..end].fill(0x5a),
                        _ => changed.copy_within(..end - at, at),
                    }
                    damage(Some(&changed), &format!("{what} at {at}"));
                }
            }
        });
    }
}

#[test]
fn the_number_of_batches_may_be_behind_and_not_ahead() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        let stamp = directory.path().join("1/BATCHES");
        let empty = std::fs::read(&stamp).expect("reads");
        store.commit(vec![put(b"row", "1")]).expect("commits");
        let one = std::fs::read(&stamp).expect("reads");
        store.commit(vec![put(b"row", "2")]).expect("commits");
        drop((dir, store));
        let (before_two, two) = (directory.path().join("copy"), std::fs::read(&stamp).expect("reads"));
        copy_all(&directory.path().join("1"), &before_two);

        // A process died between a commit and its number.
        for behind in [&empty, &one, &two] {
            std::fs::write(&stamp, behind).expect("writes");
            let (_dir, store) = open(directory.path(), engine).expect("opens");
            assert_eq!(store.get(b"row").expect("reads"), Some("2".into()));
        }
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", "3")]).expect("commits");
        drop((dir, store));
        // The store of before under the number of now.
        let three = std::fs::read(&stamp).expect("reads");
        std::fs::remove_dir_all(directory.path().join("1")).expect("removes");
        copy_all(&before_two, &directory.path().join("1"));
        std::fs::write(&stamp, three).expect("writes");
        let error = open(directory.path(), engine).err().expect("refuses");
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains("2 of at least 3 batches")), "{error}");
    }
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
