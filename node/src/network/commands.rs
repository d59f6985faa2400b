//! What a follower asks of the leader on behalf of clients.

use std::time::Duration;

use bytes::Bytes;
use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::execute_result::Result as Answer;
use millstream_proto::internal::v1::execute_waiting_response::Step;
use millstream_streams::{Command, DecodeError, Entry, Outcome, Proposal, RequestId, decode_applied, encode_applied};
use pb::not_executed::Reason;
use tonic::Status;

use super::link::Lane;
use super::peers::{Target, later};
use super::{PeerError, Peers};
use crate::types::NodeId;
use crate::world::{OnAnswer, OnRequest, RpcKind};

/// The node behind [`raft_service`](super::raft_service), as the leader whom followers ask. A call is dropped when the
/// caller goes away.
#[tonic::async_trait]
pub trait CommandCalls: Send + Sync + 'static {
    /// Does a command. Says by `waits` that it has begun to wait, perhaps more than once.
    async fn execute(&self, call: Execute, waits: &(dyn Fn() + Sync)) -> Result<Executed, NotExecuted>;

    /// Where a log entry is stored; `None`: this node does not lead.
    fn stored(&self, log_index: u64) -> Option<Stored>;
}

/// Something to do.
#[derive(Debug, Clone)]
pub struct Execute {
    /// Makes it safe to ask again.
    pub request: Option<RequestId>,
    /// What.
    pub command: Command,
    /// How long a group read may wait for entries.
    pub wait: Duration,
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Executed {
    /// It is applied; it may have been refused.
    Applied {
        /// Index of its log entry.
        log_index: u64,
        /// Term of its log entry.
        term: u64,
        /// The outcome.
        outcome: Outcome,
        /// The entries that the outcome names, in its order; `None`: no longer in the stream.
        entries: Vec<Option<Entry>>,
    },
    /// There was nothing to deliver in time, and nothing was proposed.
    Nothing,
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotExecuted {
    /// The node does not lead. Nothing was proposed.
    NotLeader {
        /// Who does, as far as it knows.
        leader_id: Option<NodeId>,
    },
    /// It is starting or stopping. Nothing was proposed.
    NotReady,
    /// Too much is under way. Nothing was proposed.
    Overloaded {
        /// The bound that was met.
        limit: u64,
    },
    /// Too few voters have room on their disks. Nothing was proposed.
    DiskFull {
        /// Those without.
        nodes: Vec<NodeId>,
    },
    /// It was proposed, or may have been.
    Unknown(String),
}

/// Where a log entry is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// On the leader's.
    pub here: bool,
    /// On that of so many other members.
    pub elsewhere: u32,
}

impl Execute {
    fn proposal(&self) -> Bytes {
        Proposal { at_ms: 0, request: self.request, command: self.command.clone(), bytes_max: 0 }.encode()
    }

    pub(super) fn from_pb(proposal: &Bytes, wait_ms: u64) -> Result<Self, DecodeError> {
        let Proposal { request, command, .. } = Proposal::decode(proposal)?;
        Ok(Self { request, command, wait: Duration::from_millis(wait_ms) })
    }
}

pub(super) fn executed_to_pb(result: Result<Executed, NotExecuted>) -> pb::ExecuteResult {
    pb::ExecuteResult { result: Some(answer(result)) }
}

fn answer(result: Result<Executed, NotExecuted>) -> Answer {
    let refused = |reason: Reason| pb::NotExecuted { reason: reason.into(), ..Default::default() };
    Answer::NotExecuted(match result {
        Ok(Executed::Applied { log_index, term, outcome, entries }) => {
            let applied = encode_applied(&outcome, &entries);
            return Answer::Executed(pb::Executed { log_index, term, applied });
        }
        Ok(Executed::Nothing) => return Answer::Nothing(pb::Nothing {}),
        Err(NotExecuted::NotLeader { leader_id }) => {
            pb::NotExecuted { leader_id: leader_id.unwrap_or(0), ..refused(Reason::NotLeader) }
        }
        Err(NotExecuted::NotReady) => refused(Reason::NotReady),
        Err(NotExecuted::Overloaded { limit }) => pb::NotExecuted { limit, ..refused(Reason::Overloaded) },
        Err(NotExecuted::DiskFull { nodes }) => pb::NotExecuted { nodes, ..refused(Reason::DiskFull) },
        Err(NotExecuted::Unknown(problem)) => pb::NotExecuted { problem, ..refused(Reason::Unknown) },
    })
}

/// What makes no sense leaves everything open.
fn executed_from_pb(result: Option<pb::ExecuteResult>) -> Result<Executed, NotExecuted> {
    let senseless = || NotExecuted::Unknown("an answer that makes no sense".into());
    let refused = match result.and_then(|result| result.result) {
        Some(Answer::Executed(pb::Executed { log_index, term, applied })) => {
            let (outcome, entries) = decode_applied(&applied).map_err(|_| senseless())?;
            return Ok(Executed::Applied { log_index, term, outcome, entries });
        }
        Some(Answer::Nothing(pb::Nothing {})) => return Ok(Executed::Nothing),
        Some(Answer::NotExecuted(refused)) => refused,
        None => return Err(senseless()),
    };
    Err(match refused.reason() {
        Reason::NotLeader => NotExecuted::NotLeader { leader_id: Some(refused.leader_id).filter(|id| *id != 0) },
        Reason::NotReady => NotExecuted::NotReady,
        Reason::Overloaded => NotExecuted::Overloaded { limit: refused.limit },
        Reason::DiskFull => NotExecuted::DiskFull { nodes: refused.nodes },
        Reason::Unknown => NotExecuted::Unknown(refused.problem),
        Reason::Unspecified => senseless(),
    })
}

impl Peers {
    /// Asks the leader to do something. An error says nothing of what became of it.
    pub async fn execute(
        &self,
        to: NodeId,
        address: &str,
        call: &Execute,
        deadline: Duration,
    ) -> Result<Result<Executed, NotExecuted>, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let request = pb::ExecuteRequest { envelope: Some(self.context.envelope(to)), proposal: call.proposal() };
        let answer = self
            .call(&target, RpcKind::Execute, deadline, request, |mut client, request| async move {
                client.execute(request).await
            })
            .await?;
        Ok(executed_from_pb(answer.result))
    }

    /// The same for what may wait. Says by `waits` when the leader has said that it does.
    pub async fn execute_waiting(
        &self,
        to: NodeId,
        address: &str,
        call: &Execute,
        deadline: Duration,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Result<Executed, NotExecuted>, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let (lane, link) = (Lane::Commands, self.link(&target, Lane::Commands)?);
        let request = pb::ExecuteWaitingRequest {
            envelope: Some(self.context.envelope(to)),
            proposal: call.proposal(),
            wait_ms: u64::try_from(call.wait.as_millis()).unwrap_or(u64::MAX),
        };
        let asking = async {
            match self.world.rpc.request(RpcKind::Execute, to) {
                OnRequest::Pass => {}
                OnRequest::Duplicate(delay) => {
                    let (mut client, request) = (link.client(), request);
                    drop(later(delay, async move {
                        // It is given up as soon as it is taken.
                        client.execute_waiting(request).await?.into_inner().message().await
                    }));
                    return Err(self.lost().await);
                }
                OnRequest::Drop => return Err(self.lost().await),
                OnRequest::Delay(delay) => tokio::time::sleep(delay).await,
            }
            let mut answers = link.client().execute_waiting(request).await?.into_inner();
            loop {
                let answer = answers.message().await?;
                let answer = answer.ok_or_else(|| Status::unavailable("it ended without an answer"))?;
                let result = match answer.step {
                    Some(Step::Waiting(pb::Waiting {})) => {
                        waits();
                        continue;
                    }
                    Some(Step::Result(result)) => Some(result),
                    None => None,
                };
                match self.world.rpc.answer(RpcKind::Execute, to) {
                    OnAnswer::Pass => {}
                    OnAnswer::Drop => return Err(self.lost().await),
                    OnAnswer::Delay(delay) => tokio::time::sleep(delay).await,
                }
                return Ok::<_, Status>((answer.envelope, result));
            }
        };
        match tokio::time::timeout(deadline, asking).await {
            Ok(Ok((envelope, result))) => {
                self.check_answer(&target, lane, &link, envelope.as_ref())?;
                Ok(executed_from_pb(result))
            }
            Ok(Err(status)) => Err(self.failed(&target, lane, &link, &status)),
            Err(_) => Err(self.silent(&target, deadline)),
        }
    }

    /// Asks the leader where a log entry is stored; `None`: `to` does not lead.
    pub async fn stored(&self, to: NodeId, address: &str, log_index: u64) -> Result<Option<Stored>, PeerError> {
        let target = Target { id: to, address: address.to_owned() };
        let request = pb::StoredRequest { envelope: Some(self.context.envelope(to)), log_index };
        let answer = self
            .call(&target, RpcKind::Stored, self.options.call_timeout, request, |mut client, request| async move {
                client.stored(request).await
            })
            .await?;
        let stored = Stored { here: answer.here, elsewhere: answer.elsewhere };
        Ok(Some(stored).filter(|_| answer.leads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_streams::{EntryId, Fields, Refusal, Reply, SessionOpened};

    #[test]
    fn answers_survive_the_wire() {
        let entry = Entry { id: EntryId::new(1, 2), fields: Fields::from_pairs([("a", "b")]).expect("fields") };
        let outcome = Ok(Reply::SessionOpened(SessionOpened { session: 7 }));
        let applied = Executed::Applied { log_index: 5, term: 2, outcome, entries: vec![Some(entry), None] };
        let refused = Err(Refusal::SessionNotFound { session: 3 });
        for result in [
            Ok(applied),
            Ok(Executed::Applied { log_index: 1, term: 1, outcome: refused, entries: Vec::new() }),
            Ok(Executed::Nothing),
            Err(NotExecuted::NotLeader { leader_id: None }),
            Err(NotExecuted::NotLeader { leader_id: Some(3) }),
            Err(NotExecuted::NotReady),
            Err(NotExecuted::Overloaded { limit: 9 }),
            Err(NotExecuted::DiskFull { nodes: vec![1, 2] }),
            Err(NotExecuted::Unknown("lost".into())),
        ] {
            let shown = format!("{result:?}");
            assert_eq!(format!("{:?}", executed_from_pb(Some(executed_to_pb(result)))), shown);
        }
        assert!(matches!(executed_from_pb(None), Err(NotExecuted::Unknown(_))));
        let damaged = pb::Executed { log_index: 1, term: 1, applied: Bytes::from_static(b"\xff") };
        assert!(matches!(
            executed_from_pb(Some(pb::ExecuteResult { result: Some(Answer::Executed(damaged)) })),
            Err(NotExecuted::Unknown(_))
        ));
    }
}
