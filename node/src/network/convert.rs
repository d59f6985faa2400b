//! openraft's messages as messages of `millstream.internal.v1`, and back. Their parts are in [`crate::types::wire`].

use millstream_proto::internal::v1 as pb;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use crate::types::wire::{
    WireError, entry_from_pb, entry_to_pb, log_id_from_pb, log_id_to_pb, optional_log_id_from_pb, vote_from_pb,
    vote_to_pb,
};
use crate::types::{LogId, TypeConfig, Vote};

/// A message that says who speaks to whom.
pub(super) trait Enveloped {
    fn envelope(&self) -> Option<&pb::Envelope>;
}

macro_rules! enveloped {
    ($($message:ident),* $(,)?) => {
        $(impl Enveloped for pb::$message {
            fn envelope(&self) -> Option<&pb::Envelope> {
                self.envelope.as_ref()
            }
        })*
    };
}

enveloped! {
    AppendResponse, VoteResponse, PreVoteResponse, TransferLeaderResponse, ReadIndexResponse,
    RegisterResponse, StreamAppendResponse, CompareDigestResponse, ExecuteResponse, StoredResponse,
}

pub(super) fn append_to_pb(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendEntries {
    pb::AppendEntries {
        vote: Some(vote_to_pb(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_pb),
        entries: request.entries.into_iter().map(entry_to_pb).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_pb),
    }
}

pub(super) fn append_from_pb(append: Option<pb::AppendEntries>) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let append = append.ok_or(WireError::Absent("append"))?;
    Ok(AppendEntriesRequest {
        vote: present_vote(append.vote)?,
        prev_log_id: optional_log_id_from_pb(append.prev_log_id)?,
        entries: append.entries.into_iter().map(entry_from_pb).collect::<Result<_, _>>()?,
        leader_commit: optional_log_id_from_pb(append.leader_commit)?,
    })
}

/// The answer to a single AppendEntries.
pub(super) fn append_response_to_pb(response: AppendEntriesResponse<TypeConfig>) -> pb::AppendResult {
    use pb::append_result::Result as Outcome;
    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Success(pb::Success { matched: None }),
        AppendEntriesResponse::PartialSuccess(matched) => Outcome::PartialSuccess(partial_success(matched)),
        AppendEntriesResponse::Conflict => Outcome::Conflict(pb::Conflict { log_id: None }),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendResult { result: Some(outcome) }
}

pub(super) fn append_response_from_pb(
    result: Option<pb::AppendResult>,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use pb::append_result::Result as Outcome;
    Ok(match outcome(result)? {
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::PartialSuccess(part) => AppendEntriesResponse::PartialSuccess(optional_log_id_from_pb(part.matched)?),
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_pb(vote)?),
    })
}

/// An answer on the replication stream.
pub(super) fn stream_result_to_pb(result: StreamAppendResult<TypeConfig>) -> pb::AppendResult {
    use pb::append_result::Result as Outcome;
    let outcome = match result {
        Ok(matched) => Outcome::Success(pb::Success { matched: matched.as_ref().map(log_id_to_pb) }),
        Err(StreamAppendError::Conflict(log_id)) => {
            Outcome::Conflict(pb::Conflict { log_id: Some(log_id_to_pb(&log_id)) })
        }
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendResult { result: Some(outcome) }
}

pub(super) fn stream_result_from_pb(
    result: Option<pb::AppendResult>,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use pb::append_result::Result as Outcome;
    Ok(match outcome(result)? {
        Outcome::Success(success) => Ok(optional_log_id_from_pb(success.matched)?),
        Outcome::PartialSuccess(part) => Ok(optional_log_id_from_pb(part.matched)?),
        Outcome::Conflict(conflict) => {
            let log_id = conflict.log_id.ok_or(WireError::Absent("Conflict.log_id"))?;
            Err(StreamAppendError::Conflict(log_id_from_pb(log_id)?))
        }
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_pb(vote)?)),
    })
}

/// What the answer to a single AppendEntries would be on a stream. `prev` and `last` bracket the request's entries.
pub(super) fn as_stream_result(
    response: AppendEntriesResponse<TypeConfig>,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match response {
        AppendEntriesResponse::Success => Ok(last),
        AppendEntriesResponse::PartialSuccess(matched) => Ok(matched),
        // Nothing precedes the first entry of a log, so a peer cannot disagree about it.
        AppendEntriesResponse::Conflict => {
            Err(StreamAppendError::Conflict(prev.ok_or(WireError::Absent("what the conflict is with"))?))
        }
        AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
    })
}

pub(super) fn vote_request_to_pb(request: &VoteRequest<TypeConfig>) -> pb::VoteArguments {
    let VoteRequest { vote, last_log_id, leadership_transfer } = request;
    pb::VoteArguments {
        vote: Some(vote_to_pb(vote)),
        last_log_id: last_log_id.as_ref().map(log_id_to_pb),
        leader_transfer: *leadership_transfer,
    }
}

pub(super) fn vote_request_from_pb(arguments: Option<pb::VoteArguments>) -> Result<VoteRequest<TypeConfig>, WireError> {
    let arguments = arguments.ok_or(WireError::Absent("arguments"))?;
    let last_log_id = optional_log_id_from_pb(arguments.last_log_id)?;
    let vote = present_vote(arguments.vote)?;
    Ok(VoteRequest { vote, last_log_id, leadership_transfer: arguments.leader_transfer })
}

pub(super) fn vote_response_to_pb(response: &VoteResponse<TypeConfig>) -> pb::VoteResult {
    let VoteResponse { vote, vote_granted, last_log_id } = response;
    pb::VoteResult {
        vote: Some(vote_to_pb(vote)),
        granted: *vote_granted,
        last_log_id: last_log_id.as_ref().map(log_id_to_pb),
    }
}

pub(super) fn vote_response_from_pb(result: Option<pb::VoteResult>) -> Result<VoteResponse<TypeConfig>, WireError> {
    let result = result.ok_or(WireError::Absent("result"))?;
    let last_log_id = optional_log_id_from_pb(result.last_log_id)?;
    Ok(VoteResponse::new(present_vote(result.vote)?, last_log_id, result.granted))
}

pub(super) fn transfer_from_pb(
    request: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let last_log_id = optional_log_id_from_pb(request.last_log_id)?;
    Ok(TransferLeaderRequest::new(present_vote(request.from_leader)?, request.target_id, last_log_id))
}

pub(super) fn present_vote(vote: Option<pb::Vote>) -> Result<Vote, WireError> {
    vote_from_pb(vote.ok_or(WireError::Absent("vote"))?)
}

fn partial_success(matched: Option<LogId>) -> pb::PartialSuccess {
    pb::PartialSuccess { matched: matched.as_ref().map(log_id_to_pb) }
}

fn outcome(result: Option<pb::AppendResult>) -> Result<pb::append_result::Result, WireError> {
    result.and_then(|result| result.result).ok_or(WireError::Absent("result"))
}
