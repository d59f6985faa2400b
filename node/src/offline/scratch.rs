//! A copy of a state, to be opened in place of the original.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ToolError;
use crate::config::Engine;
use crate::storage::{StateDir, StateStore, StoreError};
use crate::world::{OpenMode, World};

/// Bytes copied at once: 1 MiB.
const CHUNK_BYTES: usize = 1 << 20;

/// A directory that is removed at the end.
pub struct Scratch {
    world: World,
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It has a name of its own and is in a directory for such things: no harm is done if it stays.
        let _ = self.world.fs.remove_dir_all(&self.path);
    }
}

/// A state opened on a copy. The fields are dropped in order: the engine is closed before its files go.
pub(super) struct OpenedState {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) directory: StateDir,
    /// Which generation of the state it is. The first is the node's own; later ones came from elsewhere.
    pub(super) generation: u64,
    _scratch: Scratch,
}

/// The current generation of a state, on disk.
pub(super) struct StoredState {
    path: PathBuf,
    pub(super) generation: u64,
    pub(super) engine: Engine,
    files: Vec<(PathBuf, u64)>,
}

impl StoredState {
    /// Finds the state in the directory `path`. `None`: there is none yet.
    pub(super) fn find(world: &World, path: &Path) -> Result<Option<Self>, StoreError> {
        let Some((generation, engine)) = StateDir::current(world, path)? else {
            let names = world.fs.list(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(Vec::new()),
                _ => Err(error),
            })?;
            return match names.iter().any(|name| name.parse::<u64>().is_ok()) {
                true => Err(StoreError::Corrupt { what: "the file CURRENT of the state is missing".to_owned() }),
                false => Ok(None),
            };
        };
        let mut files = Vec::new();
        let directory = PathBuf::from(generation.to_string());
        match list(world, path, &directory, &mut files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = format!("the directory {} is missing", path.join(&directory).display());
                return Err(StoreError::Corrupt { what });
            }
            listed => listed?,
        }
        for name in world.fs.list(path)? {
            // The pointer, and the mark of a state that must be built anew.
            if matches!(name.as_str(), "CURRENT" | "REBUILD") {
                let bytes = world.fs.open(&path.join(&name), OpenMode::Read)?.len()?;
                files.push((name.into(), bytes));
            }
        }
        Ok(Some(Self { path: path.to_owned(), generation, engine, files }))
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Its files.
    pub(super) fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// Copies the state to a scratch directory in `parent`. `progress` is told the bytes copied so far.
    pub(super) fn copy(
        &self,
        world: &World,
        parent: Option<&Path>,
        mut progress: impl FnMut(u64),
    ) -> Result<Scratch, ToolError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let shown = parent.display().to_string();
        world.fs.create_dir_all(&parent).map_err(ToolError::io(format!("{shown} cannot be made")))?;
        let free = world.fs.free_bytes(&parent).map_err(ToolError::io(format!("the room in {shown} is not known")))?;
        if free < self.bytes() {
            return Err(ToolError::NoRoom { path: shown, needed: self.bytes(), free });
        }
        let path = parent.join(format!("millstream-scratch-{:016x}", world.random.next_u64()));
        let scratch = Scratch { world: world.clone(), path };
        let mut copied = 0;
        for (name, _) in &self.files {
            let (from, to) = (self.path.join(name), scratch.path.join(name));
            let what = || format!("{} cannot be copied to {}", from.display(), to.display());
            copy(world, &from, &to, |bytes| {
                copied += bytes;
                progress(copied);
            })
            .map_err(|source| ToolError::Io { what: what(), source })?;
        }
        Ok(scratch)
    }

    /// Opens the copy.
    pub(super) fn open(&self, world: &World, scratch: Scratch) -> Result<OpenedState, StoreError> {
        let (directory, store) = StateDir::open(world, &scratch.path, self.engine)?;
        Ok(OpenedState { store, directory, generation: self.generation, _scratch: scratch })
    }
}

/// Lists the files below `name` in `root`, with their lengths.
fn list(world: &World, root: &Path, name: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    match world.fs.list(&root.join(name)) {
        Ok(names) => names.iter().try_for_each(|inner| list(world, root, &name.join(inner), files)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            files.push((name.to_owned(), world.fs.open(&root.join(name), OpenMode::Read)?.len()?));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn copy(world: &World, from: &Path, to: &Path, mut progress: impl FnMut(u64)) -> io::Result<()> {
    if let Some(directory) = to.parent() {
        world.fs.create_dir_all(directory)?;
    }
    let source = world.fs.open(from, OpenMode::Read)?;
    let target = world.fs.open(to, OpenMode::CreateNew)?;
    let (length, mut at) = (source.len()?, 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    while at < length {
        let bytes = (length - at).min(CHUNK_BYTES as u64);
        let chunk = &mut chunk[..bytes as usize];
        source.read_exact_at(chunk, at)?;
        target.write_all_at(chunk, at)?;
        at += bytes;
        progress(bytes);
    }
    Ok(())
}
