//! Makes the next segment ready and takes old ones away, beside the flusher.
//!
//! Zeroing a segment and unlinking one take long enough to be felt by whoever waits for a sync; so both are done by a
//! thread of their own, and a few old files are kept to become new ones, which need no zeroing: a segment that is full
//! of somebody else's batches is as good as one full of zeros (see `recovery.rs`). In a world without threads the
//! flusher does all this itself, when it is due.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::segment::{self, Segment, SegmentHeader};
use crate::world::{FlushTask, World};

/// What the janitor is doing about the next segment.
enum Next {
    Nothing,
    Wanted(u64),
    Ready(io::Result<Segment>),
}

/// A segment without an entry that anybody needs.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// Whether its file may be written to: it has the length of a new one, and nobody reads it any more.
    pub(super) reusable: bool,
}

struct State {
    /// Whether the janitor has a thread.
    works: bool,
    next: Next,
    retired: VecDeque<Retired>,
    /// Files to become segments.
    spares: Vec<PathBuf>,
    /// Whether to wait for the next occasion before removing more.
    removal_failed: bool,
    /// Whether the directory could not be synced; then no name is touched any more.
    broken: bool,
    closed: bool,
}

impl State {
    /// Whether there is a segment to be taken away now.
    fn has_retired(&self) -> bool {
        !self.retired.is_empty() && !self.removal_failed && !self.broken
    }
}

/// Orders for the janitor.
pub(super) struct Chores {
    world: World,
    directory: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Whether a file could not be made because there is no room for it.
pub(super) fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Chores {
    pub(super) fn new(world: World, directory: PathBuf, segment_bytes: u64, spares_max: usize) -> Self {
        let state = State {
            works: false,
            next: Next::Nothing,
            retired: VecDeque::new(),
            spares: Vec::new(),
            removal_failed: false,
            broken: false,
            closed: false,
        };
        Self { world, directory, segment_bytes, spares_max, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a segment, of a spare file if there is one that fits.
    fn make(&self, sequence: u64, size: u64) -> io::Result<Segment> {
        let fs = &*self.world.fs;
        let header = SegmentHeader { sequence, salt: self.world.random.next_u64(), size };
        let spare = if size == self.segment_bytes { self.lock().spares.pop() } else { None };
        if let Some(spare) = spare {
            match segment::reuse(fs, &self.directory, &spare, &header) {
                Err(error) if no_room(&error) => fs.remove_file(&spare)?,
                made => {
                    self.world.probe.mark("segment_recycled");
                    return made;
                }
            }
        }
        segment::create(fs, &self.directory, &header)
    }

    /// Has segment `sequence` made ready, as soon as there is a thread for it.
    pub(super) fn prepare(&self, sequence: u64) {
        self.lock().next = Next::Wanted(sequence);
        self.changed.notify_all();
    }

    /// A new segment with room for at least `size` bytes. Waits for the janitor if it is at it. If there is no room for
    /// it, see [`no_room`], this may be tried again.
    pub(super) fn segment(&self, sequence: u64, size: u64) -> io::Result<Segment> {
        let mut state = self.lock();
        while state.works && matches!(state.next, Next::Wanted(_)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let ready = std::mem::replace(&mut state.next, Next::Nothing);
        drop(state);
        match ready {
            Next::Ready(Ok(segment)) if segment.sequence == sequence && size <= segment.size => Ok(segment),
            Next::Ready(Err(error)) if !no_room(&error) => Err(error),
            _ => self.make(sequence, size.max(self.segment_bytes)),
        }
    }

    /// Whether it is not known any more which files have their names on the disk. Then nothing may be acknowledged.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// A segment that is no part of the log any more. Its file is used again if nobody else holds it.
    pub(super) fn retired(&self, segment: Arc<Segment>) -> Retired {
        let (path, sequence, size) = (segment.path.clone(), segment.sequence, segment.size);
        let reusable = Arc::into_inner(segment).is_some() && size == self.segment_bytes;
        Retired { path, sequence, reusable }
    }

    /// Takes away segments nobody needs any more, the oldest first.
    pub(super) fn retire(&self, retired: Vec<Retired>) {
        let mut state = self.lock();
        state.retired.extend(retired);
        if state.works {
            self.changed.notify_all();
        } else {
            state.removal_failed = false;
            while state.has_retired() {
                state = self.retire_next(state);
            }
        }
    }

    /// Takes the oldest of the retired segments away. Each change of a name is durable before the next, so that no file
    /// is missing between others after a power failure; for the same reason one that fails stays first in line. And a
    /// file keeps the content of the segment it was until it has durably lost its name.
    fn retire_next<'s>(&'s self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let Some(Retired { path, sequence, reusable }) = state.retired.front() else { return state };
        let spare = (*reusable && state.spares.len() < self.spares_max)
            .then(|| segment::spare_path_of(&self.directory, *sequence));
        let path = path.clone();
        drop(state);
        let fs = &self.world.fs;
        let gone = match &spare {
            Some(spare) => fs.rename(&path, spare),
            None => fs.remove_file(&path),
        };
        let sync =
            || if millstream_streams::mutant!(RetiredNameNotSynced) { Ok(()) } else { fs.sync_dir(&self.directory) };
        let synced = gone.is_ok().then(sync);
        let mut state = self.lock();
        match (gone, synced) {
            (Ok(()), Some(Err(error))) => {
                // Which of the files have their names on the disk is not known any more.
                state.broken = true;
                self.world.abort.abort(&format!("the directory of the log could not be synced: {error}"));
            }
            (Ok(()), _) => {
                state.retired.pop_front();
                state.spares.extend(spare);
            }
            (Err(error), _) => {
                tracing::warn!(path = %path.display(), %error, "an old log file could not be removed");
                state.removal_failed = true;
            }
        }
        state
    }

    /// Ends the janitor. When this returns it touches no file any more, so the log may be opened again.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        while state.works {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The janitor's thread.
pub(super) struct Janitor {
    chores: Arc<Chores>,
}

impl Janitor {
    /// Starts a janitor, if the world has threads.
    pub(super) fn start(chores: &Arc<Chores>) -> io::Result<()> {
        let janitor = Self { chores: Arc::clone(chores) };
        chores.world.spawn.spawn_flusher(Box::new(janitor))
    }
}

impl FlushTask for Janitor {
    fn run(self: Box<Self>) {
        let chores = &self.chores;
        let mut state = chores.lock();
        state.works = !state.closed;
        while !state.closed {
            // An old file may become the next segment.
            let first_retire = state.spares.is_empty() && state.has_retired();
            if let Next::Wanted(sequence) = state.next
                && !first_retire
            {
                drop(state);
                let made = chores.make(sequence, chores.segment_bytes);
                state = chores.lock();
                state.next = Next::Ready(made);
                chores.changed.notify_all();
            } else if state.has_retired() {
                state = chores.retire_next(state);
            } else {
                state.removal_failed = false;
                state = chores.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        // Whoever waits now does it alone.
        state.works = false;
        state.next = Next::Nothing;
        drop(state);
        chores.changed.notify_all();
    }

    fn run_async(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}
