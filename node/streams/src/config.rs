//! The settings of a stream. They are replicated state, and change by [`ConfigureStream`](crate::ConfigureStream) alone.

use minicbor::{Decode, Encode};

use crate::entry_id::EntryId;
use crate::limits::{IDEMPOTENCY_DURATION_S_DEFAULT, IDEMPOTENCY_KEYS_DEFAULT};
use crate::removal::References;

/// The settings of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct StreamConfig {
    /// For how long idempotency keys are remembered, in seconds: 1 to
    /// [`IDEMPOTENCY_DURATION_S_MAX`](crate::limits::IDEMPOTENCY_DURATION_S_MAX) (IDMP-DURATION).
    #[n(0)]
    pub idempotency_duration_s: u32,
    /// How many idempotency keys are remembered of each producer: 1 to
    /// [`IDEMPOTENCY_KEYS_MAX`](crate::limits::IDEMPOTENCY_KEYS_MAX) (IDMP-MAXSIZE).
    #[n(1)]
    pub idempotency_keys_max: u32,
    /// What is trimmed without being asked for.
    #[n(2)]
    pub retention: Retention,
}

/// What is trimmed from the old end of a stream without being asked for, within about a second. Every bound that is set
/// must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Retention {
    /// Keep at most this many entries. `None`: any number.
    #[n(0)]
    pub max_length: Option<u64>,
    /// Remove entries whose id is smaller. `None`: none for that.
    #[n(1)]
    pub min_id: Option<EntryId>,
    /// Remove entries whose id's millisecond part is older than this, in milliseconds: at least 1. `None`: any age.
    #[n(2)]
    pub max_age_ms: Option<u64>,
    /// Keep at most this many bytes, as [`StreamInfo::bytes`](crate::StreamInfo::bytes) counts them. `None`: any number.
    #[n(3)]
    pub max_bytes: Option<u64>,
    /// What becomes of the groups' references. With `Acked`, entries that are still referred to stay.
    #[n(4)]
    pub references: References,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig {
            idempotency_duration_s: IDEMPOTENCY_DURATION_S_DEFAULT,
            idempotency_keys_max: IDEMPOTENCY_KEYS_DEFAULT,
            retention: Retention::default(),
        }
    }
}
