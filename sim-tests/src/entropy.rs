//! Where every random number and every clock reading of a simulation comes from.
//!
//! Part of it is handed to the code under test as a seam. The rest is asked for behind its back: hash maps and
//! retry jitter ask the C library for random bytes, hyper writes the wall clock into a `date` header. The binary
//! interposes those calls (`shim.rs`) and answers them from the thread's state kept here.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_node::world::Random;

/// When every simulation starts: 2026-01-01T00:00:00Z, as time since the Unix epoch.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// What the monotonic clock shows when a simulation starts. Not zero: code subtracts durations from it.
const MONOTONIC_START: Duration = Duration::from_secs(1_000_000);

/// A stream of pseudo-random numbers (SplitMix64). Each use has its own stream, so that a new fault does not reshuffle
/// the others.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream `name` of `seed`.
    pub fn stream(seed: u64, name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed))
    }

    /// A stream of its own for `name`. This one does not move.
    pub fn fork(&self, name: &str) -> Self {
        Self::stream(self.0, name)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let (state, number) = split_mix(self.0);
        self.0 = state;
        number
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is far below what a simulation can notice.
        self.next_u64() % bound
    }

    /// True once in `n` on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A duration between `min` and `max`, in whole milliseconds, both included.
    pub fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (min.as_millis() as u64, max.as_millis() as u64);
        Duration::from_millis(min + self.below(max - min + 1))
    }
}

const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut number = state;
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state, number ^ (number >> 31))
}

// Constant initialisers and no destructors: the shim reads these at any moment of a thread's life, also inside the
// allocator and while thread-local storage is torn down.
thread_local! {
    static IN_SIMULATION: Cell<bool> = const { Cell::new(false) };
    static RANDOM_STATE: Cell<u64> = const { Cell::new(0) };
    static ELAPSED_NS: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread's hidden clock and random numbers come from `seed`. For a fresh thread: whatever it drew
/// before was real.
pub fn enter_simulation(seed: u64) {
    RANDOM_STATE.set(Rng::stream(seed, "process").0);
    ELAPSED_NS.set(0);
    IN_SIMULATION.set(true);
}

/// Fills `buffer` if this thread is in a simulation.
pub fn fill_hidden_random(buffer: &mut [u8]) -> bool {
    if !IN_SIMULATION.get() {
        return false;
    }
    for chunk in buffer.chunks_mut(8) {
        let (state, number) = split_mix(RANDOM_STATE.get());
        RANDOM_STATE.set(state);
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
    true
}

/// What the hidden clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenTime {
    /// Since the Unix epoch.
    pub wall: Duration,
    /// Since some fixed moment.
    pub monotonic: Duration,
}

/// The hidden clocks, if this thread is in a simulation.
pub fn hidden_time() -> Option<HiddenTime> {
    let elapsed = Duration::from_nanos(ELAPSED_NS.get());
    IN_SIMULATION.get().then(|| HiddenTime { wall: EPOCH + elapsed, monotonic: MONOTONIC_START + elapsed })
}

/// The driver's clock: stands still during a step. Cheap to clone.
///
/// turmoil has a finer one, but while a host is crashed or bounced it shows nonsense, and destructors read clocks too.
#[derive(Debug, Clone, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// Sets the time since the start of the simulation, for this value's clones and for the hidden clocks.
    pub fn set(&self, elapsed: Duration) {
        let nanos = elapsed.as_nanos() as u64;
        self.0.store(nanos, Ordering::Relaxed);
        ELAPSED_NS.set(nanos);
    }

    /// Time since the start of the simulation.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A node's source of identities.
pub struct SimRandom(std::sync::Mutex<Rng>);

impl SimRandom {
    /// Draws from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self(std::sync::Mutex::new(rng))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        // A poisoned lock holds a number like any other.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |name| (0..4).map(move |_| Rng::stream(7, name).next_u64()).collect::<Vec<_>>();
        assert_eq!(draw("disk"), draw("disk"));
        assert_ne!(Rng::stream(7, "disk").next_u64(), Rng::stream(7, "nemesis").next_u64());
        assert_ne!(Rng::stream(7, "disk").next_u64(), Rng::stream(8, "disk").next_u64());
    }

    #[test]
    fn hidden_state_is_per_thread_and_off_by_default() {
        assert!(!fill_hidden_random(&mut [0; 8]));
        assert_eq!(hidden_time(), None);
        let draw = || {
            std::thread::spawn(|| {
                enter_simulation(3);
                let mut bytes = [0; 11];
                assert!(fill_hidden_random(&mut bytes));
                Time::default().set(Duration::from_millis(5));
                (bytes, hidden_time())
            })
            .join()
            .expect("the thread does not panic")
        };
        assert_eq!(draw(), draw());
        assert_eq!(draw().1.expect("in a simulation").wall, EPOCH + Duration::from_millis(5));
    }
}
