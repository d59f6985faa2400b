//! Who speaks to whom.
//!
//! A refusal travels as `FAILED_PRECONDITION` with the metadata `millstream-identity`, so that the caller can tell it
//! from every other failure. It has two kinds. `unwelcome`: the receiver is who was meant, but will not hear this
//! sender; trying again does not help. `misdirected`: the message reached another node than the one it was for, which
//! says nothing about the sender; to it, the node that was meant is out of reach.

use millstream_proto::internal::v1 as pb;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::PeerError;
use crate::types::NodeId;

/// Marks a refusal for reasons of identity.
const MARKER: &str = "millstream-identity";
const UNWELCOME: &str = "unwelcome";
const MISDIRECTED: &str = "misdirected";

/// What a node knows about itself and its peers. Implemented by the replica.
pub trait PeerContext: Send + Sync + 'static {
    /// Who this node says it is, on a message to `to`.
    fn envelope(&self, to: NodeId) -> pb::Envelope;

    /// Whether a message is from whom it says, for this node, and within this node's cluster. `from` is whom it must be
    /// from: the node that was asked, for an answer; whoever opened it, for the later messages of a stream; `None` for a
    /// new request.
    fn check(&self, envelope: Option<&pb::Envelope>, from: Option<NodeId>) -> Result<(), IdentityError>;
}

/// A message whose envelope does not fit. The text is one sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IdentityError {
    message: String,
    misdirected: bool,
}

impl IdentityError {
    /// This node will not hear the sender: another cluster's, or not the one known under its id.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), misdirected: false }
    }

    /// The message was meant for another node or group.
    pub fn misdirected(message: impl Into<String>) -> Self {
        Self { message: message.into(), misdirected: true }
    }

    pub(super) fn to_status(&self) -> Status {
        let mut status = Status::new(Code::FailedPrecondition, self.message.clone());
        let kind = if self.misdirected { MISDIRECTED } else { UNWELCOME };
        status.metadata_mut().insert(MARKER, MetadataValue::from_static(kind));
        status
    }
}

/// The refusal that a status carries, if it carries one.
pub(super) fn refusal(status: &Status) -> Option<PeerError> {
    let kind = status.metadata().get(MARKER)?;
    let message = status.message().to_owned();
    Some(match kind == MISDIRECTED {
        true => PeerError::Unreachable(message),
        false => PeerError::Identity(message),
    })
}
