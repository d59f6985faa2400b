//! Snapshots on their way in.
//!
//! Bytes go to a file in the spool; when the connection breaks, the file stays for the next attempt with the same bytes.
//! Once all are there, the new generation of the store is built and verified beside the current one, which goes on
//! serving. Only then openraft hears of it, and has nothing left to do but to swap.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::storage::Snapshot;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::Shared;
use super::snapshot::{self, ReadySnapshot};
use super::spool::{Spool, check_room};
use super::{Raft, Replica};
use crate::network::{Reception, SnapshotOffer, SnapshotSink};
use crate::storage::DataDir;
use crate::types::Vote;
use crate::world::{File, OpenMode, World};

/// How long the first bytes of a snapshot are kept for another attempt: 10 minutes. The sender has long made another by
/// then.
const ABANDONED: Duration = Duration::from_secs(600);

/// Where a snapshot goes, and what has to be left there.
pub(crate) struct Place<'a> {
    pub(crate) world: &'a World,
    pub(crate) data_dir: &'a DataDir,
    pub(crate) reserve_bytes: u64,
}

impl<'a> Place<'a> {
    pub(crate) fn of(shared: &'a Shared) -> Self {
        Self { world: &shared.world, data_dir: &shared.data_dir, reserve_bytes: shared.config.log.reserve_bytes }
    }
}

/// The snapshot that is on its way in: one at a time.
#[derive(Default)]
pub(crate) struct Incoming {
    current: Slot,
}

/// A std lock: for a look. Taken before that of a [`Partial`], never after.
type Slot = Arc<Mutex<Option<Current>>>;

fn look(slot: &Slot) -> std::sync::MutexGuard<'_, Option<Current>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Current {
    id: u64,
    phase: Phase,
}

enum Phase {
    Receiving(Arc<Partial>),
    Installing(watch::Receiver<Option<Result<Vote, String>>>),
}

impl Incoming {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        look(&self.current)
    }

    /// Removes what an attempt has left that nobody goes on with.
    pub(crate) fn expire(&self) {
        let mut current = self.current();
        let abandoned = |partial: &Partial| ABANDONED <= partial.state().used.elapsed();
        if matches!(&*current, Some(Current { phase: Phase::Receiving(partial), .. }) if abandoned(partial)) {
            tracing::info!("a snapshot that came in part is given up");
            *current = None;
        }
    }

    /// A place for the bytes of a snapshot: that of an earlier attempt if they are the same. Fails if there is no room for
    /// them, once as a file and once as a store.
    pub(crate) fn sink(&self, place: &Place<'_>, id: u64, length: u64) -> io::Result<Box<dyn SnapshotSink>> {
        let mut current = self.current();
        if let Some(Current { id: known, phase: Phase::Receiving(partial) }) = &*current
            && *known == id
            && partial.length == length
        {
            partial.check_room(place)?;
            return Ok(partial.take_over(&self.current));
        }
        // Whatever was begun before is of no use any more, and its file goes.
        *current = None;
        let partial = Partial::create(place, length)?;
        partial.check_room(place)?;
        let sink = partial.take_over(&self.current);
        *current = Some(Current { id, phase: Phase::Receiving(partial) });
        Ok(sink)
    }

    /// What has come so far: the snapshot's id, and how many bytes.
    pub(crate) fn received(&self) -> Option<(u64, u64)> {
        match &*self.current() {
            Some(Current { id, phase: Phase::Receiving(partial) }) => Some((*id, partial.state().len)),
            _ => None,
        }
    }

    /// Forgets what has come so far.
    pub(crate) fn clear(&self) {
        *self.current() = None;
    }
}

/// The first bytes of a snapshot.
struct Partial {
    spool: Spool,
    file: Arc<dyn File>,
    length: u64,
    /// A std lock: held while a chunk is written, so that two attempts do not mix.
    state: Mutex<PartialState>,
}

struct PartialState {
    /// When something came last, or somebody began to send.
    used: Instant,
    len: u64,
    /// Counts the attempts. Only the last may write.
    attempt: u64,
}

impl Partial {
    fn create(place: &Place<'_>, length: u64) -> io::Result<Arc<Self>> {
        let spool = Spool::new(place.world, place.data_dir, "incoming");
        let file = place.world.fs.open(&spool.path, OpenMode::CreateNew)?;
        let state = PartialState { used: Instant::now(), len: 0, attempt: 0 };
        Ok(Arc::new(Self { spool, file, length, state: Mutex::new(state) }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PartialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rest fits, and the store that is made of it.
    fn check_room(&self, place: &Place<'_>) -> io::Result<()> {
        let bytes = self.length.saturating_mul(2).saturating_sub(self.state().len);
        check_room(place.world, &place.data_dir.spool_path(), bytes, place.reserve_bytes)?;
        check_room(place.world, &place.data_dir.state_path(), self.length, place.reserve_bytes)
    }

    fn take_over(self: &Arc<Self>, slot: &Slot) -> Box<dyn SnapshotSink> {
        let mut state = self.state();
        state.attempt += 1;
        state.used = Instant::now();
        Box::new(Sink { partial: self.clone(), attempt: state.attempt, slot: slot.clone() })
    }
}

/// One attempt.
pub(crate) struct Sink {
    partial: Arc<Partial>,
    attempt: u64,
    slot: Slot,
}

impl Sink {
    /// Where the bytes are. The file is there while this lives.
    pub(crate) fn path(&self) -> PathBuf {
        self.partial.spool.path.clone()
    }
}

impl SnapshotSink for Sink {
    fn received(&self) -> u64 {
        self.partial.state().len
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut state = self.partial.state();
        if state.attempt != self.attempt {
            return Err(io::Error::other("another attempt has taken over"));
        }
        if let Err(error) = self.partial.file.write_all_at(chunk, state.len) {
            drop(state);
            // Its file would only take up the room that is lacking.
            let mut current = look(&self.slot);
            if matches!(&*current, Some(Current { phase: Phase::Receiving(partial), .. }) if Arc::ptr_eq(partial, &self.partial))
            {
                *current = None;
            }
            return Err(error);
        }
        state.len += chunk.len() as u64;
        state.used = Instant::now();
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// What to do with a snapshot that is offered.
pub(crate) fn receive(shared: &Arc<Shared>, offer: &SnapshotOffer) -> Result<Reception, String> {
    let index = offer.meta.last_log_id.map_or(0, |id| id.index);
    if index <= shared.machine().applied_index() {
        // The sender did not hear that it was installed. Nothing here contradicts its vote; if something does, its next
        // append is told.
        return Ok(Reception::InHand(std::future::ready(Ok(offer.vote)).boxed()));
    }
    match &*shared.incoming.current() {
        Some(Current { id, phase: Phase::Installing(done) }) if *id == offer.id => {
            return Ok(Reception::InHand(installed(done.clone())));
        }
        Some(Current { phase: Phase::Installing(_), .. }) => return Err("another snapshot is being installed".into()),
        _ => {}
    }
    let sink = shared.incoming.sink(&Place::of(shared), offer.id, offer.length).map_err(|error| error.to_string())?;
    Ok(Reception::Wanted(sink))
}

fn installed(mut done: watch::Receiver<Option<Result<Vote, String>>>) -> BoxFuture<'static, Result<Vote, String>> {
    async move {
        match done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err("the installation did not finish".into())),
            Err(_) => Err("the installation did not finish".into()),
        }
    }
    .boxed()
}

/// Builds the new generation from what was received, and hands it to openraft. Goes on also when the future is dropped.
pub(crate) fn install(
    replica: &Replica,
    offer: SnapshotOffer,
    sink: Box<dyn SnapshotSink>,
) -> BoxFuture<'static, Result<Vote, String>> {
    let Ok(sink) = sink.into_any().downcast::<Sink>() else {
        return std::future::ready(Err("not a snapshot that was received here".into())).boxed();
    };
    let shared = replica.inner.shared.clone();
    let (finished, done) = watch::channel(None);
    {
        let mut current = shared.incoming.current();
        match &*current {
            Some(Current { id, phase: Phase::Receiving(partial) })
                if *id == offer.id && Arc::ptr_eq(partial, &sink.partial) => {}
            _ => return std::future::ready(Err("another attempt has taken over".into())).boxed(),
        }
        *current = Some(Current { id: offer.id, phase: Phase::Installing(done.clone()) });
    }
    let raft = replica.inner.raft.clone();
    tokio::spawn(async move {
        let id = offer.id;
        let result = build_and_install(&shared, &raft, offer, *sink).await;
        if let Err(problem) = &result {
            tracing::warn!(problem, "a received snapshot was not installed");
        }
        let mut current = shared.incoming.current();
        if current.as_ref().is_some_and(|current| current.id == id) {
            *current = None;
        }
        drop(current);
        finished.send_replace(Some(result));
    });
    installed(done)
}

async fn build_and_install(
    shared: &Arc<Shared>,
    raft: &Raft,
    offer: SnapshotOffer,
    sink: Sink,
) -> Result<Vote, String> {
    let SnapshotOffer { meta, vote, .. } = offer;
    let started = tokio::time::Instant::now();
    let (job, expected) = (shared.clone(), meta.clone());
    let built = shared.world.blocking(move || snapshot::build_generation(&job, &expected, &sink.path())).await;
    let (next, state) = built.map_err(|error| error.to_string())?;
    tracing::info!(
        index = meta.last_log_id.map_or(0, |id| id.index),
        built_ms = started.elapsed().as_millis(),
        "installing a snapshot"
    );
    // Taken here, so that openraft's worker waits neither for a checkpoint nor for a copy. It may be waiting for a
    // checkpoint already, to apply more; that one cannot come now.
    let _open = shared.gate.lift();
    let writer = shared.store_writer.clone().lock_owned().await;
    let turn = shared.pins.write().await;
    let ready = ReadySnapshot { next, state, _writer: writer, _turn: turn };
    let snapshot = Snapshot { meta, snapshot: Box::new(ready) as snapshot::SnapshotData };
    let response = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
    Ok(response.vote)
}
