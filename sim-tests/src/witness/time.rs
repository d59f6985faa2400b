//! Time passes: the state's clock goes on about as fast as real time, whatever the leader's wall clock does.
//!
//! Idle times, retention and sessions live by that clock. A leader whose wall clock is behind the state's, or stands
//! still, goes on by its monotonic clock, so under one leader that is busy the state's clock never rests for long.

use millstream_streams::Proposal;

use super::log::Committed;
use crate::history::Call;

/// Over so long a time at least the two are compared, in milliseconds.
const WINDOW_MS: u64 = 5_000;
/// A leader is busy while no more than this passes from one answer to the next, in milliseconds. Otherwise it may have
/// been away, and have come back in the same term.
const BUSY_MS: u64 = 300;
/// What may be missing besides, in milliseconds: by short absences, and at the beginning of a term.
const SLACK_MS: u64 = 1_000;
/// Monotonic clocks go half as fast as they should, at worst.
const SLOWEST: u64 = 2;

/// A change that was answered.
#[derive(Debug, Clone, Copy)]
struct Point {
    term: u64,
    made_ms: u64,
    answered_ms: u64,
    /// The state's clock when it was applied.
    clock_ms: u64,
}

/// Holds the clock of the log against the clients' time.
pub(super) fn check(calls: &[Call], log: &Committed) -> Result<(), String> {
    let mut clock_ms = 0;
    let mut clocks = std::collections::BTreeMap::new();
    for (index, applied) in log.entries() {
        // An entry without a command has no time.
        if let Ok(proposal) = Proposal::decode(&applied.proposal) {
            clock_ms = clock_ms.max(proposal.at_ms);
            clocks.insert(index, (applied.term, clock_ms));
        }
    }
    let point = |call: &Call| {
        let answer = call.answer.as_ref()?;
        let (term, clock_ms) = *clocks.get(&answer.index.filter(|_| !call.action.is_question())?)?;
        Some(Point { term, made_ms: call.made_ms, answered_ms: answer.ms, clock_ms })
    };
    passes(calls.iter().filter_map(point).collect())
}

fn passes(mut points: Vec<Point>) -> Result<(), String> {
    points.sort_by_key(|point| point.answered_ms);
    let goes_on = |a: &Point, b: &Point| a.term == b.term && b.answered_ms - a.answered_ms <= BUSY_MS;
    for busy in points.chunk_by(goes_on) {
        for late in busy {
            let long_ago = |early: &Point| early.answered_ms + WINDOW_MS <= late.made_ms;
            let Some(early) = busy[..busy.partition_point(long_ago)].last() else { continue };
            let passed = late.made_ms - early.answered_ms;
            let least = (passed / SLOWEST).saturating_sub(SLACK_MS);
            if late.clock_ms < early.clock_ms + least {
                return Err(format!(
                    "from {} ms to {} ms, under the leader of term {}, the state's clock went on by {} ms",
                    early.answered_ms,
                    late.made_ms,
                    late.term,
                    late.clock_ms.saturating_sub(early.clock_ms)
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each 100 ms for 20 s, under a clock that shows what `clock` makes of the time.
    fn points(clock: impl Fn(u64) -> u64) -> Vec<Point> {
        let times = (0..200).map(|number| 100 * number);
        let point = |ms| Point { term: 1, made_ms: ms, answered_ms: ms + 20, clock_ms: 1_000_000 + clock(ms) };
        times.map(point).collect()
    }

    #[test]
    fn clocks_that_go_on_are_good() {
        passes(points(|ms| ms)).expect("the right time");
        passes(points(|ms| ms * 7 / 10)).expect("a slow clock");
        passes(points(|ms| if ms < 9_000 { ms } else { ms + 3_600_000 })).expect("a jump ahead");
        passes(points(|ms| if ms < 9_000 { ms } else { ms - 900 })).expect("a short rest");
    }

    #[test]
    fn a_clock_that_rests_is_noticed() {
        assert!(passes(points(|_| 0)).is_err());
        assert!(passes(points(|ms| ms.min(8_000))).is_err());
        assert!(passes(points(|ms| ms / 10)).is_err());
    }

    #[test]
    fn between_leaders_and_while_nobody_works_it_may_rest() {
        let rests = || points(|ms| if ms < 9_000 { ms } else { 9_000.max(ms - 6_000) });
        assert!(passes(rests()).is_err());
        let by_terms = rests().into_iter().map(|point| Point { term: point.made_ms / 4_000, ..point });
        passes(by_terms.collect()).expect("no leader leads for long");
        let with_a_pause = rests().into_iter().filter(|point| !(9_000..15_000).contains(&point.made_ms));
        passes(with_a_pause.collect()).expect("the leader was away");
    }
}
