//! The clocks of one node, and what can be wrong with them.
//!
//! A node reads the driver's time, changed by the faults that are under way. Its wall clock goes right again when a
//! fault ends, as if somebody had set it; its monotonic clock keeps what it has gained or lost, and never goes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_node::world::Clock;

use crate::entropy::{EPOCH, Time};
use crate::plan::ClockFault;

const MILLION: i128 = 1_000_000;
/// Drift is bounded, so that the monotonic clock always goes on.
const DRIFT_PPM_MAX: i64 = 500_000;

/// A node's clocks, over all its lives. Cheap to clone.
#[derive(Clone)]
pub struct NodeClock {
    time: Time,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By the number that the driver has given them, with the moment they began.
    faults: BTreeMap<u64, (Duration, ClockFault)>,
    /// What the monotonic clock has gained (or lost) by what is over, in nanoseconds.
    gained: i128,
}

impl NodeClock {
    /// A clock that shows `time`.
    pub fn new(time: Time) -> Self {
        Self { time, state: Arc::default() }
    }

    /// Fault `number` begins.
    pub fn begin(&self, number: u64, fault: ClockFault) {
        let now = self.time.elapsed();
        let mut state = self.lock();
        if let ClockFault::Ahead { ms } = fault {
            state.gained += Duration::from_millis(ms).as_nanos() as i128;
        }
        state.faults.insert(number, (now, fault));
    }

    /// Fault `number` ends.
    pub fn end(&self, number: u64) {
        let now = self.time.elapsed();
        let mut state = self.lock();
        if let Some((since, fault)) = state.faults.remove(&number) {
            state.gained += drifted(fault, now.saturating_sub(since));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a clock with this fault gains within `time`, in nanoseconds.
fn drifted(fault: ClockFault, time: Duration) -> i128 {
    match fault {
        ClockFault::Drift { ppm } => {
            time.as_nanos() as i128 * i128::from(ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)) / MILLION
        }
        _ => 0,
    }
}

impl Clock for NodeClock {
    fn wall_ms(&self) -> u64 {
        let now = self.time.elapsed();
        let state = self.lock();
        let stands_since = state.faults.values().filter(|(_, fault)| *fault == ClockFault::Frozen);
        let shown = stands_since.map(|(since, _)| *since).min().unwrap_or(now);
        let off = state.faults.values().map(|(since, fault)| match fault {
            ClockFault::Jump { ms } => i128::from(*ms) * MILLION,
            fault => drifted(*fault, shown.saturating_sub(*since)),
        });
        let nanos = (EPOCH + shown).as_nanos() as i128 + off.sum::<i128>();
        u64::try_from(nanos / MILLION).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        let now = self.time.elapsed();
        let state = self.lock();
        let drift = state.faults.values().map(|(since, fault)| drifted(*fault, now.saturating_sub(*since)));
        let nanos = now.as_nanos() as i128 + state.gained + drift.sum::<i128>();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(duration: Duration) -> u64 {
        duration.as_millis() as u64
    }

    #[test]
    fn walls_are_set_right_and_monotonic_clocks_never_go_back() {
        let time = Time::default();
        time.set(Duration::from_secs(10));
        let clock = NodeClock::new(time.clone());
        let start = clock.wall_ms();
        clock.begin(1, ClockFault::Jump { ms: -3_600_000 });
        assert_eq!((clock.wall_ms(), ms(clock.monotonic())), (start - 3_600_000, 10_000));
        clock.end(1);

        clock.begin(2, ClockFault::Frozen);
        time.set(Duration::from_secs(12));
        assert_eq!((clock.wall_ms(), ms(clock.monotonic())), (start, 12_000));
        clock.end(2);
        assert_eq!(clock.wall_ms(), start + 2_000);

        clock.begin(3, ClockFault::Drift { ppm: 500_000 });
        time.set(Duration::from_secs(14));
        assert_eq!((clock.wall_ms(), ms(clock.monotonic())), (start + 5_000, 15_000));
        clock.end(3);
        assert_eq!((clock.wall_ms(), ms(clock.monotonic())), (start + 4_000, 15_000));

        clock.begin(4, ClockFault::Drift { ppm: -900_000 });
        time.set(Duration::from_secs(16));
        assert_eq!(ms(clock.monotonic()), 16_000, "at most half of the time is lost");
        clock.begin(5, ClockFault::Ahead { ms: 700 });
        assert_eq!(ms(clock.monotonic()), 16_700);
        clock.end(5);
        assert_eq!(ms(clock.monotonic()), 16_700);
    }
}
