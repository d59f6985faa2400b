//! Small histories by hand: one stream `s` with one group `g`.

use super::{Ending, Evidence, GroupEnd};
use crate::history::{
    Action, After, Answer, Call, Entry, Fresh, GroupName, Id, Keep, Mode, Outcome, Placed, Put, Removed, Trim,
};

pub(crate) const S: &str = "s";

pub(crate) fn group() -> GroupName {
    (S.into(), "g".into())
}

pub(crate) fn id(ms: u64) -> Id {
    Id { ms, seq: 0 }
}

pub(crate) fn ids(ms: &[u64]) -> Vec<Id> {
    ms.iter().copied().map(id).collect()
}

pub(crate) fn entry(ms: u64, content: &str) -> Entry {
    Entry { id: id(ms), content: content.into() }
}

/// These contents, under the ids 1, 2, ...
pub(crate) fn stream(contents: &[&str]) -> Vec<Entry> {
    (1..).zip(contents).map(|(ms, content)| entry(ms, content)).collect()
}

/// These calls, and at the end these entries and a group without a rest.
pub(crate) fn evidence(calls: Vec<Call>, entries: Vec<Entry>) -> Evidence {
    let last_delivered = entries.last().map_or(Id::MIN, |last| last.id);
    let end = GroupEnd { lag: Some(0), last_delivered, ..GroupEnd::default() };
    let end = Ending { streams: [(S.into(), entries)].into(), groups: [(group(), end)].into(), ..Ending::default() };
    Evidence { calls, end, ..Default::default() }
}

/// These calls alone.
pub(crate) fn only(calls: Vec<Call>) -> Evidence {
    evidence(calls, Vec::new())
}

/// A call whose moments are also its milliseconds and whose answer names no index.
pub(crate) fn call(client: &str, made: u64, action: Action, answered: u64, outcome: Outcome) -> Call {
    let answer = Some(Answer { moment: answered, ms: answered, index: None, outcome });
    Call { client: client.into(), made, made_ms: made, action, answer }
}

/// The same, at this log index.
pub(crate) fn at(index: u64, mut call: Call) -> Call {
    if let Some(answer) = &mut call.answer {
        answer.index = Some(index);
    }
    call
}

/// The same, without an answer.
pub(crate) fn unanswered(call: Call) -> Call {
    Call { answer: None, ..call }
}

pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown("lost".into())
}

pub(crate) fn nothing(reason: &str) -> Outcome {
    Outcome::NothingChanged { reason: reason.into(), text: "for a test".into() }
}

pub(crate) fn put(content: &str) -> Put {
    Put { stream: S.into(), content: content.into(), ..Put::default() }
}

pub(crate) fn appended(ms: u64) -> Outcome {
    appended_all(&[ms])
}

pub(crate) fn appended_all(ms: &[u64]) -> Outcome {
    Outcome::Appended(ms.iter().map(|ms| Placed::At { id: id(*ms), trimmed: 0 }).collect())
}

pub(crate) fn append(client: &str, made: u64, content: &str, answered: u64, outcome: Outcome) -> Call {
    call(client, made, Action::Append(put(content)), answered, outcome)
}

pub(crate) fn append_all(client: &str, made: u64, contents: &[&str], answered: u64, outcome: Outcome) -> Call {
    let puts = contents.iter().map(|content| put(content)).collect();
    let action = Action::Batch { puts, mode: Mode::AllOrNothing, guard: None, is_refused: false };
    call(client, made, action, answered, outcome)
}

pub(crate) fn delivered(entries: &[(u64, &str)]) -> Outcome {
    let entries = entries.iter().map(|(ms, content)| entry(*ms, content)).collect();
    Outcome::Delivered { entries, deleted: Vec::new() }
}

/// As the consumer of the client's name.
pub(crate) fn read(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    let action = Action::ReadGroup { group: group(), consumer: client.into(), count: 10, wait_ms: 0 };
    call(client, made, action, answered, delivered(entries))
}

/// As the consumer of the client's name; no idle time is asked for.
pub(crate) fn claim(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    let action = Action::AutoClaim { group: group(), consumer: client.into(), idle_min_ms: 0, count: 10 };
    call(client, made, action, answered, delivered(entries))
}

pub(crate) fn ack(client: &str, made: u64, answered: u64, which: &[u64], count: u64) -> Call {
    let action = Action::Ack { group: group(), ids: ids(which) };
    call(client, made, action, answered, Outcome::Acknowledged(count))
}

pub(crate) fn ack_and_delete(client: &str, made: u64, answered: u64, which: &[u64], removed: &[Removed]) -> Call {
    let action = Action::AckAndDelete { group: group(), ids: ids(which) };
    call(client, made, action, answered, Outcome::Removed(removed.to_vec()))
}

pub(crate) fn nack(client: &str, made: u64, answered: u64, which: &[u64]) -> Call {
    let action = Action::Nack { group: group(), ids: ids(which) };
    call(client, made, action, answered, Outcome::Released(which.len() as u64))
}

pub(crate) fn delete(client: &str, made: u64, answered: u64, which: u64) -> Call {
    let action = Action::Delete { stream: S.into(), ids: vec![id(which)] };
    call(client, made, action, answered, Outcome::Removed(vec![Removed::Deleted]))
}

pub(crate) fn trim(client: &str, made: u64, answered: u64, keep: Keep) -> Call {
    let action = Action::Trim { stream: S.into(), trim: Trim { keep, exact: true } };
    call(client, made, action, answered, Outcome::Trimmed(1))
}

/// The whole stream, forwards.
pub(crate) fn range(client: &str, made: u64, answered: u64, fresh: Fresh, entries: &[(u64, &str)]) -> Call {
    let action = Action::Range { stream: S.into(), reverse: false, beyond: None, count: 100, fresh };
    call(client, made, action, answered, Outcome::Read { entries: listed(entries), more: false })
}

/// The newest entries, backwards; there are more.
pub(crate) fn tail(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    let count = entries.len() as u64;
    let action = Action::Range { stream: S.into(), reverse: true, beyond: None, count, fresh: Fresh::Linearizable };
    call(client, made, action, answered, Outcome::Read { entries: listed(entries), more: true })
}

/// Waited for, from the end of the stream.
pub(crate) fn wait(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    let wait_ms = answered - made;
    let fresh = Fresh::Linearizable;
    let action = Action::Read { stream: S.into(), after: After::Arrival, count: 100, wait_ms, fresh };
    call(client, made, action, answered, Outcome::Read { entries: listed(entries), more: false })
}

fn listed(entries: &[(u64, &str)]) -> Vec<Entry> {
    entries.iter().map(|(ms, content)| entry(*ms, content)).collect()
}
