//! A stored state as tools see it: what its rows say, and whether they fit together.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::rows::{body_of, describes};
use millstream_streams::{Block, BlockKey, RowKey, State};

use super::{rows, snapshot};
use crate::storage::{StateStore, StoreError};
use crate::types::{LogId, StoredMembership};

/// Problems that are listed of one kind. The rest is counted.
const LISTED_MAX: usize = 100;

/// How far a state has applied the log, and the membership there. `None`: no checkpoint was ever written.
pub(crate) fn coverage(store: &dyn StateStore) -> Result<Option<(Option<LogId>, StoredMembership)>, StoreError> {
    let Some(row) = store.get(rows::COVERAGE)? else { return Ok(None) };
    rows::decode_coverage(&row).map(Some).map_err(|what| StoreError::Corrupt { what })
}

/// A row in one line. The error says what is wrong with it.
pub(crate) fn describe(key: &[u8], value: &Bytes) -> Result<String, String> {
    if key == rows::COVERAGE {
        let (log_id, membership) = rows::decode_coverage(value)?;
        let log_id = log_id.map_or("-".to_owned(), |log_id| log_id.to_string());
        return Ok(format!("Coverage = [log_id: {log_id}, membership: {membership}]"));
    }
    let core = rows::from_core_key(key).ok_or_else(|| format!("a key that makes no sense: {}", key.escape_ascii()))?;
    millstream_streams::describe(&core, value).map_err(|error| format!("{core:?}: {error}"))
}

/// The state, restored as a start would do it.
pub(crate) fn restore(store: &dyn StateStore) -> Result<State, String> {
    snapshot::restore_state(store).map_err(snapshot::why_not_restored)
}

/// What a look at all blocks has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlocksFound {
    /// Blocks that the index names, with bodies of their own.
    pub(crate) blocks: u64,
    /// Entries in the bodies of those, deleted ones included.
    pub(crate) entries: u64,
    /// Bytes of all bodies.
    pub(crate) bytes: u64,
    /// Bodies that nothing names: still to be swept away.
    pub(crate) unnamed: u64,
    /// What is wrong, one sentence each.
    pub(crate) damage: Vec<String>,
}

/// Reads the index and all bodies, each once and in their order on disk. Holds the index in memory, as a node does.
/// `progress` is told the bytes of bodies so far.
pub(crate) fn blocks(store: &dyn StateStore, mut progress: impl FnMut(u64)) -> Result<BlocksFound, StoreError> {
    let mut found = BlocksFound::default();
    let mut named: BTreeMap<BlockKey, Named> = BTreeMap::new();
    let (start, bodies) = rows::index_range();
    for row in store.scan(&start, &bodies) {
        // What does not verify is reported by whoever verifies the store.
        let Ok((stored, value)) = row else { continue };
        let Some(key) = rows::from_core_key(&stored) else { continue };
        match body_of(&key, &value) {
            Ok(Some((body, entries))) => drop(named.insert(body, Named { entries, row: value })),
            Ok(None) => {}
            Err(error) => found.wrong(format!("{key:?}: {error}")),
        }
    }
    found.blocks = named.len() as u64;

    let mut at_hand: Option<(BlockKey, Block)> = None;
    for row in store.scan(&bodies, &[0xff]) {
        let (stored, value) = match row {
            Ok(row) => row,
            Err(StoreError::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        found.bytes += value.len() as u64;
        progress(found.bytes);
        let key = rows::from_core_key(&stored);
        let Some((body, position)) = key.as_ref().and_then(RowKey::body_part) else {
            found.wrong(format!("a key that makes no sense: {}", stored.escape_ascii()));
            continue;
        };
        let part = match Block::decode(value) {
            Ok(part) => part,
            Err(error) => {
                found.wrong(error.of(body).to_string());
                continue;
            }
        };
        match &mut at_hand {
            Some((other, block)) if *other == body => {
                if let Err(error) = block.append_part(position, part) {
                    found.wrong(error.of(body).to_string());
                }
            }
            _ => {
                if let Some((before, block)) = at_hand.replace((body, part)) {
                    found.compare(before, block, named.remove(&before));
                }
                if position != 0 {
                    found.wrong(format!("block {body:?}: its first entries are missing"));
                }
            }
        }
    }
    if let Some((last, block)) = at_hand {
        found.compare(last, block, named.remove(&last));
    }
    for key in named.into_keys() {
        found.wrong(format!("block {key:?} is named by the index, but it is not there or does not verify"));
    }
    Ok(found)
}

/// What the index says of a body.
struct Named {
    entries: u32,
    row: Bytes,
}

impl BlocksFound {
    fn wrong(&mut self, problem: String) {
        if self.damage.len() < LISTED_MAX {
            self.damage.push(problem);
        }
    }

    fn compare(&mut self, key: BlockKey, block: Block, named: Option<Named>) {
        let Some(Named { entries, row }) = named else {
            self.unnamed += 1;
            return;
        };
        self.entries += u64::from(entries);
        let found = block.entries().len();
        if found < entries as usize {
            self.wrong(format!("block {key:?} has {found} of {entries} entries"));
        } else if !matches!(describes(&row, &Arc::new(block)), Ok(true)) {
            self.wrong(format!("block {key:?} holds other entries than its index says"));
        }
    }
}
