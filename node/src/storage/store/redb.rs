//! redb 4, on the world's file system.
//!
//! One table in one file. A commit is redb's own transaction in two phases with the state of its allocator in it
//! ("quick repair"): two syncs, and an open after a crash that reads a few pages instead of all. Pages are verified below
//! it (`pages.rs`). redb starts no threads and asks for no time, so the simulator can hold it.

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition, TableError};

use super::guard::guarded;
use super::pages::CheckedFile;
use super::rows::{RawBatch, RawStore};
use super::{Rows, StoreError};
use crate::world::{File, OpenMode, World};

/// redb's cache: 64 MiB, of which at most half hold what a commit has not written to the file yet.
const CACHE_BYTES: usize = 64 << 20;

const FILE: &str = "rows.redb";
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// The engine.
pub(super) struct RedbStore {
    /// `None` only while it is dropped.
    db: Option<Database>,
    file: Arc<dyn File>,
    damage: Arc<OnceLock<String>>,
}

impl RedbStore {
    pub(super) fn open(world: &World, directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let file = match world.fs.exists(&path)? {
            true => world.fs.open(&path, OpenMode::Write)?,
            false => world.fs.open(&path, OpenMode::CreateNew)?,
        };
        world.fs.sync_dir(directory)?;
        // What is read may come from the page cache of a process that died before its sync.
        file.sync()?;
        let damage = Arc::new(OnceLock::new());
        let checked = CheckedFile::new(Arc::clone(&file), Arc::clone(&damage))?;
        let mut store = Self { db: None, file, damage };
        let db = store.call(|| {
            let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(checked)?;
            if let Err(TableError::TableDoesNotExist(_)) = db.begin_read()?.open_table(TABLE) {
                let transaction = begin_write(&db)?;
                transaction.open_table(TABLE)?;
                transaction.commit()?;
            }
            Ok(db)
        })?;
        store.db = Some(db);
        Ok(store)
    }

    fn db(&self) -> Result<&Database, redb::Error> {
        self.db.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn call<T>(&self, call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
        guarded("redb", || call().map_err(|error| self.explain(error)))
    }

    fn explain(&self, error: redb::Error) -> StoreError {
        match (error, self.damage.get()) {
            // The damage is why redb does not go on.
            (redb::Error::PreviousIo, Some(damage)) => StoreError::corrupt(damage.clone()),
            (redb::Error::Io(error), _) => StoreError::Io(error),
            (redb::Error::Corrupted(what), _) => StoreError::corrupt(what),
            (error, _) => StoreError::Io(io::Error::other(error)),
        }
    }
}

/// Each commit is durable, and the next open finds the allocator's state in it.
fn begin_write(db: &Database) -> Result<redb::WriteTransaction, redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

impl RawStore for RedbStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.call(|| {
            let table = self.db()?.begin_read()?.open_table(TABLE)?;
            let found = table.get(key)?;
            Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    fn scan(&self, start: Vec<u8>, end: Vec<u8>) -> Rows<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        let range = self.call(|| {
            let table = self.db()?.begin_read()?.open_table(TABLE)?;
            Ok(table.range::<&[u8]>((Bound::Included(&start[..]), Bound::Excluded(&end[..])))?)
        });
        let mut range = match range {
            Ok(range) => Some(range),
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        Box::new(std::iter::from_fn(move || {
            let rows = range.as_mut()?;
            let row = self.call(|| match rows.next() {
                Some(row) => {
                    let (key, value) = row?;
                    Ok(Some((key.value().to_vec(), Bytes::copy_from_slice(value.value()))))
                }
                None => Ok(None),
            });
            if !matches!(row, Ok(Some(_))) {
                range = None;
            }
            row.transpose()
        }))
    }

    fn apply(&self, batch: RawBatch) -> Result<(), StoreError> {
        self.call(|| {
            let transaction = begin_write(self.db()?)?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for (key, value) in batch {
                    match value {
                        Some(value) => drop(table.insert(&key[..], &value[..])?),
                        None => drop(table.remove(&key[..])?),
                    }
                }
            }
            Ok(transaction.commit()?)
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        // A commit returns when it is on stable storage.
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.file.disk_bytes()?)
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // redb writes when it closes. If it cannot, the next open does the work.
        let db = self.db.take();
        if let Err(error) = guarded("redb", || {
            drop(db);
            Ok(())
        }) {
            tracing::warn!(%error, "the state store did not close in good order");
        }
    }
}
