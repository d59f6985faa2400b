//! What a group's list of pending entries says agrees with what its consumers know (C6): an entry that somebody got and
//! nobody handled is in it, one that was acknowledged is not, its owner can have it, and its deliveries are counted.

use std::collections::BTreeMap;

use super::groups::{Book, Event, Kind};
use super::{Evidence, Ledger, NEVER};
use crate::history::{Answer, Call, Id, Outcome, Pending};

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let books = Book::all(evidence, ledger);
    let nothing = Book::default();
    // Of each entry of a group: the greatest count of deliveries that was seen, and by when.
    let mut counts: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
    for call in &evidence.calls {
        let (Some(group), Some(answer)) = (call.action.group(), &call.answer) else { continue };
        if ledger.restless.contains(group) {
            continue;
        }
        let book = books.get(group).unwrap_or(&nothing);
        let problem = match &answer.outcome {
            Outcome::Pending { entries, more } => {
                for pending in entries {
                    let seen = counts.entry((group, pending.id)).or_default();
                    let before = seen.iter().filter(|(moment, _)| *moment < call.made).map(|(_, count)| *count).max();
                    if before.is_some_and(|before| pending.deliveries < before) {
                        let (id, count) = (pending.id, pending.deliveries);
                        return Err(format!(
                            "{id} of {group:?} was delivered {before:?} times, and later {count} times"
                        ));
                    }
                    seen.push((answer.moment, pending.deliveries));
                }
                listed(book, call, answer, entries).or_else(|| missing(book, ledger, call, answer, entries, *more))
            }
            Outcome::PendingCount { count, consumers } => counted(book, call, answer, *count, consumers),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(format!("{group:?}, {} (call {}): {problem}", call.client, call.made));
        }
    }
    Ok(())
}

/// What is wrong with the lines that are there.
fn listed(book: &Book<'_>, call: &Call, answer: &Answer, entries: &[Pending]) -> Option<String> {
    if let Some(pair) = entries.windows(2).find(|pair| pair[1].id <= pair[0].id) {
        return Some(format!("{} is listed after {}", pair[1].id, pair[0].id));
    }
    for Pending { id, consumer, deliveries } in entries {
        let events = book.entries.get(id).map_or(&[][..], Vec::as_slice);
        if events.iter().any(|event| event.kind == Kind::Acknowledged && event.by() < call.made) {
            return Some(format!("{id} is listed after its acknowledgement was answered"));
        }
        if !book.can_own(*id, consumer.as_deref(), call.made, answer.moment) {
            return Some(format!("{id} is listed as {consumer:?}'s, which cannot be"));
        }
        let is_delivery = |event: &&Event<'_>| event.kind.is_delivery();
        let certain = events.iter().filter(is_delivery).filter(|event| event.by() < call.made).count() as u64;
        let hidden = book.hidden(*id, call.made, answer.moment);
        let possible = events.iter().chain(&book.open).chain(hidden).filter(is_delivery);
        let possible = possible.filter(|event| event.call.made < answer.moment).count() as u64;
        if !(certain..=possible).contains(deliveries) {
            return Some(format!(
                "{id} was delivered {deliveries} times; its consumers know of {certain} to {possible}"
            ));
        }
    }
    None
}

/// The entry was got for certain before `moment`, and nothing can have ended that before `end`.
fn is_certain(events: &[Event<'_>], moment: u64, end: u64) -> bool {
    events.iter().any(|event| event.kind.is_delivery() && event.is_certain && event.by() < moment)
        && !events.iter().any(|event| event.kind.is_end() && event.call.made < end)
}

/// What should be there and is not.
fn missing(
    book: &Book<'_>,
    ledger: &Ledger<'_>,
    call: &Call,
    answer: &Answer,
    entries: &[Pending],
    more: bool,
) -> Option<String> {
    let last = entries.last().filter(|_| more).map(|last| last.id);
    if more && last.is_none() {
        return Some("a page is empty, and yet there is more".into());
    }
    let stream = call.action.group().and_then(|(stream, _)| ledger.stream(stream));
    let listed: std::collections::BTreeSet<Id> = entries.iter().map(|pending| pending.id).collect();
    let expected = book.entries.range(..=last.unwrap_or(Id { ms: u64::MAX, seq: u64::MAX }));
    for (id, events) in expected.filter(|(id, _)| !listed.contains(id)) {
        // A claim drops what is no longer in the stream.
        let is_safe = stream.is_none_or(|stream| !stream.may_be_gone(*id, answer.moment));
        if is_safe && is_certain(events, call.made, answer.moment) {
            return Some(format!("{id} was delivered and not acknowledged, and is not listed"));
        }
    }
    None
}

/// What is wrong with the numbers.
fn counted(book: &Book<'_>, call: &Call, answer: &Answer, count: u64, consumers: &[(String, u64)]) -> Option<String> {
    let sum: u64 = consumers.iter().map(|(_, count)| count).sum();
    if count < sum || consumers.iter().any(|(_, count)| *count == 0) {
        return Some(format!("{count} are pending, of consumers {consumers:?}"));
    }
    // Open calls may have delivered anything.
    let is_open = book.open.iter().any(|event| event.kind == Kind::New && event.call.made < answer.moment);
    let is_possible = |events: &&Vec<Event<'_>>| {
        events.iter().any(|event| event.kind.is_delivery() && event.call.made < answer.moment)
            && !events.iter().any(|event| event.kind == Kind::Acknowledged && event.by() < call.made)
    };
    let most = if is_open { NEVER } else { book.entries.values().filter(is_possible).count() as u64 };
    let least = book.entries.values().filter(|events| is_certain(events, call.made, answer.moment)).count() as u64;
    (!(least..=most).contains(&count)).then(|| format!("{count} are pending; the consumers know of {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Action;

    fn check(calls: Vec<Call>) -> Result<(), String> {
        let evidence = only(calls);
        super::check(&evidence, &Ledger::new(&evidence))
    }

    fn list(made: u64, lines: &[(u64, Option<&str>, u64)]) -> Call {
        let line = |(ms, consumer, deliveries): &(u64, Option<&str>, u64)| Pending {
            id: id(*ms),
            consumer: consumer.map(str::to_owned),
            deliveries: *deliveries,
        };
        let entries = lines.iter().map(line).collect();
        call(
            "r",
            made,
            Action::ListPending { group: group(), count: 10 },
            made + 1,
            Outcome::Pending { entries, more: false },
        )
    }

    fn count(made: u64, count: u64) -> Call {
        let consumers = vec![("c1".to_owned(), count)];
        let outcome = Outcome::PendingCount { count, consumers };
        call("r", made, Action::CountPending { group: group() }, made + 1, outcome)
    }

    /// The same call, answered at this moment.
    fn until(moment: u64, mut call: Call) -> Call {
        call.answer.iter_mut().for_each(|answer| answer.moment = moment);
        call
    }

    #[test]
    fn cases() {
        let got = || read("c1", 1, 2, &[(1, "a")]);
        let acked = || vec![got(), ack("c1", 3, 4, &[1], 1)];
        let claimed = || vec![got(), claim("c2", 3, 4, &[(1, "a")])];
        let and = |mut calls: Vec<Call>, mut last: Vec<Call>| {
            calls.append(&mut last);
            check(calls)
        };
        assert_eq!(and(vec![got()], vec![list(5, &[(1, Some("c1"), 1)]), count(7, 1)]), Ok(()));
        assert_eq!(and(acked(), vec![list(5, &[])]), Ok(()));
        assert_eq!(and(claimed(), vec![list(5, &[(1, Some("c2"), 2)])]), Ok(()));
        assert_eq!(and(vec![got(), nack("c1", 3, 4, &[1])], vec![list(5, &[(1, None, 1)])]), Ok(()));
        assert_eq!(and(vec![unanswered(got())], vec![list(5, &[(1, Some("c1"), 1)])]), Ok(()));
        // Answered late, by a repeat, when what it took over was gone again.
        let late = || vec![got(), until(20, claim("c2", 3, 4, &[])), list(5, &[(1, Some("c2"), 2)])];
        assert_eq!(and(late(), vec![ack("c3", 8, 9, &[1], 1)]), Ok(()));
        assert!(and(late(), vec![]).is_err(), "not gone");
        assert!(and(late(), vec![ack("c3", 30, 31, &[1], 1)]).is_err(), "gone only later");
        for (what, calls, last) in [
            ("missing", vec![got()], list(5, &[])),
            ("acknowledged", acked(), list(5, &[(1, Some("c1"), 1)])),
            ("another's", vec![got()], list(5, &[(1, Some("c2"), 1)])),
            ("owner of before", claimed(), list(5, &[(1, Some("c1"), 2)])),
            ("nobody's", vec![got()], list(5, &[(1, None, 1)])),
            ("too few deliveries", claimed(), list(5, &[(1, Some("c2"), 1)])),
            ("too many deliveries", vec![got()], list(5, &[(1, Some("c1"), 2)])),
            ("too few", vec![got()], count(5, 0)),
            ("too many", vec![got()], count(5, 2)),
            ("too many after an acknowledgement", acked(), count(5, 1)),
        ] {
            assert!(and(calls, vec![last]).is_err(), "{what}");
        }
        let again = vec![got(), unanswered(claim("c1", 3, 4, &[])), list(5, &[(1, Some("c1"), 2)])];
        assert!(and(again, vec![list(7, &[(1, Some("c1"), 1)])]).is_err(), "fewer deliveries than before");
    }
}
