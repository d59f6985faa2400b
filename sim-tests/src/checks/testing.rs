//! Small histories by hand.

use crate::history::{Action, Call, Entry, Id, Outcome};

pub(crate) fn id(ms: u64) -> Id {
    Id { ms, seq: 0 }
}

pub(crate) fn entry(ms: u64, content: &str) -> Entry {
    Entry { id: id(ms), content: content.into() }
}

/// A stream of these contents, under the ids 1, 2, ...
pub(crate) fn stream(contents: &[&str]) -> Vec<Entry> {
    (1..).zip(contents).map(|(ms, content)| entry(ms, content)).collect()
}

pub(crate) fn appended(ms: u64) -> Outcome {
    Outcome::Appended(vec![id(ms)])
}

pub(crate) fn append(client: &str, made: u64, content: &str, answered: u64, outcome: Outcome) -> Call {
    append_all(client, made, &[content], answered, outcome)
}

pub(crate) fn append_all(client: &str, made: u64, contents: &[&str], answered: u64, outcome: Outcome) -> Call {
    let contents = contents.iter().map(|content| content.as_bytes().to_vec()).collect();
    call(client, made, Action::Append { contents }, answered, outcome)
}

pub(crate) fn unanswered_append(client: &str, made: u64, content: &str) -> Call {
    let action = Action::Append { contents: vec![content.into()] };
    Call { client: client.into(), made, action, answer: None }
}

pub(crate) fn read(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    call(client, made, Action::ReadGroup, answered, delivered(entries))
}

pub(crate) fn claim(client: &str, made: u64, answered: u64, entries: &[(u64, &str)]) -> Call {
    call(client, made, Action::AutoClaim, answered, delivered(entries))
}

pub(crate) fn ack(client: &str, made: u64, answered: u64, ids: &[u64], count: u64) -> Call {
    let action = Action::Ack { ids: ids.iter().copied().map(id).collect() };
    call(client, made, action, answered, Outcome::Acknowledged(count))
}

pub(crate) fn ack_and_delete(client: &str, made: u64, answered: u64, ids: &[u64], count: u64) -> Call {
    let action = Action::AckAndDelete { ids: ids.iter().copied().map(id).collect() };
    call(client, made, action, answered, Outcome::Acknowledged(count))
}

fn delivered(entries: &[(u64, &str)]) -> Outcome {
    Outcome::Delivered(entries.iter().map(|(ms, content)| entry(*ms, content)).collect())
}

fn call(client: &str, made: u64, action: Action, answered: u64, outcome: Outcome) -> Call {
    Call { client: client.into(), made, action, answer: Some((answered, outcome)) }
}
