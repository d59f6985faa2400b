//! The time a leader stamps on its proposals.
//!
//! The state's clock never goes back, so a leader whose wall clock stands behind it would give every command the same
//! time and idle times would stand still. Such a leader goes on from the state's clock by its monotonic one. A wall
//! clock that jumps far ahead is not followed either, for the state could never come back from it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::world::Clock;

/// A wall clock that runs away from the monotonic one by more than this is an operator's error or a broken clock.
const JUMP_MS_MAX: u64 = 3_600_000;

/// Stamps proposals.
pub(crate) struct Stamper {
    /// What the wall said at a monotonic time. Moved by every stamp that follows the wall.
    anchor: Mutex<Anchor>,
}

struct Anchor {
    ms: u64,
    at: Duration,
    alarmed: bool,
}

impl Stamper {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { anchor: Mutex::new(Anchor { ms: clock.wall_ms(), at: clock.monotonic(), alarmed: false }) }
    }

    /// The time of a proposal made now, in milliseconds since the Unix epoch, given the state's clock.
    pub(crate) fn stamp(&self, clock: &dyn Clock, state_ms: u64) -> u64 {
        let (wall, now) = (clock.wall_ms(), clock.monotonic());
        if millstream_streams::mutant!(LeaderFollowsWall) {
            return wall;
        }
        // Plain arithmetic under the lock: nothing can panic halfway.
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_sub(anchor.at).as_millis() as u64;
        let expected = anchor.ms.saturating_add(elapsed);

        let jumped = wall > expected.saturating_add(JUMP_MS_MAX);
        if jumped && !anchor.alarmed {
            tracing::error!(wall, expected, "the wall clock jumped ahead; it is not followed until this node restarts");
        }
        anchor.alarmed = jumped;
        let told = if jumped { expected } else { wall };

        if told <= state_ms {
            // Not ahead of the state, as a wall clock that is behind or stands still: the state's clock is the anchor,
            // unless we already run ahead of it.
            let time = expected.max(state_ms);
            if expected < state_ms {
                (anchor.ms, anchor.at) = (state_ms, now);
            }
            return time;
        }
        if !jumped {
            (anchor.ms, anchor.at) = (wall, now);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Hands {
        wall: AtomicU64,
        mono: AtomicU64,
    }

    impl Hands {
        fn set(&self, wall: u64, mono: u64) {
            self.wall.store(wall, Ordering::Relaxed);
            self.mono.store(mono, Ordering::Relaxed);
        }
    }

    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.mono.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn follows_the_wall() {
        let clock = Hands::default();
        clock.set(1_000, 0);
        let stamper = Stamper::new(&clock);
        clock.set(1_010, 10);
        assert_eq!(stamper.stamp(&clock, 900), 1_010);
    }

    #[test]
    fn goes_on_from_the_state_when_the_wall_is_behind() {
        let clock = Hands::default();
        clock.set(1_000, 0);
        let stamper = Stamper::new(&clock);
        assert_eq!(stamper.stamp(&clock, 5_000), 5_000);
        clock.set(1_030, 30);
        assert_eq!(stamper.stamp(&clock, 5_000), 5_030);
        // The wall has caught up and leads again.
        clock.set(6_000, 40);
        assert_eq!(stamper.stamp(&clock, 5_030), 6_000);
    }

    #[test]
    fn goes_on_while_the_wall_stands_still() {
        let clock = Hands::default();
        clock.set(1_000, 0);
        let stamper = Stamper::new(&clock);
        assert_eq!(stamper.stamp(&clock, 900), 1_000);
        clock.set(1_000, 40);
        assert_eq!(stamper.stamp(&clock, 1_000), 1_040);
        clock.set(1_000, 90);
        assert_eq!(stamper.stamp(&clock, 1_040), 1_090);
        // It goes again.
        clock.set(1_100, 100);
        assert_eq!(stamper.stamp(&clock, 1_090), 1_100);
    }

    #[test]
    fn does_not_follow_a_jump() {
        let clock = Hands::default();
        clock.set(1_000, 0);
        let stamper = Stamper::new(&clock);
        clock.set(1_000 + JUMP_MS_MAX + 20, 10);
        assert_eq!(stamper.stamp(&clock, 1_000), 1_010);
        // Back to normal: followed again.
        clock.set(1_030, 30);
        assert_eq!(stamper.stamp(&clock, 1_010), 1_030);
    }
}
