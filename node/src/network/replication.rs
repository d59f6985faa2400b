//! The sending end of the replication stream.
//!
//! openraft hands in a stream of requests and polls the stream of answers. gRPC pulls the requests from its own task, so
//! that the next batch is on its way while answers are awaited; but the requests must end when the answers are dropped,
//! because openraft's next session reads the log through the same state and would wait for this one. Hence [`Pump`]: the
//! requests on a leash that both ends hold.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use millstream_proto::internal::v1 as pb;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, Sleep};
use tonic::Streaming;

use super::convert::{append_to_pb, stream_result_from_pb};
use super::factory::unreachable;
use super::link::{Lane, Link};
use super::peers::{Target, later};
use super::{PeerError, Peers};
use crate::types::{NodeId, TypeConfig};
use crate::world::{OnAnswer, OnRequest, RpcKind};

type Append = AppendEntriesRequest<TypeConfig>;
type Answer = StreamAppendResult<TypeConfig>;

/// Streams `input` to a peer. The answers end with the requests, or after the first that is an error of any kind.
pub(super) fn replicate<S>(
    peers: Arc<Peers>,
    target: Target,
    input: S,
) -> BoxStream<'static, Result<Answer, RPCError<TypeConfig>>>
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    let answers = futures::stream::unfold(Stage::Idle { peers, target, input }, |stage| async move {
        let mut session = match stage {
            Stage::Idle { peers, target, mut input } => {
                // openraft's backoff after a failure sleeps inside the first request: nothing is dialled before that.
                let first = input.next().await?;
                let last = first.entries.last().map(|entry| entry.log_id).or(first.prev_log_id);
                match Session::open(peers, target, first, input).await {
                    Ok(session) => Box::new(session),
                    Err(_) if millstream_streams::mutant!(AckBeforeQuorum) => return Some((Ok(Ok(last)), Stage::Over)),
                    Err(error) => return Some((Err(unreachable(error)), Stage::Over)),
                }
            }
            Stage::Running(session) => session,
            Stage::Over => return None,
        };
        match session.answer().await {
            Ok(Some(answer)) => {
                let next = if answer.is_ok() { Stage::Running(session) } else { Stage::Over };
                Some((Ok(answer), next))
            }
            Ok(None) => None,
            Err(error) => Some((Err(unreachable(error)), Stage::Over)),
        }
    });
    Box::pin(answers)
}

enum Stage<S> {
    Idle { peers: Arc<Peers>, target: Target, input: S },
    Running(Box<Session<S>>),
    Over,
}

/// An open stream.
struct Session<S> {
    peers: Arc<Peers>,
    target: Target,
    link: Arc<Link>,
    pump: Leash<S>,
    answers: Streaming<pb::StreamAppendResponse>,
}

impl<S> Session<S>
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    async fn open(peers: Arc<Peers>, target: Target, first: Append, input: S) -> Result<Self, PeerError> {
        let link = peers.link(&target, Lane::Append)?;
        let pump = Leash::new(first, input);
        let requests =
            Requests { pump: pump.0.clone(), peers: peers.clone(), to: target.id, link: link.clone(), held: None };
        let mut client = link.client();
        let deadline = peers.options.answer_timeout;
        let answers = match tokio::time::timeout(deadline, client.stream_append(requests)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(peers.failed(&target, Lane::Append, &link, &status)),
            Err(_) => {
                peers.discard(&target, Lane::Append, &link);
                return Err(peers.silent(&target, deadline));
            }
        };
        Ok(Self { peers, target, link, pump, answers })
    }

    /// The next answer; `None` when the peer has answered all and ended the stream.
    async fn answer(&mut self) -> Result<Option<Answer>, PeerError> {
        let for_ever = millstream_streams::mutant!(StreamsWithoutDeadline);
        let patience = if for_ever { Duration::from_secs(86_400) } else { self.peers.options.answer_timeout };
        let answer = loop {
            let until = self.pump.lock().patient_until(patience);
            match tokio::time::timeout_at(until, self.answers.message()).await {
                Ok(Ok(Some(answer))) => break answer,
                Ok(Ok(None)) => return self.ended().map(|()| None),
                Ok(Err(status)) => return Err(self.peers.failed(&self.target, Lane::Append, &self.link, &status)),
                // Nothing was outstanding when the time was set, and something may be by now.
                Err(_) if Instant::now() < self.pump.lock().patient_until(patience) => {}
                Err(_) => {
                    self.peers.discard(&self.target, Lane::Append, &self.link);
                    return Err(self.peers.silent(&self.target, patience));
                }
            }
        };
        match self.peers.world.rpc.answer(RpcKind::Append, self.target.id) {
            OnAnswer::Pass => {}
            OnAnswer::Delay(delay) => tokio::time::sleep(delay).await,
            OnAnswer::Drop => {
                tokio::time::sleep(patience).await;
                self.peers.discard(&self.target, Lane::Append, &self.link);
                return Err(self.peers.silent(&self.target, patience));
            }
        }
        self.peers.check_answer(&self.target, Lane::Append, &self.link, answer.envelope.as_ref())?;
        if !self.pump.lock().answered() {
            return Err(PeerError::Other(format!("node {} answers what it was not asked", self.target.id)));
        }
        Ok(Some(stream_result_from_pb(answer.result)?))
    }

    /// The peer has ended the stream. If it owes answers, it is about to stop, and that is an error: openraft takes an
    /// end without one as leave to go on, with the last command that this follower's replication was given. When a
    /// snapshot is on its way to it, that command is obsolete and may ask for entries that are purged; openraft stops
    /// the node that cannot read them, which is this one.
    fn ended(&self) -> Result<(), PeerError> {
        match self.pump.lock().outstanding.len() {
            0 => Ok(()),
            owed => {
                let id = self.target.id;
                Err(PeerError::Unreachable(format!("node {id} ended the replication stream and owes {owed} answers")))
            }
        }
    }
}

/// The requests, and how long their answers are due.
struct Pump<S> {
    /// Pulled already, to learn that there is something to send.
    first: Option<Append>,
    /// `None` once it has ended or was taken back.
    input: Option<S>,
    /// When each request that has no answer yet was handed to gRPC.
    outstanding: VecDeque<Instant>,
    /// When the last answer came, or the requests ended.
    progress: Instant,
    /// gRPC's task, if it waits for a request.
    waker: Option<Waker>,
}

impl<S> Pump<S> {
    /// When the peer has kept us waiting too long. An idle stream is not kept waiting, so that moment moves on with the
    /// clock; it must be looked at again when it is reached.
    fn patient_until(&self, patience: Duration) -> Instant {
        let waiting_since = match self.outstanding.front() {
            Some(&sent) => sent.max(self.progress),
            // All is answered, and the peer should end the stream.
            None if self.input.is_none() => self.progress,
            None => Instant::now(),
        };
        waiting_since + patience
    }

    /// Takes note of an answer. False if none was due.
    fn answered(&mut self) -> bool {
        self.progress = Instant::now();
        self.outstanding.pop_front().is_some()
    }
}

/// The pump, held by the side that reads the answers. Letting go of it ends the requests.
struct Leash<S>(Arc<Mutex<Pump<S>>>);

impl<S> Leash<S> {
    fn new(first: Append, input: S) -> Self {
        let outstanding = VecDeque::new();
        let pump = Pump { first: Some(first), input: Some(input), outstanding, progress: Instant::now(), waker: None };
        Self(Arc::new(Mutex::new(pump)))
    }

    fn lock(&self) -> MutexGuard<'_, Pump<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Drop for Leash<S> {
    fn drop(&mut self) {
        let (input, waker) = {
            let mut pump = self.lock();
            (pump.input.take(), pump.waker.take())
        };
        // Outside the lock: neither's code is ours.
        drop(input);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The pump, held by gRPC.
struct Requests<S> {
    pump: Arc<Mutex<Pump<S>>>,
    peers: Arc<Peers>,
    to: NodeId,
    link: Arc<Link>,
    /// A request that is late or lost; nothing overtakes it.
    held: Option<(pb::StreamAppendRequest, Option<Pin<Box<Sleep>>>)>,
}

impl<S: Stream<Item = Append> + Send + Unpin + 'static> Stream for Requests<S> {
    type Item = pb::StreamAppendRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { pump, peers, to, link, held } = self.get_mut();
        // The lock is held while openraft reads its log. The other side waits for it only for moments: to drop the
        // input, or to note an answer.
        let mut pump = pump.lock().unwrap_or_else(PoisonError::into_inner);
        let pump = &mut *pump;
        let Some(input) = &mut pump.input else {
            return Poll::Ready(None);
        };
        if let Some((_, sleep)) = held {
            pump.waker = Some(cx.waker().clone());
            match sleep {
                Some(sleep) => ready!(sleep.as_mut().poll(cx)),
                None => return Poll::Pending,
            }
            pump.waker = None;
            return Poll::Ready(held.take().map(|(request, _)| request));
        }
        let request = match pump.first.take() {
            Some(first) => first,
            None => match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) => request,
                Poll::Ready(None) => {
                    pump.input = None;
                    pump.progress = Instant::now();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    pump.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            },
        };
        pump.outstanding.push_back(Instant::now());
        let envelope = Some(peers.context.envelope(*to));
        let request = pb::StreamAppendRequest { envelope, append: Some(append_to_pb(request)) };
        let sleep = match peers.world.rpc.request(RpcKind::Append, *to) {
            OnRequest::Pass => return Poll::Ready(Some(request)),
            OnRequest::Duplicate(delay) => {
                let pb::StreamAppendRequest { envelope, append } = request.clone();
                let mut client = link.client();
                drop(later(delay, async move { client.append(pb::AppendRequest { envelope, append }).await }));
                return Poll::Ready(Some(request));
            }
            OnRequest::Delay(delay) => Some(Box::pin(tokio::time::sleep(delay))),
            OnRequest::Drop => None,
        };
        *held = Some((request, sleep));
        // Sets the waker.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
