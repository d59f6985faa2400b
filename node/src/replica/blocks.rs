//! Stored blocks, with a cache bounded in bytes. A block that does not verify is not served, and stops this node.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use bytes::Bytes;
use lru::LruCache;
use millstream_streams::{Block, BlockError, BlockKey, Blocks, FrozenBody};

use super::rows;
use super::shared::Shared;
use crate::storage::{StateStore, StoreError};

/// Bytes of blocks kept in memory: 64 MiB, some 5,000 blocks.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// What an entry costs in memory beside its names and values.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Blocks put into the cache under one hold of its lock, which readers wait for.
const KEEP_CHUNK: usize = 64;

/// The state store as the core sees it. The store behind it changes when a snapshot is installed.
pub(crate) struct StoredBlocks {
    store: RwLock<Arc<dyn StateStore>>,
    cache: Mutex<Cache>,
    /// Who is told of damage.
    shared: Weak<Shared>,
}

/// A store that is not used any more, and the blocks that were read from it.
pub(crate) struct Replaced {
    _store: Arc<dyn StateStore>,
    _cache: Cache,
}

struct Cache {
    blocks: LruCache<BlockKey, (Arc<Block>, usize)>,
    bytes: usize,
}

impl Cache {
    fn new() -> Self {
        // Bounded by bytes, not by count.
        Self { blocks: LruCache::unbounded(), bytes: 0 }
    }

    fn insert(&mut self, key: BlockKey, block: Arc<Block>) {
        let size: usize = block.entries().iter().map(|entry| entry.fields.packed_len() + ENTRY_OVERHEAD_BYTES).sum();
        self.bytes += size;
        if let Some((_, (_, replaced))) = self.blocks.push(key, (block, size)) {
            self.bytes -= replaced;
        }
        while self.bytes > CACHE_BYTES_MAX {
            let Some((_, (_, evicted))) = self.blocks.pop_lru() else { break };
            self.bytes -= evicted;
        }
    }
}

impl StoredBlocks {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store: RwLock::new(store), cache: Mutex::new(Cache::new()), shared: Weak::new() }
    }

    /// The store in use.
    pub(crate) fn store(&self) -> Arc<dyn StateStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another store in its place, after a snapshot was installed. What was there is to be dropped where blocking
    /// is allowed: the store closes, and removes its files, with its last user.
    pub(crate) fn replace(&self, store: Arc<dyn StateStore>) -> Replaced {
        let before = std::mem::replace(&mut *self.store.write().unwrap_or_else(PoisonError::into_inner), store);
        let cache = std::mem::replace(&mut *self.cache(), Cache::new());
        Replaced { _store: before, _cache: cache }
    }

    /// Takes over entries that a checkpoint has just stored, so that the newest stay in memory. Of a block whose first
    /// entries are not here, nothing is kept.
    pub(crate) fn keep(&self, bodies: &[FrozenBody]) {
        for chunk in bodies.chunks(KEEP_CHUNK) {
            let mut cache = self.cache();
            for body in chunk {
                let first = match body.held_from {
                    0 => None,
                    from => match cache.blocks.peek(&body.key).and_then(|(block, _)| block.cut(from)) {
                        Some(first) => Some(first),
                        None => continue,
                    },
                };
                let whole = match first {
                    None => Some(body.entries.clone()),
                    Some(first) => join(&first, body.held_from, &body.entries),
                };
                if let Some(whole) = whole {
                    cache.insert(body.key, whole);
                }
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as many rows of the body as it takes.
    fn read(&self, key: BlockKey, entries: u32) -> Result<Block, BlockError> {
        let read = read_body(&*self.store(), key, entries).inspect_err(|error| self.failed(error));
        read.map_err(|error| BlockError::Corrupt { key, problem: error.to_string() })?
            .ok_or(BlockError::Missing { key })
    }

    /// Names whom to tell of damage.
    pub(crate) fn watched_by(self, shared: Weak<Shared>) -> Self {
        Self { shared, ..self }
    }

    /// A read of the store came to this: the node stops.
    pub(crate) fn failed(&self, error: &StoreError) {
        let Some(shared) = self.shared.upgrade() else { return };
        match error {
            StoreError::Corrupt { .. } => shared.suspect(&error.to_string()),
            StoreError::Io(_) | StoreError::OtherEngine { .. } => {
                shared.fail(format!("{error}; mend the disk and start the node again"))
            }
        }
    }
}

/// Reads as many rows of a body as `entries` entries take, without a cache. `None`: it is not there.
pub(crate) fn read_body(store: &dyn StateStore, key: BlockKey, entries: u32) -> Result<Option<Block>, StoreError> {
    walk_body(store, key, entries, |_, _| Ok(()))
}

/// The same, and hands over each of the rows as it was read. An error of `each` ends it.
pub(crate) fn walk_body(
    store: &dyn StateStore,
    key: BlockKey,
    entries: u32,
    mut each: impl FnMut(&[u8], &Bytes) -> io::Result<()>,
) -> Result<Option<Block>, StoreError> {
    let damaged = |problem: String| StoreError::Corrupt { what: format!("block {key:?}: {problem}") };
    let first_key = rows::core_key(&key.row_key());
    let Some(row) = store.get(&first_key)? else { return Ok(None) };
    each(&first_key, &row)?;
    let mut block = Block::decode(row).map_err(|error| damaged(error.to_string()))?;
    let length = |block: &Block| block.entries().len() as u32;
    if entries <= length(&block) {
        return Ok(Some(block));
    }
    let (from, to) = key.parts_from(length(&block));
    let joined = (|| {
        for row in store.scan(&rows::core_key(&from), &rows::core_key(&to)) {
            let (stored_key, row) = row?;
            let part = rows::from_core_key(&stored_key).and_then(|key| key.body_part());
            let (_, position) = part.ok_or_else(|| damaged("a row among its parts is none".to_owned()))?;
            each(&stored_key, &row)?;
            let part = Block::decode(row).map_err(|error| damaged(error.to_string()))?;
            block.append_part(position, part).map_err(|error| damaged(error.to_string()))?;
            if entries <= length(&block) {
                return Ok(());
            }
        }
        Err(damaged(format!("{} entries instead of {entries}", length(&block))))
    })();
    match joined {
        Ok(()) => Ok(Some(block)),
        // Perhaps it was being deleted, and the first row is the first to go.
        Err(_) if store.get(&first_key)?.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first entries of a block and those that follow at a position.
fn join(first: &Block, position: u32, rest: &Block) -> Option<Arc<Block>> {
    let mut whole = first.clone();
    whole.append_part(position, rest.clone()).ok()?;
    Some(Arc::new(whole))
}

/// What is stored, read by somebody who looks on: past the cache, and nobody is told of damage.
pub(crate) struct Uncached<'a>(pub(crate) &'a StoredBlocks);

impl Blocks for Uncached<'_> {
    fn get(&self, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError> {
        let corrupt = |problem: String| BlockError::Corrupt { key, problem };
        let read = read_body(&*self.0.store(), key, entries).map_err(|error| corrupt(error.to_string()))?;
        let cut = Arc::new(read.ok_or(BlockError::Missing { key })?).cut(entries);
        cut.ok_or_else(|| corrupt(format!("less than {entries} entries")))
    }
}

impl Blocks for StoredBlocks {
    fn get(&self, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError> {
        let cached = self.cache().blocks.get(&key).and_then(|(block, _)| block.cut(entries));
        if let Some(block) = cached {
            return Ok(block);
        }
        let block = Arc::new(self.read(key, entries)?);
        self.cache().insert(key, block.clone());
        block.cut(entries).ok_or_else(|| BlockError::Corrupt { key, problem: format!("less than {entries} entries") })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use millstream_streams::{EntryId, RangeQuery};

    use super::super::testing::{Story, stream};
    use super::*;

    /// A block of 90 entries in three parts, and its keys.
    fn parted() -> (Story, BlockKey) {
        let mut story = Story::new();
        let mut key = None;
        for _ in 0..3 {
            story.append("orders", 30);
            key = story.write(false).first().map(|body| body.key);
        }
        (story, key.unwrap())
    }

    fn remove(story: &Story, key: &millstream_streams::RowKey) {
        story.store().commit(vec![(rows::core_key(key), None)]).unwrap();
    }

    #[test]
    fn a_body_in_parts_is_read_as_far_as_it_is_wanted() {
        let (story, key) = parted();
        for entries in [1, 30, 31, 60, 90, 10] {
            assert_eq!(story.blocks.get(key, entries).unwrap().entries().len(), entries as usize);
            let cold = StoredBlocks::new(story.store());
            assert_eq!(cold.get(key, entries).unwrap().entries().len(), entries as usize);
        }
        let cold = StoredBlocks::new(story.store());
        assert!(matches!(cold.get(key, 91), Err(BlockError::Corrupt { .. })));
        // One with fewer entries is in the cache, and is read again.
        cold.get(key, 20).unwrap();
        assert_eq!(cold.get(key, 80).unwrap().entries().len(), 80);
    }

    #[test]
    fn a_part_that_is_missing_is_damage_and_a_body_that_is_gone_is_missing() {
        let (story, key) = parted();
        let (second, _) = key.parts_from(30);
        remove(&story, &second);
        let cold = StoredBlocks::new(story.store());
        assert!(matches!(cold.get(key, 90), Err(BlockError::Corrupt { .. })));
        assert!(cold.get(key, 30).is_ok(), "what is wanted is there");
        remove(&story, &key.row_key());
        let cold = StoredBlocks::new(story.store());
        assert!(matches!(cold.get(key, 90), Err(BlockError::Missing { .. })));
    }

    #[test]
    fn the_tail_of_a_hot_stream_is_read_from_memory() {
        let mut story = Story::new();
        for round in 0..4 {
            story.append("orders", 30);
            let bodies = story.write(false);
            story.blocks.keep(&bodies);
            // Without its rows it can only come from the cache.
            bodies.iter().for_each(|body| {
                remove(&story, &body.key.row_key());
                let (from, _) = body.key.parts_from(1);
                remove(&story, &from);
            });
            let (start, end) = (EntryId::MIN, EntryId::MAX);
            let query = RangeQuery { stream: stream("orders"), start, end, reverse: true, count: 40 };
            let page = story.state.range(&query).run(&story.blocks, usize::MAX).unwrap();
            assert_eq!(page.entries.len(), 40.min(30 * (round + 1)));
        }
    }
}
