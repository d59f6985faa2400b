//! XADD: append an entry.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::entry::Fields;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::{APPEND_EXPIRES_MAX, APPEND_SCAN_MAX};
use crate::names::StreamName;
use crate::producers::Idempotency;
use crate::state::Change;
use crate::trim::TrimPolicy;

/// Appends one entry (XADD).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Append {
    /// The stream; created if missing, unless `no_create`.
    #[n(0)]
    pub stream: StreamName,
    /// How the entry's id is chosen.
    #[n(1)]
    pub id: NewId,
    /// The entry's fields.
    #[n(2)]
    pub fields: Fields,
    /// Refuse instead of creating the stream (NOMKSTREAM).
    #[n(3)]
    pub no_create: bool,
    /// Trim after appending; the new entry counts and may itself go. `None`: do not trim.
    #[n(4)]
    pub trim: Option<TrimPolicy>,
    /// Append it only if it was not appended before; only with [`NewId::Auto`]. `None`: append it.
    #[n(5)]
    pub idempotency: Option<Idempotency>,
}

/// The entry is in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Appended {
    /// The entry's id.
    #[n(0)]
    pub id: EntryId,
    /// How many entries were trimmed.
    #[n(1)]
    pub trimmed: u64,
    /// It was appended before, under the same idempotency key, and not again now. It may be in the stream no longer.
    #[n(2)]
    pub duplicate: bool,
}

/// How the id of a new entry is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NewId {
    /// By the state's clock (`*`).
    #[n(0)]
    Auto,
    /// This millisecond part; the sequence part follows (`ms-*`).
    #[n(1)]
    Ms(#[n(0)] u64),
    /// Exactly this.
    #[n(2)]
    Explicit(#[n(0)] EntryId),
}

impl Apply for Append {
    type Reply = Appended;

    fn check(&self) -> Result<(), Refusal> {
        if matches!(self.id, NewId::Explicit(id) if id.is_zero()) {
            return Err(Refusal::IdZero);
        }
        if self.idempotency.is_some() && self.id != NewId::Auto {
            return Err(Refusal::invalid("idempotency", "only with an automatic id"));
        }
        self.trim.map_or(Ok(()), |policy| policy.check("trim"))
    }

    fn summarize(&self, reply: &Appended, summary: &mut Summary) {
        summary.id(reply.id);
        summary.number(reply.trimmed);
        summary.number(reply.duplicate.into());
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Appended, Stop> {
        let Context { index, now_ms, blocks, .. } = *context;
        let streams = &mut context.state.streams;
        let key = self.idempotency.as_ref().map(|given| (&given.producer, given.key_for(&self.fields)));
        let (id, stream) = match streams.get_mut(&self.stream) {
            Some(stream) => {
                if let Some((producer, key)) = &key
                    && let Some(id) = stream.appended_under(producer, key, now_ms)
                {
                    stream.expire_keys(now_ms, APPEND_EXPIRES_MAX);
                    stream.producers.count_duplicate();
                    stream.touch(index);
                    return Ok(Appended { id, trimmed: 0, duplicate: true });
                }
                (self.id.resolve(stream.entries.counters().last_id, now_ms)?, stream)
            }
            None if self.no_create => return Err(Refusal::StreamNotFound { stream: self.stream.clone() }.into()),
            None => {
                // The id first: if it is refused, no empty stream must be left behind.
                let id = self.id.resolve(EntryId::MIN, now_ms)?;
                (id, streams.get_or_create(&self.stream))
            }
        };
        stream.entries.append(id, &self.fields);
        if let Some((producer, key)) = &key {
            stream.expire_keys(now_ms, APPEND_EXPIRES_MAX);
            let keys_max = stream.config().idempotency_keys_max;
            stream.producers.record(producer, key, id, keys_max);
        }
        let given = context.budget.looks(APPEND_SCAN_MAX);
        let mut passes = given;
        let trimmed = self.trim.map_or(Ok(0), |policy| stream.trim(&policy, &mut passes, blocks))?;
        context.budget.looked(given - passes);
        stream.touch(index);
        if key.is_some() {
            streams.refresh_retained(&self.stream);
        }
        context.changes.push(Change::Appended { stream: self.stream.clone(), entries: 1 });
        Ok(Appended { id, trimmed, duplicate: false })
    }
}

impl NewId {
    /// The id of the entry that follows `last_id`.
    fn resolve(self, last_id: EntryId, now_ms: u64) -> Result<EntryId, Refusal> {
        let after_last = last_id.next().ok_or(Refusal::IdExhausted)?;
        let id = match self {
            // A clock that stands still or steps back keeps counting on the old millisecond.
            NewId::Auto if last_id.ms < now_ms || crate::mutant!(IdsNotClamped) => EntryId::new(now_ms, 0),
            NewId::Auto => after_last,
            // A full sequence part must not carry here: the millisecond part is the producer's.
            NewId::Ms(ms) if ms == last_id.ms && after_last.ms == ms => after_last,
            NewId::Ms(ms) => EntryId::new(ms, 0),
            NewId::Explicit(id) => id,
        };
        if last_id < id || crate::mutant!(IdsNotClamped) { Ok(id) } else { Err(Refusal::IdNotGreater { last_id }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_rules() {
        let id = EntryId::new;
        let refused = |last_id| Err(Refusal::IdNotGreater { last_id });
        let cases = [
            (NewId::Auto, id(5, 3), 6, Ok(id(6, 0))),
            (NewId::Auto, id(5, 3), 5, Ok(id(5, 4))),
            (NewId::Auto, id(5, 3), 1, Ok(id(5, 4))),
            (NewId::Auto, id(5, u64::MAX), 5, Ok(id(6, 0))),
            (NewId::Auto, EntryId::MIN, 0, Ok(id(0, 1))),
            (NewId::Auto, EntryId::MAX, 5, Err(Refusal::IdExhausted)),
            (NewId::Ms(0), EntryId::MIN, 9, Ok(id(0, 1))),
            (NewId::Ms(5), id(5, 3), 9, Ok(id(5, 4))),
            (NewId::Ms(7), id(5, 3), 9, Ok(id(7, 0))),
            (NewId::Ms(4), id(5, 3), 9, refused(id(5, 3))),
            (NewId::Ms(5), id(5, u64::MAX), 9, refused(id(5, u64::MAX))),
            (NewId::Explicit(id(5, 4)), id(5, 3), 9, Ok(id(5, 4))),
            (NewId::Explicit(id(5, 3)), id(5, 3), 9, refused(id(5, 3))),
            (NewId::Explicit(id(9, 9)), EntryId::MAX, 9, Err(Refusal::IdExhausted)),
        ];
        for (choice, last_id, now_ms, expected) in cases {
            assert_eq!(choice.resolve(last_id, now_ms), expected, "{choice:?} after {last_id} at {now_ms}");
        }
    }
}
