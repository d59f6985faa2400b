//! Stored blocks, with a cache bounded in bytes.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lru::LruCache;
use millstream_streams::{Block, BlockError, BlockKey, Blocks};

use super::rows;
use crate::storage::StateStore;

/// Bytes of blocks kept in memory: 64 MiB, some 5,000 blocks.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// What an entry costs in memory beside its names and values.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The state store as the core sees it. The store behind it changes when a snapshot is installed.
pub(crate) struct StoredBlocks {
    store: RwLock<Arc<dyn StateStore>>,
    cache: Mutex<Cache>,
}

struct Cache {
    blocks: LruCache<BlockKey, (Arc<Block>, usize)>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, key: BlockKey, block: Arc<Block>) {
        let size: usize = block.entries().iter().map(|entry| entry.fields.byte_len() + ENTRY_OVERHEAD_BYTES).sum();
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
        // Bounded by bytes, not by count.
        let cache = Cache { blocks: LruCache::unbounded(), bytes: 0 };
        Self { store: RwLock::new(store), cache: Mutex::new(cache) }
    }

    /// The store in use.
    pub(crate) fn store(&self) -> Arc<dyn StateStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another store in its place, after a snapshot was installed.
    pub(crate) fn replace(&self, store: Arc<dyn StateStore>) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.blocks.clear();
        cache.bytes = 0;
    }

    /// Takes over blocks that a checkpoint has just stored, so that the newest entries stay in memory. Replaces older
    /// versions of the same blocks.
    pub(crate) fn keep(&self, blocks: Vec<(BlockKey, Arc<Block>)>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, block) in blocks {
            cache.insert(key, block);
        }
    }
}

impl Blocks for StoredBlocks {
    fn get(&self, key: BlockKey) -> Result<Arc<Block>, BlockError> {
        if let Some((block, _)) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).blocks.get(&key) {
            return Ok(block.clone());
        }
        let stored = self.store().get(&rows::core_key(&key.row_key()));
        let row = stored.map_err(|error| BlockError::Corrupt { key, problem: error.to_string() })?;
        let row = row.ok_or(BlockError::Missing { key })?;
        let block = Arc::new(Block::decode(row).map_err(|error| error.of(key))?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, block.clone());
        Ok(block)
    }
}
