//! What a call that fails is told: every error is a `google.rpc.Status` with an `ErrorInfo`, as `errors.proto` says.
//!
//! The table of reasons is `millstream_proto::reasons`; here the causes are sorted into it and the facts are added.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_proto::reasons;
use millstream_proto::v1::{ErrorReason, OperationError};
use millstream_streams::limits::PRODUCER_BYTES_MAX;
use millstream_streams::{BlockError, LastIdBound, NameError, Refusal};
use prost::Message;
use tonic::{Code, Status};

use crate::front::Denied;
use crate::replica::{BackupError, LeaderHint, MembershipError, Unavailable};
use crate::watch::Full;

/// Messages are cut here: with the names of a call in full they could outgrow the 16 KiB that many clients accept as
/// headers. The metadata hold the names in full.
const MESSAGE_CHARS_MAX: usize = 400;
/// When to come back to a node that has too much to do.
const OVERLOAD_DELAY: Duration = Duration::from_millis(100);
/// When to come back to a cluster whose disks are full. They are looked at once a second.
const DISK_FULL_DELAY: Duration = Duration::from_secs(1);

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    reason: ErrorReason,
    message: String,
    /// Sorted, so that equal failures are equal bytes.
    metadata: BTreeMap<&'static str, String>,
    retry_delay: Option<Duration>,
}

impl Failure {
    fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: BTreeMap::new(), retry_delay: None }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.insert(key, value.to_string());
        self
    }

    /// A field of the request is malformed.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let (field, problem) = (field.into(), problem.into());
        let message = format!("{field}: {problem}");
        Self::new(ErrorReason::InvalidArgument, message).with("field", field).with("problem", shortened(&problem))
    }

    /// A part of the request is larger than `limit`, in the part's own unit.
    pub(crate) fn too_large(field: impl Into<String>, limit: u64, unit: &str) -> Self {
        let field = field.into();
        let message = format!("{field} exceeds the limit of {limit} {unit}");
        Self::new(ErrorReason::LimitExceeded, message).with("field", field).with("limit", limit)
    }

    /// The node cannot go on.
    pub(crate) fn stopped(problem: impl Into<String>) -> Self {
        Self::new(ErrorReason::NodeStopped, problem)
    }

    /// The command was proposed, or may have been, and nobody knows what became of it.
    pub(crate) fn commit_unknown(problem: impl Into<String>) -> Self {
        Self::new(ErrorReason::CommitUnknown, problem)
    }

    /// Nothing was proposed, for want of a leader.
    pub(crate) fn no_leader(problem: impl Into<String>) -> Self {
        Self::new(ErrorReason::NoLeader, problem)
    }

    /// Too many calls are under way.
    pub(crate) fn overloaded(limit: u64) -> Self {
        let mut failure = Self::new(ErrorReason::Overloaded, "too many calls are under way").with("limit", limit);
        failure.retry_delay = Some(OVERLOAD_DELAY);
        failure
    }

    /// So many disks are nearly full that nothing more can be stored.
    fn disk_full(nodes: &[u64]) -> Self {
        let nodes = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let message = format!(
            "nothing more can be stored, as the disk is nearly full on node {nodes}: delete or trim, \
                               or give it more room"
        );
        let mut failure = Self::new(ErrorReason::DiskFull, message).with("nodes", nodes);
        failure.retry_delay = Some(DISK_FULL_DELAY);
        failure
    }

    /// The reply of the core does not fit its command. A recorded reply of another command is refused by the core, so
    /// this says that the node is broken.
    pub(crate) fn mismatched() -> Self {
        Self::stopped("the reply does not fit the command")
    }

    /// This befell an operation of a batch, not a call of its own: says which, and lengthens the path of the field.
    pub(crate) fn of_operation(mut self, operation: usize, name: &str) -> Self {
        let path = format!("operations[{operation}].{name}");
        match self.metadata.get_mut("field") {
            Some(field) => {
                *field = format!("{path}.{field}");
                self.message = format!("{path}.{}", self.message);
            }
            None => self.message = format!("{path}: {}", self.message),
        }
        self.with("operation", operation)
    }

    /// The reason, and the field it is about.
    #[cfg(test)]
    pub(crate) fn facts(&self) -> (ErrorReason, Option<&str>) {
        (self.reason, self.metadata.get("field").map(String::as_str))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::InvalidArgument { field, problem } => Self::invalid(field, problem),
            Refusal::LimitExceeded { field, limit } => {
                Self::new(ErrorReason::LimitExceeded, message).with("field", field).with("limit", limit)
            }
            Refusal::IdZero => Self::new(ErrorReason::IdZero, message),
            Refusal::IdNotGreater { last_id } => Self::new(ErrorReason::IdNotGreater, message).with("last_id", last_id),
            Refusal::IdExhausted => Self::new(ErrorReason::IdExhausted, message),
            Refusal::StreamNotFound { stream } => {
                Self::new(ErrorReason::StreamNotFound, message).with("stream", stream)
            }
            Refusal::GroupNotFound { stream, group } => {
                Self::new(ErrorReason::GroupNotFound, message).with("stream", stream).with("group", group)
            }
            Refusal::GroupExists { stream, group } => {
                Self::new(ErrorReason::GroupExists, message).with("stream", stream).with("group", group)
            }
            Refusal::SessionNotFound { session } => {
                Self::new(ErrorReason::SessionNotFound, message).with("session", session)
            }
            Refusal::SequenceOutOfWindow { sequence, floor } => {
                Self::new(ErrorReason::SequenceOutOfWindow, message).with("sequence", sequence).with("floor", floor)
            }
            Refusal::SequenceReused { sequence } => {
                Self::new(ErrorReason::SequenceReused, message).with("sequence", sequence)
            }
            Refusal::LastIdTooSmall { bound, id } => {
                let bound = match bound {
                    LastIdBound::GivenMaxDeletedId => "given_max_deleted_id",
                    LastIdBound::MaxDeletedId => "max_deleted_id",
                    LastIdBound::LastEntry => "last_entry",
                };
                Self::new(ErrorReason::LastIdTooSmall, message).with("bound", bound).with("id", id)
            }
            Refusal::EntriesAddedTooSmall { length } => {
                Self::new(ErrorReason::EntriesAddedTooSmall, message).with("length", length)
            }
            Refusal::EntryNotFound { stream, id } => {
                Self::new(ErrorReason::EntryNotFound, message).with("stream", stream).with("id", id)
            }
            Refusal::IdempotencyConflict { id } => Self::new(ErrorReason::IdempotencyConflict, message).with("id", id),
            Refusal::GuardFailed { guard, last_change_index } => {
                let failure = Self::new(ErrorReason::GuardFailed, message).with("guard", guard);
                match last_change_index {
                    Some(index) => failure.with("last_change_index", index),
                    None => failure,
                }
            }
            // The handler of batches knows the operation's name and adds it; this is for a reader of logs.
            Refusal::OperationRefused { operation, refusal } => Self::from(*refusal).with("operation", operation),
            // No public call registers nodes.
            Refusal::NodeIncarnationMismatch { .. } => Self::invalid("node_id", message),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => refusal.into(),
            Denied::Unavailable(unavailable) => unavailable.into(),
            Denied::Full(full) => full.into(),
            Denied::Block(error) => error.into(),
            Denied::Broken(problem) => Self::stopped(problem),
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NotLeader(LeaderHint { node_id, client_address }) => {
                let message = format!("node {node_id} leads, at {client_address:?}");
                Self::new(ErrorReason::NotLeader, message)
                    .with("leader_id", node_id)
                    .with("leader_address", client_address)
            }
            Unavailable::NoLeader => Self::no_leader("no leader is known"),
            Unavailable::CommitUnknown(problem) => Self::commit_unknown(problem),
            Unavailable::NotReady => Self::new(ErrorReason::NotReady, "the node is starting, stopping or far behind"),
            Unavailable::Stopped => Self::stopped("the node has stopped"),
            Unavailable::Overloaded { limit } => Self::overloaded(limit),
            Unavailable::DiskFull { nodes } => Self::disk_full(&nodes),
        }
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Unavailable(unavailable) => unavailable.into(),
            MembershipError::NotFound { node_id } => {
                let message = format!("node {node_id} is not a member of the cluster");
                Self::new(ErrorReason::MemberNotFound, message).with("node_id", node_id)
            }
            MembershipError::Refused { node_id, problem } => {
                let message = format!("node {node_id}: {problem}");
                Self::new(ErrorReason::MembershipRefused, message)
                    .with("node_id", node_id)
                    .with("problem", shortened(&problem))
            }
            MembershipError::NotReady { node_id: Some(node_id), problem } => {
                let message = format!("node {node_id}: {problem}");
                Self::new(ErrorReason::MembershipNotReady, message)
                    .with("node_id", node_id)
                    .with("problem", shortened(&problem))
            }
            MembershipError::NotReady { node_id: None, problem } => {
                Self::new(ErrorReason::MembershipNotReady, problem.clone()).with("problem", shortened(&problem))
            }
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Unavailable(unavailable) => unavailable.into(),
            BackupError::Io(error) => {
                tracing::warn!(%error, "a backup cannot be made");
                Self::new(ErrorReason::NotReady, format!("this node cannot make a backup: {error}"))
            }
        }
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        Self::overloaded(full.limit)
    }
}

impl From<BlockError> for Failure {
    fn from(error: BlockError) -> Self {
        tracing::error!(%error, "a stored block cannot be read");
        Self::stopped(error.to_string())
    }
}

impl Failure {
    /// `field` has no name in it, or not a good one.
    pub(crate) fn name(field: impl Into<String>, error: NameError) -> Self {
        match error {
            NameError::Empty => Self::invalid(field, error.to_string()),
            NameError::TooLong { .. } => {
                Self::too_large(field, millstream_streams::limits::NAME_BYTES_MAX as u64, "bytes")
            }
        }
    }

    /// `field` does not hold a producer or a key.
    pub(crate) fn producer(field: impl Into<String>, error: NameError) -> Self {
        match error {
            NameError::Empty => Self::invalid(field, "must not be empty"),
            NameError::TooLong { .. } => Self::too_large(field, PRODUCER_BYTES_MAX as u64, "bytes"),
        }
    }
}

impl From<Failure> for OperationError {
    fn from(failure: Failure) -> Self {
        let Failure { reason, message, metadata, retry_delay: _ } = failure;
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { reason: reason.into(), message: shortened(&message), metadata }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Failure { reason, message, metadata, retry_delay } = failure;
        let message = shortened(&message);
        // Every reason but UNSPECIFIED has a row, and nothing above makes that one.
        let (name, code) = reasons::traits(reason).map_or(("", Code::Unknown as i32), |row| (row.name, row.code));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let info = ErrorInfo { reason: name.to_owned(), domain: reasons::DOMAIN.to_owned(), metadata };
        let retry_delay = retry_delay.and_then(|delay| prost_types::Duration::try_from(delay).ok());
        let retry = retry_delay.map(|delay| tonic_types::pb::RetryInfo { retry_delay: Some(delay) });

        let mut details = vec![any("google.rpc.ErrorInfo", &info)];
        details.extend(retry.map(|retry| any("google.rpc.RetryInfo", &retry)));
        let encoded = tonic_types::pb::Status { code, message: message.clone(), details }.encode_to_vec();
        Status::with_details(Code::from(code), message, encoded.into())
    }
}

/// `google.rpc.ErrorInfo`, with its map in order: the generated one is a hash map, whose bytes differ from run to run.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Gives a reason to the refusals that tonic itself makes of a request that it cannot read, before any handler sees it.
pub(crate) fn explain_unreadable(response: &mut http::Response<tonic::body::Body>, message_bytes_max: usize) {
    let headers = response.headers();
    let Some(code) = headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes())) else { return };
    if headers.contains_key("grpc-status-details-bin") {
        return;
    }
    let failure = match code {
        Code::OutOfRange => Failure::too_large("message", message_bytes_max as u64, "bytes"),
        Code::Internal => {
            let told = Status::from_header_map(headers);
            Failure::invalid("message", told.as_ref().map_or("cannot be read", Status::message))
        }
        // An unknown method, a compression that we do not know: gRPC's own codes say all there is.
        _ => return,
    };
    if let Err(problem) = Status::from(failure).add_header(response.headers_mut()) {
        tracing::warn!(%problem, "a status cannot be sent");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use millstream_streams::{EntryId, GroupName, StreamName};
    use tonic_types::StatusExt;

    type Case = (Failure, &'static str, Code, &'static [(&'static str, &'static str)]);

    #[test]
    fn every_cause_has_its_reason_code_and_facts() {
        let stream = StreamName::new("orders").unwrap();
        let group = GroupName::new("").unwrap();
        let hint = LeaderHint { node_id: 2, client_address: "two:7420".into() };
        let cases: Vec<Case> = vec![
            (
                Failure::invalid("ids", "at least one id is needed"),
                "INVALID_ARGUMENT",
                Code::InvalidArgument,
                &[("field", "ids"), ("problem", "at least one id is needed")],
            ),
            (
                Refusal::LimitExceeded { field: "ids".into(), limit: 10_000 }.into(),
                "LIMIT_EXCEEDED",
                Code::InvalidArgument,
                &[("field", "ids"), ("limit", "10000")],
            ),
            (Refusal::IdZero.into(), "ID_ZERO", Code::InvalidArgument, &[]),
            (
                Refusal::IdNotGreater { last_id: EntryId::new(5, 1) }.into(),
                "ID_NOT_GREATER",
                Code::FailedPrecondition,
                &[("last_id", "5-1")],
            ),
            (Refusal::IdExhausted.into(), "ID_EXHAUSTED", Code::FailedPrecondition, &[]),
            (
                Refusal::StreamNotFound { stream: stream.clone() }.into(),
                "STREAM_NOT_FOUND",
                Code::NotFound,
                &[("stream", "orders")],
            ),
            (
                Refusal::GroupNotFound { stream: stream.clone(), group: group.clone() }.into(),
                "GROUP_NOT_FOUND",
                Code::NotFound,
                &[("group", ""), ("stream", "orders")],
            ),
            (
                Refusal::GroupExists { stream, group }.into(),
                "GROUP_EXISTS",
                Code::AlreadyExists,
                &[("group", ""), ("stream", "orders")],
            ),
            (
                Refusal::SessionNotFound { session: 7 }.into(),
                "SESSION_NOT_FOUND",
                Code::FailedPrecondition,
                &[("session", "7")],
            ),
            (
                Refusal::SequenceOutOfWindow { sequence: 1, floor: 9 }.into(),
                "SEQUENCE_OUT_OF_WINDOW",
                Code::FailedPrecondition,
                &[("floor", "9"), ("sequence", "1")],
            ),
            (
                Refusal::SequenceReused { sequence: 3 }.into(),
                "SEQUENCE_REUSED",
                Code::FailedPrecondition,
                &[("sequence", "3")],
            ),
            (
                Refusal::LastIdTooSmall { bound: LastIdBound::LastEntry, id: EntryId::new(5, 1) }.into(),
                "LAST_ID_TOO_SMALL",
                Code::FailedPrecondition,
                &[("bound", "last_entry"), ("id", "5-1")],
            ),
            (
                Refusal::EntriesAddedTooSmall { length: 7 }.into(),
                "ENTRIES_ADDED_TOO_SMALL",
                Code::FailedPrecondition,
                &[("length", "7")],
            ),
            (
                Refusal::EntryNotFound { stream: StreamName::new("orders").unwrap(), id: EntryId::new(5, 1) }.into(),
                "ENTRY_NOT_FOUND",
                Code::NotFound,
                &[("id", "5-1"), ("stream", "orders")],
            ),
            (
                Refusal::IdempotencyConflict { id: EntryId::new(5, 1) }.into(),
                "IDEMPOTENCY_CONFLICT",
                Code::AlreadyExists,
                &[("id", "5-1")],
            ),
            (
                Refusal::GuardFailed { guard: 1, last_change_index: Some(9) }.into(),
                "GUARD_FAILED",
                Code::Aborted,
                &[("guard", "1"), ("last_change_index", "9")],
            ),
            (
                Refusal::GuardFailed { guard: 0, last_change_index: None }.into(),
                "GUARD_FAILED",
                Code::Aborted,
                &[("guard", "0")],
            ),
            (
                Failure::from(Refusal::LimitExceeded { field: "ids".into(), limit: 10_000 }).of_operation(3, "ack"),
                "LIMIT_EXCEEDED",
                Code::InvalidArgument,
                &[("field", "operations[3].ack.ids"), ("limit", "10000"), ("operation", "3")],
            ),
            (
                Failure::from(Refusal::IdZero).of_operation(0, "append"),
                "ID_ZERO",
                Code::InvalidArgument,
                &[("operation", "0")],
            ),
            (
                Unavailable::NotLeader(hint).into(),
                "NOT_LEADER",
                Code::FailedPrecondition,
                &[("leader_address", "two:7420"), ("leader_id", "2")],
            ),
            (Unavailable::NoLeader.into(), "NO_LEADER", Code::Unavailable, &[]),
            (Unavailable::CommitUnknown("timed out".into()).into(), "COMMIT_UNKNOWN", Code::Unknown, &[]),
            (Unavailable::NotReady.into(), "NOT_READY", Code::Unavailable, &[]),
            (Unavailable::Stopped.into(), "NODE_STOPPED", Code::Unknown, &[]),
            (
                Unavailable::DiskFull { nodes: vec![1, 3] }.into(),
                "DISK_FULL",
                Code::ResourceExhausted,
                &[("nodes", "1,3")],
            ),
            (Full { limit: 4 }.into(), "OVERLOADED", Code::ResourceExhausted, &[("limit", "4")]),
        ];
        for (failure, reason, code, facts) in cases {
            let status = Status::from(failure);
            let info = status.get_details_error_info().expect("always there");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "millstream"));
            assert_eq!(status.code(), code, "{reason}");
            let metadata: BTreeMap<_, _> = info.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(metadata, facts.iter().copied().collect(), "{reason}");
            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
            let expected = match reason {
                "OVERLOADED" => Some(OVERLOAD_DELAY),
                "DISK_FULL" => Some(DISK_FULL_DELAY),
                _ => None,
            };
            assert_eq!(delay, expected, "{reason}");
        }
    }

    #[test]
    fn a_status_with_the_longest_names_fits_into_headers() {
        for character in ["x", "\u{1}", "{", "\u{10FFFF}"] {
            let name = character.repeat(1024 / character.len());
            let (stream, group) = (StreamName::new(&name).unwrap(), GroupName::new(&name).unwrap());
            let status = Status::from(Failure::from(Refusal::GroupNotFound { stream, group }));
            let mut headers = http::HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let bytes: usize = headers.iter().map(|(key, value)| key.as_str().len() + value.len() + 32).sum();
            assert!(bytes < 14_000, "{character:?}: {bytes} bytes");
        }
    }
}
