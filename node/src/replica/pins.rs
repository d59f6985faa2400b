//! Who may read the state store as a whole, and when it may be written.
//!
//! A snapshot is read from the newest checkpoint, so the next checkpoint waits until those readers are done. Readers
//! never wait for one another, and wait for a writer only while it writes.

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
}

/// The store does not change while this lives.
pub(crate) struct Pin(Arc<Pins>);

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
}
