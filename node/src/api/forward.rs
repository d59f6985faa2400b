//! A client may send any call to any node: a follower hands mutating calls on to the leader.
//!
//! The request goes on as it came, its body unread, once: a call that was forwarded already and finds no leader is told
//! who leads instead. The answer carries the leader's address, so that a client that listens goes there directly. Reads
//! stay here; the replica's read barrier makes them linearizable on any node.
//!
//! What is certain about a call that got no answer is told apart: NO_LEADER if it never left, COMMIT_UNKNOWN if it may
//! have arrived.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::convert::WAIT_MAX;
use super::errors::{Failure, explain_unreadable};
use super::link::{Link, Unanswered};
use crate::config::Limits;
use crate::replica::{LeaderHint, Leadership, Replica, Unavailable};
use crate::world::{OnAnswer, OnRequest, Probe, RpcKind, RpcTap, World};

/// On a call that was forwarded: the id of the node that did.
const FORWARDED: &str = "millstream-forwarded";
/// On the answer to a call that was forwarded: where the leader takes calls.
const LEADER: &str = "millstream-leader";

/// The calls that only the leader can answer, sorted.
const FOR_THE_LEADER: [&str; 25] = [
    "/millstream.admin.v1.ClusterService/AddLearner",
    CHANGE_VOTERS,
    "/millstream.admin.v1.ClusterService/TransferLeader",
    "/millstream.v1.BatchService/Batch",
    "/millstream.v1.ConsumerGroupService/Ack",
    "/millstream.v1.ConsumerGroupService/AckAndDelete",
    "/millstream.v1.ConsumerGroupService/AutoClaim",
    "/millstream.v1.ConsumerGroupService/Claim",
    "/millstream.v1.ConsumerGroupService/CreateConsumer",
    "/millstream.v1.ConsumerGroupService/CreateGroup",
    "/millstream.v1.ConsumerGroupService/DeleteConsumer",
    "/millstream.v1.ConsumerGroupService/DeleteGroup",
    "/millstream.v1.ConsumerGroupService/Nack",
    READ_GROUP,
    "/millstream.v1.ConsumerGroupService/SetGroupPosition",
    "/millstream.v1.SessionService/CloseSession",
    "/millstream.v1.SessionService/OpenSession",
    "/millstream.v1.StreamService/Append",
    "/millstream.v1.StreamService/ConfigureStream",
    "/millstream.v1.StreamService/DeleteAll",
    "/millstream.v1.StreamService/DeleteEntries",
    "/millstream.v1.StreamService/DeleteStream",
    "/millstream.v1.StreamService/RecordIdempotency",
    "/millstream.v1.StreamService/SetLastId",
    "/millstream.v1.StreamService/Trim",
];
/// Those that may wait.
const READ_GROUP: &str = "/millstream.v1.ConsumerGroupService/ReadGroup";
const CHANGE_VOTERS: &str = "/millstream.admin.v1.ClusterService/ChangeVoters";

/// Hands calls to the leader.
pub(super) struct Forwarder {
    replica: Replica,
    probe: Arc<dyn Probe>,
    link: Link,
    tap: Arc<dyn RpcTap>,
    /// One permit for each call under way.
    places: Semaphore,
    places_max: usize,
    call_time_max: Duration,
    request_bytes_max: usize,
}

impl Forwarder {
    pub(super) fn new(replica: Replica, world: World, limits: &Limits, request_bytes_max: usize) -> Self {
        // What the leader would take if it were this node.
        let places_max = limits.proposals_max + limits.waiters_max;
        Self {
            replica,
            probe: world.probe,
            link: Link::new(world.net),
            tap: world.rpc,
            places: Semaphore::new(places_max.min(Semaphore::MAX_PERMITS)),
            places_max,
            call_time_max: limits.call_time_max,
            request_bytes_max,
        }
    }

    async fn forward(&self, leader: LeaderHint, mut request: Request<Body>) -> Result<Response<Body>, Failure> {
        let LeaderHint { node_id, client_address } = leader;
        if client_address.is_empty() {
            return Err(Failure::no_leader(format!("node {node_id} leads and has not said yet where it takes calls")));
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Failure::overloaded(self.places_max as u64));
        };
        // The leader keeps its own time; this is for a leader that does not.
        let wait = if [READ_GROUP, CHANGE_VOTERS].contains(&request.uri().path()) { WAIT_MAX } else { Duration::ZERO };
        let time = wait + 2 * self.call_time_max;
        request.headers_mut().insert(FORWARDED, HeaderValue::from(self.replica.position().node_id));

        self.probe.mark("forwarded");
        let sending = async {
            match self.tap.request(RpcKind::Forward, node_id) {
                // A body can be sent once.
                OnRequest::Pass | OnRequest::Duplicate(_) => {}
                OnRequest::Drop => return Err(Unanswered::Lost("the request was lost".into())),
                OnRequest::Delay(delay) => tokio::time::sleep(delay).await,
            }
            let answer = self.link.send(&client_address, request).await;
            match self.tap.answer(RpcKind::Forward, node_id) {
                OnAnswer::Pass => {}
                OnAnswer::Drop => return Err(Unanswered::Lost("the answer was lost".into())),
                OnAnswer::Delay(delay) => tokio::time::sleep(delay).await,
            }
            answer
        };
        let answer = match tokio::time::timeout(time, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unanswered::NotSent(problem))) => return Err(Failure::no_leader(problem)),
            Ok(Err(Unanswered::Lost(problem))) if millstream_streams::mutant!(LostForwardMeansNothing) => {
                return Err(Failure::no_leader(problem));
            }
            Ok(Err(Unanswered::Lost(problem))) => {
                self.probe.mark("commit_unknown");
                return Err(Failure::commit_unknown(format!("node {node_id} did not answer: {problem}")));
            }
            Err(_) => return Err(Failure::commit_unknown(format!("node {node_id} did not answer in time"))),
        };
        let mut answer = answer.map(|body| Body::new(LeaderBody { body: Some(body) }));
        // An address that cannot be a header could not have been connected to either.
        if let Ok(address) = HeaderValue::try_from(client_address) {
            answer.headers_mut().insert(LEADER, address);
        }
        Ok(answer)
    }
}

/// What becomes of a call at this node.
enum Route {
    Here,
    To(LeaderHint),
    Refused(Unavailable),
}

fn route(path: &str, leadership: impl FnOnce() -> Leadership, was_forwarded: bool) -> Route {
    if FOR_THE_LEADER.binary_search(&path).is_err() {
        return Route::Here;
    }
    match leadership() {
        Leadership::Leader { .. } => Route::Here,
        Leadership::Follower { leader } if was_forwarded => Route::Refused(Unavailable::NotLeader(leader)),
        Leadership::Follower { leader } => Route::To(leader),
        Leadership::NoLeader => Route::Refused(Unavailable::NoLeader),
    }
}

/// A service behind the forwarder.
#[derive(Clone)]
pub(super) struct Forwarded<S> {
    service: S,
    forwarder: Arc<Forwarder>,
}

impl<S> Forwarded<S> {
    pub(super) fn new(service: S, forwarder: Arc<Forwarder>) -> Self {
        Self { service, forwarder }
    }
}

impl<S: NamedService> NamedService for Forwarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Forwarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let replica = &self.forwarder.replica;
        // A node that stops takes no calls, not even for others.
        let is_stopping = !replica.is_ready();
        let leadership = || replica.leadership();
        match route(request.uri().path(), leadership, request.headers().contains_key(FORWARDED)) {
            Route::Here => {
                Answer::Here { answer: self.service.call(request), request_bytes_max: self.forwarder.request_bytes_max }
            }
            Route::Refused(_) | Route::To(_) if is_stopping => Answer::refused(Unavailable::NotReady.into()),
            Route::Refused(unavailable) => Answer::refused(unavailable.into()),
            Route::To(leader) => {
                let forwarder = self.forwarder.clone();
                let forwarding = async move {
                    forwarder.forward(leader, request).await.unwrap_or_else(|failure| Status::from(failure).into_http())
                };
                Answer::There(forwarding.boxed())
            }
        }
    }
}

/// The answer to come.
pub(super) enum Answer<F> {
    /// From the service behind, which boxes its own futures.
    Here { answer: F, request_bytes_max: usize },
    /// From the leader.
    There(BoxFuture<'static, Response<Body>>),
}

impl<F> Answer<F> {
    fn refused(failure: Failure) -> Self {
        Self::There(std::future::ready(Status::from(failure).into_http()).boxed())
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::There(answer) => answer.poll_unpin(cx).map(Ok),
            Self::Here { answer, request_bytes_max } => {
                let mut answer = ready!(answer.poll_unpin(cx))?;
                explain_unreadable(&mut answer, *request_bytes_max);
                Poll::Ready(Ok(answer))
            }
        }
    }
}

/// The body of the leader's answer. If it breaks off, the client is told what that means.
struct LeaderBody {
    /// `None` once it has broken off.
    body: Option<Incoming>,
}

impl http_body::Body for LeaderBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let error = match ready!(Pin::new(body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => error,
        };
        self.body = None;
        let status = Status::from(Failure::commit_unknown(format!("the leader's answer broke off: {error}")));
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_list_of_mutating_calls_follows_the_protocol() {
        // A call mutates if it can carry a request identity, or is about sessions.
        let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).unwrap().file;
        let package = files.iter().filter(|file| file.package() == "millstream.v1");
        let messages: Vec<_> = package.clone().flat_map(|file| &file.message_type).collect();
        let has_identity = |type_name: &str| {
            let name = type_name.trim_start_matches(".millstream.v1.");
            let message = messages.iter().find(|message| message.name() == name).expect("defined");
            message.field.iter().any(|field| field.type_name() == ".millstream.v1.RequestIdentity")
        };
        let mut expected = Vec::new();
        for service in package.flat_map(|file| &file.service) {
            for method in &service.method {
                if service.name() == "SessionService" || has_identity(method.input_type()) {
                    expected.push(format!("/millstream.v1.{}/{}", service.name(), method.name()));
                }
            }
        }
        // Of the administrative ones, all but what any node can tell.
        let admin = files.iter().filter(|file| file.package() == "millstream.admin.v1");
        let for_any_node = ["GetStatus", "Backup"];
        for method in admin.flat_map(|file| &file.service).flat_map(|service| &service.method) {
            if !for_any_node.contains(&method.name()) {
                expected.push(format!("/millstream.admin.v1.ClusterService/{}", method.name()));
            }
        }
        expected.sort_unstable();
        assert_eq!(FOR_THE_LEADER.to_vec(), expected, "also sorted, for it is searched by halving");
    }

    #[test]
    fn only_mutating_calls_leave_and_only_once() {
        let leader = || LeaderHint { node_id: 2, client_address: "two:7420".into() };
        let routed = |path, leadership: Leadership, was_forwarded| match route(path, || leadership, was_forwarded) {
            Route::Here => "here".to_owned(),
            Route::To(leader) => format!("to {}", leader.node_id),
            Route::Refused(unavailable) => format!("{unavailable:?}"),
        };
        let append = "/millstream.v1.StreamService/Append";
        let (leads, follows) = (Leadership::Leader { term: 1 }, Leadership::Follower { leader: leader() });
        assert_eq!(routed(append, leads.clone(), false), "here");
        assert_eq!(routed(append, leads, true), "here");
        assert_eq!(routed(append, follows.clone(), false), "to 2");
        assert_eq!(routed(append, follows.clone(), true), format!("{:?}", Unavailable::NotLeader(leader())));
        assert_eq!(routed(append, Leadership::NoLeader, false), "NoLeader");
        assert_eq!(routed("/millstream.v1.StreamService/Range", follows, false), "here");
        assert_eq!(routed("/millstream.v1.StreamService/Read", Leadership::NoLeader, true), "here");
    }
}
