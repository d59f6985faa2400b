//! Sessions: the numbers that make a changing call safe to repeat.
//!
//! A session is a window of sequence numbers. Its low end, `completed_below`, is the lowest number still in flight: the
//! store forgets the answers below it and refuses those numbers for ever. A number leaves the window when its
//! [`Ticket`] is dropped, whatever became of the call; an abandoned call therefore cannot take effect twice, nor after
//! later calls of the session have been applied.
//!
//! One call that waits would hold the low end while others run ahead, so calls that wait have a session of their own
//! (a [`Lane`] each), and a session whose window is exhausted is left to its last calls while a new one takes over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_proto::v1::RequestIdentity;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// How far a sequence may run ahead of `completed_below`, and how many calls of a lane may be in flight. The store
/// refuses more.
pub(crate) const WINDOW: usize = millstream_streams::limits::SESSION_WINDOW as usize;

/// One session of the store, or one to be.
#[derive(Default)]
pub(crate) struct Session {
    /// Its id, once opened.
    pub(crate) id: OnceCell<u64>,
    // A std mutex: it is held for a few steps and never across an await.
    window: Mutex<Window>,
}

impl Session {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, or `None` if the window is exhausted. `id` is the session's.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: u64,
        permit: OwnedSemaphorePermit,
    ) -> Result<Ticket, OwnedSemaphorePermit> {
        let mut window = self.window();
        match window.begin() {
            Some(sequence) => {
                let completed_below = window.base;
                let identity = RequestIdentity { session_id: id, sequence, completed_below };
                Ok(Ticket { session: self.clone(), identity, permit: Some(permit) })
            }
            None => Err(permit),
        }
    }
}

/// A call's number in a session. Dropping it says that the call will not be repeated.
pub(crate) struct Ticket {
    session: Arc<Session>,
    identity: RequestIdentity,
    permit: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn identity(&self) -> RequestIdentity {
        self.identity
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.window().finish(self.identity.sequence);
        // Only now: whoever waits for the permit should find room in the window.
        drop(self.permit.take());
    }
}

/// Which numbers are in flight.
struct Window {
    /// The lowest number in flight, or the next one.
    base: u64,
    /// For each number from `base`: whether it is finished. The first, if any, is not.
    finished: VecDeque<bool>,
}

impl Default for Window {
    fn default() -> Self {
        Self { base: 1, finished: VecDeque::new() }
    }
}

impl Window {
    fn begin(&mut self) -> Option<u64> {
        if self.finished.len() == WINDOW {
            return None;
        }
        self.finished.push_back(false);
        Some(self.base + self.finished.len() as u64 - 1)
    }

    fn finish(&mut self, sequence: u64) {
        if let Some(finished) = self.finished.get_mut((sequence - self.base) as usize) {
            *finished = true;
        }
        while self.finished.front() == Some(&true) {
            self.finished.pop_front();
            self.base += 1;
        }
    }
}

/// The current session for one kind of call.
pub(crate) struct Lane {
    permits: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    current: Arc<Session>,
    /// Exhausted sessions with calls still in flight. Each took a window full of calls to get here, so there are few.
    retired: Vec<Arc<Session>>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(WINDOW)), sessions: Mutex::default() }
    }
}

impl Lane {
    /// Leave for one more call in flight. `None` never comes: the semaphore is not closed.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().acquire_owned().await.ok()
    }

    pub(crate) fn current(&self) -> Arc<Session> {
        self.sessions().current.clone()
    }

    /// The store does not know `session`: the next call opens another. Does nothing if that has happened already.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions();
        if Arc::ptr_eq(&sessions.current, session) {
            sessions.current = Arc::default();
        }
    }

    /// The window of `session` is exhausted: the next call opens another. Returns the ids of sessions that have no
    /// calls left and can be closed.
    pub(crate) fn retire(&self, session: &Arc<Session>) -> Vec<u64> {
        let mut sessions = self.sessions();
        if Arc::ptr_eq(&sessions.current, session) {
            let retired = std::mem::take(&mut sessions.current);
            sessions.retired.push(retired);
        }
        let idle = sessions.retired.extract_if(.., |session| session.window().finished.is_empty());
        idle.filter_map(|session| session.id.get().copied()).collect()
    }

    /// Forgets all sessions and returns their ids, to be closed.
    pub(crate) fn take(&self) -> Vec<u64> {
        let Sessions { current, retired } = std::mem::take(&mut *self.sessions());
        retired.iter().chain([&current]).filter_map(|session| session.id.get().copied()).collect()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_end_is_the_lowest_number_in_flight() {
        let mut window = Window::default();
        assert_eq!([window.begin(), window.begin(), window.begin()], [Some(1), Some(2), Some(3)]);
        window.finish(2);
        assert_eq!(window.base, 1);
        window.finish(1);
        assert_eq!(window.base, 3);
        window.finish(3);
        assert_eq!(window.base, 4);
        assert_eq!(window.begin(), Some(4));
    }

    #[test]
    fn a_window_is_bounded_by_its_span() {
        let mut window = Window::default();
        let last = (0..WINDOW).filter_map(|_| window.begin()).last();
        assert_eq!(last, Some(WINDOW as u64));
        (2..=WINDOW as u64).for_each(|sequence| window.finish(sequence));
        assert_eq!(window.begin(), None, "number 1 is still in flight");
        window.finish(1);
        assert_eq!((window.base, window.begin()), (WINDOW as u64 + 1, Some(WINDOW as u64 + 1)));
    }

    #[tokio::test]
    async fn an_exhausted_session_retires_and_is_closed_when_its_last_call_ends() {
        let lane = Lane::default();
        let old = lane.current();
        old.id.set(7).expect("not opened before");
        let begin = async |session: &Arc<Session>| session.begin(7, lane.permit().await.expect("open")).ok();
        let straggler = begin(&old).await.expect("room");
        for _ in 1..WINDOW {
            drop(begin(&old).await.expect("room"));
        }
        assert!(begin(&old).await.is_none());
        assert!(lane.retire(&old).is_empty());
        let new = lane.current();
        assert!(!Arc::ptr_eq(&old, &new));
        drop(straggler);
        assert_eq!(lane.retire(&old), [7]);
        assert!(Arc::ptr_eq(&lane.current(), &new));
    }
}
