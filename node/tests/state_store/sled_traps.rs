//! What is known to go wrong with sled, one test each.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_node::config::Engine;
use millstream_node::storage::StoreError;

use crate::support::{Churn, Noise, Random, all, open, pattern, put, temporary};

/// sled never syncs the files below this.
fn blobs(state: &Path) -> usize {
    std::fs::read_dir(state.join("1/sled/blobs")).map_or(0, Iterator::count)
}

/// sled moves a leaf above a quarter of its segment to a file that it never syncs. A leaf holds up to 16 of our pieces and
/// what replaced them since it was last rewritten.
#[test]
fn blob_files_never_appear() {
    let (directory, mut random) = (temporary(), Random(1));
    let (_dir, store) = open(directory.path(), Engine::Sled).expect("opens");
    let mut model = BTreeMap::new();
    for round in 0..30_usize {
        let mut batch = Vec::new();
        for _ in 0..20 {
            // Whole pieces, close to each other, replaced over and over; and rows of many pieces.
            let key = vec![b'k', random.below(40) as u8];
            let pieces = [1, 1, 1, 1, 8][random.below(5) as usize];
            let value = pattern(pieces * (24 << 10), round);
            model.insert(key.clone(), value.clone());
            batch.retain(|(other, _)| *other != key);
            batch.push((key, Some(value)));
        }
        store.commit(batch).expect("commits");
        assert_eq!(blobs(directory.path()), 0, "round {round}");
    }
    assert_eq!(all(&*store), model);
}

#[test]
fn a_commit_is_refused_if_a_blob_file_appears() {
    let directory = temporary();
    let (_dir, store) = open(directory.path(), Engine::Sled).expect("opens");
    store.commit(vec![put(b"row", "1")]).expect("commits");
    std::fs::write(directory.path().join("1/sled/blobs/17"), b"x").expect("writes");
    let error = store.commit(vec![put(b"row", "2")]).expect_err("refuses");
    assert!(matches!(&error, StoreError::Io(_)) && error.to_string().contains("does not sync"), "{error}");
}

/// sled writes over a segment as soon as what was in it has been written elsewhere. `power.rs` cuts the power while it
/// does.
#[test]
fn segments_that_are_used_again_lose_nothing() {
    let (directory, noise) = (temporary(), Noise::new());
    let churn = Churn { blocks: 600, live: 600, block_bytes: 20 << 10, pages: 100 };
    let (mut number, mut written) = (0, 0);
    for _ in 0..4 {
        let (_dir, store) = open(directory.path(), Engine::Sled).expect("opens");
        assert_eq!(churn.check(&*store, &noise), Ok(number));
        for _ in 0..15 {
            number += 1;
            let batch = churn.batch(number, &noise);
            written += batch.iter().filter_map(|(_, value)| value.as_ref()).map(bytes::Bytes::len).sum::<usize>();
            store.commit(batch).expect("commits");
        }
        assert_eq!(churn.check(&*store, &noise), Ok(number));
    }
    let length = std::fs::metadata(directory.path().join("1/sled/db")).expect("is there").len();
    assert!(length < written as u64 * 3 / 4, "{length} bytes of {written}: segments were used again");
}

/// sled believes its own settings and panics or fails on others.
#[test]
fn an_open_that_panics_is_an_error() {
    let directory = temporary();
    drop(open(directory.path(), Engine::Sled).expect("opens"));
    std::fs::write(directory.path().join("1/sled/conf"), b"segment_size: what\n").expect("writes");
    assert!(open(directory.path(), Engine::Sled).is_err());
}
