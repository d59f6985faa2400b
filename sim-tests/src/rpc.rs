//! What befalls single calls between nodes: lost requests, lost answers, delays, replays.
//!
//! [`net`](crate::net) breaks links and connections, and gRPC hides the rest. These faults are above gRPC: a request that
//! arrives while its answer does not leaves its sender in doubt, and one that arrives seconds late meets another term.
//! [`RpcFaults`] is the driver's switchboard; each node asks its [`RpcTap`] around each of its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_node::world::{OnAnswer, OnRequest, RpcKind, RpcTap};
use serde::{Deserialize, Serialize};

use crate::entropy::Rng;
use crate::trace::Trace;

/// Longest delay of a fault that is drawn, in milliseconds: several elections.
const DELAY_MS_MAX: u64 = 6_000;

/// All kinds of calls, beside the [`DOOR_KINDS`].
pub const KINDS: [RpcKind; 10] = [
    RpcKind::Heartbeat,
    RpcKind::Append,
    RpcKind::Vote,
    RpcKind::PreVote,
    RpcKind::Transfer,
    RpcKind::SnapshotPart,
    RpcKind::ReadIndex,
    RpcKind::Register,
    RpcKind::CompareDigest,
    RpcKind::Forward,
];

/// What followers ask for clients of the Redis door. Plans without any have none of these either.
pub const DOOR_KINDS: [RpcKind; 2] = [RpcKind::Execute, RpcKind::Stored];

/// What befalls a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum RpcEffect {
    /// The request never arrives.
    DropRequest,
    /// The request arrives, its answer does not.
    DropAnswer,
    /// The request arrives so many milliseconds late, also if its sender has given up by then.
    DelayRequest {
        /// At least.
        min_ms: u64,
        /// At most.
        max_ms: u64,
    },
    /// The answer arrives so many milliseconds late.
    DelayAnswer {
        /// At least.
        min_ms: u64,
        /// At most.
        max_ms: u64,
    },
    /// The request arrives, and again so many milliseconds later: a replay, if other requests came in between.
    Replay {
        /// At least.
        min_ms: u64,
        /// At most.
        max_ms: u64,
    },
}

impl RpcEffect {
    fn name(self) -> &'static str {
        match self {
            Self::DropRequest => "rpc request dropped",
            Self::DropAnswer => "rpc answer dropped",
            Self::DelayRequest { .. } => "rpc request delayed",
            Self::DelayAnswer { .. } => "rpc answer delayed",
            Self::Replay { .. } => "rpc request replayed",
        }
    }

    fn is_for_answers(self) -> bool {
        matches!(self, Self::DropAnswer | Self::DelayAnswer { .. })
    }
}

/// Which calls something befalls, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcFault {
    /// Only calls of this node; `None`: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only calls to this node; `None`: to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Only calls of these kinds; empty: of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RpcKind>,
    /// One in so many of them on average; 0 counts as 1, which is each of them.
    pub one_in: u64,
    /// What.
    #[serde(flatten)]
    pub effect: RpcEffect,
}

impl RpcFault {
    /// A fault of any sort between any nodes, with an intensity of its own.
    pub fn draw(rng: &mut Rng) -> Self {
        let max_ms = 1 + rng.below(DELAY_MS_MAX);
        let min_ms = rng.below(max_ms);
        let effect = match rng.below(5) {
            0 => RpcEffect::DropRequest,
            1 => RpcEffect::DropAnswer,
            2 => RpcEffect::DelayRequest { min_ms, max_ms },
            3 => RpcEffect::DelayAnswer { min_ms, max_ms },
            _ => RpcEffect::Replay { min_ms, max_ms },
        };
        let kinds = if rng.one_in(2) { Vec::new() } else { KINDS.into_iter().filter(|_| rng.one_in(3)).collect() };
        Self { from: None, to: None, kinds, one_in: [2, 4, 10, 40][rng.below(4) as usize], effect }
    }

    fn concerns(&self, kind: RpcKind, from: u64, to: u64) -> bool {
        self.from.is_none_or(|only| only == from)
            && self.to.is_none_or(|only| only == to)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

/// The driver's switchboard. Cheap to clone.
#[derive(Clone)]
pub struct RpcFaults {
    switches: Arc<Mutex<Switches>>,
    trace: Trace,
}

struct Switches {
    rng: Rng,
    number: u64,
    /// By the number that `inject` gave them.
    faults: BTreeMap<u64, RpcFault>,
    counts: BTreeMap<&'static str, u64>,
}

impl RpcFaults {
    /// Nothing befalls any call yet. `rng` is drawn from only for calls that a fault concerns.
    pub fn new(rng: Rng, trace: Trace) -> Self {
        let switches = Switches { rng, number: 0, faults: BTreeMap::new(), counts: BTreeMap::new() };
        Self { switches: Arc::new(Mutex::new(switches)), trace }
    }

    /// From now on this befalls calls. Returns a number to end it by.
    pub fn inject(&self, fault: RpcFault) -> u64 {
        let mut switches = self.lock();
        switches.number += 1;
        let number = switches.number;
        switches.faults.insert(number, fault);
        number
    }

    /// Ends a fault. What it has delayed still arrives.
    pub fn end(&self, number: u64) {
        self.lock().faults.remove(&number);
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.lock().faults.clear();
    }

    /// How many calls each effect has befallen, by its name.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.lock().counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// What node `from` asks.
    pub fn at(&self, from: u64) -> Arc<dyn RpcTap> {
        Arc::new(Tap { faults: self.clone(), from })
    }

    /// What befalls a request or an answer, with the delay that was drawn for it. The oldest fault that strikes decides.
    fn strike(&self, kind: RpcKind, from: u64, to: u64, is_answer: bool) -> Option<(RpcEffect, Duration)> {
        let mut switches = self.lock();
        let Switches { rng, faults, counts, .. } = &mut *switches;
        let fault = faults.values().find(|fault| {
            fault.effect.is_for_answers() == is_answer
                && fault.concerns(kind, from, to)
                && (fault.one_in <= 1 || rng.one_in(fault.one_in))
        })?;
        let delay = match fault.effect {
            RpcEffect::DropRequest | RpcEffect::DropAnswer => Duration::ZERO,
            RpcEffect::DelayRequest { min_ms, max_ms }
            | RpcEffect::DelayAnswer { min_ms, max_ms }
            | RpcEffect::Replay { min_ms, max_ms } => {
                rng.duration(Duration::from_millis(min_ms.min(max_ms)), Duration::from_millis(max_ms))
            }
        };
        let name = fault.effect.name();
        *counts.entry(name).or_default() += 1;
        self.trace.line("rpc", format_args!("{name}: {kind:?} n{from} to n{to}, {} ms", delay.as_millis()));
        Some((fault.effect, delay))
    }

    fn lock(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Tap {
    faults: RpcFaults,
    from: u64,
}

impl RpcTap for Tap {
    fn request(&self, kind: RpcKind, to: u64) -> OnRequest {
        match self.faults.strike(kind, self.from, to, false) {
            Some((RpcEffect::DropRequest, _)) => OnRequest::Drop,
            Some((RpcEffect::DelayRequest { .. }, delay)) => OnRequest::Delay(delay),
            Some((RpcEffect::Replay { .. }, delay)) => OnRequest::Duplicate(delay),
            Some((RpcEffect::DropAnswer | RpcEffect::DelayAnswer { .. }, _)) | None => OnRequest::Pass,
        }
    }

    fn answer(&self, kind: RpcKind, to: u64) -> OnAnswer {
        match self.faults.strike(kind, self.from, to, true) {
            Some((RpcEffect::DropAnswer, _)) => OnAnswer::Drop,
            Some((RpcEffect::DelayAnswer { .. }, delay)) => OnAnswer::Delay(delay),
            _ => OnAnswer::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Time;

    fn faults(seed: u64) -> RpcFaults {
        let trace = Trace::new(Time::default(), None).expect("no file is involved");
        RpcFaults::new(Rng::stream(seed, "rpc"), trace)
    }

    fn fault(effect: RpcEffect) -> RpcFault {
        RpcFault { from: None, to: None, kinds: Vec::new(), one_in: 1, effect }
    }

    #[test]
    fn a_fault_strikes_only_what_it_concerns_and_only_until_it_ends() {
        let faults = faults(1);
        let (one, two) = (faults.at(1), faults.at(2));
        assert_eq!(one.request(RpcKind::Vote, 2), OnRequest::Pass);
        let number = faults.inject(RpcFault {
            from: Some(1),
            to: Some(2),
            kinds: vec![RpcKind::Vote],
            ..fault(RpcEffect::DropRequest)
        });
        assert_eq!(one.request(RpcKind::Vote, 2), OnRequest::Drop);
        assert_eq!(one.answer(RpcKind::Vote, 2), OnAnswer::Pass);
        assert_eq!(one.request(RpcKind::Vote, 3), OnRequest::Pass);
        assert_eq!(one.request(RpcKind::PreVote, 2), OnRequest::Pass);
        assert_eq!(two.request(RpcKind::Vote, 1), OnRequest::Pass);
        faults.inject(fault(RpcEffect::DropAnswer));
        faults.end(number);
        assert_eq!(one.request(RpcKind::Vote, 2), OnRequest::Pass);
        assert_eq!(one.answer(RpcKind::Forward, 3), OnAnswer::Drop);
        faults.clear();
        assert_eq!(one.answer(RpcKind::Forward, 3), OnAnswer::Pass);
        let counts = BTreeMap::from([("rpc answer dropped".into(), 1), ("rpc request dropped".into(), 1)]);
        assert_eq!(faults.counts(), counts);
    }

    #[test]
    fn delays_and_chances_are_those_of_the_fault_and_repeat_with_the_seed() {
        let run = |seed| {
            let faults = faults(seed);
            faults.inject(RpcFault { one_in: 4, ..fault(RpcEffect::Replay { min_ms: 10, max_ms: 20 }) });
            let tap = faults.at(1);
            (0..400).map(|_| tap.request(RpcKind::Append, 2)).collect::<Vec<_>>()
        };
        let fates = run(7);
        let replays = fates.iter().filter(|fate| **fate != OnRequest::Pass).count();
        assert!((60..140).contains(&replays), "{replays} of 400");
        for fate in &fates {
            if let OnRequest::Duplicate(delay) = fate {
                assert!((10..=20).contains(&delay.as_millis()), "{delay:?}");
            }
        }
        assert_eq!(fates, run(7));
        assert_ne!(fates, run(8));
    }

    #[test]
    fn a_fault_that_is_drawn_survives_json() {
        let mut rng = Rng::stream(1, "test");
        for _ in 0..200 {
            let fault = RpcFault::draw(&mut rng);
            let json = serde_json::to_string(&fault).expect("it is plain data");
            assert_eq!(serde_json::from_str::<RpcFault>(&json).expect(&json), fault);
        }
        let short = r#"{"one_in":3,"effect":"drop_answer"}"#;
        assert_eq!(
            serde_json::from_str::<RpcFault>(short).expect("short form"),
            RpcFault { one_in: 3, ..fault(RpcEffect::DropAnswer) }
        );
    }
}
