//! sled 0.34, with the discipline that makes its commits durable.
//!
//! What is known of it (ARCHITECTURE.md has the evidence): its `flush` issues `sync_file_range`, which neither flushes
//! the disk's cache nor records a grown file's length, so after each flush we sync its files ourselves. A leaf larger
//! than a quarter of a segment goes to a file of its own that nobody ever syncs; with segments of 8 MiB and values of
//! 24 KiB that does not happen, and if it does, the commit is refused. It panics on some damage; a panic is an error
//! here. Its background flushing is off: what is durable is decided by commits alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::guard;
use super::rows::{RawBatch, RawStore};
use super::{Rows, StoreError};

/// Size of sled's segments. Together with the size of our pieces it keeps leaves inside them.
const SEGMENT_BYTES: usize = 8 << 20;
/// sled's resident memory is up to ten times this.
const CACHE_BYTES: u64 = 32 << 20;

/// Between two attempts to take sled's lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Attempts to take sled's lock: 2 s.
const LOCK_ATTEMPTS: u32 = 200;

/// Unit of [`MetadataExt::blocks`].
const BLOCK_BYTES: u64 = 512;

const LOG: &str = "db";
const BLOBS: &str = "blobs";

/// The engine.
pub(super) struct SledStore {
    tree: sled::Tree,
    /// Keeps the tree's database open; closed last.
    _db: sled::Db,
    directory: PathBuf,
    /// sled's log, opened once: a later handle might not be told of an earlier write error.
    log: File,
    /// Length and time of the other files when they were last synced.
    synced: Mutex<BTreeMap<PathBuf, (u64, Option<SystemTime>)>>,
    /// How often the log was synced.
    log_syncs: AtomicU64,
}

impl SledStore {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(directory)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let mut attempts = 1;
        let (db, tree) = loop {
            let opened = guarded(|| {
                let db = config.open()?;
                let tree = db.open_tree("rows")?;
                Ok((db, tree))
            });
            match opened {
                // sled's threads may hold the file for a moment after it was closed. Nobody else can have it open: the data
                // directory is locked.
                Err(StoreError::Io(error)) if is_lock(&error) && attempts < LOCK_ATTEMPTS => attempts += 1,
                opened => break opened?,
            }
            std::thread::sleep(LOCK_PAUSE);
        };
        let store = Self {
            tree,
            _db: db,
            directory: directory.to_owned(),
            log: File::open(directory.join(LOG))?,
            synced: Mutex::default(),
            log_syncs: AtomicU64::new(0),
        };
        // What was read may come from the page cache of a process that died before its sync.
        store.sync()?;
        Ok(store)
    }

    /// Syncs what sled wrote beside its log: its settings and its own snapshots. They change rarely.
    fn sync_other_files(&self) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // sled replaces its snapshots.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_file() || entry.file_name() == LOG {
                continue;
            }
            let state = (metadata.len(), metadata.modified().ok());
            if synced.get(&entry.path()) != Some(&state) {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            found.insert(entry.path(), state);
        }
        if *synced != found {
            File::open(&self.directory)?.sync_all()?;
            *synced = found;
        }
        Ok(())
    }

    /// Refuses to go on if sled has put something where it never syncs it.
    fn check_blobs(&self) -> Result<(), StoreError> {
        match std::fs::read_dir(self.directory.join(BLOBS)).map(|mut blobs| blobs.next()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(io::Error::other(format!(
                "sled has moved rows out of its log, to files it does not sync, in {}: this checkpoint is not taken; \
                 choose another engine and report this",
                self.directory.join(BLOBS).display()
            ))
            .into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl RawStore for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = guarded(|| self.tree.get(key))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, start: Vec<u8>, end: Vec<u8>) -> Rows<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        let mut range = self.tree.range(start..end);
        let mut failed = false;
        Box::new(std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let found = guarded(|| range.next().transpose());
            failed = found.is_err();
            found.map(|row| row.map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(&value)))).transpose()
        }))
    }

    fn apply(&self, batch: RawBatch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, &*value),
                None => changes.remove(key),
            }
        }
        guarded(|| self.tree.apply_batch(changes))
    }

    fn sync(&self) -> Result<(), StoreError> {
        guarded(|| self.tree.flush())?;
        self.check_blobs()?;
        self.log.sync_data()?;
        self.log_syncs.fetch_add(1, Ordering::Relaxed);
        Ok(self.sync_other_files()?)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for directory in [self.directory.clone(), self.directory.join(BLOBS)] {
            for entry in std::fs::read_dir(directory)? {
                match entry?.metadata() {
                    Ok(metadata) if metadata.is_file() => bytes += metadata.blocks() * BLOCK_BYTES,
                    // sled replaces its snapshots.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(bytes)
    }
}

/// Whether sled says that its file is locked.
fn is_lock(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Calls sled. Its panics and its findings of damage are the same to us.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    guard::guarded("sled", || {
        call().map_err(|error| match error {
            sled::Error::Io(error) => StoreError::Io(error),
            // The rest is what it says of settings and names that nobody but sled itself has written.
            error => StoreError::corrupt(error.to_string()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_syncs_the_log() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = SledStore::open(directory.path()).expect("opens");
        let before = store.log_syncs.load(Ordering::Relaxed);
        assert_eq!(before, 1, "what was read is synced before it is used");
        for round in 1..=3 {
            store.apply(vec![(vec![round], Some(Bytes::from_static(b"v")))]).expect("applies");
            store.sync().expect("syncs");
            assert_eq!(store.log_syncs.load(Ordering::Relaxed), before + u64::from(round));
        }
        let synced = store.synced.lock().expect("not poisoned");
        assert!(synced.keys().any(|path| path.ends_with("conf")), "the settings are synced: {synced:?}");
    }

    #[test]
    fn rows_outside_the_log_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = SledStore::open(directory.path()).expect("opens");
        std::fs::write(directory.path().join(BLOBS).join("1"), b"x").expect("writes");
        assert!(store.sync().expect_err("refuses").to_string().contains("blobs"));
    }
}
