//! Two hashes to compare replicas by: one of the history, cheap on every command; one of the whole state, for tests.
//!
//! The hash of the history covers each proposal and a summary of what came of it: ids and numbers that show whether the
//! states are the same. It does not cover the outcome itself: a later version may say more in it, and must still agree with
//! this one.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::commands::Command;
use crate::entry_id::EntryId;
use crate::error::Outcome;
use crate::rows::RowKey;

/// What came of a command, as the digest covers it. What a reply puts into it is for ever.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<u8>);

impl Summary {
    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds an id.
    pub(crate) fn id(&mut self, id: EntryId) {
        self.number(id.ms);
        self.number(id.seq);
    }

    /// Adds ids behind their number.
    pub(crate) fn ids(&mut self, ids: &[EntryId]) {
        self.number(ids.len() as u64);
        ids.iter().for_each(|id| self.id(*id));
    }

    /// Adds an outcome: that of a command that was refused by the number of the refusal alone, for its words may change.
    pub(crate) fn outcome(&mut self, command: &Command, outcome: &Outcome) {
        match outcome {
            Ok(reply) => {
                self.number(0);
                command.summarize(reply, self);
            }
            Err(refusal) => self.number(1 + u64::from(refusal.number())),
        }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The digest after a proposal: a hash of the digest before it, its index, its bytes and the summary of its outcome.
/// Proposal and summary go in by their own hashes, so that no byte can move from one to the other unnoticed.
pub(crate) fn chain(previous: u128, index: u64, proposal: &[u8], Summary(outcome): &Summary) -> u128 {
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
