//! Generations of the state: an installed snapshot is a new store, and becomes the current one by one rename.
//!
//! ```text
//! state/CURRENT                   "<generation> <engine>\n"
//! state/<generation>/<engine>/    the store's files
//! state/<generation>/BATCHES      "<number of the last batch>\n"
//! ```
//! A crash leaves either the old or the new generation current; the other is removed at the next start.
//!
//! Every batch puts its number in the store, and then in `BATCHES`. A store that opens with a smaller number has lost
//! batches, and the log behind them may be purged. This is not idle caution: sled opens a file that was damaged or cut
//! anywhere without a word, with the state of some earlier moment or with none (`tests/state_store.rs`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::MemoryStore;
use super::rows::{Counted, RowStore};
use super::sled::SledStore;
use super::{Batch, Rows, StateStore, StoreError};
use crate::config::Engine;
use crate::world::World;

const CURRENT: &str = "CURRENT";
const BATCHES: &str = "BATCHES";

/// The directory of the state.
pub struct StateDir {
    world: World,
    path: PathBuf,
    engine: Engine,
    /// A std lock: also held while the pointer is replaced, which only snapshots do.
    state: Mutex<State>,
}

struct State {
    current: Arc<Generation>,
    /// The number of the last generation that was begun.
    last: u64,
}

/// A store that is not the current one yet.
pub struct NextGeneration {
    /// To be filled before [`StateDir::switch_to`].
    pub store: Arc<dyn StateStore>,
    generation: Arc<Generation>,
}

impl StateDir {
    /// Opens the state in the directory `path`, creating an empty one if there is none. Blocks on files.
    pub fn open(world: &World, path: &Path, engine: Engine) -> Result<(Self, Arc<dyn StateStore>), StoreError> {
        let fs = &*world.fs;
        fs.create_dir_all(path)?;
        if let Some(parent) = path.parent() {
            fs.sync_dir(parent)?;
        }
        let pointer = path.join(CURRENT);
        let number = if fs.exists(&pointer)? { read_pointer(&fs.read(&pointer)?, engine)? } else { 1 };
        // Generations that were being filled, or whose removal was cut short.
        for name in fs.list(path)? {
            if name.parse::<u64>().is_ok_and(|other| other != number) {
                fs.remove_dir_all(&path.join(name))?;
            }
        }
        let is_new = !fs.exists(&pointer)?;
        let directory = path.join(number.to_string());
        if is_new && fs.exists(&directory)? {
            fs.remove_dir_all(&directory)?;
        }
        if !is_new && !fs.exists(&directory)? {
            return Err(StoreError::corrupt(format!("the directory {} is missing", directory.display())));
        }
        let current = Arc::new(Generation::open(world, directory, number, engine)?);
        if is_new {
            fs.sync_dir(path)?;
            write_pointer(world, path, number, engine)?;
        }
        let store: Arc<dyn StateStore> = Arc::clone(&current) as _;
        let state = Mutex::new(State { current, last: number });
        Ok((Self { world: world.clone(), path: path.to_owned(), engine, state }, store))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an empty generation beside the current one. It is removed when it is dropped. Blocks on files.
    pub fn create_next(&self) -> Result<NextGeneration, StoreError> {
        let number = {
            let mut state = self.state();
            state.last += 1;
            state.last
        };
        let directory = self.path.join(number.to_string());
        if self.world.fs.exists(&directory)? {
            self.world.fs.remove_dir_all(&directory)?;
        }
        let generation = Arc::new(Generation::open(&self.world, directory, number, self.engine)?);
        generation.obsolete.store(true, Ordering::Release);
        Ok(NextGeneration { store: Arc::clone(&generation) as _, generation })
    }

    /// Makes a filled generation the current one, durably. The one before is removed when nobody uses it any more.
    /// Blocks on files. After an error either may be current on disk, so the node must stop.
    pub fn switch_to(&self, next: NextGeneration) -> Result<Arc<dyn StateStore>, StoreError> {
        let NextGeneration { store, generation } = next;
        let mut state = self.state();
        self.world.fs.sync_dir(&self.path)?;
        // From here on it may be the one that the pointer names.
        generation.obsolete.store(false, Ordering::Release);
        write_pointer(&self.world, &self.path, generation.number, self.engine)?;
        let before = std::mem::replace(&mut state.current, generation);
        before.obsolete.store(true, Ordering::Release);
        Ok(store)
    }
}

/// One store and its directory.
struct Generation {
    /// `None` only while it is dropped.
    store: Option<Box<dyn Counted>>,
    /// Held by whoever commits.
    commits: Mutex<()>,
    world: World,
    directory: PathBuf,
    number: u64,
    /// Whether the directory goes with it.
    obsolete: AtomicBool,
}

impl Generation {
    fn open(world: &World, directory: PathBuf, number: u64, engine: Engine) -> Result<Self, StoreError> {
        let rows = directory.join(name_of(engine));
        world.fs.create_dir_all(&rows)?;
        world.fs.sync_dir(&directory)?;
        let store: Box<dyn Counted> = match engine {
            Engine::Sled => Box::new(RowStore::open(SledStore::open(&rows)?)?),
            Engine::Memory => Box::new(RowStore::open(MemoryStore::open(world, &rows)?)?),
        };
        let stamp = directory.join(BATCHES);
        let expected = if world.fs.exists(&stamp)? { read_number(&world.fs.read(&stamp)?)? } else { 0 };
        let found = store.batches();
        if found < expected {
            return Err(StoreError::corrupt(format!(
                "{} holds {found} of at least {expected} batches",
                directory.display()
            )));
        }
        let (world, obsolete) = (world.clone(), AtomicBool::new(false));
        Ok(Self { store: Some(store), commits: Mutex::new(()), world, directory, number, obsolete })
    }

    fn store(&self) -> Result<&dyn Counted, StoreError> {
        self.store.as_deref().ok_or_else(|| std::io::Error::other("the store is closed").into())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Closed first: an engine may write while it closes.
        self.store = None;
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = self.world.fs.remove_dir_all(&self.directory)
        {
            let path = self.directory.display();
            tracing::warn!(%path, %error, "an old state could not be removed; the next start tries again");
        }
    }
}

impl StateStore for Generation {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
        self.store()?.get(key)
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Rows<'_> {
        match self.store() {
            Ok(store) => store.scan(start, end),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store()?;
        store.commit(batch)?;
        let number = format!("{}\n", store.batches());
        Ok(self.world.fs.write_atomically(&self.directory.join(BATCHES), number.as_bytes())?)
    }
}

/// An engine's name on disk.
fn name_of(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => "sled",
        Engine::Memory => "memory",
    }
}

fn write_pointer(world: &World, path: &Path, number: u64, engine: Engine) -> Result<(), StoreError> {
    let content = format!("{number} {}\n", name_of(engine));
    Ok(world.fs.write_atomically(&path.join(CURRENT), content.as_bytes())?)
}

fn read_number(content: &[u8]) -> Result<u64, StoreError> {
    let number = std::str::from_utf8(content).ok().and_then(|content| content.strip_suffix('\n')?.parse().ok());
    number.ok_or_else(|| StoreError::corrupt("the file BATCHES of the state makes no sense"))
}

fn read_pointer(content: &[u8], engine: Engine) -> Result<u64, StoreError> {
    let pointer = std::str::from_utf8(content).ok().and_then(|content| content.strip_suffix('\n')?.split_once(' '));
    let Some((Ok(number), found)) = pointer.map(|(number, found)| (number.parse(), found)) else {
        return Err(StoreError::corrupt("the file CURRENT of the state makes no sense"));
    };
    if found != name_of(engine) {
        return Err(std::io::Error::other(format!(
            "the state was written by the engine {found}, not {}: start with engine {found}, or with an empty data \
             directory under a new node id",
            name_of(engine)
        ))
        .into());
    }
    Ok(number)
}
