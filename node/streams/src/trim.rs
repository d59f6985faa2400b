//! What to trim from the old end of a stream, and how exactly.

use minicbor::{Decode, Encode};

use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::TRIM_APPROX_LIMIT_DEFAULT;
use crate::removal::References;

/// What must hold after trimming: the threshold of a command, or part of a stream's retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// At most this many entries.
    Length(u64),
    /// No entry with a smaller id.
    MinId(EntryId),
    /// At most this many bytes of entries.
    Bytes(u64),
}

/// What is to become of an entry that a trim has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes.
    Remove,
    /// It stays, and the trim goes on.
    PassOver,
    /// It stays, and so do those after it.
    Stop,
}

/// What a trim removes: the oldest entries, until the threshold holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TrimPolicy {
    /// When to stop.
    #[n(0)]
    pub threshold: TrimThreshold,
    /// Remove whole blocks only (`~`): never more than exact trimming would, and cheaper.
    #[n(1)]
    pub approximate: bool,
    /// Remove at most this many entries; only if approximate. `None`: [`TRIM_APPROX_LIMIT_DEFAULT`] if approximate.
    /// 0: no limit.
    #[n(2)]
    pub limit: Option<u64>,
    /// What becomes of the groups' references. Unless they are kept, trimming goes by entries even if approximate.
    #[n(3)]
    pub references: References,
}

/// When a trim stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum TrimThreshold {
    /// When at most this many entries are left (MAXLEN).
    #[n(0)]
    MaxLength(#[n(0)] u64),
    /// When every entry with a smaller id is gone (MINID).
    #[n(1)]
    MinId(#[n(0)] EntryId),
}

impl From<TrimThreshold> for Bound {
    fn from(threshold: TrimThreshold) -> Bound {
        match threshold {
            TrimThreshold::MaxLength(length) => Bound::Length(length),
            TrimThreshold::MinId(id) => Bound::MinId(id),
        }
    }
}

impl Bound {
    /// Whether it holds for a stream of so many entries and bytes, in which no entry before `oldest` may go.
    pub(crate) fn holds(self, length: u64, bytes: u64, oldest: EntryId) -> bool {
        match self {
            Bound::Length(keep) => length <= keep.saturating_sub(u64::from(crate::mutant!(TrimOneTooMany))),
            Bound::MinId(min_id) => min_id <= oldest,
            Bound::Bytes(keep) => bytes <= keep,
        }
    }
}

impl TrimPolicy {
    /// Refuses what no stream could do. `field` is the path of the policy in its command.
    pub(crate) fn check(&self, field: &str) -> Result<(), Refusal> {
        if self.limit.is_some() && !self.approximate {
            return Err(Refusal::invalid(&format!("{field}.limit"), "only with approximate precision"));
        }
        Ok(())
    }

    /// The most entries that may go; `None`: all.
    pub(crate) fn limit(&self) -> Option<u64> {
        match (self.approximate, self.limit) {
            (false, _) | (true, Some(0)) => None,
            (true, limit) => Some(limit.unwrap_or(TRIM_APPROX_LIMIT_DEFAULT)),
        }
    }
}
