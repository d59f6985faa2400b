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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::rows::{RawBatch, RawStore};
use super::{Rows, StoreError};

/// Size of sled's segments. Together with the size of our pieces it keeps leaves inside them.
const SEGMENT_BYTES: usize = 8 << 20;
/// sled's resident memory is up to ten times this.
const CACHE_BYTES: u64 = 32 << 20;

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
        let (db, tree) = guarded(|| {
            let db = config.open()?;
            let tree = db.open_tree("rows")?;
            Ok((db, tree))
        })?;
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
}

/// Calls sled. Its panics and its findings of damage are the same to us.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    // Nothing of ours is left half done by a panic; what sled has left so is not used again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(StoreError::Io(error)),
        Ok(Err(error @ sled::Error::Corruption { .. })) => Err(StoreError::corrupt(error.to_string())),
        Ok(Err(error)) => Err(StoreError::Io(io::Error::other(error))),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::corrupt(format!("sled panicked: {said}")))
        }
    }
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

    #[test]
    fn a_panic_is_damage() {
        let error = guarded(|| -> sled::Result<()> { panic!("as sled does") }).expect_err("fails");
        assert!(matches!(error, StoreError::Corrupt { what } if what.contains("as sled does")));
    }
}
