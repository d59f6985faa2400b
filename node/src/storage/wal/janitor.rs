//! Makes the next segment ready and removes old ones, beside the flusher.
//!
//! Zeroing a segment and unlinking one take long enough to be felt by whoever waits for a sync. In a world without
//! threads the flusher does both itself, when they are due.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::segment::{self, Segment};
use crate::world::{FlushTask, World};

/// What the janitor is doing about the next segment.
enum Next {
    Nothing,
    Wanted(u64),
    Ready(io::Result<Segment>),
}

struct State {
    /// Whether the janitor has a thread.
    works: bool,
    next: Next,
    remove: VecDeque<PathBuf>,
    /// Whether to wait for the next occasion before removing more.
    removal_failed: bool,
    closed: bool,
}

/// Orders for the janitor.
pub(super) struct Chores {
    world: World,
    directory: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Chores {
    pub(super) fn new(world: World, directory: PathBuf, segment_bytes: u64) -> Self {
        let state =
            State { works: false, next: Next::Nothing, remove: VecDeque::new(), removal_failed: false, closed: false };
        Self { world, directory, segment_bytes, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, sequence: u64, size: u64) -> io::Result<Segment> {
        let salt = self.world.random.next_u64();
        segment::create(&*self.world.fs, &self.directory, sequence, salt, size)
    }

    /// Has segment `sequence` made ready, as soon as there is a thread for it.
    pub(super) fn prepare(&self, sequence: u64) {
        self.lock().next = Next::Wanted(sequence);
        self.changed.notify_all();
    }

    /// A new segment with room for at least `size` bytes. Waits for the janitor if it is at it.
    pub(super) fn segment(&self, sequence: u64, size: u64) -> io::Result<Segment> {
        let mut state = self.lock();
        while state.works && matches!(state.next, Next::Wanted(_)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let ready = std::mem::replace(&mut state.next, Next::Nothing);
        drop(state);
        match ready {
            Next::Ready(Ok(segment)) if segment.sequence == sequence && size <= segment.size => Ok(segment),
            Next::Ready(Err(error)) => Err(error),
            _ => self.create(sequence, size.max(self.segment_bytes)),
        }
    }

    /// Removes segments nobody needs any more, the oldest first.
    pub(super) fn remove(&self, paths: Vec<PathBuf>) {
        let mut state = self.lock();
        state.remove.extend(paths);
        if state.works {
            self.changed.notify_all();
        } else {
            drop(self.remove_next(state));
        }
    }

    /// Removes what is to be removed. Each removal is durable before the next, so that no file is missing between others
    /// after a power failure; for the same reason one that fails stays first in line.
    fn remove_next<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        while let Some(path) = state.remove.front().cloned() {
            drop(state);
            let fs = &self.world.fs;
            let removed = fs.remove_file(&path).and_then(|()| fs.sync_dir(&self.directory));
            state = self.lock();
            match removed {
                Ok(()) => drop(state.remove.pop_front()),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "an old log file could not be removed");
                    state.removal_failed = true;
                    break;
                }
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
            if let Next::Wanted(sequence) = state.next {
                drop(state);
                let made = chores.create(sequence, chores.segment_bytes);
                state = chores.lock();
                state.next = Next::Ready(made);
                chores.changed.notify_all();
            } else if !state.remove.is_empty() && !state.removal_failed {
                state = chores.remove_next(state);
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
