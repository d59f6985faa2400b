//! Snapshots on their way out: the newest checkpoint, copied to a file.
//!
//! All rows but block bodies are copied under a short pin, which holds up checkpoints and nothing else. The bodies, which
//! are most of it and never change, are copied afterwards while checkpoints go on; they are only held. The file is shared
//! by all who send it, and kept for a while for those whose connection broke.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_streams::BlockKey;
use millstream_streams::rows::{Garbage, body_of, garbage_range};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::shared::Shared;
use super::{blocks, checkpoint, rows};
use crate::network::SnapshotBytes;
use crate::storage::{DataDir, SnapshotWriter, StateStore, StoreError};
use crate::types::SnapshotMeta;
use crate::world::{File, OpenMode, World};

/// How long a file that nobody sends is kept: 60 s. Well above the longest pause between two attempts.
const KEPT: Duration = Duration::from_secs(60);

/// Refuses to begin what needs `bytes` in the file system of `path`, if they are not there beside the reserve. Where it
/// cannot be asked, the writes tell.
pub(crate) fn check_room(world: &World, path: &Path, bytes: u64, reserve_bytes: u64) -> io::Result<()> {
    let Ok(free_bytes) = world.fs.free_bytes(path) else { return Ok(()) };
    if free_bytes < bytes.saturating_add(reserve_bytes) {
        let problem = format!(
            "not enough room in {}: {free_bytes} bytes are free, and a snapshot takes {bytes} beside the reserve of \
             {reserve_bytes}; make room or enlarge the disk",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
    }
    Ok(())
}

/// A file that is removed when nobody needs it any more.
pub(crate) struct Spool {
    world: World,
    pub(crate) path: PathBuf,
}

impl Spool {
    pub(crate) fn new(world: &World, data_dir: &DataDir, kind: &str) -> Self {
        let number = world.random.next_u64();
        Self { world: world.clone(), path: data_dir.spool_path().join(format!("{kind}-{number:016x}")) }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is left behind is removed at the next start.
        let _ = self.world.fs.remove_file(&self.path);
    }
}

/// A copied checkpoint.
pub(crate) struct Spooled {
    pub(crate) meta: SnapshotMeta,
    /// Names these bytes.
    id: u64,
    _spool: Spool,
    file: Arc<dyn File>,
    len: u64,
    senders: AtomicUsize,
    /// When the last of the senders left. A std lock: for a copy.
    used: Mutex<Instant>,
}

impl Spooled {
    pub(crate) fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    /// The bytes, for one sender.
    pub(crate) fn bytes(self: &Arc<Self>) -> Box<dyn SnapshotBytes> {
        self.senders.fetch_add(1, Ordering::AcqRel);
        Box::new(Sending(self.clone()))
    }

    fn is_kept(&self) -> bool {
        0 < self.senders.load(Ordering::Acquire)
            || self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < KEPT
    }
}

struct Sending(Arc<Spooled>);

impl SnapshotBytes for Sending {
    fn id(&self) -> u64 {
        self.0.id
    }
    fn len(&self) -> u64 {
        self.0.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.file.read_exact_at(buf, offset)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.senders.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The copies that there are, and one in the making.
#[derive(Default)]
pub(crate) struct Outgoing {
    copying: tokio::sync::Mutex<()>,
    /// Grows while anything is done for a copy.
    progress: Arc<AtomicU64>,
    /// Held by the backup that is under way: one at a time.
    backup: Arc<tokio::sync::Mutex<()>>,
    /// A std lock: for a look.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newest: Option<Arc<Spooled>>,
    /// Older ones that may still be on their way.
    older: Vec<Arc<Spooled>>,
    /// The index of the checkpoint that is being copied.
    copying: Option<u64>,
}

/// Says that a checkpoint is being copied, while it lives.
struct Copying<'a>(&'a Outgoing);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.state().copying = None;
    }
}

impl Outgoing {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes copied since the start, whatever for. A checkpoint that was written for a copy counts as one.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The right to make a backup. `None`: another is under way.
    pub(crate) fn begin_backup(&self) -> Option<OwnedMutexGuard<()>> {
        self.backup.clone().try_lock_owned().ok()
    }

    /// The copy that there is, if the log goes on from it: then it is as good as a newer one, and perhaps half sent.
    pub(crate) fn usable(&self, first_log_index: u64) -> Option<Arc<Spooled>> {
        self.state().newest.clone().filter(|spooled| first_log_index <= spooled.index() + 1)
    }

    /// The copy of this id, if it is still there.
    pub(crate) fn named(&self, id: u64) -> Option<Arc<Spooled>> {
        let state = self.state();
        state.newest.iter().chain(&state.older).find(|spooled| spooled.id == id).cloned()
    }

    /// The index behind which the log must be kept, for those who are being sent a copy.
    pub(crate) fn needs_log_from(&self) -> Option<u64> {
        let state = self.state();
        let copies = state.newest.iter().chain(&state.older);
        let kept = copies.filter(|spooled| spooled.is_kept()).map(|spooled| spooled.index());
        kept.into_iter().chain(state.copying).min()
    }

    /// Removes the copy if nobody has wanted it for a while.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        state.older.retain(|spooled| spooled.is_kept());
        if state.newest.as_ref().is_some_and(|spooled| !spooled.is_kept()) {
            state.newest = None;
        }
    }

    /// A copy of a checkpoint that covers all that is applied now. Writes and copies one if there is none.
    pub(crate) async fn copy_applied(&self, shared: &Arc<Shared>) -> io::Result<Arc<Spooled>> {
        let least = shared.machine().applied_index();
        checkpoint::write(shared).await?;
        self.progress.fetch_add(1, Ordering::Relaxed);
        let copy = self.copy_newest(shared).await?;
        if copy.index() < least {
            return Err(io::Error::other(format!(
                "the newest checkpoint covers the log up to entry {}, and {least} is needed",
                copy.index()
            )));
        }
        Ok(copy)
    }

    /// A copy of the newest checkpoint, which there must be. Copies it if there is none. Fails if the state is suspect.
    pub(crate) async fn copy_newest(&self, shared: &Arc<Shared>) -> io::Result<Arc<Spooled>> {
        let _one_at_a_time = self.copying.lock().await;
        check_trusted(shared)?;
        let pin = shared.pins.pin().await;
        // Read from the store itself: whoever has just written a checkpoint may not have said so yet.
        let (world, store) = (shared.world.clone(), shared.blocks.store());
        let source = store.clone();
        let meta = world.blocking(move || coverage(&*source)).await?;
        if let Some(spooled) = self.state().newest.clone()
            && spooled.meta == meta
        {
            return Ok(spooled);
        }
        let (room, source, place) = (world.clone(), store.clone(), shared.data_dir.spool_path());
        let reserve_bytes = shared.config.log.reserve_bytes;
        let check = move || {
            let bytes = source.disk_bytes().map_err(io::Error::other)?;
            check_room(&room, &place, bytes, reserve_bytes)
        };
        world.blocking(check).await?;
        self.state().copying = Some(meta.last_log_id.map_or(0, |id| id.index));
        let _copying = Copying(self);
        let held = shared.pins.hold_bodies();
        let spool = Spool::new(&world, &shared.data_dir, "outgoing");
        let started = Instant::now();

        let (index, path, source, copied) = (world.clone(), spool.path.clone(), store.clone(), self.progress.clone());
        let job = move || Ok(copy_index(&index, &*source, &path, &copied));
        let (writer, bodies) = world.blocking(job).await?.map_err(|error| not_copied(shared, error))?;
        let pinned = started.elapsed();
        drop(pin);

        let (source, copied) = (store.clone(), self.progress.clone());
        let job = move || Ok(copy_bodies(writer, &*source, bodies, &copied));
        let len = world.blocking(job).await?.map_err(|error| not_copied(shared, error))?;
        drop(held);
        tracing::info!(
            index = meta.last_log_id.map_or(0, |id| id.index),
            len,
            pinned_ms = pinned.as_millis(),
            copied_ms = started.elapsed().as_millis(),
            "copied a checkpoint to be sent"
        );

        // The copying itself may have found damage.
        check_trusted(shared)?;
        let file = world.fs.open(&spool.path, OpenMode::Read)?;
        let (id, senders, used) = (world.random.next_u64(), AtomicUsize::new(0), Mutex::new(Instant::now()));
        let spooled = Arc::new(Spooled { meta, id, _spool: spool, file, len, senders, used });
        let mut state = self.state();
        let before = state.newest.replace(spooled.clone());
        state.older.extend(before.filter(|before| before.is_kept()));
        drop(state);
        Ok(spooled)
    }
}

/// Damage that the copying has found stops this node. A file that cannot be written does not.
fn not_copied(shared: &Shared, error: StoreError) -> io::Error {
    if matches!(error, StoreError::Corrupt { .. }) {
        shared.blocks.failed(&error);
    }
    io::Error::other(error)
}

/// What is suspect goes to nobody.
pub(crate) fn check_trusted(shared: &Shared) -> io::Result<()> {
    if shared.is_suspect() {
        return Err(io::Error::other("the stored state of this node cannot be relied on: ask another node"));
    }
    Ok(())
}

/// What the checkpoint in the store covers.
fn coverage(store: &dyn StateStore) -> io::Result<SnapshotMeta> {
    let row = store.get(rows::COVERAGE).map_err(io::Error::other)?;
    let row = row.ok_or_else(|| io::Error::other("no checkpoint has been written yet"))?;
    let (last_log_id, last_membership) = rows::decode_coverage(&row).map_err(io::Error::other)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

/// The rows that belong to nobody any more and are not swept yet: ranges, by their first keys.
fn garbage(store: &dyn StateStore) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let (start, end) = garbage_range();
    let mut garbage = BTreeMap::from([(rows::core_key(&start), rows::core_key(&end))]);
    for row in store.scan(&rows::core_key(&start), &rows::core_key(&end)) {
        let (key, value) = row?;
        let Some(key) = rows::from_core_key(&key) else { continue };
        if let Some(Garbage::Ranges(ranges)) = Garbage::read(&key, &value).map_err(malformed)? {
            garbage.extend(ranges.iter().map(|(start, end)| (rows::core_key(start), rows::core_key(end))));
        }
    }
    Ok(garbage)
}

fn malformed(error: millstream_streams::DecodeError) -> StoreError {
    StoreError::Corrupt { what: error.to_string() }
}

/// Copies all rows but bodies and garbage, and notes the bodies that they name, with the number of entries.
fn copy_index(
    world: &World,
    store: &dyn StateStore,
    path: &Path,
    copied: &AtomicU64,
) -> Result<(SnapshotWriter, Vec<(BlockKey, u32)>), StoreError> {
    let mut writer = SnapshotWriter::create(world, path)?;
    let mut bodies = Vec::new();
    let garbage = garbage(store)?;
    let (_, end) = rows::index_range();
    for row in store.scan(&[], &end) {
        let (key, value) = row?;
        copied.fetch_add((key.len() + value.len()) as u64, Ordering::Relaxed);
        if garbage.range(..=key.clone()).next_back().is_some_and(|(_, end)| key < *end) {
            continue;
        }
        if let Some(key) = rows::from_core_key(&key) {
            bodies.extend(body_of(&key, &value).map_err(malformed)?);
        }
        writer.row(&key, &value)?;
    }
    Ok((writer, bodies))
}

/// Copies the bodies. What was added to one since is left out. Each must be there with all its entries, so that what is
/// missing here is not missing elsewhere, too.
fn copy_bodies(
    mut writer: SnapshotWriter,
    store: &dyn StateStore,
    bodies: Vec<(BlockKey, u32)>,
    copied: &AtomicU64,
) -> Result<u64, StoreError> {
    for (body, entries) in bodies {
        let block = blocks::walk_body(store, body, entries, |key, value| {
            copied.fetch_add((key.len() + value.len()) as u64, Ordering::Relaxed);
            writer.row(key, value)
        })?;
        if block.is_none() {
            return Err(StoreError::Corrupt { what: format!("block {body:?} is named, but it is not there") });
        }
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::super::incoming::Place;
    use super::super::testing::{Lone, Story};
    use super::*;

    /// Copies the store of a story as a snapshot.
    fn copy(story: &Story) -> Result<Vec<Vec<u8>>, StoreError> {
        let (world, directory, copied) = (World::real(), tempfile::tempdir().unwrap(), AtomicU64::new(0));
        let path = directory.path().join("copy");
        let (writer, bodies) = copy_index(&world, &*story.store(), &path, &copied)?;
        let before = copied.load(Ordering::Relaxed);
        copy_bodies(writer, &*story.store(), bodies, &copied)?;
        assert!(0 < before && before < copied.load(Ordering::Relaxed), "progress is seen in both phases");
        Ok(crate::storage::SnapshotFile::open(&world, &path).unwrap().map(|row| row.unwrap().0).collect())
    }

    /// Two blocks, the second in three parts, and the keys of the rows of bodies.
    fn in_parts() -> (Story, Vec<Vec<u8>>) {
        let mut story = Story::new();
        for entries in [100, 30, 30, 30] {
            story.append("orders", entries);
            story.write(false);
        }
        let stored = story.stored().into_iter().filter(|(key, _)| key.is_body());
        let bodies = stored.map(|(key, _)| rows::core_key(&key)).collect();
        (story, bodies)
    }

    #[test]
    fn a_body_that_is_not_whole_is_not_copied() {
        let (story, bodies) = in_parts();
        assert_eq!(bodies.len(), 4);
        let whole = copy(&story).unwrap();
        assert!(bodies.iter().all(|body| whole.contains(body)));
        for body in &bodies {
            let (story, _) = in_parts();
            story.store().commit(vec![(body.clone(), None)]).unwrap();
            let copied = copy(&story);
            assert!(matches!(copied, Err(StoreError::Corrupt { .. })), "without {body:?}: {copied:?}");
        }
        // One that is there and holds what belongs elsewhere is no better.
        let other = story.store().get(&bodies[1]).unwrap();
        story.store().commit(vec![(bodies[3].clone(), other)]).unwrap();
        assert!(matches!(copy(&story), Err(StoreError::Corrupt { .. })));
    }

    #[tokio::test]
    async fn damage_that_the_copying_finds_stops_the_node_and_nobody_gets_a_copy() {
        let node = Lone::start().await;
        let (shared, calls) = (node.shared(), node.replica.calls());
        node.append("orders", 10).await;
        let good = shared.outgoing.copy_applied(shared).await.unwrap();
        node.append("orders", 10).await;
        assert!(checkpoint::write(shared).await.unwrap());
        let store = shared.blocks.store();
        let is_part = |key: &Vec<u8>| rows::from_core_key(key).and_then(|key| key.body_part()).is_some();
        let bodies: Vec<_> = store.scan(&[], &[0xff]).map(|row| row.unwrap().0).filter(is_part).collect();
        store.commit(vec![(bodies.last().unwrap().clone(), None)]).unwrap();

        assert!(shared.outgoing.copy_newest(shared).await.is_err());
        assert!(shared.is_suspect());
        let sentence = node.replica.failed().await;
        assert!(sentence.contains("cannot be relied on") && sentence.contains("start it again"), "{sentence}");
        // Nor a copy of what was good before, as far as anybody knows.
        for wanted in [0, good.id] {
            let problem = calls.newest_snapshot(wanted).await.map(drop).unwrap_err();
            assert!(problem.contains("ask another node"), "{problem}");
        }
        let announced = super::super::snapshot::newest(shared).unwrap();
        let spooled = announced.snapshot.spool().await.map(drop);
        assert!(spooled.unwrap_err().to_string().contains("ask another node"));
        assert!(node.replica.backup().await.is_err());
        assert!(!checkpoint::write(shared).await.unwrap(), "and nothing is added to it");
    }

    #[tokio::test]
    async fn no_copy_is_begun_without_room_for_it() {
        let node = Lone::start().await;
        let shared = node.shared();
        node.append("orders", 10).await;
        assert!(checkpoint::write(shared).await.unwrap());
        let reserve = shared.config.log.reserve_bytes;
        node.disk.free.store(reserve, Ordering::SeqCst);
        let problem = shared.outgoing.copy_newest(shared).await.map(drop).unwrap_err().to_string();
        assert!(problem.contains("not enough room in") && problem.contains("make room"), "{problem}");
        assert!(problem.contains(&format!("{reserve} bytes are free")), "{problem}");
        let spool = shared.data_dir.spool_path();
        assert!(shared.world.fs.list(&spool).unwrap().is_empty());
        assert!(shared.outgoing.needs_log_from().is_none() && !shared.pins.bodies_held());

        // The same on the way in: once as a file, and once as a store.
        let (place, length) = (Place::of(shared), 1_000_000);
        let too_little = [reserve + length, reserve + 2 * length - 1];
        for free in too_little {
            node.disk.free.store(free, Ordering::SeqCst);
            let problem = shared.incoming.sink(&place, 7, length).map(drop).unwrap_err().to_string();
            assert!(problem.contains("not enough room in") && problem.contains("make room"), "{problem}");
            assert!(shared.world.fs.list(&spool).unwrap().is_empty());
        }
        node.disk.free.store(reserve + 2 * length, Ordering::SeqCst);
        shared.incoming.sink(&place, 7, length).unwrap().write(&[0; 1_000]).unwrap();
        // What has come of it needs no room any more.
        node.disk.free.store(reserve + 2 * length - 1_000, Ordering::SeqCst);
        assert_eq!(shared.incoming.sink(&place, 7, length).unwrap().received(), 1_000);
        node.disk.free.store(1 << 40, Ordering::SeqCst);
        shared.outgoing.copy_newest(shared).await.unwrap();
        node.stop().await;
    }
}
