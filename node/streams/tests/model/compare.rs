//! Everything that can be seen of the core, against what the model says.

use millstream_streams::*;

use super::run::sum;
use crate::support::Store;
use millstream_streams_model::{Corners, Model, expire, retain};

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, core: &T) -> Result<(), String> {
    if model == core { Ok(()) } else { Err(format!("{what}:\n  model: {model:?}\n  core:  {core:?}")) }
}

/// What the core returned beside the outcome, which the model has judged.
pub(crate) fn applied(model: &Model, applied: &Applied) -> Result<(), String> {
    same("repeated", &false, &applied.repeated)?;
    if applied.outcome.is_err() {
        same("changes after a refusal", &Vec::new(), &applied.changes)?;
    } else if model.changes != applied.changes {
        same("changes", &sum(&model.changes), &sum(&applied.changes))?;
    }

    if applied.outcome.is_err() {
        return same("payloads after a refusal", &Vec::new(), &applied.entries);
    }
    same("payloads", &model.payloads, &applied.entries)
}

/// All streams, by every question.
pub(crate) fn all(model: &Model, core: &State, store: &Store) -> Result<(), String> {
    same("clock", &model.clock_ms, &core.clock_ms())?;
    let streams: Vec<_> = model
        .streams
        .iter()
        .map(|(name, stream)| StreamSummary {
            stream: name.clone(),
            length: stream.length(),
            last_id: stream.last_id,
            groups: stream.groups.len() as u64,
        })
        .collect();
    let listed = core.list_streams("", None, usize::MAX);
    if streams != listed {
        return Err(format!("streams:\n  model: {streams:?}\n  core:  {listed:?}"));
    }
    retention(model, core)?;
    for name in model.streams.keys() {
        stream(name, model, core, store)?;
        questions(name, model, core)?;
    }
    Ok(())
}

/// Which streams the leader should look after. It may be told of one in vain only where entries may be held.
fn retention(model: &Model, core: &State) -> Result<(), String> {
    let (due, next) = core.retention_due(model.clock_ms, None, 1000);
    same("next stream to look after", &None, &next)?;
    for (name, stream) in &model.streams {
        let mut after = stream.clone();
        let trimmed = retain(&mut after, model.clock_ms, &mut Corners::default());
        let has_work = trimmed + expire(&mut after, model.clock_ms) > 0;
        let is_due = due.contains(name);
        if has_work != is_due && (has_work || stream.config.retention.references != References::Acked) {
            return Err(format!("retention of {name:?} is due: model: {has_work}, core: {is_due}"));
        }
    }
    Ok(())
}

/// One stream: its entries, and all that is told of it and its groups in full.
pub(crate) fn stream(name: &StreamName, model: &Model, core: &State, store: &Store) -> Result<(), String> {
    let known = model.streams.get(name);
    same("last change", &known.map(|stream| stream.last_change_index), &core.last_change_index(name))?;

    let range =
        RangeQuery { stream: name.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse: false, count: 100_000 };
    let page = core.range(&range).run(store, usize::MAX).map_err(|error| format!("range: {error}"))?;
    let entries = known.map_or(&[][..], |stream| &stream.entries);
    if entries != page.entries {
        return Err(format!("entries of {name:?}:\n  model: {entries:?}\n  core:  {:?}", page.entries));
    }
    same("more", &false, &page.more)?;
    same("details", &model.details(name, 100_000), &core.stream_details(name, 100_000))?;

    for group in known.into_iter().flat_map(|stream| stream.groups.keys()) {
        for min_idle_ms in [0, 7] {
            let first = model.next_claimable_ms(name, group, min_idle_ms, None).0;
            for after in [None, first, Some(model.clock_ms)] {
                let (expected, earlier) = model.next_claimable_ms(name, group, min_idle_ms, after);
                let observed = core.next_claimable_ms(name, group, min_idle_ms, after);
                if !matches!(observed, Ok(Some(at_ms)) if earlier.contains(&at_ms)) {
                    same("next claimable", &Ok(expected), &observed)?;
                }
            }
        }
    }
    Ok(())
}

/// The questions that the one in full leaves open, or answers in other words.
fn questions(name: &StreamName, model: &Model, core: &State) -> Result<(), String> {
    let stream = &model.streams[name];
    same("info", &Ok(stream.info()), &core.stream_info(name))?;
    same("groups", &Ok(stream.groups_info()), &core.groups(name, None, 100_000))?;
    same("last id", &stream.last_id, &core.last_id(name))?;
    let last = stream.entries.last().map(|last| last.id);
    same("last entry", &last, &core.last_entry_id(name))?;
    for (group_name, group) in &stream.groups {
        same(
            "consumers",
            &model.consumers(name, group_name),
            &core.consumers(name, group_name, None, 100_000, model.clock_ms),
        )?;
        same("pending", &model.pending_summary(name, group_name), &core.pending_summary(name, group_name))?;
        let query = PendingQuery {
            stream: name.clone(),
            group: group_name.clone(),
            start: EntryId::MIN,
            end: EntryId::MAX,
            count: 100_000,
            consumer: None,
            min_idle_ms: 0,
        };
        same("pending list", &model.pending_list(&query), &core.pending_list(&query, model.clock_ms))?;
        let has_new = last.is_some_and(|last| last > group.last_id);
        same("has new", &Ok(has_new), &core.group_has_new(name, group_name))?;
        same("has entries after", &has_new, &core.has_entries_after(name, group.last_id))?;
        for consumer in group.consumers.keys() {
            same("consumer exists", &Ok(true), &core.consumer_exists(name, group_name, consumer))?;
        }
    }
    Ok(())
}
