//! The error contract as data: what each [`ErrorReason`] promises. Server and client read this one table; a test holds
//! it to the annotations in `errors.proto`.

use crate::v1::ErrorReason;

/// The `domain` of every `google.rpc.ErrorInfo` that Millstream sends.
pub const DOMAIN: &str = "millstream";

/// What a reason promises to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// The reason.
    pub reason: ErrorReason,
    /// Its name in `ErrorInfo.reason`.
    pub name: &'static str,
    /// The gRPC status code, by its number.
    pub code: i32,
    /// The same call may succeed later or elsewhere.
    pub retryable: bool,
    /// The call is known to have changed nothing.
    pub no_side_effects: bool,
}

const fn row(reason: ErrorReason, name: &'static str, code: i32, retryable: bool, no_side_effects: bool) -> Traits {
    Traits { reason, name, code, retryable, no_side_effects }
}

/// Every reason, in the order of the enum.
pub const TABLE: [Traits; 26] = [
    row(ErrorReason::InvalidArgument, "INVALID_ARGUMENT", 3, false, true),
    row(ErrorReason::LimitExceeded, "LIMIT_EXCEEDED", 3, false, true),
    row(ErrorReason::IdZero, "ID_ZERO", 3, false, true),
    row(ErrorReason::IdNotGreater, "ID_NOT_GREATER", 9, false, true),
    row(ErrorReason::IdExhausted, "ID_EXHAUSTED", 9, false, true),
    row(ErrorReason::StreamNotFound, "STREAM_NOT_FOUND", 5, false, true),
    row(ErrorReason::GroupNotFound, "GROUP_NOT_FOUND", 5, false, true),
    row(ErrorReason::GroupExists, "GROUP_EXISTS", 6, false, true),
    row(ErrorReason::SessionNotFound, "SESSION_NOT_FOUND", 9, false, true),
    row(ErrorReason::SequenceOutOfWindow, "SEQUENCE_OUT_OF_WINDOW", 9, false, true),
    row(ErrorReason::SequenceReused, "SEQUENCE_REUSED", 9, false, true),
    row(ErrorReason::NotLeader, "NOT_LEADER", 9, true, true),
    row(ErrorReason::NoLeader, "NO_LEADER", 14, true, true),
    row(ErrorReason::CommitUnknown, "COMMIT_UNKNOWN", 2, true, false),
    row(ErrorReason::Overloaded, "OVERLOADED", 8, true, true),
    row(ErrorReason::NotReady, "NOT_READY", 14, true, true),
    row(ErrorReason::NodeStopped, "NODE_STOPPED", 2, true, false),
    row(ErrorReason::LastIdTooSmall, "LAST_ID_TOO_SMALL", 9, false, true),
    row(ErrorReason::EntriesAddedTooSmall, "ENTRIES_ADDED_TOO_SMALL", 9, false, true),
    row(ErrorReason::EntryNotFound, "ENTRY_NOT_FOUND", 5, false, true),
    row(ErrorReason::IdempotencyConflict, "IDEMPOTENCY_CONFLICT", 6, false, true),
    row(ErrorReason::GuardFailed, "GUARD_FAILED", 10, false, true),
    row(ErrorReason::DiskFull, "DISK_FULL", 8, true, true),
    row(ErrorReason::MemberNotFound, "MEMBER_NOT_FOUND", 5, false, true),
    row(ErrorReason::MembershipRefused, "MEMBERSHIP_REFUSED", 9, false, true),
    row(ErrorReason::MembershipNotReady, "MEMBERSHIP_NOT_READY", 14, true, true),
];

/// What `reason` promises; `None` for UNSPECIFIED, which is never sent.
pub fn traits(reason: ErrorReason) -> Option<&'static Traits> {
    TABLE.iter().find(|row| row.reason == reason)
}

/// The row of a name from `ErrorInfo.reason`; `None` for a name this version does not know.
pub fn by_name(name: &str) -> Option<&'static Traits> {
    TABLE.iter().find(|row| row.name == name)
}
