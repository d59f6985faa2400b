//! What the tests of the stores share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millstream_node::config::Engine;
use millstream_node::storage::{Batch, StateDir, StateStore, StoreError};
use millstream_node::world::World;

pub const ENGINES: [Engine; 3] = [Engine::Sled, Engine::Redb, Engine::Memory];

pub fn name_of(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => "sled",
        Engine::Redb => "redb",
        Engine::Memory => "memory",
    }
}

pub fn engine_of(name: &str) -> Engine {
    ENGINES.into_iter().find(|engine| name_of(*engine) == name).expect("an engine's name")
}

pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

pub fn open(path: &Path, engine: Engine) -> Result<(StateDir, Arc<dyn StateStore>), StoreError> {
    StateDir::open(&World::real(), path, engine)
}

/// All rows, or the first error.
pub fn read_all(store: &dyn StateStore) -> Result<BTreeMap<Vec<u8>, Bytes>, StoreError> {
    store.scan(b"", &[0xff; 8]).collect()
}

pub fn all(store: &dyn StateStore) -> BTreeMap<Vec<u8>, Bytes> {
    read_all(store).expect("verifies")
}

pub fn put(key: &[u8], value: impl Into<Bytes>) -> (Vec<u8>, Option<Bytes>) {
    (key.to_vec(), Some(value.into()))
}

/// A value whose every byte depends on its place.
pub fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|at| (at / 251 + at + seed) as u8).collect()
}

/// The file that holds most of an engine's rows, in the first generation.
pub fn main_file(path: &Path, engine: Engine) -> PathBuf {
    path.join("1").join(match engine {
        Engine::Sled => "sled/db",
        Engine::Redb => "redb/rows.redb",
        Engine::Memory => "memory/rows",
    })
}

pub fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Batches as checkpoints write them while a stream is trimmed: new blocks, old ones deleted, pages rewritten. The n-th
/// batch depends on nothing but its number and these sizes, so that what a store should hold can be computed.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Blocks written in a batch, at most.
    pub blocks: u64,
    /// Blocks that are kept at least, if all batches were full.
    pub live: u64,
    /// Bytes of a block, at most.
    pub block_bytes: u64,
    /// Pages, of which a quarter is rewritten in each batch. Some are large.
    pub pages: u64,
}

/// Number of the last batch, in each batch.
pub const NUMBER: &[u8] = b"number";

const NOISE_BYTES: usize = 1 << 18;

impl Churn {
    /// Small enough for a debug build.
    pub const SMALL: Self = Self { blocks: 12, live: 100, block_bytes: 16 << 10, pages: 40 };

    /// The changes of batch `number`, by key: the value's length and seed.
    fn changes(self, number: u64) -> BTreeMap<Vec<u8>, Option<(usize, u64)>> {
        let mut random = Random(number);
        let mut changes = BTreeMap::new();
        let count = random.below(self.blocks) + 1;
        for nth in 0..count {
            let key = [b"block", &(number * self.blocks + nth).to_be_bytes()[..]].concat();
            changes.insert(key, Some((random.below(self.block_bytes) as usize, random.next())));
        }
        // What was written long ago goes.
        for old in self.trimmed(number - 1)..self.trimmed(number) {
            for nth in 0..self.blocks {
                changes.insert([b"block", &(old * self.blocks + nth).to_be_bytes()[..]].concat(), None);
            }
        }
        for _ in 0..self.pages / 4 {
            let page = random.below(self.pages);
            let bytes = if page == 0 { 100_000 } else { 3_000 };
            let value = if random.below(10) == 0 { None } else { Some((random.below(bytes) as usize, random.next())) };
            changes.insert([b"page", &page.to_be_bytes()[..]].concat(), value);
        }
        changes
    }

    /// The batch before which all blocks are gone after batch `number`. Four batches only add and four remove twice as
    /// much, so that files grow and space is used again in turns.
    fn trimmed(self, number: u64) -> u64 {
        let turn = number % 8;
        number.saturating_sub(self.live / self.blocks + if turn < 4 { turn } else { 8 - turn })
    }

    /// Batch `number`, from 1.
    pub fn batch(self, number: u64, noise: &Noise) -> Batch {
        let changes = self.changes(number).into_iter();
        let mut batch: Batch = changes.map(|(key, value)| (key, value.map(|value| noise.value(value)))).collect();
        batch.push(put(NUMBER, number.to_be_bytes().to_vec()));
        batch
    }

    /// What a store holds after batch `number`.
    pub fn expected(self, number: u64) -> BTreeMap<Vec<u8>, (usize, u64)> {
        let mut expected = BTreeMap::new();
        for batch in 1..=number {
            for (key, value) in self.changes(batch) {
                match value {
                    Some(value) => drop(expected.insert(key, value)),
                    None => drop(expected.remove(&key)),
                }
            }
        }
        expected
    }

    /// The number of the last batch in a store whose content is exactly what it should be after that batch.
    pub fn check(self, store: &dyn StateStore, noise: &Noise) -> Result<u64, String> {
        let number = store.get(NUMBER).map_err(|error| error.to_string())?;
        let number = number.map_or(0, |number| u64::from_be_bytes((*number).try_into().expect("eight bytes")));
        let mut expected = self.expected(number);
        for row in store.scan(b"", &[0xff; 8]) {
            let (key, value) = row.map_err(|error| error.to_string())?;
            if key == NUMBER {
                continue;
            }
            let shown = key.escape_ascii();
            match expected.remove(&key) {
                None => return Err(format!("batch {number}: row {shown} should not be there")),
                Some(wanted) if noise.value(wanted) != value => {
                    return Err(format!("batch {number}: row {shown} is not what was written"));
                }
                Some(_) => {}
            }
        }
        match expected.keys().next() {
            Some(key) => Err(format!("batch {number}: row {} is lost, of {} lost", key.escape_ascii(), expected.len())),
            None => Ok(number),
        }
    }
}

/// Where values are cut from, because a debug build makes random bytes slowly.
pub struct Noise(Bytes);

impl Noise {
    pub fn new() -> Self {
        let mut random = Random(7);
        Self((0..NOISE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect())
    }

    fn value(&self, (length, seed): (usize, u64)) -> Bytes {
        let start = (seed % (NOISE_BYTES - length) as u64) as usize;
        self.0.slice(start..start + length)
    }
}
