//! A map in memory, written whole to one file at each commit.
//!
//! Slow for anything large, and therefore not for production; but it goes through the world's file system, so the
//! simulator can tear, lose and damage its file.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::rows::{RawBatch, RawStore};
use super::{Rows, StoreError};
use crate::world::{OpenMode, World};

const FILE: &str = "rows";
const MAGIC: &[u8; 8] = b"MILROWS\x01";

type Map = BTreeMap<Vec<u8>, Bytes>;

/// The engine.
pub(super) struct MemoryStore {
    world: World,
    path: PathBuf,
    /// Shared with scans, which see the map as it was when they began.
    map: Mutex<Arc<Map>>,
}

impl MemoryStore {
    pub(super) fn open(world: &World, directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let map = if world.fs.exists(&path)? { parse(&world.fs.read_durably(&path)?)? } else { Map::new() };
        Ok(Self { world: world.clone(), path, map: Mutex::new(Arc::new(map)) })
    }

    fn map(&self) -> MutexGuard<'_, Arc<Map>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map().get(key).cloned())
    }

    fn scan(&self, start: Vec<u8>, end: Vec<u8>) -> Rows<'_> {
        let map = Arc::clone(&self.map());
        let mut from = Bound::Included(start);
        Box::new(std::iter::from_fn(move || {
            let (key, value) = map.range::<Vec<u8>, _>((from.as_ref(), Bound::Unbounded)).next()?;
            if end <= *key {
                return None;
            }
            from = Bound::Excluded(key.clone());
            Some(Ok((key.clone(), value.clone())))
        }))
    }

    fn apply(&self, batch: RawBatch) -> Result<(), StoreError> {
        let mut map = self.map();
        let map = Arc::make_mut(&mut map);
        for (key, value) in batch {
            match value {
                // A copy, so that a small value does not keep a large buffer alive.
                Some(value) => drop(map.insert(key, Bytes::copy_from_slice(&value))),
                None => drop(map.remove(&key)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let map = Arc::clone(&self.map());
        Ok(self.world.fs.write_atomically(&self.path, &write(&map))?)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        if !self.world.fs.exists(&self.path)? {
            return Ok(0);
        }
        Ok(self.world.fs.open(&self.path, OpenMode::Read)?.len()?)
    }
}

/// Magic number, rows as lengths and bytes, crc32c of all that.
fn write(map: &Map) -> Vec<u8> {
    let mut content = MAGIC.to_vec();
    for (key, value) in map {
        content.extend_from_slice(&(key.len() as u32).to_le_bytes());
        content.extend_from_slice(&(value.len() as u32).to_le_bytes());
        content.extend_from_slice(key);
        content.extend_from_slice(value);
    }
    let crc = crc32c::crc32c(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

fn parse(content: &[u8]) -> Result<Map, StoreError> {
    let damaged = || StoreError::corrupt("the file of rows does not match its checksum");
    let (content, crc) = content.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let mut rest = content.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let mut map = Map::new();
    while let Some((lengths, after)) = rest.split_first_chunk::<8>() {
        let (key, value) = lengths.split_at(4);
        let length = |bytes: &[u8]| bytes.try_into().map_or(usize::MAX, |bytes| u32::from_le_bytes(bytes) as usize);
        let (key, after) = after.split_at_checked(length(key)).ok_or_else(damaged)?;
        let (value, after) = after.split_at_checked(length(value)).ok_or_else(damaged)?;
        map.insert(key.to_vec(), Bytes::copy_from_slice(value));
        rest = after;
    }
    Ok(map)
}
