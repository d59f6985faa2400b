//! A state that is of no use is set aside, and the node knows until it has another.

use millstream_node::config::Engine;
use millstream_node::storage::{Rebuild, StateDir, StoreError};
use millstream_node::world::World;

use crate::support::{ENGINES, all, main_file, open, put, read_all, temporary};

fn set_aside(
    path: &std::path::Path,
    engine: Engine,
    reason: &str,
    least_index: u64,
) -> (StateDir, std::sync::Arc<dyn millstream_node::storage::StateStore>) {
    StateDir::set_aside(&World::real(), path, engine, reason, least_index).expect("sets aside")
}

#[test]
fn a_broken_state_is_kept_aside_and_an_empty_one_takes_its_place() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", "lost")]).expect("commits");
        assert_eq!(dir.must_rebuild(), None);
        drop((dir, store));
        std::fs::write(main_file(directory.path(), engine), b"nonsense").expect("writes");
        let error = open(directory.path(), engine).err().expect("refuses");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{engine:?}: {error}");

        let (dir, store) = set_aside(directory.path(), engine, &error.to_string(), 70);
        assert_eq!(all(&*store).len(), 0);
        let kept = directory.path().join("broken-1");
        assert!(kept.join("BATCHES").exists(), "the operator can look at it");
        let rebuild = dir.must_rebuild().expect("the state is not complete");
        assert_eq!((rebuild.least_index, rebuild.reason), (70, error.to_string().replace('\n', " ")));
        store.commit(vec![put(b"row", "half")]).expect("commits");
        drop((dir, store));

        // The node stops before it is done, and again.
        let (dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(dir.must_rebuild().map(|rebuild| rebuild.least_index), Some(70));
        dir.rebuilt(69).expect("takes note");
        assert!(dir.must_rebuild().is_some(), "not far enough");
        assert_eq!(store.get(b"row").expect("reads"), Some("half".into()));

        let next = dir.create_next().expect("creates");
        next.store.commit(vec![put(b"row", "whole")]).expect("commits");
        drop(store);
        let store = dir.switch_to(next).expect("switches");
        assert!(dir.must_rebuild().is_some(), "until it is told");
        dir.rebuilt(70).expect("takes note");
        assert_eq!(dir.must_rebuild(), None);
        dir.rebuilt(71).expect("takes note, of nothing");
        drop((dir, store));
        let (dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(dir.must_rebuild(), None);
        assert_eq!(store.get(b"row").expect("reads"), Some("whole".into()));
        assert!(kept.exists(), "it stays until another one breaks");
    }
}

#[test]
fn at_most_one_broken_state_is_kept() {
    let directory = temporary();
    drop(open(directory.path(), Engine::Memory).expect("opens"));
    for round in 1..5_u64 {
        drop(set_aside(directory.path(), Engine::Memory, "again", round));
        let names = std::fs::read_dir(directory.path()).expect("lists");
        let names: Vec<_> = names.map(|entry| entry.expect("lists").file_name().into_string().expect("text")).collect();
        let broken: Vec<_> = names.iter().filter(|name| name.starts_with("broken-")).collect();
        assert_eq!(broken, [&format!("broken-{round}")]);
        assert_eq!(names.len(), 4, "CURRENT, REBUILD, the broken and the new one: {names:?}");
    }
}

#[test]
fn a_suspect_state_does_not_open_again() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", "suspect")]).expect("commits");
        dir.mark_suspect("it differs from the others'\nat index 1024").expect("marks");
        drop((dir, store));
        for _ in 0..2 {
            let error = open(directory.path(), engine).err().expect("refuses");
            assert!(
                matches!(&error, StoreError::Corrupt { what } if what == "it differs from the others' at index 1024"),
                "{error}"
            );
        }
        let (dir, store) = set_aside(directory.path(), engine, "it differs", 0);
        assert_eq!(dir.must_rebuild(), Some(Rebuild { reason: "it differs".into(), least_index: 0 }));
        assert_eq!(read_all(&*store).expect("reads").len(), 0);
        dir.rebuilt(0).expect("takes note");
        assert_eq!(dir.must_rebuild(), None);
    }
}

#[test]
fn a_changed_mark_is_damage_like_any_other() {
    let directory = temporary();
    drop(open(directory.path(), Engine::Memory).expect("opens"));
    drop(set_aside(directory.path(), Engine::Memory, "a reason", 1_234));
    let path = directory.path().join("REBUILD");
    let content = std::fs::read(&path).expect("reads");
    for at in 0..content.len() {
        let mut changed = content.clone();
        changed[at] ^= 1;
        std::fs::write(&path, changed).expect("writes");
        let error = open(directory.path(), Engine::Memory).err();
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "byte {at}: {error:?}");
    }
    drop(set_aside(directory.path(), Engine::Memory, "a reason", 1_234));
    let (dir, _store) = open(directory.path(), Engine::Memory).expect("opens");
    assert_eq!(dir.must_rebuild().map(|rebuild| rebuild.least_index), Some(1_234));
}

/// Setting aside is many steps. A crash behind any of them leaves a state that is marked or does not open.
#[test]
fn setting_aside_can_be_repeated_from_any_step() {
    for step in ["the pointer is gone", "the broken one is moved", "the new one is there", "a half-made one is there"] {
        let directory = temporary();
        let (dir, store) = open(directory.path(), Engine::Memory).expect("opens");
        store.commit(vec![put(b"row", "old")]).expect("commits");
        drop((dir, store));
        let path = |name: &str| directory.path().join(name);
        let rename = |from: &str, to: &str| std::fs::rename(path(from), path(to)).expect("renames");
        match step {
            "the pointer is gone" => std::fs::write(path("CURRENT"), b"").expect("writes"),
            "the broken one is moved" => rename("1", "broken-1"),
            "the new one is there" => {
                rename("1", "broken-1");
                std::fs::create_dir_all(path("2/memory")).expect("creates");
            }
            _ => {
                std::fs::create_dir_all(path("2/memory")).expect("creates");
                std::fs::remove_file(path("1/BATCHES")).expect("removes");
            }
        }
        let error = open(directory.path(), Engine::Memory).err();
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{step}: {error:?}");
        let (dir, store) = set_aside(directory.path(), Engine::Memory, "broken", 9);
        assert!(dir.must_rebuild().is_some() && all(&*store).is_empty(), "{step}");
        drop((dir, store));
        let (dir, store) = open(directory.path(), Engine::Memory).expect("opens");
        assert!(dir.must_rebuild().is_some() && all(&*store).is_empty(), "{step}");
    }
}
