//! Two hashes to compare replicas by: one of the history, cheap on every command; one of the whole state, for tests.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::rows::RowKey;

/// The digest after a proposal: a hash of the digest before it, its index, its bytes and its outcome. Proposal and
/// outcome go in by their own hashes, so that no byte can move from one to the other unnoticed.
pub(crate) fn chain(previous: u128, index: u64, proposal: &[u8], outcome: &[u8]) -> u128 {
    let mut link = [0; 56];
    let parts = [
        &previous.to_le_bytes()[..],
        &index.to_le_bytes(),
        &xxh3_128(proposal).to_le_bytes(),
        &xxh3_128(outcome).to_le_bytes(),
    ];
    let mut rest = &mut link[..];
    for part in parts {
        let (place, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = tail;
    }
    xxh3_128(&link)
}

/// A hash of rows: keys and values, each behind its length.
pub(crate) fn rows(rows: &[(RowKey, Bytes)]) -> u128 {
    let mut hash = Xxh3Default::new();
    for (key, value) in rows {
        for part in [key.as_bytes(), value] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.digest128()
}
