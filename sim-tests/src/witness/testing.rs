//! Good histories, and each way to spoil one: the witness must pass the first and notice the second.
//!
//! A history is made by letting random clients act on the core itself, one log entry after the other, with answers that
//! come late, are lost, or come from a repeat. Whatever spoils it changes one thing.

use bytes::Bytes;
use millstream_streams::{
    Ack, Append, AutoClaim, Batch, BatchMode, Command, ConsumerName, CreateGroup, DeleteEntries, EntryId, Fields,
    GroupName, GroupPosition, GroupRead, GroupReadFrom, Nack, NackMode, NewId, NoBlocks, OpenSession, Proposal,
    RangeQuery, ReadGroup, References, Removal, Reply, RequestId, State, StreamName,
};

use super::deeds::{content, seen_id, seen_ids};
use super::log::{Applied, Committed};
use super::states::States;
use crate::checks::Evidence;
use crate::entropy::Rng;
use crate::history::{Action, After, Answer, Call, Entry, Fresh, Id, Mode, Outcome, Placed, Put, Removed};

const STREAMS: [&str; 2] = ["hot", "cold"];
const GROUP: &str = "workers";
const CLIENTS: u64 = 5;

/// A history, and the core's state at its end.
struct Good {
    core: State,
    log: Committed,
    states: States,
    evidence: Evidence,
}

/// A client: its session, and the call that is under way.
struct Caller {
    name: String,
    session: Option<u64>,
    sequence: u64,
    /// Which call, its command, and the entries that came of it.
    under_way: Option<(usize, Option<Command>, Vec<u64>)>,
}

struct Making {
    rng: Rng,
    good: Good,
    moment: u64,
    serial: u64,
    at_ms: u64,
    /// What the last entry came to.
    last: Option<(Applied, Vec<Option<millstream_streams::Entry>>)>,
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a name")
}

fn group() -> GroupName {
    GroupName::new(GROUP).expect("a name")
}

fn append(put: &Put) -> Append {
    let fields = Fields::from_pairs([(b"content", &put.content[..])]).expect("small");
    Append { stream: stream(&put.stream), id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None }
}

impl Making {
    /// Applies a command on all nodes.
    fn apply(&mut self, request: Option<RequestId>, command: Command) -> u64 {
        self.at_ms += self.rng.below(20);
        let proposal = Proposal { at_ms: self.at_ms, request, command, bytes_max: 0 }.encode();
        self.apply_bytes(proposal)
    }

    fn apply_bytes(&mut self, proposal: Bytes) -> u64 {
        let Good { core, log, states, .. } = &mut self.good;
        let index = log.last().map_or(0, |last| last + 1);
        let mut applied = Applied { term: 1, proposal, outcome: None, repeated: false };
        let mut entries = Vec::new();
        if !applied.proposal.is_empty() {
            let done = core.apply(index, &applied.proposal, &NoBlocks, true).expect("decodes");
            (applied.outcome, applied.repeated, entries) = (Some(done.outcome), done.repeated, done.entries);
        }
        for node in ["n1", "n2", "n3"] {
            log.applied(node, index, &applied).expect("all do the same");
        }
        states.grew(applied.proposal.len());
        if self.rng.one_in(20) {
            states.look("n1", index, core, &NoBlocks).expect("only one");
        }
        self.last = Some((applied, entries));
        index
    }

    fn put(&mut self, stream: &str) -> Put {
        self.serial += 1;
        Put { stream: stream.into(), content: format!("entry {}", self.serial).into(), ..Put::default() }
    }

    fn ids(&self, stream_name: &str) -> Vec<EntryId> {
        let (start, end) = (EntryId::MIN, EntryId::MAX);
        let query = RangeQuery { stream: stream(stream_name), start, end, reverse: false, count: 1_000 };
        let page = self.good.core.range(&query).run(&NoBlocks, usize::MAX).expect("in memory");
        page.entries.iter().map(|entry| entry.id).collect()
    }

    /// Something to ask for, and the command that does it; `None`: a question.
    fn action(&mut self, client: &str) -> (Action, Option<Command>) {
        let name = STREAMS[self.rng.below(2) as usize];
        let consumer = ConsumerName::new(client).expect("a name");
        let group_name = || (name.to_owned(), GROUP.to_owned());
        let ids = self.ids(name);
        let few: Vec<EntryId> = ids.iter().copied().filter(|_| self.rng.one_in(4)).take(5).collect();
        let seen = seen_ids(&few);
        let (stream, group) = (stream(name), group());
        match self.rng.below(12) {
            0 => {
                let puts = vec![self.put(name), self.put("hot")];
                let is_refused = self.rng.one_in(3);
                let mut operations: Vec<Command> = puts.iter().map(|put| append(put).into()).collect();
                if is_refused {
                    let refused = Append { no_create: true, ..append(&self.put("nowhere")) };
                    operations.push(refused.into());
                }
                let (mode, core_mode) = match self.rng.one_in(2) {
                    true => (Mode::AllOrNothing, BatchMode::AllOrNothing),
                    false => (Mode::Continue, BatchMode::ContinueOnError),
                };
                let command = Batch { operations, guards: Vec::new(), mode: core_mode };
                (Action::Batch { puts, mode, guard: None, is_refused }, Some(command.into()))
            }
            1 | 2 => {
                let read = GroupRead { stream, from: GroupReadFrom::New };
                let command = ReadGroup {
                    group,
                    consumer,
                    streams: vec![read],
                    count: 3,
                    no_ack: false,
                    bytes_max: 0,
                    total_max: 0,
                    claim_min_idle_ms: None,
                };
                let action = Action::ReadGroup { group: group_name(), consumer: client.into(), count: 3, wait_ms: 0 };
                (action, Some(command.into()))
            }
            3 if !few.is_empty() => {
                (Action::Ack { group: group_name(), ids: seen }, Some(Ack { stream, group, ids: few }.into()))
            }
            4 if !few.is_empty() => {
                let command =
                    Nack { stream, group, ids: few, mode: NackMode::Silent, delivery_count: None, force: false };
                (Action::Nack { group: group_name(), ids: seen }, Some(command.into()))
            }
            5 if !few.is_empty() => {
                let command = DeleteEntries { stream, ids: few, references: References::Acked };
                (Action::Delete { stream: name.into(), ids: seen }, Some(command.into()))
            }
            6 => {
                let (start, count) = (EntryId::MIN, 4);
                let command = AutoClaim { stream, group, consumer, min_idle_ms: 30, start, count, ids_only: false };
                let (group, consumer) = (group_name(), client.into());
                (Action::AutoClaim { group, consumer, idle_min_ms: 30, count: 4 }, Some(command.into()))
            }
            7 => {
                let command = CreateGroup {
                    stream,
                    group,
                    position: GroupPosition::End,
                    create_stream: true,
                    entries_read: None,
                };
                (Action::CreateGroup { group: group_name(), after: After::Arrival }, Some(command.into()))
            }
            8 => {
                let beyond = few.first().copied().map(seen_id);
                let (reverse, fresh) = (self.rng.one_in(2), Fresh::Linearizable);
                (Action::Range { stream: name.into(), reverse, beyond, count: 1_000, fresh }, None)
            }
            9 => (Action::Describe { stream: name.into() }, None),
            10 => (Action::CountPending { group: group_name() }, None),
            _ => {
                let put = self.put(name);
                (Action::Append(put.clone()), Some(append(&put).into()))
            }
        }
    }

    /// The answer to a question, from the state as it is.
    fn answer(&self, action: &Action) -> Outcome {
        let core = &self.good.core;
        match action {
            Action::Range { stream: name, reverse, beyond, .. } => {
                let inside = |id: EntryId| match beyond {
                    None => true,
                    Some(bound) if *reverse => seen_id(id) < *bound,
                    Some(bound) => *bound < seen_id(id),
                };
                let (start, end) = (EntryId::MIN, EntryId::MAX);
                let query = RangeQuery { stream: stream(name), start, end, reverse: *reverse, count: 1_000 };
                let page = core.range(&query).run(&NoBlocks, usize::MAX).expect("in memory");
                let entries = page.entries.iter().filter(|entry| inside(entry.id)).map(entry);
                Outcome::Read { entries: entries.collect(), more: false }
            }
            Action::Describe { stream: name } => match core.stream_info(&stream(name)) {
                Ok(info) => Outcome::Described {
                    length: info.length,
                    last_id: seen_id(info.last_id),
                    added: info.entries_added,
                    last_change: info.last_change_index,
                },
                Err(refusal) => nothing(&refusal),
            },
            Action::CountPending { group: (name, _) } => match core.pending_summary(&stream(name), &group()) {
                Ok(summary) => {
                    let consumers = summary.consumers.iter();
                    let consumers = consumers.map(|one| (one.consumer.as_str().to_owned(), one.count)).collect();
                    Outcome::PendingCount { count: summary.count, consumers }
                }
                Err(refusal) => nothing(&refusal),
            },
            _ => unreachable!("a question"),
        }
    }
}

fn nothing(refusal: &millstream_streams::Refusal) -> Outcome {
    Outcome::NothingChanged { reason: "REFUSED".into(), text: refusal.to_string() }
}

fn entry(entry: &millstream_streams::Entry) -> Entry {
    Entry { id: seen_id(entry.id), content: content(&entry.fields) }
}

/// What a client is told of an entry of the log.
fn told(applied: &Applied, payloads: &[Option<millstream_streams::Entry>]) -> Outcome {
    let reply = match applied.outcome.as_ref().expect("a command") {
        Ok(reply) => reply,
        Err(refusal) => return nothing(refusal),
    };
    let placed = |reply: &Reply| match reply {
        Reply::Appended(appended) => Placed::At { id: seen_id(appended.id), trimmed: appended.trimmed },
        other => Placed::Refused(format!("{other:?}")),
    };
    let entries = || payloads.iter().flatten().map(entry).collect();
    match reply {
        Reply::Appended(_) => Outcome::Appended(vec![placed(reply)]),
        Reply::Batched(batched) => Outcome::Appended(
            batched
                .results
                .iter()
                .take(2)
                .map(|result| match result {
                    Ok(reply) => placed(reply),
                    Err(refusal) => Placed::Refused(refusal.to_string()),
                })
                .collect(),
        ),
        Reply::Delivered(delivered) => {
            let ids = delivered.streams.iter().flat_map(|one| &one.ids).zip(payloads);
            let deleted = ids.filter(|(_, payload)| payload.is_none()).map(|(id, _)| seen_id(*id));
            Outcome::Delivered { entries: entries(), deleted: deleted.collect() }
        }
        Reply::AutoClaimed(claimed) => Outcome::Delivered { entries: entries(), deleted: seen_ids(&claimed.deleted) },
        Reply::Acked(acked) => Outcome::Acknowledged(acked.acknowledged),
        Reply::Nacked(nacked) => Outcome::Released(nacked.released),
        Reply::EntriesDeleted(deleted) => Outcome::Removed(
            deleted
                .results
                .iter()
                .map(|removal| match removal {
                    Removal::Deleted => Removed::Deleted,
                    Removal::NotFound => Removed::NotFound,
                    Removal::Referenced => Removed::Referenced,
                })
                .collect(),
        ),
        _ => Outcome::Done(true),
    }
}

/// Makes a history of so many steps.
fn make(seed: u64, steps: u64) -> Good {
    let good = Good {
        core: State::new(),
        log: Committed::default(),
        states: States::default(),
        evidence: Evidence::default(),
    };
    let rng = Rng::stream(seed, "history");
    let mut making = Making { rng, good, moment: 0, serial: 0, at_ms: 1_000, last: None };
    making.apply_bytes(Bytes::new());
    let mut callers: Vec<_> = (1..=CLIENTS)
        .map(|number| {
            let session = (number % 2 == 1).then(|| making.apply(None, OpenSession {}.into()));
            Caller { name: format!("c{number}"), session, sequence: 0, under_way: None }
        })
        .collect();
    for step in 0..steps + 3 * CLIENTS {
        let caller = match step < steps {
            true => making.rng.below(CLIENTS),
            // At last everybody gets an answer.
            false => step % CLIENTS,
        };
        let caller = &mut callers[caller as usize];
        let Some((number, command, mut entries)) = caller.under_way.take() else {
            if step < steps {
                let (action, command) = making.action(&caller.name);
                making.moment += 1;
                let (client, made) = (caller.name.clone(), making.moment);
                making.good.evidence.calls.push(Call { client, made, made_ms: made, action, answer: None });
                caller.sequence += 1;
                caller.under_way = Some((making.good.evidence.calls.len() - 1, command, Vec::new()));
            }
            continue;
        };
        let request = caller.session.map(|session| RequestId {
            session,
            sequence: caller.sequence,
            completed_below: caller.sequence,
        });
        if let Some(command) = &command {
            // Some are repeated, some never arrive.
            let repeats = entries.len() < 2 && request.is_some() && making.rng.one_in(5);
            if entries.is_empty() || repeats {
                if entries.is_empty() && making.rng.one_in(15) {
                    answer(&mut making, number, None, Outcome::Unknown("lost on its way".into()));
                    continue;
                }
                entries.push(making.apply(request, command.clone()));
                let late = making.rng.one_in(2);
                if late {
                    let (applied, payloads) = making.last.clone().expect("just applied");
                    let at = entries.last().copied();
                    settle(&mut making, number, at, &applied, &payloads);
                } else {
                    caller.under_way = Some((number, Some(command.clone()), entries));
                }
                continue;
            }
            // Too late for an answer: whatever was applied since is no matter of this call.
            answer(&mut making, number, None, Outcome::Unknown("the answer was lost".into()));
            continue;
        }
        let action = making.good.evidence.calls[number].action.clone();
        let outcome = making.answer(&action);
        let index = matches!(action, Action::Range { .. }).then(|| making.good.log.last()).flatten();
        answer(&mut making, number, index, outcome);
    }
    making.good
}

fn settle(
    making: &mut Making,
    call: usize,
    index: Option<u64>,
    applied: &Applied,
    payloads: &[Option<millstream_streams::Entry>],
) {
    let outcome = told(applied, payloads);
    // Neither a refusal nor a delivery of nothing names its place.
    let names = !outcome.is_nothing();
    answer(making, call, index.filter(|_| names), outcome);
}

fn answer(making: &mut Making, call: usize, index: Option<u64>, outcome: Outcome) {
    making.moment += 1;
    let moment = making.moment;
    making.good.evidence.calls[call].answer = Some(Answer { moment, ms: moment, index, outcome });
}

/// What is wrong with a history.
fn judge(good: &Good) -> Vec<(&'static str, String)> {
    let mut problems = super::hold(&good.log, &good.states, &good.evidence).1;
    problems.extend(good.log.check().err().map(|problem| ("the log has no gaps", problem)));
    problems
}

#[test]
fn good_histories_pass() {
    let mut questions = 0;
    for seed in 1..=60 {
        let good = make(seed, 400);
        let (replay, problems) = super::hold(&good.log, &good.states, &good.evidence);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
        assert_eq!(good.log.check(), Ok(()));
        questions += replay.questions;
    }
    assert!(1_000 < questions, "{questions}");
}

/// Answers that name no places, as those of the Redis door: of all clients, or of these only.
fn without_places(good: &mut Good, clients: &[&str]) {
    let calls = good.evidence.calls.iter_mut().filter(|call| clients.contains(&&*call.client) || clients.is_empty());
    calls.filter_map(|call| call.answer.as_mut()).for_each(|answer| answer.index = None);
}

#[test]
fn good_histories_pass_where_answers_name_no_places() {
    for (seed, clients) in (1..=60).zip([&["c1", "c2"][..], &["c5"], &[]].into_iter().cycle()) {
        let mut good = make(seed, 400);
        without_places(&mut good, clients);
        let problems = judge(&good);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

/// Changes one thing; false if there is nothing of the kind.
type Spoil = fn(&mut Good, &mut Rng) -> bool;

fn pick<'a, T>(rng: &mut Rng, from: impl Iterator<Item = &'a mut T>) -> Option<&'a mut T> {
    let mut all: Vec<_> = from.collect();
    match all.len() {
        0 => None,
        count => Some(all.swap_remove(rng.below(count as u64) as usize)),
    }
}

/// A call that was answered so, with its answer.
fn answered<'a>(good: &'a mut Good, rng: &mut Rng, which: fn(&Outcome) -> bool) -> Option<&'a mut Call> {
    let fits = |call: &&mut Call| call.outcome().is_some_and(which);
    pick(rng, good.evidence.calls.iter_mut().filter(fits))
}

fn outcome(call: &mut Call) -> &mut Outcome {
    &mut call.answer.as_mut().expect("answered").outcome
}

fn extend(good: &mut Good, request: Option<RequestId>, command: Command) {
    let proposal = Proposal { at_ms: 1, request, command, bytes_max: 0 }.encode();
    let index = good.log.last().map_or(0, |last| last + 1);
    let done = good.core.apply(index, &proposal, &NoBlocks, false).expect("decodes");
    let applied = Applied { term: 1, proposal, outcome: Some(done.outcome), repeated: done.repeated };
    good.log.applied("n1", index, &applied).expect("the next");
}

fn is_append(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Appended(placed) if matches!(placed[..], [Placed::At { .. }]))
}

const SPOILS: [(&str, Spoil); 22] = [
    ("an answer that names no place has another id", |good, rng| {
        without_places(good, &[]);
        let Some(call) = answered(good, rng, is_append) else { return false };
        *outcome(call) = Outcome::Appended(vec![Placed::At { id: Id { ms: 5, seq: 5 }, trimmed: 0 }]);
        true
    }),
    ("an entry whose answer named no place is refused in the log", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        let index = call.answer.as_ref().and_then(|answer| answer.index).expect("an append names its place");
        without_places(good, &[]);
        let refusal = millstream_streams::Refusal::StreamNotFound { stream: stream("hot") };
        let Some(applied) = good.log.tamper().get_mut(&index) else { return false };
        applied.outcome = Some(Err(refusal));
        true
    }),
    ("a read is stale, by answers that named no places", |good, rng| {
        let appends = good.evidence.calls.iter().filter(|call| call.outcome().is_some_and(is_append));
        let told = appends.filter_map(|call| call.answer.as_ref()?.index).max();
        let end = good.evidence.calls.iter().filter_map(|call| Some(call.answer.as_ref()?.moment)).max();
        for call in good.evidence.calls.iter_mut().filter(|call| !call.action.is_question()) {
            call.answer.iter_mut().for_each(|answer| answer.index = None);
        }
        let Some(call) = answered(good, rng, |outcome| matches!(outcome, Outcome::Read { .. })) else { return false };
        let (end, answer) = (end.expect("answers"), call.answer.as_mut().expect("answered"));
        (call.made, answer.moment) = (end + 1, end + 2);
        answer.index < told
    }),
    ("an acknowledged entry is lost", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        let index = call.answer.as_ref().and_then(|answer| answer.index).expect("an append names its place");
        let lost = Applied { term: 1, proposal: Bytes::new(), outcome: None, repeated: false };
        good.log.tamper().insert(index, lost);
        true
    }),
    ("an acknowledged entry is lost, and nobody applies anything in its place", |good, _| {
        let index = good.log.last().expect("a log") / 2;
        good.log.tamper().remove(&index).is_some()
    }),
    ("a command is done twice", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        let Action::Append(put) = call.action.clone() else { return false };
        extend(good, None, append(&put).into());
        true
    }),
    ("nobody asked for a command", |good, _| {
        let put = Put { stream: "hot".into(), content: b"phantom".to_vec(), ..Put::default() };
        extend(good, None, append(&put).into());
        true
    }),
    ("nobody asked for an acknowledgement", |good, _| {
        let ids = vec![EntryId::new(1, 1)];
        extend(good, None, Ack { stream: stream("hot"), group: group(), ids }.into());
        true
    }),
    ("what is asked for later stands earlier", |good, rng| {
        // The first and the last append change their times.
        let appends = good.evidence.calls.iter_mut().filter(|call| call.outcome().is_some_and(is_append));
        let mut appends: Vec<_> = appends.collect();
        if appends.len() < 6 {
            return false;
        }
        let last = appends.len() - 1;
        let (first, last) = (rng.below(2) as usize, last - rng.below(2) as usize);
        let moments = |call: &Call| (call.made, call.answer.as_ref().expect("answered").moment);
        let (one, other) = (moments(appends[first]), moments(appends[last]));
        for (place, (made, moment)) in [(first, other), (last, one)] {
            appends[place].made = made;
            appends[place].answer.as_mut().expect("answered").moment = moment;
        }
        true
    }),
    ("a read is stale", |good, rng| {
        let end = good.evidence.calls.iter().filter_map(|call| Some(call.answer.as_ref()?.moment)).max();
        let told = good.evidence.calls.iter().filter_map(|call| call.answer.as_ref()?.index).max();
        let Some(call) = answered(good, rng, |outcome| matches!(outcome, Outcome::Read { .. })) else { return false };
        let (end, answer) = (end.expect("answers"), call.answer.as_mut().expect("answered"));
        (call.made, answer.moment) = (end + 1, end + 2);
        answer.index < told
    }),
    ("a description is stale", |good, rng| {
        let end = good.evidence.calls.iter().filter_map(|call| Some(call.answer.as_ref()?.moment)).max();
        let infos = STREAMS.map(|name| good.core.stream_info(&stream(name)).map(|info| info.last_change_index).ok());
        let told = good.evidence.calls.iter().filter_map(|call| call.answer.as_ref()?.index).max();
        let Some(call) = answered(good, rng, |outcome| matches!(outcome, Outcome::Described { .. })) else {
            return false;
        };
        let Outcome::Described { last_change, .. } = *outcome(call) else { return false };
        let end = end.expect("answers");
        call.made = end + 1;
        call.answer.as_mut().expect("answered").moment = end + 2;
        // It is stale if its stream has changed since, and that had been told.
        !infos.contains(&Some(last_change)) && infos.iter().flatten().all(|change| Some(*change) <= told)
    }),
    ("a read lacks an entry", |good, rng| {
        let Some(call) =
            answered(good, rng, |outcome| matches!(outcome, Outcome::Read { entries, .. } if !entries.is_empty()))
        else {
            return false;
        };
        let Outcome::Read { entries, .. } = outcome(call) else { return false };
        entries.remove(entries.len() / 2);
        true
    }),
    ("a read has another content", |good, rng| {
        let Some(call) =
            answered(good, rng, |outcome| matches!(outcome, Outcome::Read { entries, .. } if !entries.is_empty()))
        else {
            return false;
        };
        let Outcome::Read { entries, .. } = outcome(call) else { return false };
        entries[0].content.push(b'!');
        true
    }),
    ("a delivery lacks an entry", |good, rng| {
        let has_some = |outcome: &Outcome| matches!(outcome, Outcome::Delivered { entries, .. } if !entries.is_empty());
        let Some(call) = answered(good, rng, has_some) else { return false };
        let Outcome::Delivered { entries, .. } = outcome(call) else { return false };
        entries.pop();
        true
    }),
    ("an answer has another id", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        *outcome(call) = Outcome::Appended(vec![Placed::At { id: Id { ms: 5, seq: 5 }, trimmed: 0 }]);
        true
    }),
    ("an answer has another number", |good, rng| {
        let Some(call) = answered(good, rng, |outcome| matches!(outcome, Outcome::Acknowledged(_))) else {
            return false;
        };
        let Outcome::Acknowledged(count) = outcome(call) else { return false };
        *count += 1;
        true
    }),
    ("a count of pending entries is wrong", |good, rng| {
        let Some(call) = answered(good, rng, |outcome| matches!(outcome, Outcome::PendingCount { .. })) else {
            return false;
        };
        let Outcome::PendingCount { count, .. } = outcome(call) else { return false };
        *count += 1_000;
        true
    }),
    ("an answer names another place", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        let answer = call.answer.as_mut().expect("answered");
        answer.index = answer.index.map(|index| index + 1);
        true
    }),
    ("an answer names a place that nobody has", |good, rng| {
        let beyond = good.log.last().map(|last| last + 5);
        let Some(call) = answered(good, rng, is_append) else { return false };
        call.answer.as_mut().expect("answered").index = beyond;
        true
    }),
    ("what had an effect was promised to have none", |good, rng| {
        let Some(call) = answered(good, rng, is_append) else { return false };
        *outcome(call) = Outcome::NothingChanged { reason: "NO_LEADER".into(), text: "nothing was proposed".into() };
        call.answer.as_mut().expect("answered").index = None;
        true
    }),
    ("an outcome is another one", |good, rng| {
        let is_appended = |applied: &&mut Applied| matches!(applied.outcome, Some(Ok(Reply::Appended(_))));
        let Some(applied) = pick(rng, good.log.tamper().values_mut().filter(is_appended)) else { return false };
        let Some(Ok(Reply::Appended(appended))) = &mut applied.outcome else { return false };
        appended.id = EntryId::new(appended.id.ms, appended.id.seq + 1);
        true
    }),
    ("a state that was seen is another one", |good, _| {
        let index = good.log.last().expect("a log");
        // Where another state was seen already, it is noticed at once.
        good.states.look("n3", index, &State::new(), &NoBlocks).is_ok()
    }),
];

#[test]
fn each_way_to_spoil_a_history_is_noticed() {
    for (what, spoil) in SPOILS {
        let mut noticed = 0;
        for seed in 1..=12 {
            let mut good = make(seed, 300);
            if spoil(&mut good, &mut Rng::stream(seed, what)) {
                assert!(!judge(&good).is_empty(), "{what}, seed {seed}: not noticed");
                noticed += 1;
            }
        }
        assert!(3 < noticed, "{what}: tried in {noticed} histories only");
    }
}

#[test]
fn other_bytes_on_one_node_are_noticed() {
    let mut good = make(1, 100);
    let entries: Vec<_> = good.log.entries().map(|(index, applied)| (index, applied.clone())).collect();
    for (index, applied) in entries.into_iter().filter(|(_, applied)| !applied.proposal.is_empty()) {
        let mut bytes = applied.proposal.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        good.log.begin("n2");
        let changed = Applied { proposal: bytes.into(), ..applied };
        assert!(good.log.applied("n2", index, &changed).is_err());
    }
}
