//! Who may read the state store as a whole, and when it may be written.
//!
//! A snapshot is read from the newest checkpoint, so the next checkpoint waits until those readers are done. Readers
//! never wait for one another, and wait for a writer only while it writes.
//!
//! Most of what a snapshot copies are block bodies, which are immutable: no checkpoint changes one, so checkpoints go on
//! while they are copied. It is enough that none is deleted, and that is what holding them means.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Pins {
    state: Mutex<PinState>,
    changed: Notify,
}

#[derive(Default)]
struct PinState {
    readers: usize,
    writing: bool,
    /// Guards that hold block bodies.
    holders: usize,
}

/// The store does not change while this lives.
pub(crate) struct Pin(Arc<Pins>);

/// No block body is deleted from the store while this lives.
pub(crate) struct HeldBodies(Arc<Pins>);

/// Nobody reads the store as a whole while this lives.
pub(crate) struct WriteTurn(Arc<Pins>);

impl Pins {
    /// Waits until nobody writes.
    pub(crate) async fn pin(self: &Arc<Self>) -> Pin {
        self.wait_for(|state| {
            let free = !state.writing;
            state.readers += usize::from(free);
            free
        })
        .await;
        Pin(self.clone())
    }

    /// Waits until nobody reads or writes.
    pub(crate) async fn write(self: &Arc<Self>) -> WriteTurn {
        self.wait_for(|state| {
            let free = !state.writing && state.readers == 0;
            state.writing |= free;
            free
        })
        .await;
        WriteTurn(self.clone())
    }

    /// Keeps every block body in the store from now on. Ask for it while holding a pin: then a checkpoint has deleted them
    /// before, or will see that they are held.
    pub(crate) fn hold_bodies(self: &Arc<Self>) -> HeldBodies {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).holders += 1;
        HeldBodies(self.clone())
    }

    /// Whether block bodies must stay. Whoever deletes them asks during a [`WriteTurn`], in which nobody can begin to hold
    /// what a pin has shown it.
    pub(crate) fn bodies_held(&self) -> bool {
        0 < self.state.lock().unwrap_or_else(PoisonError::into_inner).holders
    }

    async fn wait_for(&self, mut enter: impl FnMut(&mut PinState) -> bool) {
        loop {
            // Registered before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if enter(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
                return;
            }
            changed.await;
        }
    }

    fn leave(&self, exit: impl FnOnce(&mut PinState)) {
        exit(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.leave(|state| state.readers -= 1);
    }
}

impl Drop for HeldBodies {
    fn drop(&mut self) {
        self.0.leave(|state| state.holders -= 1);
    }
}

impl Drop for WriteTurn {
    fn drop(&mut self) {
        self.0.leave(|state| state.writing = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_writer_waits_for_readers_and_readers_for_a_writer() {
        let pins = Arc::new(Pins::default());
        let (one, two) = (pins.pin().await, pins.pin().await);
        let mut write = Box::pin(pins.write());
        assert!(write.as_mut().now_or_never().is_none());
        drop(one);
        assert!(write.as_mut().now_or_never().is_none());
        drop(two);
        let turn = write.await;
        let mut pin = Box::pin(pins.pin());
        assert!(pin.as_mut().now_or_never().is_none());
        drop(turn);
        pin.await;
    }

    #[tokio::test]
    async fn bodies_are_held_while_anybody_holds_them_and_checkpoints_go_on() {
        let pins = Arc::new(Pins::default());
        assert!(!pins.bodies_held());
        let pin = pins.pin().await;
        let (one, two) = (pins.hold_bodies(), pins.hold_bodies());
        drop(pin);
        let _turn = pins.write().await;
        drop(one);
        assert!(pins.bodies_held());
        drop(two);
        assert!(!pins.bodies_held());
    }
}
