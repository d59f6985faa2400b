//! Sections 2.2, 4.1 and 4.5 to 4.8: what changes a stream and its entries; and the settings, which are our own.

use millstream_streams::limits::ENTRIES_ADDED_MAX;
use millstream_streams::*;

use crate::idempotency::{expire, is_expired, key_of};
use crate::state::{Corners, Key, Model, Stream};
use crate::step::{Step, Stop};
use crate::trimming;

impl Model {
    /// Section 4.1, "order of work".
    pub(crate) fn append(&mut self, index: u64, command: &Append, observed: Option<&Outcome>) -> Step<Appended> {
        let Append { stream: name, id, fields, no_create, trim, idempotency } = command;
        let now_ms = self.clock_ms;
        let new = Stream::default();
        let stream = match self.streams.get(name) {
            Some(stream) => stream,
            None if *no_create => return Err(Refusal::StreamNotFound { stream: name.clone() }.into()),
            None => &new,
        };

        let keyed = idempotency.as_ref().map(|idempotency| (&idempotency.producer, key_of(idempotency, fields)));
        let found = keyed.as_ref().and_then(|(producer, key)| stream.producers.find(producer, key));
        self.corners.reach_if(found.is_some_and(|id| is_expired(stream, id, now_ms)), "4.2 hit on an expired key");
        if let Some(id) = found.filter(|id| !is_expired(stream, *id, now_ms)) {
            self.corners.reach("4.2 hit");
            self.corners.reach_if(!stream.is_live(id), "4.2 hit, the entry is gone");
            self.corners.reach_if(stream.last_id == EntryId::MAX, "4.2 hit on an exhausted stream");
            let stream = self.streams.get_mut(name).unwrap();
            expire(stream, now_ms);
            stream.producers.duplicates += 1;
            stream.last_change_index = index;
            return Ok(Appended { id, trimmed: 0, duplicate: true });
        }

        let id = choose_id(stream.last_id, *id, now_ms, &mut self.corners)?;

        let stream = self.streams.entry(name.clone()).or_insert(new);
        stream.entries.push(Entry { id, fields: fields.clone() });
        stream.entries_added = (stream.entries_added + 1).min(ENTRIES_ADDED_MAX);
        stream.last_id = id;
        stream.last_change_index = index;
        if let Some((producer, key)) = keyed {
            self.corners.reach_if(matches!(key, Key::Content(_)), "4.2 key from the content");
            let expired = expire(stream, now_ms);
            self.corners.reach_if(expired > 0, "4.2 keys expired on append");
            stream.producers.add(producer, key, id, stream.config.idempotency_keys_max, &mut self.corners);
        }
        let trimmed = match trim {
            Some(policy) => {
                let observed = match observed {
                    Some(Ok(Reply::Appended(appended))) => Some(appended.trimmed),
                    _ => None,
                };
                trimming::trim(stream, policy, observed, &mut self.corners)?
            }
            None => 0,
        };
        self.corners.reach_if(!stream.is_live(id), "4.1 the new entry itself was trimmed");
        self.changes.push(Change::Appended { stream: name.clone(), entries: 1 });
        Ok(Appended { id, trimmed, duplicate: false })
    }

    /// Sections 4.5 and 4.6.
    pub(crate) fn delete_entries(&mut self, index: u64, command: &DeleteEntries) -> Step<EntriesDeleted> {
        let DeleteEntries { stream, ids, references } = command;
        let Some(stream) = self.streams.get_mut(stream) else {
            return Ok(EntriesDeleted { results: vec![Removal::NotFound; ids.len()] });
        };
        let mut results = Vec::new();
        for id in ids {
            let (result, changed) = stream.delete(*id, *references, &mut self.corners);
            results.push(result);
            if changed {
                stream.last_change_index = index;
            }
        }
        Ok(EntriesDeleted { results })
    }

    /// Section 4.7.
    pub(crate) fn trim(&mut self, index: u64, command: &Trim, observed: Option<&Outcome>) -> Step<Trimmed> {
        let Trim { stream, policy } = command;
        let Some(stream) = self.streams.get_mut(stream) else { return Ok(Trimmed { trimmed: 0 }) };
        let observed = match observed {
            Some(Ok(Reply::Trimmed(trimmed))) => Some(trimmed.trimmed),
            _ => None,
        };
        let trimmed = trimming::trim(stream, policy, observed, &mut self.corners)?;
        if trimmed > 0 {
            stream.last_change_index = index;
        }
        Ok(Trimmed { trimmed })
    }

    pub(crate) fn delete_stream(&mut self, command: &DeleteStream) -> Step<StreamDeleted> {
        let existed = self.streams.remove(&command.stream).is_some();
        if existed {
            self.changes.push(Change::StreamDeleted { stream: command.stream.clone() });
        }
        Ok(StreamDeleted { existed })
    }

    pub(crate) fn delete_all(&mut self, DeleteAll {}: &DeleteAll) -> Step<AllDeleted> {
        let streams = self.streams.len() as u64;
        self.streams.clear();
        if streams > 0 {
            self.changes.push(Change::AllDeleted);
        }
        Ok(AllDeleted { streams })
    }

    /// Section 4.8.
    pub(crate) fn set_last_id(&mut self, index: u64, command: &SetLastId) -> Step<LastIdSet> {
        let SetLastId { stream: name, last_id, entries_added, max_deleted_id } = command;
        let too_small = |bound, id| Refusal::LastIdTooSmall { bound, id };
        let smaller_than_given = max_deleted_id
            .filter(|given| last_id < given)
            .map(|given| too_small(LastIdBound::GivenMaxDeletedId, given));

        let Some(stream) = self.streams.get_mut(name) else {
            // No stream could accept the one, and so it may be said first.
            let not_found = Refusal::StreamNotFound { stream: name.clone() };
            return Err(Stop::Refused([not_found].into_iter().chain(smaller_than_given).collect()));
        };
        if let Some(refusal) = smaller_than_given {
            return Err(refusal.into());
        }
        if *last_id < stream.max_deleted_id {
            return Err(too_small(LastIdBound::MaxDeletedId, stream.max_deleted_id).into());
        }
        if let Some(last) = stream.entries.last() {
            if *last_id < last.id {
                return Err(too_small(LastIdBound::LastEntry, last.id).into());
            }
            if entries_added.is_some_and(|added| added < stream.length()) {
                return Err(Refusal::EntriesAddedTooSmall { length: stream.length() }.into());
            }
        }
        self.corners.reach_if(*last_id < stream.last_id, "4.8 last id lowered");
        self.corners.reach_if(*last_id > stream.last_id, "4.8 last id raised");
        let before = (stream.last_id, stream.entries_added, stream.max_deleted_id);
        stream.last_id = *last_id;
        stream.entries_added = entries_added.unwrap_or(stream.entries_added);
        if let Some(given) = max_deleted_id.filter(|given| !given.is_zero()) {
            self.corners.reach_if(given < stream.max_deleted_id, "4.8 greatest deleted id lowered");
            stream.max_deleted_id = given;
        }
        if before != (stream.last_id, stream.entries_added, stream.max_deleted_id) {
            stream.last_change_index = index;
        }
        Ok(LastIdSet {})
    }

    /// Section 4.2, XCFGSET; and the retention, which Redis has not.
    pub(crate) fn configure_stream(&mut self, index: u64, command: &ConfigureStream) -> Step<StreamConfigured> {
        let ConfigureStream { stream: name, create_stream, idempotency_duration_s, idempotency_keys_max, retention } =
            command;
        let exists = self.streams.contains_key(name);
        if !exists && !create_stream {
            return Err(Refusal::StreamNotFound { stream: name.clone() }.into());
        }
        let stream = self.streams.entry(name.clone()).or_default();
        let before = stream.config;
        let config = &mut stream.config;
        config.idempotency_duration_s = idempotency_duration_s.unwrap_or(before.idempotency_duration_s);
        config.idempotency_keys_max = idempotency_keys_max.unwrap_or(before.idempotency_keys_max);
        config.retention = retention.unwrap_or(before.retention);
        if config.idempotency_duration_s != before.idempotency_duration_s
            || config.idempotency_keys_max != before.idempotency_keys_max
        {
            self.corners.reach_if(!stream.producers.keys.is_empty(), "4.2 another setting made all keys forgotten");
            stream.producers.keys.clear();
        }
        if !exists || stream.config != before {
            stream.last_change_index = index;
        }
        Ok(StreamConfigured { config: stream.config })
    }

    /// Section 4.2, XIDMPRECORD.
    pub(crate) fn record_idempotency(&mut self, index: u64, command: &RecordIdempotency) -> Step<IdempotencyRecorded> {
        let RecordIdempotency { stream: name, producer, key, id } = command;
        let Some(stream) = self.streams.get_mut(name) else {
            return Err(Refusal::StreamNotFound { stream: name.clone() }.into());
        };
        if !stream.is_live(*id) {
            return Err(Refusal::EntryNotFound { stream: name.clone(), id: *id }.into());
        }
        let (key, now_ms) = (Key::Given(key.clone()), self.clock_ms);
        match stream.producers.find(producer, &key).filter(|id| !is_expired(stream, *id, now_ms)) {
            Some(recorded) if recorded == *id => Ok(IdempotencyRecorded { added: false }),
            Some(recorded) => Err(Refusal::IdempotencyConflict { id: recorded }.into()),
            None => {
                expire(stream, now_ms);
                stream.producers.add(producer, key, *id, stream.config.idempotency_keys_max, &mut self.corners);
                stream.last_change_index = index;
                Ok(IdempotencyRecorded { added: true })
            }
        }
    }

    /// What the leader does about once a second.
    pub(crate) fn enforce_retention(&mut self, index: u64, command: &EnforceRetention) -> Step<RetentionEnforced> {
        let mut all = RetentionEnforced { trimmed: 0, expired: 0 };
        for name in &command.streams {
            let Some(stream) = self.streams.get_mut(name) else { continue };
            let trimmed = trimming::retain(stream, self.clock_ms, &mut self.corners);
            let expired = expire(stream, self.clock_ms);
            self.corners.reach_if(expired > 0, "4.2 keys expired by retention");
            if trimmed > 0 || expired > 0 {
                stream.last_change_index = index;
            }
            all.trimmed += trimmed;
            all.expired += expired;
        }
        Ok(all)
    }
}

impl Stream {
    /// Section 4.6, one id. Says also whether anything changed.
    pub(crate) fn delete(&mut self, id: EntryId, references: References, corners: &mut Corners) -> (Removal, bool) {
        let mut dropped = false;
        match references {
            References::Keep => {}
            // Even if the entry itself is gone.
            References::Delete => {
                dropped = self.drop_references(id);
                corners.reach_if(dropped && !self.is_live(id), "4.6 DELREF dropped a dangling reference");
            }
            // Before it is looked whether there is such an entry.
            References::Acked => {
                if self.is_referenced(id) {
                    corners.reach_if(!self.is_live(id), "4.6 ACKED: referenced, though there is no entry");
                    return (Removal::Referenced, false);
                }
                corners.reach_if(self.groups.is_empty(), "4.6 ACKED without groups");
                corners.reach_if(self.groups.len() > 1, "4.6 ACKED: not referenced by any of several groups");
            }
        }
        let Some(at) = self.entries.iter().position(|entry| entry.id == id) else {
            return (Removal::NotFound, dropped);
        };
        self.entries.remove(at);
        self.max_deleted_id = self.max_deleted_id.max(id);
        (Removal::Deleted, true)
    }
}

/// Section 2.2.
fn choose_id(last_id: EntryId, new: NewId, now_ms: u64, corners: &mut Corners) -> Result<EntryId, Refusal> {
    if last_id == EntryId::MAX {
        return Err(Refusal::IdExhausted);
    }
    let id = match new {
        NewId::Auto if now_ms > last_id.ms => EntryId::new(now_ms, 0),
        NewId::Auto => {
            corners.reach_if(last_id.seq == u64::MAX, "2.2 the sequence carries into the milliseconds");
            corners.reach_if(now_ms < last_id.ms, "2.2 the clock is behind the last id");
            last_id.next().unwrap()
        }
        NewId::Ms(ms) if ms == last_id.ms => {
            corners.reach_if(last_id.seq == u64::MAX, "2.2 ms-*: no sequence is left");
            let seq = last_id.seq.checked_add(1).ok_or(Refusal::IdNotGreater { last_id })?;
            EntryId::new(ms, seq)
        }
        NewId::Ms(ms) => EntryId::new(ms, 0),
        NewId::Explicit(id) => id,
    };
    if id <= last_id {
        return Err(Refusal::IdNotGreater { last_id });
    }
    corners.reach_if(id == EntryId::MAX, "2.2 the last possible id was used");
    Ok(id)
}
