//! Generations of the state: an installed snapshot is a new store, and becomes the current one by one rename.
//!
//! ```text
//! state/CURRENT                   "<generation> <engine> <crc32c>\n"
//! state/CURRENT.new               what is to replace it, synced: of no meaning until it is renamed
//! state/<generation>/<engine>/    the store's files
//! state/<generation>/BATCHES      "<number of the last batch> <crc32c>\n"
//! state/broken-<generation>/      one that was of no use, kept for the operator
//! state/REBUILD                   why the current one is not complete, or not to be used (`rebuild.rs`)
//! ```
//! Each checksum (eight hexadecimal digits) covers the line before it, without the space.
//!
//! A crash leaves either the old or the new generation current; the other is removed at the next start.
//!
//! Every batch puts its number in the store, and then in `BATCHES`. A store that opens with a smaller number has lost
//! batches, and the log behind them may be purged. This is not idle caution: sled opens a file that was damaged or cut
//! anywhere without a word, with the state of some earlier moment or with none (`tests/state_store.rs`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::MemoryStore;
use super::rebuild::{Mark, Rebuild};
use super::redb::RedbStore;
use super::rows::{Counted, RowStore};
use super::sled::SledStore;
use super::{Batch, Rows, StateStore, StoreError, Verified};
use crate::config::Engine;
use crate::world::{OpenMode, World};

const CURRENT: &str = "CURRENT";
/// The next pointer, until one rename makes it the pointer.
const CURRENT_NEW: &str = "CURRENT.new";
const BATCHES: &str = "BATCHES";
const BROKEN: &str = "broken-";

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
    /// Why the state is not complete, if it is not.
    rebuild: Option<Rebuild>,
    /// The number of the last generation that was begun.
    last: u64,
    /// The generation that `CURRENT.new` names durably.
    prepared: Option<u64>,
}

/// A store that is not the current one yet.
pub struct NextGeneration {
    /// To be filled before [`StateDir::switch_to`].
    pub store: Arc<dyn StateStore>,
    generation: Arc<Generation>,
}

impl StateDir {
    /// Opens the state in the directory `path`, creating an empty one if there is none. Blocks on files.
    ///
    /// [`StoreError::Corrupt`] says that what is there is of no use (it does not open, has lost batches, or was marked by
    /// [`StateDir::mark_suspect`]): [`StateDir::set_aside`] starts anew. [`StoreError::Io`] is for the operator to mend.
    pub fn open(world: &World, path: &Path, engine: Engine) -> Result<(Self, Arc<dyn StateStore>), StoreError> {
        let fs = &*world.fs;
        create_directory(world, path)?;
        let rebuild = match Mark::read(world, path)? {
            Some(Mark::Suspect { reason }) => return Err(StoreError::corrupt(reason)),
            Some(Mark::Rebuilding(rebuild)) => Some(rebuild),
            None => None,
        };
        let pointer = path.join(CURRENT);
        let is_new = !fs.exists(&pointer)?;
        let number = if is_new { 1 } else { read_pointer(&fs.read_durably(&pointer)?, engine)? };
        if is_new {
            check_nothing_is_lost(world, path)?;
        }
        let directory = path.join(number.to_string());
        if !is_new && !fs.exists(&directory)? {
            return Err(StoreError::corrupt(format!("the directory {} is missing", directory.display())));
        }
        // Generations that were being filled, or whose removal was cut short.
        for other in generations(world, path)? {
            if other != number || is_new {
                fs.remove_dir_all(&path.join(other.to_string()))?;
            }
        }
        let current = match is_new {
            false => Generation::open(world, directory, number, engine)?,
            true => Generation::create(world, directory, number, engine)?,
        };
        if is_new {
            fs.sync_dir(path)?;
            write_pointer(world, path, number, engine)?;
        }
        let current = Arc::new(current);
        Ok(Self::new(world, path, engine, current, rebuild))
    }

    /// The generation and the engine of the state in the directory `path`, without opening it. `None`: there is none.
    pub fn current(world: &World, path: &Path) -> Result<Option<(u64, Engine)>, StoreError> {
        let pointer = path.join(CURRENT);
        if !world.fs.exists(&pointer)? {
            return Ok(None);
        }
        let nonsense = || StoreError::corrupt("the file CURRENT of the state makes no sense");
        let content = world.fs.read(&pointer)?;
        let (number, name) = parse_pointer(&content).ok_or_else(nonsense)?;
        let engine = ENGINES.into_iter().find(|engine| name_of(*engine) == name).ok_or_else(nonsense)?;
        Ok(Some((number, engine)))
    }

    /// Starts with an empty state because the one in `path` is of no use. That one is kept as `broken-<n>` for the
    /// operator, in place of an older one. Until [`StateDir::rebuilt`] is told of a state that has applied
    /// `least_index`, [`StateDir::must_rebuild`] says so, also after a restart. No store may be open in `path`. Blocks on
    /// files; after a crash at any step the state is still marked, or does still not open.
    pub fn set_aside(
        world: &World,
        path: &Path,
        engine: Engine,
        reason: &str,
        least_index: u64,
    ) -> Result<(Self, Arc<dyn StateStore>), StoreError> {
        let fs = &*world.fs;
        create_directory(world, path)?;
        let rebuild = Rebuild { reason: reason.to_owned(), least_index };
        Mark::Rebuilding(rebuild.clone()).write(world, path)?;

        // The pointer may be what is damaged.
        let pointer = path.join(CURRENT);
        let content = if fs.exists(&pointer)? { fs.read(&pointer)? } else { Vec::new() };
        let mut found = generations(world, path)?;
        let broken = match parse_pointer(&content) {
            // If it is gone, a crash came between the steps below.
            Some((number, _)) => found.contains(&number).then_some(number),
            None => found.last().copied(),
        };
        if let Some(broken) = broken {
            for name in fs.list(path)? {
                if name.starts_with(BROKEN) {
                    fs.remove_dir_all(&path.join(name))?;
                }
            }
            fs.rename(&path.join(broken.to_string()), &path.join(format!("{BROKEN}{broken}")))?;
            fs.sync_dir(path)?;
        }
        let number = found.pop().unwrap_or(0) + 1;
        let current = Arc::new(Generation::create(world, path.join(number.to_string()), number, engine)?);
        fs.sync_dir(path)?;
        write_pointer(world, path, number, engine)?;
        Ok(Self::new(world, path, engine, current, Some(rebuild)))
    }

    fn new(
        world: &World,
        path: &Path,
        engine: Engine,
        current: Arc<Generation>,
        rebuild: Option<Rebuild>,
    ) -> (Self, Arc<dyn StateStore>) {
        let store: Arc<dyn StateStore> = Arc::clone(&current) as _;
        let state = Mutex::new(State { last: current.number, current, rebuild, prepared: None });
        (Self { world: world.clone(), path: path.to_owned(), engine, state }, store)
    }

    /// What the state still lacks after it was set aside. `None` once [`StateDir::rebuilt`] has been told of enough.
    pub fn must_rebuild(&self) -> Option<Rebuild> {
        self.state().rebuild.clone()
    }

    /// Takes note that the current generation durably holds a state that has applied the log up to `applied_index`, and
    /// removes the mark if that is enough. Costs nothing if there is no mark; else blocks on files.
    pub fn rebuilt(&self, applied_index: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.rebuild.as_ref().is_some_and(|rebuild| rebuild.least_index <= applied_index) {
            Mark::remove(&self.world, &self.path)?;
            state.rebuild = None;
        }
        Ok(())
    }

    /// Records durably that the current state is damaged or differs from the others': [`StateDir::open`] will refuse it
    /// with this reason, so that the next start rebuilds it. The caller must stop the node. Blocks on files.
    pub fn mark_suspect(&self, reason: &str) -> Result<(), StoreError> {
        let _alone = self.state();
        Mark::Suspect { reason: reason.to_owned() }.write(&self.world, &self.path)
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
        let generation = Arc::new(Generation::create(&self.world, directory, number, self.engine)?);
        generation.obsolete.store(true, Ordering::Release);
        Ok(NextGeneration { store: Arc::clone(&generation) as _, generation })
    }

    /// Does all that can be done of [`StateDir::switch_to`] while the current generation goes on: the new one is on stable
    /// storage under its name, and so is the pointer to it, under another. A crash from here on leaves the old one
    /// current. Blocks on files. After an error it is not known what is durable, so the node must stop, unless the disk
    /// was full.
    pub fn prepare(&self, next: &NextGeneration) -> Result<(), StoreError> {
        self.prepare_locked(&mut self.state(), &next.generation)
    }

    fn prepare_locked(&self, state: &mut State, next: &Generation) -> Result<(), StoreError> {
        let fs = &*self.world.fs;
        // There is one such file: that of an attempt before is of no use from here on.
        state.prepared = None;
        let path = self.path.join(CURRENT_NEW);
        if fs.exists(&path)? {
            fs.remove_file(&path)?;
        }
        let file = fs.open(&path, OpenMode::CreateNew)?;
        file.write_all_at(pointer_to(next.number, self.engine).as_bytes(), 0)?;
        file.sync()?;
        // The names of both.
        fs.sync_dir(&self.path)?;
        state.prepared = Some(next.number);
        Ok(())
    }

    /// Makes a filled generation the current one, durably: one rename and one sync, if it was prepared before. The one
    /// before is removed when nobody uses it any more. Blocks on files. After an error either may be current on disk, so
    /// the node must stop.
    pub fn switch_to(&self, next: NextGeneration) -> Result<Arc<dyn StateStore>, StoreError> {
        let NextGeneration { store, generation } = next;
        let mut state = self.state();
        if state.prepared != Some(generation.number) {
            self.prepare_locked(&mut state, &generation)?;
        }
        state.prepared = None;
        // From here on it may be the one that the pointer names.
        generation.obsolete.store(false, Ordering::Release);
        self.world.fs.rename(&self.path.join(CURRENT_NEW), &self.path.join(CURRENT))?;
        if !millstream_streams::mutant!(InstallNotDurable) {
            self.world.fs.sync_dir(&self.path)?;
        }
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
    /// An empty one, in a directory that is not there yet.
    fn create(world: &World, directory: PathBuf, number: u64, engine: Engine) -> Result<Self, StoreError> {
        world.fs.create_dir_all(&directory)?;
        write_batches(world, &directory, 0)?;
        Self::open(world, directory, number, engine)
    }

    fn open(world: &World, directory: PathBuf, number: u64, engine: Engine) -> Result<Self, StoreError> {
        let rows = directory.join(name_of(engine));
        world.fs.create_dir_all(&rows)?;
        world.fs.sync_dir(&directory)?;
        let store: Box<dyn Counted> = match engine {
            Engine::Sled => Box::new(RowStore::open(SledStore::open(&rows)?)?),
            Engine::Redb => Box::new(RowStore::open(RedbStore::open(world, &rows)?)?),
            Engine::Memory => Box::new(RowStore::open(MemoryStore::open(world, &rows)?)?),
        };
        let stamp = directory.join(BATCHES);
        if !world.fs.exists(&stamp)? {
            return Err(StoreError::corrupt(format!("the file {} is missing", stamp.display())));
        }
        let expected = read_batches(&world.fs.read_durably(&stamp)?)?;
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

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.store()?.disk_bytes()
    }

    fn verify(&self, start: &[u8], bytes_max: u64) -> Result<Verified, StoreError> {
        self.store()?.verify(start, bytes_max)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store()?;
        store.commit(batch)?;
        write_batches(&self.world, &self.directory, store.batches())
    }
}

const ENGINES: [Engine; 3] = [Engine::Sled, Engine::Redb, Engine::Memory];

/// An engine's name on disk.
fn name_of(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => "sled",
        Engine::Redb => "redb",
        Engine::Memory => "memory",
    }
}

fn write_pointer(world: &World, path: &Path, number: u64, engine: Engine) -> Result<(), StoreError> {
    Ok(world.fs.write_atomically(&path.join(CURRENT), pointer_to(number, engine).as_bytes())?)
}

/// What the pointer to a generation says.
fn pointer_to(number: u64, engine: Engine) -> String {
    checked(&format!("{number} {}", name_of(engine)))
}

fn write_batches(world: &World, directory: &Path, number: u64) -> Result<(), StoreError> {
    Ok(world.fs.write_atomically(&directory.join(BATCHES), checked(&number.to_string()).as_bytes())?)
}

fn read_batches(content: &[u8]) -> Result<u64, StoreError> {
    let number = unchecked(content).and_then(|number| number.parse().ok());
    number.ok_or_else(|| StoreError::corrupt("the file BATCHES of the state makes no sense"))
}

/// A line with its checksum.
fn checked(line: &str) -> String {
    format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

/// The line in what [`checked`] has made of it.
fn unchecked(content: &[u8]) -> Option<&str> {
    let (line, _) = std::str::from_utf8(content).ok()?.rsplit_once(' ')?;
    (checked(line).as_bytes() == content).then_some(line)
}

/// Generation and engine.
fn parse_pointer(content: &[u8]) -> Option<(u64, &str)> {
    let (number, engine) = unchecked(content)?.split_once(' ')?;
    Some((number.parse().ok()?, engine))
}

fn read_pointer(content: &[u8], engine: Engine) -> Result<u64, StoreError> {
    let pointer = parse_pointer(content).filter(|(_, name)| ENGINES.iter().any(|known| name_of(*known) == *name));
    let Some((number, found)) = pointer else {
        return Err(StoreError::corrupt("the file CURRENT of the state makes no sense"));
    };
    if found != name_of(engine) {
        return Err(StoreError::OtherEngine { found: found.to_owned(), wanted: name_of(engine) });
    }
    Ok(number)
}

/// The numbers of the generations on disk, in order.
fn generations(world: &World, path: &Path) -> Result<Vec<u64>, StoreError> {
    let number = |name: &String| name.parse().ok().filter(|number: &u64| number.to_string() == *name);
    let mut numbers: Vec<u64> = world.fs.list(path)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Refuses a directory without a pointer in which a generation was used: nothing is committed before the pointer is there.
fn check_nothing_is_lost(world: &World, path: &Path) -> Result<(), StoreError> {
    for number in generations(world, path)? {
        let stamp = path.join(number.to_string()).join(BATCHES);
        if world.fs.exists(&stamp)? && read_batches(&world.fs.read(&stamp)?)? != 0 {
            return Err(StoreError::corrupt("the file CURRENT of the state is missing"));
        }
    }
    Ok(())
}

/// Creates the directory of the state if it is missing.
fn create_directory(world: &World, path: &Path) -> Result<(), StoreError> {
    world.fs.create_dir_all(path)?;
    if let Some(parent) = path.parent() {
        world.fs.sync_dir(parent)?;
    }
    Ok(())
}
