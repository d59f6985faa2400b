//! Back-pressure: state that has changed and is not stored yet is bounded.
//!
//! When disks are slower than the log brings commands, changed state would pile up in memory. So before each chunk apply
//! passes this gate, which is shut while there is too much of it, and opens when a checkpoint has stored some. On a leader
//! the proposals behind back up then, and new ones are refused; a follower falls behind, and its leader waits for nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::shared::Shared;

/// Where apply waits for checkpoints.
#[derive(Default)]
pub(crate) struct Gate {
    /// Bytes that a checkpoint has taken from the state and not stored yet.
    frozen: AtomicU64,
    /// No checkpoint will come any more.
    unhinged: AtomicBool,
    /// Those who hold up checkpoints until apply is done.
    lifted: AtomicUsize,
    changed: Notify,
}

/// The gate is open while this lives.
pub(crate) struct Lifted<'a>(&'a Gate);

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        self.0.lifted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// A checkpoint has taken so many bytes from the state. To be called while the state is locked.
    pub(crate) fn frozen(&self, bytes: u64) {
        self.frozen.store(bytes, Ordering::Release);
    }

    /// The checkpoint has stored them.
    pub(crate) fn stored(&self) {
        if millstream_streams::mutant!(GateStaysShut) {
            return;
        }
        self.frozen.store(0, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Opens it for good: the node stops, and writes a last checkpoint when nothing is applied any more.
    pub(crate) fn unhinge(&self) {
        self.unhinged.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Opens it for as long as the guard lives: whoever keeps checkpoints from being written must not wait for apply
    /// otherwise.
    pub(crate) fn lift(&self) -> Lifted<'_> {
        self.lifted.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
        Lifted(self)
    }

    /// Waits until there is room for more changed state.
    pub(crate) async fn pass(&self, shared: &Shared) {
        let options = &shared.config.checkpoint;
        // What starts a checkpoint must not be behind the gate.
        let most = options.dirty_bytes_max.max(options.dirty_bytes);
        loop {
            // Registered before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let dirty = shared.machine().state.dirty_bytes();
            let is_full = most <= dirty.saturating_add(self.frozen.load(Ordering::Acquire));
            let is_open = self.unhinged.load(Ordering::Acquire) || 0 < self.lifted.load(Ordering::Acquire);
            if !is_full || is_open {
                return;
            }
            shared.world.probe.mark("back_pressure");
            tracing::debug!(dirty, "apply waits for a checkpoint");
            changed.await;
        }
    }
}
