//! A store in memory, for tests: rows in an ordered map, blocks read back from it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::{Block, BlockError, BlockKey, Blocks, RowKey, State};

/// Rows, as checkpoints wrote them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) rows: BTreeMap<RowKey, Bytes>,
}

impl Blocks for Store {
    fn get(&self, key: BlockKey) -> Result<Arc<Block>, BlockError> {
        let body = self.rows.get(&key.row_key()).ok_or(BlockError::Missing { key })?;
        Ok(Arc::new(Block::decode(body.clone()).map_err(|error| error.of(key))?))
    }
}

impl Store {
    /// Writes what changed, and lets the written blocks leave memory. Says how many rows it wrote and deleted.
    pub(crate) fn checkpoint(&mut self, state: &mut State) -> (usize, usize) {
        let frozen = state.freeze();
        let (mut written, mut deleted) = (0, 0);
        for (key, value) in frozen.rows {
            match value {
                Some(value) => {
                    written += 1;
                    self.rows.insert(key, value);
                }
                None => {
                    deleted += usize::from(self.rows.remove(&key).is_some());
                }
            }
        }
        let keys: Vec<BlockKey> = frozen.blocks.iter().map(|(key, _)| *key).collect();
        state.thaw(&keys);
        (written, deleted)
    }

    /// The state as a restart would read it: from every row but the bodies.
    pub(crate) fn restore(&self) -> State {
        let heads = self.rows.iter().filter(|(key, _)| !key.is_body());
        State::restore(heads.map(|(key, value)| Ok::<_, Infallible>((key.clone(), value.clone()))))
            .expect("rows of a checkpoint fit together")
    }
}
