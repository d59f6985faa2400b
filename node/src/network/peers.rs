//! The channels to all peers, and the calls the replica itself makes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::raft_service_client::RaftServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::convert::Enveloped;
use super::identity::refusal;
use super::link::{Lane, Link};
use super::throttle::Throttle;
use super::{NetworkOptions, PeerContext, RegisterOutcome, StateDigest};
use crate::types::wire::{WireError, log_id_from_pb};
use crate::types::{LogId, NodeId};
use crate::world::{OnAnswer, OnRequest, RpcKind, World};

/// Why a peer could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached, or gave no answer in time, or another node answers in its place. Whether the call had an
    /// effect is not known.
    #[error("{0}")]
    Unreachable(String),
    /// It will not hear this node: another cluster's, or not the one known under its id. Trying again does not help.
    #[error("{0}")]
    Identity(String),
    /// It answered, but not with what was asked for.
    #[error("{0}")]
    Other(String),
}

impl From<WireError> for PeerError {
    fn from(error: WireError) -> Self {
        Self::Other(format!("an answer that makes no sense: {error}"))
    }
}

/// Whom a call is for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) id: NodeId,
    pub(super) address: String,
}

/// The channels to all peers.
pub struct Peers {
    pub(super) world: World,
    pub(super) context: Arc<dyn PeerContext>,
    pub(super) options: NetworkOptions,
    links: Mutex<BTreeMap<(NodeId, Lane), Arc<Link>>>,
    /// Where the members are, as of the newest membership this was told of.
    addresses: Mutex<BTreeMap<NodeId, String>>,
    warnings: Throttle,
}

impl Peers {
    /// No channel is made before it is needed.
    pub fn new(world: World, context: Arc<dyn PeerContext>, options: NetworkOptions) -> Arc<Self> {
        let warnings = Throttle::new(options.warning_interval);
        Arc::new(Self { world, context, options, links: Mutex::default(), addresses: Mutex::default(), warnings })
    }

    /// Where the members are from now on.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Where a member is; `None` if that was not told.
    pub(super) fn address_of(&self, node_id: NodeId) -> Option<String> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&node_id).cloned()
    }

    /// Whether this very node answers at an address, whichever it is reached at otherwise.
    pub async fn is_at(&self, node_id: NodeId, address: &str) -> bool {
        // A channel of its own: those in use stay.
        let Ok(link) = Link::new(&self.world, address, &self.options) else { return false };
        let request = pb::ReadIndexRequest { envelope: Some(self.context.envelope(node_id)) };
        let mut client = link.client();
        match tokio::time::timeout(self.options.call_timeout, client.read_index(request)).await {
            Ok(Ok(response)) => {
                let answer = response.into_inner();
                self.context.check(answer.envelope.as_ref(), Some(node_id)).is_ok()
            }
            // It said that it is the one that was meant before it said no.
            Ok(Err(status)) => refusal(&status).is_none() && is_answer(status.code()),
            Err(_) => false,
        }
    }

    /// Asks the leader for a log entry that covers every command acknowledged before the call. `Other` if `to` does not
    /// lead.
    pub async fn read_index(&self, to: NodeId, address: &str) -> Result<LogId, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let request = pb::ReadIndexRequest { envelope: Some(self.context.envelope(to)) };
        let answer = self
            .call(&target, RpcKind::ReadIndex, self.options.call_timeout, request, |mut client, request| async move {
                client.read_index(request).await
            })
            .await?;
        match answer.read_log_id {
            Some(log_id) => Ok(log_id_from_pb(log_id)?),
            None => Err(PeerError::Other(match answer.leader_id {
                0 => format!("node {to} does not lead and knows no leader"),
                leader => format!("node {to} does not lead; node {leader} does"),
            })),
        }
    }

    /// Makes this node's incarnation (from its envelope) and addresses known to the cluster.
    pub async fn register(
        &self,
        to: NodeId,
        address: &str,
        peer_address: String,
        client_address: String,
    ) -> Result<RegisterOutcome, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let request = pb::RegisterRequest { envelope: Some(self.context.envelope(to)), peer_address, client_address };
        let answer = self
            .call(&target, RpcKind::Register, self.options.call_timeout, request, |mut client, request| async move {
                client.register(request).await
            })
            .await?;
        Ok(RegisterOutcome { recorded: answer.recorded, leader_id: answer.leader_id, removed: answer.removed })
    }

    /// Asks a replica what it remembers of its state, and tells it what the majority agrees on, if it does.
    pub async fn compare_digest(
        &self,
        to: NodeId,
        address: &str,
        agreed: &[StateDigest],
    ) -> Result<Vec<StateDigest>, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let agreed = agreed.iter().copied().map(StateDigest::to_pb).collect();
        let request = pb::CompareDigestRequest { envelope: Some(self.context.envelope(to)), agreed };
        let deadline = self.options.call_timeout;
        let answer = self
            .call(&target, RpcKind::CompareDigest, deadline, request, |mut client, request| async move {
                client.compare_digest(request).await
            })
            .await?;
        let digests: Option<Vec<_>> = answer.digests.iter().map(StateDigest::from_pb).collect();
        digests.ok_or_else(|| PeerError::Other(format!("node {to} sent a digest that makes no sense")))
    }

    /// Makes one unary call and checks who answers.
    pub(super) async fn call<R: Clone, A: Enveloped + Send + 'static, F>(
        &self,
        target: &Target,
        kind: RpcKind,
        deadline: Duration,
        request: R,
        call: impl Fn(RaftServiceClient<Channel>, R) -> F,
    ) -> Result<A, PeerError>
    where
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let deadline =
            if millstream_streams::mutant!(CallsWithoutDeadline) { Duration::from_secs(86_400) } else { deadline };
        let for_clients = matches!(kind, RpcKind::Execute | RpcKind::Stored);
        let lane = if for_clients { Lane::Commands } else { Lane::Control };
        let link = self.link(target, lane)?;
        let tapped = async {
            let answer = match self.world.rpc.request(kind, target.id) {
                OnRequest::Pass => call(link.client(), request).await,
                OnRequest::Drop if for_clients => Err(self.lost().await),
                OnRequest::Drop => std::future::pending().await,
                // A task of its own: it goes out even if the time is over by then.
                OnRequest::Delay(delay) => match later(delay, call(link.client(), request)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Status::cancelled("this node stops")),
                },
                OnRequest::Duplicate(delay) if for_clients => {
                    drop(later(delay, call(link.client(), request)));
                    Err(self.lost().await)
                }
                OnRequest::Duplicate(delay) => {
                    drop(later(delay, call(link.client(), request.clone())));
                    call(link.client(), request).await
                }
            };
            match self.world.rpc.answer(kind, target.id) {
                OnAnswer::Pass => answer,
                OnAnswer::Drop if for_clients => Err(self.lost().await),
                OnAnswer::Drop => std::future::pending().await,
                OnAnswer::Delay(delay) => {
                    tokio::time::sleep(delay).await;
                    answer
                }
            }
        };
        match tokio::time::timeout(deadline, tapped).await {
            Ok(Ok(response)) => {
                let answer = response.into_inner();
                self.check_answer(target, lane, &link, answer.envelope())?;
                Ok(answer)
            }
            Ok(Err(status)) => Err(self.failed(target, lane, &link, &status)),
            Err(_) => {
                // A slow answer is no proof that the connection is dead, and a connection in the making deserves more
                // time than one heartbeat has.
                if self.options.silence_max <= link.silence() {
                    self.discard(target, lane, &link);
                }
                Err(self.silent(target, deadline))
            }
        }
    }

    /// The channel to a peer; a new one if there is none or the peer has moved.
    pub(super) fn link(&self, target: &Target, lane: Lane) -> Result<Arc<Link>, PeerError> {
        let mut links = self.lock();
        if let Some(link) = links.get(&(target.id, lane))
            && link.address == target.address
        {
            return Ok(link.clone());
        }
        let link = Arc::new(Link::new(&self.world, &target.address, &self.options)?);
        links.insert((target.id, lane), link.clone());
        Ok(link)
    }

    /// Forgets a channel, so that the next call dials anew. Calls under way on it go on.
    pub(super) fn discard(&self, target: &Target, lane: Lane, link: &Arc<Link>) {
        let mut links = self.lock();
        // Another call may have replaced it already.
        if links.get(&(target.id, lane)).is_some_and(|current| Arc::ptr_eq(current, link)) {
            links.remove(&(target.id, lane));
        }
    }

    /// Checks that an answer is from the node that was asked.
    pub(super) fn check_answer(
        &self,
        target: &Target,
        lane: Lane,
        link: &Arc<Link>,
        envelope: Option<&pb::Envelope>,
    ) -> Result<(), PeerError> {
        let Err(error) = self.context.check(envelope, Some(target.id)) else {
            link.touch();
            return Ok(());
        };
        // Behind the name may be another machine by now.
        self.discard(target, lane, link);
        self.warn(target, &error.to_string());
        Err(PeerError::Unreachable(format!("node {} is not at {}: {error}", target.id, target.address)))
    }

    /// What a failed call means, for the caller and for the channel.
    pub(super) fn failed(&self, target: &Target, lane: Lane, link: &Arc<Link>, status: &Status) -> PeerError {
        if let Some(refusal) = refusal(status) {
            link.touch();
            if matches!(refusal, PeerError::Unreachable(_)) {
                self.discard(target, lane, link);
            }
            self.warn(target, status.message());
            return refusal;
        }
        if is_answer(status.code()) {
            link.touch();
            return PeerError::Other(format!("node {}: {}", target.id, status.message()));
        }
        self.discard(target, lane, link);
        PeerError::Unreachable(format!("node {} at {}: {}", target.id, target.address, describe(status)))
    }

    /// What is heard of a call that was lost together with its connection, once that has been found out.
    pub(super) async fn lost(&self) -> Status {
        tokio::time::sleep(self.options.keep_alive_timeout).await;
        Status::unavailable("the connection was lost")
    }

    /// No answer came in time.
    pub(super) fn silent(&self, target: &Target, waited: Duration) -> PeerError {
        let Target { id, address } = target;
        PeerError::Unreachable(format!("node {id} at {address} gave no answer within {} ms", waited.as_millis()))
    }

    fn warn(&self, target: &Target, reason: &str) {
        if self.warnings.admits(target.id) {
            let Target { id, address } = target;
            tracing::warn!(peer = id, %address, reason, "this node and a peer do not agree who they are");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, Lane), Arc<Link>>> {
        // A std mutex: it guards a few map operations and is never held across an await.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a call after a while, in a task of its own.
pub(super) fn later<F>(delay: Duration, call: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        call.await
    })
}

/// Whether a peer's [`service`](super::service) answers with this code. All others come from below: connecting, TLS,
/// HTTP/2, a proxy.
fn is_answer(code: Code) -> bool {
    matches!(code, Code::Aborted | Code::InvalidArgument | Code::DataLoss | Code::OutOfRange | Code::Unimplemented)
}

/// A status with its causes: "transport error" alone helps nobody.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
