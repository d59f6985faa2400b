//! One call: attempts, and what to make of their failures.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::reasons::{self, Traits};
use millstream_proto::v1::{self as pb, ErrorReason};
use prost::Message;
use tokio::time::Instant;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::backoff::Backoff;
use crate::endpoints::Address;
use crate::session::{Lane, Ticket};
use crate::transport::TransportError;
use crate::{Client, Error, Rpc};

/// A follower that forwarded a call names the leader here, in the metadata of the answer.
const LEADER_METADATA: &str = "millstream-leader";
/// Redirections followed without a pause. Nodes that point at each other during an election are then asked less often.
const REDIRECTIONS_MAX: u32 = 2;
/// Bounds an answer in memory. Servers stay far below it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What became of one attempt.
enum Failure {
    /// It did not leave.
    NotSent(String),
    /// It may have left, and no node answered it.
    Lost(String),
    /// A node answered in the terms of the contract.
    Answered { traits: &'static Traits, message: String, metadata: BTreeMap<String, String> },
    /// Something answered in other terms, and asking again would not help. `no_side_effects` if that is certain.
    Foreign { message: String, no_side_effects: bool },
    /// The deadline passed; `sent` if the request may have left.
    TimedOut { sent: bool },
}

/// The last failure, for the error that ends a call.
struct Trouble {
    reason: Option<ErrorReason>,
    message: String,
}

impl Client {
    /// Repeats `request` until it has an answer, a repeat would be unsafe, or `deadline` has passed.
    ///
    /// A refusal of its session as unknown is returned as such only if no attempt can have had an effect.
    pub(crate) async fn exchange<R: Rpc>(&self, request: &mut Arc<R>, deadline: Instant) -> Result<R::Response, Error> {
        let endpoints = &self.shared.endpoints;
        let fields = Arc::make_mut(request);
        let has_identity = fields.identity().is_some_and(|identity| identity.is_some());
        let repeatable = !R::MUTATES || has_identity;
        let any_node = fields.options().is_some() && self.freshness.any_node();
        let wait_until = wait(fields).map(|wait| Instant::now() + wait);

        let mut delays = Backoff::new(&*self.shared.random);
        let mut redirections = 0;
        let mut maybe_applied = false;
        let mut trouble = None;
        loop {
            let address = endpoints.pick(any_node);
            let failure = match self.attempt(&address, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let mut pause = true;
            let problem = match failure {
                Failure::NotSent(message) => {
                    endpoints.move_on(&address);
                    Trouble { reason: None, message }
                }
                Failure::Lost(message) => {
                    maybe_applied |= R::MUTATES && !millstream_streams::mutant!(LostAttemptMeansNothing);
                    endpoints.move_on(&address);
                    Trouble { reason: None, message }
                }
                Failure::Answered { traits, message, metadata } if !traits.retryable => {
                    return Err(refusal(maybe_applied, traits.reason, message, metadata));
                }
                Failure::Answered { traits, message, metadata } => {
                    maybe_applied |= R::MUTATES && !traits.no_side_effects;
                    match traits.reason {
                        ErrorReason::NotLeader => {
                            let hint = metadata.get("leader_address").filter(|hint| !hint.is_empty());
                            match hint.filter(|hint| ***hint != *address) {
                                Some(hint) => {
                                    endpoints.redirect(hint);
                                    redirections += 1;
                                    pause = REDIRECTIONS_MAX < redirections;
                                }
                                None => endpoints.move_on(&address),
                            }
                        }
                        // The node is well, and it is the right one.
                        ErrorReason::Overloaded | ErrorReason::DiskFull => {}
                        // Another node may know better, or outlive this one.
                        _ => endpoints.move_on(&address),
                    }
                    Trouble { reason: Some(traits.reason), message }
                }
                Failure::Foreign { message, no_side_effects } => {
                    let unknown = R::MUTATES && (maybe_applied || !no_side_effects);
                    return Err(if unknown {
                        Error::OutcomeUnknown { message }
                    } else {
                        Error::Refused { reason: ErrorReason::Unspecified, message, metadata: BTreeMap::new() }
                    });
                }
                Failure::TimedOut { sent } => {
                    maybe_applied |= sent && R::MUTATES;
                    // A node that keeps callers waiting must not get the next call as well.
                    endpoints.move_on(&address);
                    return Err(give_up(maybe_applied, trouble));
                }
            };
            tracing::debug!(%address, path = R::PATH, problem = problem.message, "attempt failed");
            trouble = Some(problem);

            if maybe_applied && !repeatable && !millstream_streams::mutant!(ClientRepeatsUnsafely) {
                return Err(give_up(maybe_applied, trouble));
            }
            if millstream_streams::mutant!(ClientRenumbers)
                && let Some(Some(identity)) = Arc::make_mut(request).identity()
            {
                identity.sequence += 1_000;
            }
            if pause {
                let resume = Instant::now() + delays.next().unwrap_or_default();
                if deadline <= resume {
                    return Err(give_up(maybe_applied, trouble));
                }
                tokio::time::sleep_until(resume).await;
            }
            if let Some(until) = wait_until {
                // What has been waited already is not waited again. The attempt before is over, so this copies only if
                // its remains are still on their way out.
                let left = until.saturating_duration_since(Instant::now());
                if let Some(wait) = Arc::make_mut(request).wait() {
                    *wait = prost_types::Duration::try_from(left).ok();
                }
            }
        }
    }

    /// One attempt at one node, with `exchange`'s errors but none of its patience.
    pub(crate) async fn ask_once<R: Rpc>(
        &self,
        address: &Address,
        request: R,
        deadline: Instant,
    ) -> Result<R::Response, Error> {
        self.attempt(address, &Arc::new(request), deadline).await.map_err(|failure| match failure {
            Failure::NotSent(message) => Error::Unavailable { reason: None, message },
            Failure::Lost(message) if R::MUTATES => Error::OutcomeUnknown { message },
            Failure::Lost(message) => Error::Unavailable { reason: None, message },
            Failure::Answered { traits, message, metadata } => refusal(false, traits.reason, message, metadata),
            Failure::Foreign { message, .. } => {
                Error::Refused { reason: ErrorReason::Unspecified, message, metadata: BTreeMap::new() }
            }
            Failure::TimedOut { .. } => Error::Deadline,
        })
    }

    async fn attempt<R: Rpc>(
        &self,
        address: &Address,
        request: &Arc<R>,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let connecting = tokio::time::timeout_at(deadline, self.shared.pool.get(address)).await;
        let connection = match connecting {
            Ok(Ok(connection)) => connection,
            Ok(Err(TransportError::NotSent(message) | TransportError::Lost(message))) => {
                self.shared.endpoints.avoid(address);
                return Err(Failure::NotSent(message));
            }
            Err(_) => return Err(Failure::TimedOut { sent: false }),
        };
        let number = connection.number();
        let origin = connection.origin();
        let mut grpc = tonic::client::Grpc::with_origin(connection, origin).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut message = tonic::Request::new(request.clone());
        // For the node, so that it need not work for a caller who has left. In whole seconds, because a header that
        // seldom changes costs nothing on the wire; this side keeps the time itself.
        let left = deadline.saturating_duration_since(Instant::now());
        message.set_timeout(Duration::from_secs(left.as_secs() + 1));
        let path = http::uri::PathAndQuery::from_static(R::PATH);
        let sending = grpc.unary(message, path, SharedCodec::<R>(PhantomData));
        match tokio::time::timeout_at(deadline, sending).await {
            Ok(Ok(answer)) => {
                let leader = answer.metadata().get(LEADER_METADATA).and_then(|leader| leader.to_str().ok());
                if let Some(leader) = leader {
                    self.shared.endpoints.suggest(leader);
                }
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                let failure = classify(status);
                if matches!(failure, Failure::NotSent(_) | Failure::Lost(_)) {
                    self.shared.pool.discard(address, number);
                }
                Err(failure)
            }
            Err(_) => Err(Failure::TimedOut { sent: true }),
        }
    }

    /// A number for a call, in the lane's session, which is opened if need be.
    pub(crate) async fn begin(&self, lane: &Lane, deadline: Instant) -> Result<Ticket, Error> {
        let permit = tokio::time::timeout_at(deadline, lane.permit()).await.ok().flatten();
        let mut permit = permit.ok_or(Error::Deadline)?;
        loop {
            let session = lane.current();
            // Whoever comes first opens the session, the others wait for it; if it fails, the next one tries.
            let opening = session.id.get_or_try_init(async || {
                let answer = self.exchange(&mut Arc::new(pb::OpenSessionRequest {}), deadline).await?;
                Ok::<u64, Error>(answer.session_id)
            });
            let id = *tokio::time::timeout_at(deadline, opening).await.unwrap_or(Err(Error::Deadline))?;
            permit = match session.begin(id, permit) {
                Ok(ticket) => return Ok(ticket),
                Err(permit) => permit,
            };
            for session_id in lane.retire(&session) {
                let client = self.clone();
                tokio::spawn(async move {
                    let closing =
                        client.exchange(&mut Arc::new(pb::CloseSessionRequest { session_id }), deadline).await;
                    if let Err(error) = closing {
                        tracing::debug!(session_id, %error, "a session was left to expire");
                    }
                });
            }
        }
    }
}

/// The error of a call that changes nothing and is not repeated.
pub(crate) fn explain(status: Status) -> Error {
    match classify(status) {
        Failure::NotSent(message) | Failure::Lost(message) => Error::Unavailable { reason: None, message },
        Failure::Answered { traits, message, .. } if traits.retryable => {
            Error::Unavailable { reason: Some(traits.reason), message }
        }
        Failure::Answered { traits, message, metadata } => refusal(false, traits.reason, message, metadata),
        Failure::Foreign { message, .. } => {
            Error::Refused { reason: ErrorReason::Unspecified, message, metadata: BTreeMap::new() }
        }
        Failure::TimedOut { .. } => Error::Deadline,
    }
}

/// A final refusal by a node. After an attempt that may have been applied, the store's own refusals still stand: it
/// answers a repeat with the first answer. But those that a node gives before it asks the store, and those that say the
/// store has forgotten, tell nothing about the earlier attempt.
fn refusal(maybe_applied: bool, reason: ErrorReason, message: String, metadata: BTreeMap<String, String>) -> Error {
    let says_nothing = matches!(
        reason,
        ErrorReason::InvalidArgument
            | ErrorReason::LimitExceeded
            | ErrorReason::SessionNotFound
            | ErrorReason::SequenceOutOfWindow
            | ErrorReason::SequenceReused
    );
    if maybe_applied && says_nothing {
        return Error::OutcomeUnknown { message };
    }
    Error::Refused { reason, message, metadata }
}

fn give_up(maybe_applied: bool, trouble: Option<Trouble>) -> Error {
    match (maybe_applied, trouble) {
        (true, Some(Trouble { message, .. })) => Error::OutcomeUnknown { message },
        (true, None) => Error::OutcomeUnknown { message: "no answer within the deadline".to_owned() },
        (false, Some(Trouble { reason, message })) => Error::Unavailable { reason, message },
        (false, None) => Error::Deadline,
    }
}

fn wait<R: Rpc>(request: &mut R) -> Option<Duration> {
    (*request.wait()?).and_then(|wait| Duration::try_from(wait).ok())
}

fn classify(status: Status) -> Failure {
    if let Some(source) = status.source() {
        // Made on this side, by the connection.
        return match source.downcast_ref::<TransportError>() {
            Some(TransportError::NotSent(message)) => Failure::NotSent(message.clone()),
            Some(TransportError::Lost(message)) => Failure::Lost(message.clone()),
            None => Failure::Lost(status.to_string()),
        };
    }
    if let Some(info) = status.get_details_error_info()
        && info.domain == reasons::DOMAIN
        && let Some(traits) = reasons::by_name(&info.reason)
    {
        let metadata = info.metadata.into_iter().collect();
        return Failure::Answered { traits, message: status.message().to_owned(), metadata };
    }
    let message = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        // Whatever sent these did not act on the call.
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => Failure::Foreign { message, no_side_effects: true },
        // An answer that cannot be read will not become readable.
        Code::OutOfRange | Code::DataLoss => Failure::Foreign { message, no_side_effects: false },
        _ => Failure::Lost(message),
    }
}

/// Encodes a message that repeats share, so that an attempt need not copy it.
struct SharedCodec<R>(PhantomData<R>);

struct SharedEncoder<R>(PhantomData<R>);

impl<R: Rpc> Codec for SharedCodec<R> {
    type Encode = Arc<R>;
    type Decode = R::Response;
    type Encoder = SharedEncoder<R>;
    type Decoder = <ProstCodec<R, R::Response> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        SharedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<R, R::Response>::raw_decoder(BufferSettings::default())
    }
}

impl<R: Rpc> Encoder for SharedEncoder<R> {
    type Item = Arc<R>;
    type Error = Status;

    fn encode(&mut self, item: Arc<R>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Message::encode(&*item, dst).map_err(|error| Status::internal(error.to_string()))
    }
}
