//! How long to wait before each repeat of a call.

use std::time::Duration;

/// The first delay, at most. A stale connection or a leader that has just moved should cost next to nothing.
const CEILING_FIRST: Duration = Duration::from_millis(10);
/// No delay is longer. An election takes one or two seconds; waiting much longer than this would only add to it.
const CEILING_MAX: Duration = Duration::from_millis(500);

/// Endless delays whose upper bound doubles. Each lies between half its bound and the bound, as chance decides, so that
/// clients that failed together do not come back together. Neither sleeps nor draws chance itself.
pub(crate) struct Backoff<R> {
    ceiling: Duration,
    random: R,
}

impl<R: FnMut() -> u64> Backoff<R> {
    pub(crate) fn new(random: R) -> Self {
        Self { ceiling: CEILING_FIRST, random }
    }
}

impl<R: FnMut() -> u64> Iterator for Backoff<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let half = self.ceiling / 2;
        self.ceiling = (self.ceiling * 2).min(CEILING_MAX);
        // The top 32 bits, as a fraction of one.
        let fraction = ((self.random)() >> 32) as f64 / f64::from(u32::MAX);
        Some(half + half.mul_f64(fraction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_maximum() {
        let low: Vec<u128> = Backoff::new(|| 0).take(8).map(|delay| delay.as_millis()).collect();
        assert_eq!(low, [5, 10, 20, 40, 80, 160, 250, 250]);
        let high: Vec<u128> = Backoff::new(|| u64::MAX).take(8).map(|delay| delay.as_millis()).collect();
        assert_eq!(high, [10, 20, 40, 80, 160, 320, 500, 500]);
    }
}
