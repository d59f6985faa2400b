//! Unpredictable numbers.

/// A source of random numbers for identities (cluster id, incarnation), never for the state machine.
pub trait Random: Send + Sync + 'static {
    /// The next number.
    fn next_u64(&self) -> u64;
}

/// The operating system's source.
pub struct OsRandom;

impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
