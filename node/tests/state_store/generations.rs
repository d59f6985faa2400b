//! One generation of the state replaces another.

use millstream_node::config::Engine;
use millstream_node::storage::StoreError;

use crate::support::{ENGINES, all, open, put, temporary};

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

#[test]
fn only_the_rename_of_what_was_prepared_makes_it_current() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", "old")]).expect("commits");
        let next = dir.create_next().expect("creates");
        next.store.commit(vec![put(b"row", "lost")]).expect("commits");
        dir.prepare(&next).expect("prepares");
        assert!(directory.path().join("CURRENT.new").exists());
        // As after a crash: nothing is cleaned up.
        std::mem::forget(next);
        drop((dir, store));
        if engine == Engine::Sled {
            // It holds a lock on what was forgotten.
            continue;
        }

        let (dir, store) = open(directory.path(), engine).expect("opens again");
        assert_eq!(store.get(b"row").expect("reads"), Some("old".into()));
        assert!(!directory.path().join("2").exists(), "what was not made current is removed");
        // The pointer of one that was prepared is not taken for that of another.
        let (first, second) = (dir.create_next().expect("creates"), dir.create_next().expect("creates"));
        first.store.commit(vec![put(b"row", "first")]).expect("commits");
        dir.prepare(&first).expect("prepares");
        dir.prepare(&second).expect("prepares");
        let current = dir.switch_to(first).expect("switches");
        drop((second, dir, store, current));
        let (_dir, store) = open(directory.path(), engine).expect("opens once more");
        assert_eq!(store.get(b"row").expect("reads"), Some("first".into()));
    }
}
