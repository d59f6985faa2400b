//! XTRIM: delete old entries.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::digest::Summary;
use crate::error::Refusal;
use crate::limits::TRIM_SCAN_MAX;
use crate::names::StreamName;
use crate::trim::TrimPolicy;

/// Deletes old entries (XTRIM).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trim {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// What to delete.
    #[n(1)]
    pub policy: TrimPolicy,
}

/// What was trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trimmed {
    /// How many entries went. 0 if the stream is missing.
    #[n(0)]
    pub trimmed: u64,
}

impl Apply for Trim {
    type Reply = Trimmed;

    fn check(&self) -> Result<(), Refusal> {
        self.policy.check("policy")
    }

    fn summarize(&self, reply: &Trimmed, summary: &mut Summary) {
        summary.number(reply.trimmed);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Trimmed, Stop> {
        let Some(stream) = context.state.streams.get_mut(&self.stream) else { return Ok(Trimmed { trimmed: 0 }) };
        let given = context.budget.looks(TRIM_SCAN_MAX);
        let mut passes = given;
        let trimmed = stream.trim(&self.policy, &mut passes, context.blocks)?;
        context.budget.looked(given - passes);
        if trimmed > 0 {
            stream.touch(context.index);
        }
        Ok(Trimmed { trimmed })
    }
}
