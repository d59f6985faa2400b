//! Real time: what was asked after something had been answered comes after it in the log.

use std::collections::BTreeMap;

use super::answers::{Requests, identified};
use crate::history::{Action, Call, Fresh};

/// For each call, by the moment it was made: the log index that anybody had been told of by then.
pub(super) type Told = BTreeMap<u64, u64>;

/// What had been told when each call was made. An answer that names no index, as those of the Redis door, tells of the only
/// place that it can mean.
pub(super) fn told(calls: &[Call], requests: Option<&Requests>) -> Told {
    let effect = |(call, first): (&Call, u64)| {
        let effect = *requests?.requests.get(&first)?.effects.first()?;
        call.outcome().filter(|outcome| !outcome.is_nothing())?;
        Some((call.made, effect))
    };
    let identified = requests.map(|requests| identified(calls, requests)).unwrap_or_default();
    let meant: BTreeMap<u64, u64> = identified.into_values().filter_map(effect).collect();
    // Moments are numbers of one counter, so no two are equal.
    let answered = calls.iter().filter_map(|call| {
        let answer = call.answer.as_ref()?;
        call.settled()?;
        Some((answer.moment, answer.index.or_else(|| meant.get(&call.made).copied())?))
    });
    let answered: BTreeMap<u64, u64> = answered.collect();
    let mut most = 0;
    let mut answered = answered.into_iter().peekable();
    let mut made: Vec<u64> = calls.iter().map(|call| call.made).collect();
    made.sort_unstable();
    let at = |made: u64| {
        while let Some((_, index)) = answered.next_if(|(moment, _)| *moment < made) {
            most = most.max(index);
        }
        (made, most)
    };
    made.into_iter().map(at).collect()
}

/// Up to which index the log can have been when each question was answered: whatever was asked later comes behind. By the
/// moment of the question.
pub(super) fn not_beyond(calls: &[Call], requests: &Requests) -> BTreeMap<u64, u64> {
    let mut asked: Vec<(u64, u64)> = Vec::new();
    for call in calls {
        if let Some(first) = first_of(call, requests) {
            asked.push((call.made, first));
        }
    }
    asked.extend(identified(calls, requests).into_iter().map(|(made, (_, first))| (made, first)));
    asked.sort_unstable();
    // The smallest index of all that was asked from some moment on.
    let mut least = u64::MAX;
    let mut from: BTreeMap<u64, u64> = BTreeMap::new();
    for (made, first) in asked.into_iter().rev() {
        least = least.min(first);
        from.insert(made, least);
    }
    let bound = |call: &Call| {
        let answered = call.answer.as_ref()?.moment;
        let first = from.range(answered..).next().map_or(u64::MAX, |(_, first)| *first);
        Some((call.made, first.saturating_sub(1)))
    };
    calls.iter().filter(|call| call.action.is_question()).filter_map(bound).collect()
}

/// The first entry of the request that a call was told of.
fn first_of(call: &Call, requests: &Requests) -> Option<u64> {
    let index = call.answer.as_ref()?.index.filter(|_| !call.action.is_question())?;
    requests.of.get(&index).copied()
}

/// Changes come behind all that had been told when they were asked for, and so do linearizable questions.
pub(super) fn check(calls: &[Call], requests: &Requests, told: &Told) -> Result<(), String> {
    let identified = identified(calls, requests);
    for call in calls {
        let before = told.get(&call.made).copied().unwrap_or_default();
        let first = first_of(call, requests).or(identified.get(&call.made).map(|(_, first)| *first));
        if let Some(first) = first
            && first <= before
        {
            return Err(format!(
                "{} asked at {} (call {:?}), when entry {before} had been answered, and stands at {first}",
                call.client, call.made, call.action
            ));
        }
        let question = call.answer.as_ref().and_then(|answer| answer.index).filter(|_| call.action.is_question());
        if let (Some(index), Some(least)) = (question, least_index(&call.action, before))
            && index < least
        {
            return Err(format!(
                "{} asked at {} ({:?}), when entry {before} had been answered, and was answered from a state of {index}",
                call.client, call.made, call.action
            ));
        }
    }
    Ok(())
}

/// How new the answer to a question must be, if `told` is what anybody had been told before.
pub(super) fn least_index(action: &Action, told: u64) -> Option<u64> {
    let fresh = action.reads().map_or(Fresh::Linearizable, |(_, fresh)| fresh);
    match fresh {
        Fresh::Linearizable => Some(told),
        Fresh::AtLeast(index) => Some(index),
        Fresh::Local => None,
    }
}
