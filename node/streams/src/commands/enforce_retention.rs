//! Retention: trim streams by their own settings. The leader proposes it when [`State::retention_due`] says so.
//!
//! [`State::retention_due`]: crate::State::retention_due

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::error::Refusal;
use crate::limits::{RETENTION_ENTRIES_MAX, RETENTION_STREAMS_MAX, TRIM_SCAN_MAX};
use crate::names::StreamName;

/// Trims streams by their retention, and forgets idempotency keys that have expired.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EnforceRetention {
    /// 1 to [`RETENTION_STREAMS_MAX`] streams; those that are missing or have no retention are passed over.
    #[n(0)]
    pub streams: Vec<StreamName>,
}

/// What was enforced.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetentionEnforced {
    /// How many entries were trimmed. With the keys at most [`RETENTION_ENTRIES_MAX`]; if so many, there may be more to do.
    #[n(0)]
    pub trimmed: u64,
    /// How many idempotency keys were forgotten.
    #[n(1)]
    pub expired: u64,
}

impl Apply for EnforceRetention {
    type Reply = RetentionEnforced;

    fn check(&self) -> Result<(), Refusal> {
        if self.streams.is_empty() {
            return Err(Refusal::invalid("streams", "at least one stream is needed"));
        }
        Refusal::check_limit("streams", self.streams.len() as u64, RETENTION_STREAMS_MAX as u64)
    }

    fn summarize(&self, reply: &RetentionEnforced, summary: &mut Summary) {
        summary.number(reply.trimmed);
        summary.number(reply.expired);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<RetentionEnforced, Stop> {
        let Context { index, now_ms, blocks, .. } = *context;
        let streams = &mut context.state.streams;
        let mut enforced = RetentionEnforced { trimmed: 0, expired: 0 };
        for name in &self.streams {
            if !streams.get(name).is_some_and(|stream| stream.is_due(now_ms)) {
                continue;
            }
            let Some(stream) = streams.get_mut(name) else { continue };
            let limit = RETENTION_ENTRIES_MAX - enforced.trimmed - enforced.expired;
            let mut passes = context.budget.looks(TRIM_SCAN_MAX);
            let given = passes;
            let (trimmed, expired) = stream.enforce_retention(now_ms, limit, &mut passes, blocks)?;
            context.budget.looked(given - passes);
            if trimmed + expired > 0 {
                stream.touch(index);
            }
            if expired > 0 {
                streams.refresh_retained(name);
            }
            enforced.trimmed += trimmed;
            enforced.expired += expired;
        }
        Ok(enforced)
    }
}
