//! The core's sessions that this node uses for its clients, so that what it asks of a leader twice is done once.
//!
//! One command at a time in each: a session is taken, used and given back, and there are as many as were ever needed at once.
//! So the window of a session never fills, and the state remembers one outcome for each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_streams::RequestId;
use millstream_streams::limits::SESSION_IDLE_MS_MAX;
use tokio::time::Instant;

/// A session that was idle for so long is left alone: it may have expired.
const IDLE_MAX: Duration = Duration::from_millis(SESSION_IDLE_MS_MAX / 2);
/// How long a turn may last that has nothing to do but to wait.
pub(super) const TURN_MAX: Duration = Duration::from_millis(SESSION_IDLE_MS_MAX / 4);

#[derive(Debug)]
struct Idle {
    session: u64,
    next: u64,
    since: Instant,
}

/// Sessions that nobody uses now.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Vec<Idle>>>);

/// The right to do one command in a session. Gives the session back when dropped, whatever became of the command: its number
/// is not used again.
#[derive(Debug)]
pub(super) struct Turn {
    sessions: Sessions,
    taken: Instant,
    pub(super) request: RequestId,
    is_lost: bool,
}

impl Sessions {
    /// A turn in the session that was used last; `None`: another must be opened.
    pub(super) fn take(&self) -> Option<Turn> {
        let mut idle = self.idle();
        let newest = idle.pop().filter(|newest| newest.since.elapsed() < IDLE_MAX);
        let Some(Idle { session, next, since }) = newest else {
            // Those below were idle for longer.
            idle.clear();
            return None;
        };
        if millstream_streams::mutant!(DoorSharesTurns) {
            idle.push(Idle { session, next, since });
        }
        drop(idle);
        Some(self.turn(session, next))
    }

    /// The first turn in a session that was just opened.
    pub(super) fn opened(&self, session: u64) -> Turn {
        self.turn(session, 1)
    }

    fn turn(&self, session: u64, sequence: u64) -> Turn {
        let request = RequestId { session, sequence, completed_below: sequence };
        Turn { sessions: self.clone(), taken: Instant::now(), request, is_lost: false }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The session has expired.
    pub(super) fn lose(mut self) {
        self.is_lost = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_lost {
            let RequestId { session, sequence, .. } = self.request;
            // Perhaps it has only waited: then nothing has been done in the session since.
            self.sessions.idle().push(Idle { session, next: sequence + 1, since: self.taken });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_has_one_turn_at_a_time_and_numbers_are_not_used_twice() {
        let sessions = Sessions::default();
        assert!(sessions.take().is_none());
        let turn = sessions.opened(7);
        assert_eq!(turn.request, RequestId { session: 7, sequence: 1, completed_below: 1 });
        assert!(sessions.take().is_none(), "it is in use");
        drop(turn);
        let turn = sessions.take().expect("given back");
        assert_eq!(turn.request, RequestId { session: 7, sequence: 2, completed_below: 2 });
        turn.lose();
        assert!(sessions.take().is_none(), "lost");

        drop(sessions.opened(8));
        let waited = sessions.opened(10);
        tokio::time::advance(IDLE_MAX).await;
        drop(waited);
        assert!(sessions.take().is_none(), "nothing was done in it for as long");
        drop(sessions.opened(9));
        assert_eq!(sessions.take().map(|turn| turn.request.session), Some(9));
        tokio::time::advance(IDLE_MAX).await;
        assert!(sessions.take().is_none(), "both are too old");
    }
}
