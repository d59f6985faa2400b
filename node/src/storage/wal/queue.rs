//! What waits to be flushed.
//!
//! Frames are encoded straight into the buffer that will be written, by whoever appends; the flusher takes whole
//! buffers. Two buffers thus go back and forth between the two, and a payload is copied once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use tokio::sync::{Notify, oneshot};

use super::frame::BATCH_HEADER;
use super::group::Group;
use crate::types::{LogId, TypeConfig, Vote};

/// Frames nobody waits for are flushed on their own only when there are this many bytes of them.
const LAZY_BYTES_MAX: usize = 64 << 10;
/// A buffer that has grown beyond this is not kept for reuse.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// Who is told that everything queued before is on stable storage.
pub(super) enum Done {
    /// openraft, of an append.
    Raft(IOFlushed<TypeConfig>),
    /// Somebody who waits: a vote, a barrier.
    Waiter(oneshot::Sender<io::Result<()>>),
}

impl Done {
    pub(super) fn complete(self, result: io::Result<()>) {
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // A waiter that is gone does not care.
            Self::Waiter(waiter) => drop(waiter.send(result)),
        }
    }
}

/// What a batch changes once it is on stable storage, in the order of its frames.
pub(super) enum Change {
    /// Entries `first..next`; the first one's frame is at byte `frame` of the batch's frames.
    Append {
        group: Arc<Group>,
        epoch: u64,
        first: u64,
        next: u64,
        frame: usize,
    },
    /// Entries from `from` on are gone.
    Truncate {
        group: Arc<Group>,
        epoch: u64,
        from: u64,
        next: u64,
    },
    Purge {
        group: Arc<Group>,
        epoch: u64,
        log_id: LogId,
        next: u64,
    },
    Vote {
        group: u32,
        vote: Vote,
    },
    Committed {
        group: u32,
        log_id: Option<LogId>,
    },
}

/// Frames that will be written as one batch.
pub(super) struct Chunk {
    /// Room for the batch's header, then frames.
    pub(super) bytes: Vec<u8>,
    pub(super) changes: Vec<Change>,
    pub(super) done: Vec<Done>,
}

impl Chunk {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(BATCH_HEADER, 0);
        Self { bytes, changes: Vec::new(), done: Vec::new() }
    }

    /// Whether there is nothing to write, only somebody to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == BATCH_HEADER
    }
}

/// Why nothing is flushed any more.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    reason: Arc<str>,
}

impl Failure {
    pub(super) fn new(kind: io::ErrorKind, reason: impl Into<Arc<str>>) -> Self {
        Self { kind, reason: reason.into() }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.reason.to_string())
    }
}

struct State {
    chunks: VecDeque<Chunk>,
    spare: Option<Vec<u8>>,
    /// Bytes that the flusher has taken and not finished.
    taken: usize,
    /// Whether somebody waits for what is queued.
    urgent: bool,
    closed: bool,
    failure: Option<Failure>,
}

impl State {
    /// Bytes that are not on stable storage.
    fn unsynced(&self) -> usize {
        self.taken + self.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>()
    }
}

/// The queue of the flusher, shared by all groups.
pub(super) struct Queue {
    /// A std lock: held while frames are encoded, never for IO or across an await.
    state: Mutex<State>,
    /// Wakes a flusher that has a thread.
    arrived: Condvar,
    /// Wakes a flusher that is a task.
    notify: Notify,
    /// Wakes those who wait for room in the queue.
    freed: Notify,
    flush_bytes_max: usize,
    unsynced_bytes_max: usize,
}

impl Queue {
    pub(super) fn new(flush_bytes_max: usize, unsynced_bytes_max: usize) -> Self {
        let chunks = VecDeque::new();
        let state = State { chunks, spare: None, taken: 0, urgent: false, closed: false, failure: None };
        Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            notify: Notify::new(),
            freed: Notify::new(),
            flush_bytes_max,
            unsynced_bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the queue. Fails if the log is closed or has failed.
    pub(super) fn push(&self) -> io::Result<Push<'_>> {
        let state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.error());
        }
        if state.closed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed"));
        }
        Ok(Push { queue: self, state })
    }

    /// Waits while more is queued than may be. Whoever needs no room, a vote or a barrier, does not ask.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let state = self.lock();
                let over = state.failure.is_some() || state.closed;
                if over || state.unsynced() < self.unsynced_bytes_max {
                    return;
                }
            }
            freed.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until the log is closed, but not longer than this.
    pub(super) fn wait_closed(&self, time_max: Duration) {
        let until = Instant::now() + time_max;
        let mut state = self.lock();
        // Whoever adds to the queue wakes us, too.
        while !state.closed
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.notify.notify_one();
    }

    /// Lets the flusher end once it has flushed what is queued.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake();
        self.freed.notify_waiters();
    }

    /// Whether somebody is told of the failure from now on, and whoever waits now.
    pub(super) fn fail(&self, failure: Failure) {
        let chunks = {
            let mut state = self.lock();
            state.failure.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut state.chunks)
        };
        self.freed.notify_waiters();
        for done in chunks.into_iter().flat_map(|chunk| chunk.done) {
            done.complete(Err(failure.error()));
        }
    }

    /// Waits for something to flush. `None` once the log is closed and all is flushed.
    pub(super) fn take_blocking(&self) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            match take(&mut state) {
                Taken::Chunk(chunk) => return Some(chunk),
                Taken::Closed => return None,
                Taken::Nothing => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The same without blocking the thread.
    pub(super) async fn take(&self) -> Option<Chunk> {
        loop {
            // The notification is stored if it comes between the look and the wait.
            match take(&mut self.lock()) {
                Taken::Chunk(chunk) => return Some(chunk),
                Taken::Closed => return None,
                Taken::Nothing => {}
            }
            self.notify.notified().await;
        }
    }

    /// Gives back the buffer of the chunk that was taken, when it is on stable storage.
    pub(super) fn recycle(&self, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.taken = 0;
        if bytes.capacity() <= SPARE_BYTES_MAX {
            state.spare = Some(bytes);
        }
        drop(state);
        self.freed.notify_waiters();
    }
}

enum Taken {
    Chunk(Chunk),
    Nothing,
    Closed,
}

fn take(state: &mut State) -> Taken {
    let lazy_bytes = state.chunks.front().map_or(0, |chunk| chunk.bytes.len());
    if !state.urgent && !state.closed && lazy_bytes <= LAZY_BYTES_MAX {
        return Taken::Nothing;
    }
    let Some(chunk) = state.chunks.pop_front() else {
        state.urgent = false;
        return if state.closed { Taken::Closed } else { Taken::Nothing };
    };
    state.urgent &= !state.chunks.is_empty();
    state.taken = chunk.bytes.len();
    Taken::Chunk(chunk)
}

/// Access to the end of the queue.
pub(super) struct Push<'a> {
    queue: &'a Queue,
    state: MutexGuard<'a, State>,
}

impl Push<'_> {
    /// Where the next frame goes. A chunk is not filled beyond the bytes of one flush, except by its last frame.
    pub(super) fn chunk(&mut self) -> &mut Chunk {
        let State { chunks, spare, .. } = &mut *self.state;
        let full = chunks.back().is_none_or(|chunk| chunk.bytes.len() >= self.queue.flush_bytes_max);
        if full {
            chunks.push_back(Chunk::new(spare.take().unwrap_or_default()));
        }
        let last = chunks.len() - 1;
        &mut chunks[last]
    }

    /// Leaves what was added for whoever comes next, unless there is much of it.
    pub(super) fn end_lazily(self) {
        let much = self.state.chunks.front().is_some_and(|chunk| chunk.bytes.len() > LAZY_BYTES_MAX);
        drop(self.state);
        if much {
            self.queue.wake();
        }
    }

    /// Has what was added flushed now.
    pub(super) fn end(mut self) {
        self.state.urgent = true;
        drop(self.state);
        self.queue.wake();
    }

    /// Has everything flushed now and `done` told.
    pub(super) fn end_with(mut self, done: Done) {
        // Told with the last frame that was added, even if that filled its chunk.
        if self.state.chunks.is_empty() {
            self.chunk();
        }
        if let Some(chunk) = self.state.chunks.back_mut() {
            chunk.done.push(done);
        }
        self.end();
    }
}
