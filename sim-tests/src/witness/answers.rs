//! Whether a client was told what the log holds: each answer to a change names its place there.

use std::collections::{BTreeMap, BTreeSet};

use millstream_streams::{AckedAndDeleted, Appended, EntriesDeleted, Entry as CoreEntry, EntryId, Outcome as Came};
use millstream_streams::{Refusal, Removal, Reply};
use millstream_streams_model::Done;

use super::deeds::{self, content, seen_id};
use super::replay::{Commands, Replayed};
use crate::history::{Action, Call, Entry, Id, Outcome, Placed, Removed};

/// A request of the log: all entries that carry the same session and sequence number, or one entry.
#[derive(Debug)]
pub(super) struct Request {
    /// In words.
    pub(super) deed: String,
    /// The first entry that carries it.
    pub(super) first: u64,
    /// The entries by which it took effect.
    pub(super) effects: Vec<u64>,
}

/// The requests of the log, by their first entry, and of which request an entry is.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// By the first entry.
    pub(super) requests: BTreeMap<u64, Request>,
    /// By entry.
    pub(super) of: BTreeMap<u64, u64>,
}

/// Whether it did anything that could have been done twice.
fn is_effect(replayed: &Replayed) -> bool {
    match &replayed.outcome {
        _ if replayed.done != Done::Now => false,
        Err(_) => false,
        Ok(Reply::Delivered(delivered)) => !delivered.is_empty(),
        Ok(Reply::Appended(appended)) => !appended.duplicate,
        Ok(_) => true,
    }
}

impl Requests {
    /// Sorts the commands of clients into requests. Each must take effect at most once, and be the same whenever it comes.
    pub(super) fn of(commands: &Commands) -> Result<Self, String> {
        let mut all = Self::default();
        let mut first = BTreeMap::new();
        for (index, replayed) in commands {
            // What its session does not take is nobody's: the client opens another session and asks again.
            let Some(deed) = deeds::of_command(&replayed.command).filter(|_| replayed.done != Done::NotTaken) else {
                continue;
            };
            let key = replayed.request.map(|request| (request.session, request.sequence));
            let at = match key {
                Some(key) => *first.entry(key).or_insert(*index),
                None => *index,
            };
            let request = all.requests.entry(at).or_insert_with(|| Request {
                deed: deed.clone(),
                first: at,
                effects: Vec::new(),
            });
            if request.deed != deed {
                return Err(format!(
                    "entries {at} and {index} are of one request, and ask for {} and {deed}",
                    request.deed
                ));
            }
            if is_effect(replayed) {
                request.effects.push(*index);
            }
            if 1 < request.effects.len() {
                return Err(format!("one request took effect at {:?}: {deed}", request.effects));
            }
            all.of.insert(*index, at);
        }
        Ok(all)
    }
}

/// Every answer is what the log has at the place that it names.
pub(super) fn fit(calls: &[Call], commands: &Commands) -> Result<(), String> {
    let mut named = BTreeMap::new();
    for call in calls.iter().filter(|call| !call.action.is_question()) {
        let Some(answer) = &call.answer else { continue };
        let Some(index) = answer.index else { continue };
        let about = || format!("{} (call {}, answered at {})", call.client, call.made, answer.moment);
        let Some(replayed) = commands.get(&index) else {
            return Err(format!("{} was told of entry {index}, which nobody applied", about()));
        };
        let (asked, done) = (deeds::of_action(&call.action), deeds::of_command(&replayed.command));
        if asked != done {
            return Err(format!("{} asked for {asked:?} and was told of entry {index}, which is {done:?}", about()));
        }
        if let Some(other) = named.insert(index, call) {
            return Err(format!("{} and {} (call {}) were told of entry {index}", about(), other.client, other.made));
        }
        if !agrees(&call.action, &answer.outcome, replayed) {
            return Err(format!(
                "{} was told {:?}; entry {index} has {:?}, and entries {:?}",
                about(),
                answer.outcome,
                replayed.outcome,
                seen(ids_of(&replayed.outcome), &replayed.payloads)
            ));
        }
    }
    Ok(())
}

/// Answers that name no place, as those of the Redis door: where only one request can be meant, they are what came of it.
pub(super) fn fit_where_meant(calls: &[Call], commands: &Commands, requests: &Requests) -> Result<(), String> {
    for (call, first) in identified(calls, requests).into_values() {
        let Some(answer) = call.answer.as_ref().filter(|answer| answer.index.is_none()) else { continue };
        let effects = requests.requests.get(&first).map(|request| &request.effects[..]).unwrap_or_default();
        let Some(replayed) = effects.first().and_then(|effect| commands.get(effect)) else {
            if let Outcome::Appended(placed) = &answer.outcome
                && placed.iter().any(|placed| placed.id().is_some())
            {
                let (client, made) = (&call.client, call.made);
                return Err(format!("{client} was told {placed:?} (call {made}); entry {first} had no such effect"));
            }
            continue;
        };
        let is_told = match &answer.outcome {
            // Told again, it finds only what is still there.
            Outcome::Delivered { entries, deleted } => {
                let mut came = deeds::seen_ids(&ids_of(&replayed.outcome));
                if let Ok(Reply::AutoClaimed(claimed)) = &replayed.outcome {
                    came.extend(deeds::seen_ids(&claimed.deleted));
                }
                entries.iter().map(|entry| entry.id).chain(deleted.iter().copied()).all(|told| came.contains(&told))
            }
            outcome => agrees(&call.action, outcome, replayed),
        };
        if !is_told {
            return Err(format!(
                "{} was told {:?} (call {}); entry {:?} has {:?}",
                call.client, answer.outcome, call.made, effects, replayed.outcome
            ));
        }
    }
    Ok(())
}

/// Whether the answer says what came of the command.
fn agrees(action: &Action, told: &Outcome, replayed: &Replayed) -> bool {
    let Ok(reply) = &replayed.outcome else { return false };
    let (entries, gone) = seen(ids_of(&replayed.outcome), &replayed.payloads);
    match (told, reply) {
        (Outcome::Appended(placed), Reply::Appended(appended)) => placed[..] == [placed_at(appended)],
        (Outcome::Appended(placed), Reply::Batched(batched)) => {
            placed.len() <= batched.results.len()
                && placed.len() == action.puts().len()
                && placed.iter().zip(&batched.results).all(|(placed, result)| match (placed, result) {
                    (Placed::Refused(_), Err(_)) => true,
                    (placed, Ok(Reply::Appended(appended))) => *placed == placed_at(appended),
                    _ => false,
                })
        }
        (Outcome::Removed(removed), Reply::EntriesDeleted(EntriesDeleted { results }))
        | (Outcome::Removed(removed), Reply::AckedAndDeleted(AckedAndDeleted { results })) => {
            *removed == results.iter().map(removed_as).collect::<Vec<_>>()
        }
        (Outcome::Trimmed(count), Reply::Trimmed(trimmed)) => *count == trimmed.trimmed,
        (Outcome::Delivered { entries: told, deleted }, Reply::Delivered(_)) => (told, deleted) == (&entries, &gone),
        (Outcome::Delivered { entries: told, .. }, Reply::Claimed(_)) => *told == entries,
        (Outcome::Delivered { entries: told, deleted }, Reply::AutoClaimed(claimed)) => {
            *told == entries && *deleted == deeds::seen_ids(&claimed.deleted)
        }
        (Outcome::Acknowledged(count), Reply::Acked(acked)) => *count == acked.acknowledged,
        (Outcome::Released(count), Reply::Nacked(nacked)) => *count == nacked.released,
        (Outcome::Done(existed), Reply::GroupDeleted(deleted)) => *existed == deleted.existed,
        (Outcome::Done(_), Reply::GroupCreated(_) | Reply::GroupPositionSet(_) | Reply::StreamConfigured(_)) => true,
        // The library gives no outcome in its own words for these.
        (Outcome::Unknown(_) | Outcome::NothingChanged { .. }, _) => true,
        _ => false,
    }
}

fn placed_at(appended: &Appended) -> Placed {
    match appended.duplicate {
        true => Placed::Before(seen_id(appended.id)),
        false => Placed::At { id: seen_id(appended.id), trimmed: appended.trimmed },
    }
}

fn removed_as(removal: &Removal) -> Removed {
    match removal {
        Removal::Deleted => Removed::Deleted,
        Removal::NotFound => Removed::NotFound,
        Removal::Referenced => Removed::Referenced,
    }
}

/// The ids whose payloads come with an outcome.
fn ids_of(outcome: &Came) -> Vec<EntryId> {
    match outcome {
        Ok(Reply::Delivered(delivered)) => delivered.streams.iter().flat_map(|one| one.ids.iter().copied()).collect(),
        Ok(Reply::Claimed(claimed)) => claimed.ids.clone(),
        Ok(Reply::AutoClaimed(claimed)) => claimed.ids.clone(),
        _ => Vec::new(),
    }
}

/// The entries that come with ids, and the ids without.
fn seen(ids: Vec<EntryId>, payloads: &[Option<CoreEntry>]) -> (Vec<Entry>, Vec<Id>) {
    let (mut entries, mut gone) = (Vec::new(), Vec::new());
    for (place, id) in ids.into_iter().enumerate() {
        match payloads.get(place) {
            Some(Some(entry)) => entries.push(Entry { id: seen_id(id), content: content(&entry.fields) }),
            _ => gone.push(seen_id(id)),
        }
    }
    (entries, gone)
}

/// Every command of the log is one that a client asked for, and not more often than it was asked for; what was promised
/// to have had no effect had none.
pub(super) fn belong(calls: &[Call], requests: &Requests) -> Result<(), String> {
    #[derive(Default)]
    struct Count {
        calls: usize,
        without_effect: usize,
        requests: Vec<u64>,
        effects: Vec<u64>,
    }
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let deeds: Vec<_> = calls.iter().filter_map(|call| Some((deeds::of_action(&call.action)?, call))).collect();
    for (deed, call) in &deeds {
        let count = counts.entry(deed).or_default();
        count.calls += 1;
        count.without_effect += usize::from(call.outcome().is_some_and(Outcome::is_nothing));
    }
    for request in requests.requests.values() {
        let count = counts.entry(&request.deed).or_default();
        count.requests.push(request.first);
        count.effects.extend(&request.effects);
    }
    for (deed, Count { calls, without_effect, requests, effects }) in &counts {
        if *calls < requests.len() {
            return Err(format!(
                "asked for {calls} times and {} times in the log, at {requests:?}: {deed}",
                requests.len()
            ));
        }
        if calls - without_effect < effects.len() {
            return Err(format!(
                "asked for {calls} times, {without_effect} of them without effect as was promised, and took effect at \
                 {effects:?}: {deed}"
            ));
        }
    }
    Ok(())
}

/// No entry, by its content, was put into the log's streams twice.
pub(super) fn once(commands: &Commands) -> Result<(), String> {
    let mut placed: BTreeMap<u64, u64> = BTreeMap::new();
    let mut place = |index: u64, command: &millstream_streams::Command, outcome: &Result<Reply, Refusal>| {
        let (millstream_streams::Command::Append(append), Ok(Reply::Appended(appended))) = (command, outcome) else {
            return Ok(());
        };
        if appended.duplicate {
            return Ok(());
        }
        let print = crate::trace::fingerprint(&content(&append.fields));
        match placed.insert(print, index) {
            Some(before) => Err(format!("the same entry was appended at {before} and at {index}: {}", appended.id)),
            None => Ok(()),
        }
    };
    for (index, replayed) in commands.iter().filter(|(_, replayed)| replayed.done == Done::Now) {
        match (&replayed.command, &replayed.outcome) {
            (millstream_streams::Command::Batch(batch), Ok(Reply::Batched(batched))) => {
                for (operation, result) in batch.operations.iter().zip(&batched.results) {
                    place(*index, operation, result)?;
                }
            }
            (command, outcome) => place(*index, command, outcome)?,
        }
    }
    Ok(())
}

/// The places in the log of calls that nobody answered, where only one request can be meant.
pub(super) fn identified<'a>(calls: &'a [Call], requests: &Requests) -> BTreeMap<u64, (&'a Call, u64)> {
    let mut by_deed: BTreeMap<String, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Some(deed) = deeds::of_action(&call.action) {
            by_deed.entry(deed).or_default().push(call);
        }
    }
    let mut in_log: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for request in requests.requests.values() {
        in_log.entry(&request.deed).or_default().insert(request.first);
    }
    let mut found = BTreeMap::new();
    for (deed, calls) in by_deed {
        if let ([call], Some(places)) = (&calls[..], in_log.get(&deed[..]))
            && let Some(first) = places.first()
        {
            found.insert(call.made, (*call, *first));
        }
    }
    found
}
