//! A store in memory: an ordered map, blocks read back from it.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::rows::{Garbage, garbage_range};
use millstream_streams::{Block, BlockError, BlockKey, Blocks, Frozen, FrozenBody, RowKey, State};

/// Rows, as checkpoints wrote them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) rows: BTreeMap<RowKey, Bytes>,
}

impl Blocks for Store {
    fn get(&self, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError> {
        let body = self.rows.get(&key.row_key()).ok_or(BlockError::Missing { key })?;
        let mut body = Block::decode(body.clone()).map_err(|error| error.of(key))?;
        let (from, to) = key.parts_from(1);
        for (part, row) in self.rows.range(from..=to) {
            let (_, position) = part.body_part().expect("a part's key");
            let part = Block::decode(row.clone()).map_err(|error| error.of(key))?;
            body.append_part(position, part).map_err(|error| error.of(key))?;
        }
        Arc::new(body)
            .cut(entries)
            .ok_or_else(|| BlockError::Corrupt { key, problem: format!("less than {entries} entries") })
    }
}

impl Store {
    /// Writes what changed. Says how many rows it wrote and deleted, and what may leave memory.
    pub(crate) fn write(&mut self, state: &mut State) -> (usize, usize, Vec<FrozenBody>) {
        let frozen = state.freeze();
        self.write_frozen(frozen)
    }

    /// Writes what was frozen.
    pub(crate) fn write_frozen(&mut self, frozen: Frozen) -> (usize, usize, Vec<FrozenBody>) {
        let frozen = frozen.into_rows();
        assert!(frozen.rows.is_sorted_by(|(a, _), (b, _)| a < b), "in key order, each key once");
        let (mut written, mut deleted) = (0, 0);
        for (key, value) in frozen.rows {
            match value {
                Some(value) => {
                    written += 1;
                    let before = self.rows.insert(key.clone(), value);
                    assert!(before.is_none() || !key.is_body(), "{key:?} is written twice");
                }
                None => {
                    deleted += usize::from(self.rows.remove(&key).is_some());
                }
            }
        }
        (written, deleted, frozen.bodies)
    }

    /// Writes what changed, and lets the written entries leave memory. Says how many rows it wrote and deleted.
    pub(crate) fn checkpoint(&mut self, state: &mut State) -> (usize, usize) {
        let (written, deleted, bodies) = self.write(state);
        drop(state.thaw(&bodies));
        (written, deleted)
    }

    /// The state as a restart would read it: from every row but the bodies.
    pub(crate) fn restore(&self) -> State {
        let heads = self.rows.iter().filter(|(key, _)| !key.is_body());
        State::restore(heads.map(|(key, value)| Ok::<_, Infallible>((key.clone(), value.clone()))))
            .expect("rows of a checkpoint fit together")
    }

    /// Deletes at most so many rows of garbage; says whether that was all.
    pub(crate) fn sweep(&mut self, rows: usize) -> bool {
        let mut left = rows;
        let (from, to) = garbage_range();
        let garbage: Vec<_> = self.rows.range(from..to).map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in garbage {
            let keys = match Garbage::read(&key, &value).expect("a row of garbage").expect("a row of garbage") {
                Garbage::Ranges(ranges) => {
                    let rows =
                        |(from, to)| self.rows.range::<RowKey, _>(from..to).map(|(key, _)| key.clone()).collect();
                    ranges.into_iter().flat_map(|range: (RowKey, RowKey)| -> Vec<RowKey> { rows(range) }).collect()
                }
                Garbage::Rows(keys) => keys,
            };
            for key in keys.into_iter().chain([key]) {
                if left == 0 {
                    return false;
                }
                left -= usize::from(self.rows.remove(&key).is_some());
            }
        }
        true
    }

    /// Holds that the store has just the rows of this state, beside garbage: nothing is missing, and nothing is left
    /// behind. It must have been written just now.
    pub(crate) fn check(&self, state: &State) {
        let rows = state.all_rows(self).expect("every body is there");
        assert_eq!(self.restore().all_rows(self).expect("every body is there"), rows, "a restart changes nothing");
        let mut swept = self.clone();
        swept.sweep(usize::MAX);
        assert_eq!(swept.restore().all_rows(&swept).expect("every body is there"), rows, "a sweep changes nothing");
        // Each body in one row, as the state shows them.
        let of = |key: &RowKey| key.body_part().map_or_else(|| key.clone(), |(block, _)| block.row_key());
        let mut left: Vec<RowKey> = swept.rows.keys().map(of).collect();
        left.dedup();
        assert_eq!(left, rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
    }
}
