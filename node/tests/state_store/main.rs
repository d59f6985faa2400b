//! The state stores: one suite for all engines. Also the data directory and snapshot files.

// A test may panic, and its helpers are as much its own as its functions.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod child;
mod damage;
mod data_dir;
mod fixture;
mod generations;
mod kill;
mod power;
mod rebuild;
mod sled_traps;
mod support;

use std::collections::BTreeMap;

use millstream_node::storage::{Batch, Verified, verify_all};
use proptest::prelude::*;
use support::{ENGINES, all, open, pattern, put, temporary};

#[test]
fn rows_are_put_found_scanned_and_deleted() {
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(store.get(b"a").expect("reads"), None);

        store.commit(vec![put(b"b", "2"), put(b"a", "1"), put(b"a\0", "1b"), put(b"", "0")]).expect("commits");
        assert_eq!(store.get(b"a").expect("reads"), Some("1".into()));
        let keys: Vec<_> = store.scan(b"a", b"b").map(|row| row.expect("verifies").0).collect();
        assert_eq!(keys, [b"a".to_vec(), b"a\0".to_vec()], "start counts, end does not, a prefix comes first");
        assert_eq!(store.scan(b"b", b"a").count(), 0);

        store.commit(vec![(b"a".to_vec(), None), (b"nowhere".to_vec(), None), put(b"b", "3")]).expect("commits");
        assert_eq!(store.get(b"a").expect("reads"), None);
        assert_eq!(all(&*store).into_values().collect::<Vec<_>>(), ["0", "1b", "3"]);
        store.commit(Batch::new()).expect("an empty batch is fine");
    }
}

#[test]
fn large_values_are_split_joined_shrunk_and_deleted() {
    for engine in ENGINES {
        let directory = temporary();
        let (dir, store) = open(directory.path(), engine).expect("opens");
        let sizes = [0, 1, 24 * 1024 - 1, 24 * 1024, 24 * 1024 + 1, 1 << 20];
        for (from, first) in sizes.iter().enumerate() {
            for (to, second) in sizes.iter().enumerate() {
                store.commit(vec![put(b"large", pattern(*first, from)), put(b"largf", "next")]).expect("commits");
                assert_eq!(store.get(b"large").expect("reads"), Some(pattern(*first, from)));
                store.commit(vec![put(b"large", pattern(*second, to))]).expect("commits");
                assert_eq!(all(&*store).remove(&b"large"[..]), Some(pattern(*second, to)));
            }
        }
        drop((dir, store));
        let (_dir, store) = open(directory.path(), engine).expect("opens again");
        assert_eq!(store.get(b"large").expect("reads"), Some(pattern(1 << 20, sizes.len() - 1)));
        store.commit(vec![(b"large".to_vec(), None)]).expect("commits");
        assert_eq!(all(&*store).into_keys().collect::<Vec<_>>(), [b"largf".to_vec()], "no piece is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_an_ordered_map_that_survives(
        batches in prop::collection::vec(
            prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..4), prop::option::weighted(0.7, 0..60_000_usize)),
                0..8,
            ),
            1..8,
        )
    ) {
        for engine in ENGINES {
            let directory = temporary();
            let mut model = BTreeMap::new();
            for batch in &batches {
                let (_dir, store) = open(directory.path(), engine).expect("opens");
                // A key is named once: what a batch means does not depend on its order.
                let changes: BTreeMap<_, _> = batch.iter().cloned().collect();
                let mut rows = Batch::new();
                for (key, length) in changes {
                    let value = length.map(|length| pattern(length, key.len()));
                    match &value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(&key)),
                    }
                    rows.push((key, value));
                }
                store.commit(rows).expect("commits");
                assert_eq!(all(&*store), model);
            }
            let (_dir, store) = open(directory.path(), engine).expect("opens");
            assert_eq!(all(&*store), model);
            for (key, value) in &model {
                assert_eq!(store.get(key).expect("reads").as_ref(), Some(value));
            }
        }
    }
}

#[test]
fn of_a_key_that_is_named_twice_the_later_value_counts() {
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        store.commit(vec![put(b"row", pattern(100_000, 1)), put(b"row", "small")]).expect("commits");
        assert_eq!(store.get(b"row").expect("reads"), Some("small".into()));
        assert_eq!(
            verify_all(&*store, |_| {}).expect("reads").damaged,
            Vec::<String>::new(),
            "{engine:?}: no piece is left"
        );
        store.commit(vec![put(b"row", pattern(100_000, 2)), (b"row".to_vec(), None)]).expect("commits");
        assert_eq!(verify_all(&*store, |_| {}).expect("reads"), Verified::default(), "{engine:?}");
    }
}

#[test]
fn everything_is_verified_in_steps() {
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        assert_eq!(verify_all(&*store, |_| {}).expect("reads"), Verified::default(), "{engine:?}: an empty store");
        let rows = |row: usize| put(&[row as u8, 0, 0xff], pattern(row * 700, row));
        store.commit((0..100).map(rows).collect()).expect("commits");

        let (mut start, mut steps, mut seen) = (Vec::new(), 0, 0);
        loop {
            let step = store.verify(&start, 50_000).expect("reads");
            assert_eq!(step.damaged, Vec::<String>::new());
            // A step ends behind the row that fills it.
            assert!(step.bytes < 50_000 + 70_000 + 200);
            seen += step.rows;
            steps += 1;
            match step.next {
                Some(next) => start = next,
                None => break,
            }
        }
        assert_eq!(seen, 100, "{engine:?}");
        assert!((40..100).contains(&steps), "{engine:?}: {steps} steps");
        let mut told = 0;
        let verified = verify_all(&*store, |_| told += 1).expect("reads");
        assert!(verified.rows == 100 && verified.next.is_none() && 0 < told);
        assert!(verified.bytes <= store.disk_bytes().expect("looks"), "{engine:?}");
    }
}

#[test]
fn a_verifying_scan_beside_commits_finds_nothing_wrong() {
    let (noise, churn) = (support::Noise::new(), support::Churn::SMALL);
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..=40 {
                    store.commit(churn.batch(number, &noise)).expect("commits");
                }
            });
            while !writer.is_finished() {
                let verified = verify_all(&*store, |_| {}).expect("reads");
                assert_eq!(verified.damaged, Vec::<String>::new(), "{engine:?}");
            }
        });
    }
}

#[test]
fn space_that_deletes_have_freed_is_used_again() {
    let (noise, churn) = (support::Noise::new(), support::Churn { blocks: 600, live: 600, ..support::Churn::SMALL });
    for engine in ENGINES {
        let directory = temporary();
        let (_dir, store) = open(directory.path(), engine).expect("opens");
        let mut written = 0;
        for number in 1..=60 {
            let batch = churn.batch(number, &noise);
            written += batch.iter().filter_map(|(_, value)| value.as_ref()).map(bytes::Bytes::len).sum::<usize>();
            store.commit(batch).expect("commits");
        }
        let bytes = store.disk_bytes().expect("looks");
        // Up to 12 MiB are alive; sled takes 8 MiB at a time, never less than a few of those, and frees them late.
        let most = if engine == millstream_node::config::Engine::Sled { 96 << 20 } else { 32 << 20 };
        assert!(bytes < most && bytes < written as u64 * 3 / 4, "{engine:?}: {bytes} bytes for {written} written");
    }
}
