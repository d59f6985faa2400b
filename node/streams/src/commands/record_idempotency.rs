//! XIDMPRECORD: remember that an entry was appended under an idempotency key.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::APPEND_EXPIRES_MAX;
use crate::names::StreamName;
use crate::producers::{IdempotencyKey, ProducerId};

/// Remembers that an entry was appended under an idempotency key (XIDMPRECORD): for migrations.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecordIdempotency {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The producer.
    #[n(1)]
    pub producer: ProducerId,
    /// Its key.
    #[n(2)]
    pub key: IdempotencyKey,
    /// The entry, which must be in the stream.
    #[n(3)]
    pub id: EntryId,
}

/// The key is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyRecorded {
    /// Whether it was not before.
    #[n(0)]
    pub added: bool,
}

impl Apply for RecordIdempotency {
    type Reply = IdempotencyRecorded;

    fn apply(&self, context: &mut Context<'_>) -> Result<IdempotencyRecorded, Stop> {
        let RecordIdempotency { stream: name, producer, key, id } = self;
        let stream = context.state.streams.find_mut(name)?;
        if !stream.entries.cursor(context.blocks).contains(*id)? {
            return Err(Refusal::EntryNotFound { stream: name.clone(), id: *id }.into());
        }
        match stream.appended_under(producer, key, context.now_ms) {
            Some(known) if known == *id => return Ok(IdempotencyRecorded { added: false }),
            Some(known) => return Err(Refusal::IdempotencyConflict { id: known }.into()),
            None => {}
        }
        // One that has expired makes room for itself.
        stream.expire_keys(context.now_ms, APPEND_EXPIRES_MAX);
        let keys_max = stream.config().idempotency_keys_max;
        stream.producers.record(producer, key, *id, keys_max);
        stream.touch(context.index);
        context.state.streams.refresh_retained(name);
        Ok(IdempotencyRecorded { added: true })
    }
}
