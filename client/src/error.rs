//! What a call can end with, sorted by what the caller should do.

use std::collections::BTreeMap;

use millstream_proto::reasons;
use millstream_proto::v1::ErrorReason;

/// Why a call has no answer. [`Error::is_retryable`] and [`Error::has_no_side_effects`] answer the two questions that
/// matter to a program; the library has itself repeated what was safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store understood the call and refused it: fix the call, or take it for an answer.
    #[error("refused: {} ({})", message, name(*reason))]
    Refused {
        /// Why; UNSPECIFIED if the refusal came from something that does not speak Millstream's error contract, such
        /// as a proxy, or from a newer server.
        reason: ErrorReason,
        /// For people.
        message: String,
        /// The facts, by the names that the reason documents.
        metadata: BTreeMap<String, String>,
    },
    /// No node could serve the call within its deadline. It has changed nothing.
    #[error("unavailable: {message}")]
    Unavailable {
        /// The last reason a node gave; `None` if the last attempt did not reach one.
        reason: Option<ErrorReason>,
        /// For people: the last failure.
        message: String,
    },
    /// The call may or may not have been applied, now or within moments; it will not be repeated.
    #[error("outcome unknown: {message}")]
    OutcomeUnknown {
        /// For people: the last failure.
        message: String,
    },
    /// The deadline passed before an answer came. The call has changed nothing.
    #[error("deadline exceeded")]
    Deadline,
    /// An endpoint that cannot be one.
    #[error("invalid endpoint {endpoint:?}: {problem}")]
    InvalidEndpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Error {
    /// The same call may succeed later or elsewhere. Whether repeating it is *safe* is the other question.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Refused { reason, .. } => reasons::traits(*reason).is_some_and(|traits| traits.retryable),
            Error::Unavailable { .. } | Error::OutcomeUnknown { .. } | Error::Deadline => true,
            Error::InvalidEndpoint { .. } => false,
        }
    }

    /// The call is known to have changed nothing, and will not.
    pub fn has_no_side_effects(&self) -> bool {
        !matches!(self, Error::OutcomeUnknown { .. })
    }

    /// A fact of a refusal, by the name that its reason documents: `field`, `last_id` or, of a batch, `operation`.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        match self {
            Error::Refused { metadata, .. } => metadata.get(name).map(String::as_str),
            _ => None,
        }
    }

    /// The reason a node gave, if one did.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Error::Refused { reason, .. } => Some(*reason),
            Error::Unavailable { reason, .. } => *reason,
            Error::OutcomeUnknown { .. } | Error::Deadline | Error::InvalidEndpoint { .. } => None,
        }
    }
}

fn name(reason: ErrorReason) -> &'static str {
    reasons::traits(reason).map_or("UNSPECIFIED", |traits| traits.name)
}
