//! Sessions, and what the cluster knows of itself, around the model of streams: for whole logs.
//!
//! Written from the protocol's words on sessions: a request is done once and answered alike as often as it comes, until the
//! client says that it is finished (`completed_below`); what is unknown, expired, finished or too far ahead is refused and
//! not done.

use std::collections::BTreeMap;

use millstream_streams::limits::{
    ADDRESS_BYTES_MAX, CLUSTER_ID_BYTES_MAX, SESSION_IDLE_MS_MAX, SESSION_WINDOW, SESSIONS_MAX,
};
use millstream_streams::*;

use crate::Model;
use crate::step::{invalid, is_same_refusal, too_large};

/// All that a log makes of an empty cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Streams and groups.
    pub model: Model,
    /// Open sessions, in the order in which they were opened.
    pub sessions: Vec<Session>,
    /// The id of the cluster, once it has one.
    pub cluster_id: Option<String>,
    /// The incarnation and the addresses of each node that has registered.
    pub nodes: BTreeMap<u64, (u64, String, String)>,
}

/// An open session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The log index at which it was opened.
    pub id: u64,
    /// When its last request came.
    pub active_ms: u64,
    /// Requests below this are finished for good.
    pub floor: u64,
    /// What was asked and answered, by sequence number.
    pub answered: BTreeMap<u64, (Command, Outcome)>,
}

/// How a command came to its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was done, or refused on its merits.
    Now,
    /// It had been done before: its session answered.
    Before,
    /// Its session does not take it.
    NotTaken,
}

impl Cluster {
    /// Does what the command does, and says how its outcome came about; or what the core should have said instead.
    /// `observed` is what it said, `repeated` whether it says that a session answered.
    pub fn step(
        &mut self,
        index: u64,
        proposal: &Proposal,
        observed: &Outcome,
        repeated: bool,
    ) -> Result<Done, String> {
        self.model.begin(proposal);
        let done = match proposal.request.and_then(|request| self.admit(request, &proposal.command)) {
            Some(Ok(recorded)) => {
                if recorded != *observed {
                    return Err(format!("answered before: {recorded:?}\nobserved: {observed:?}"));
                }
                if let Ok(reply) = observed {
                    self.model.collect(&proposal.command, reply);
                }
                Done::Before
            }
            Some(Err(refusal)) => {
                if observed.as_ref() != Err(&refusal) {
                    return Err(format!("expected a refusal: {refusal:?}\nobserved: {observed:?}"));
                }
                Done::NotTaken
            }
            None => {
                self.run(index, proposal, observed)?;
                self.record(proposal, observed);
                Done::Now
            }
        };
        if repeated != (done == Done::Before) {
            return Err(format!("expected: {done:?}, observed: repeated: {repeated}, {observed:?}"));
        }
        Ok(done)
    }

    /// What the request's session has to say of it; `None`: it is to be done.
    fn admit(&mut self, request: RequestId, command: &Command) -> Option<Result<Outcome, Refusal>> {
        let RequestId { session: id, sequence, completed_below } = request;
        let now_ms = self.model.clock_ms;
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) else {
            return Some(Err(Refusal::SessionNotFound { session: id }));
        };
        session.active_ms = now_ms;
        session.floor = session.floor.max(completed_below);
        let floor = session.floor;
        session.answered.retain(|sequence, _| *sequence >= floor);
        if sequence < floor || sequence >= floor.saturating_add(SESSION_WINDOW) {
            return Some(Err(Refusal::SequenceOutOfWindow { sequence, floor }));
        }
        let (asked, answer) = session.answered.get(&sequence)?;
        Some(if asked == command { Ok(answer.clone()) } else { Err(Refusal::SequenceReused { sequence }) })
    }

    /// Remembers an answer, if its session is still there. A delivery of nothing is no answer: the reader waits on.
    fn record(&mut self, Proposal { request, command, .. }: &Proposal, outcome: &Outcome) {
        let Some(RequestId { session: id, sequence, .. }) = request else { return };
        let is_nothing = matches!(outcome, Ok(Reply::Delivered(delivered)) if delivered.streams.iter().all(|one| one.ids.is_empty()));
        if is_nothing {
            return;
        }
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == *id) {
            session.answered.insert(*sequence, (command.clone(), outcome.clone()));
        }
    }

    fn run(&mut self, index: u64, proposal: &Proposal, observed: &Outcome) -> Result<(), String> {
        let expected = match &proposal.command {
            Command::OpenSession(OpenSession {}) => Ok(self.open(index).into()),
            Command::CloseSession(CloseSession { session }) => {
                let before = self.sessions.len();
                self.sessions.retain(|open| open.id != *session);
                Ok(SessionClosed { existed: self.sessions.len() < before }.into())
            }
            Command::CreateCluster(CreateCluster { cluster_id }) => self.create(cluster_id).map(Reply::from),
            Command::RegisterNode(command) => self.register(command).map(Reply::from),
            command => return self.model.judge(index, command, observed),
        };
        let is_same = match (&expected, observed) {
            (Err(expected), Err(observed)) => is_same_refusal(expected, observed),
            _ => expected == *observed,
        };
        if is_same { Ok(()) } else { Err(format!("expected: {expected:?}\nobserved: {observed:?}")) }
    }

    /// Sessions that have been idle for too long go; if there are too many, the one that has been idle longest.
    fn open(&mut self, index: u64) -> SessionOpened {
        let now_ms = self.model.clock_ms;
        self.sessions.retain(|session| now_ms - session.active_ms <= SESSION_IDLE_MS_MAX);
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().map(|session| (session.active_ms, session.id)).min();
            self.sessions.retain(|session| Some((session.active_ms, session.id)) != oldest);
        }
        self.sessions.push(Session { id: index, active_ms: now_ms, floor: 1, answered: BTreeMap::new() });
        SessionOpened { session: index }
    }

    /// The first id stays.
    fn create(&mut self, cluster_id: &str) -> Result<ClusterCreated, Refusal> {
        if cluster_id.is_empty() {
            return Err(invalid());
        }
        if cluster_id.len() > CLUSTER_ID_BYTES_MAX {
            return Err(too_large(CLUSTER_ID_BYTES_MAX as u64));
        }
        let kept = self.cluster_id.get_or_insert_with(|| cluster_id.to_owned());
        Ok(ClusterCreated { cluster_id: kept.clone() })
    }

    /// A node id belongs to the data directory that came with it first.
    fn register(&mut self, command: &RegisterNode) -> Result<NodeRegistered, Refusal> {
        let RegisterNode { node_id, incarnation, peer_address, client_address } = command.clone();
        if peer_address.len().max(client_address.len()) > ADDRESS_BYTES_MAX {
            return Err(too_large(ADDRESS_BYTES_MAX as u64));
        }
        if self.nodes.get(&node_id).is_some_and(|(known, ..)| *known != incarnation) {
            return Err(Refusal::NodeIncarnationMismatch { node_id });
        }
        self.nodes.insert(node_id, (incarnation, peer_address, client_address));
        Ok(NodeRegistered {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both, side by side.
    #[derive(Default)]
    struct Pair {
        core: State,
        cluster: Cluster,
        index: u64,
        outcome: Option<Outcome>,
    }

    impl Pair {
        fn apply(&mut self, at_ms: u64, request: Option<(u64, u64, u64)>, command: impl Into<Command>) -> Done {
            self.index += 1;
            let request =
                request.map(|(session, sequence, completed_below)| RequestId { session, sequence, completed_below });
            let proposal = Proposal { at_ms, request, command: command.into(), bytes_max: 0 };
            let applied = self.core.apply(self.index, &proposal.encode(), &NoBlocks, false).unwrap();
            let done = self.cluster.step(self.index, &proposal, &applied.outcome, applied.repeated).unwrap();
            self.outcome = Some(applied.outcome);
            done
        }
    }

    fn append() -> Command {
        let fields = Fields::from_pairs([("a", "b")]).unwrap();
        let stream = StreamName::new("orders").unwrap();
        Append { stream, fields, id: NewId::Auto, no_create: false, trim: None, idempotency: None }.into()
    }

    #[test]
    fn sessions_are_as_in_the_core() {
        let mut pair = Pair::default();
        pair.apply(1, None, CreateCluster { cluster_id: "c".into() });
        pair.apply(2, None, OpenSession {});
        assert_eq!(pair.outcome, Some(Ok(SessionOpened { session: 2 }.into())));
        assert_eq!(pair.apply(3, Some((2, 1, 1)), append()), Done::Now);
        assert_eq!(pair.apply(4, Some((2, 1, 1)), append()), Done::Before);
        assert_eq!(pair.apply(5, Some((2, 1, 1)), DeleteAll {}), Done::NotTaken, "another command");
        assert_eq!(pair.apply(6, Some((2, 9, 4)), append()), Done::Now);
        assert_eq!(pair.apply(7, Some((2, 3, 1)), append()), Done::NotTaken, "finished");
        assert_eq!(pair.apply(8, Some((2, 4 + SESSION_WINDOW, 1)), append()), Done::NotTaken, "too far ahead");
        assert_eq!(pair.apply(9, Some((7, 1, 1)), append()), Done::NotTaken, "unknown");
        pair.apply(10 + 2 * SESSION_IDLE_MS_MAX, None, OpenSession {});
        assert_eq!(pair.apply(11, Some((2, 9, 4)), append()), Done::NotTaken, "expired");
        pair.apply(12, Some((10, 1, 1)), CloseSession { session: 10 });
        assert_eq!(pair.apply(13, Some((10, 1, 1)), CloseSession { session: 10 }), Done::NotTaken, "closed");
        assert_eq!(pair.core.nodes().count(), 0);
        let register = |incarnation| {
            let (peer_address, client_address) = ("a".into(), "b".into());
            RegisterNode { node_id: 1, incarnation, peer_address, client_address }
        };
        pair.apply(14, None, register(5));
        pair.apply(15, None, register(6));
        assert!(pair.outcome.is_some_and(|outcome| outcome.is_err()));
    }

    #[test]
    fn another_outcome_is_noticed() {
        let mut cluster = Cluster::default();
        let proposal = Proposal { at_ms: 1, request: None, command: OpenSession {}.into(), bytes_max: 0 };
        assert!(cluster.step(5, &proposal, &Ok(SessionOpened { session: 4 }.into()), false).is_err());
        let request = Some(RequestId { session: 5, sequence: 1, completed_below: 1 });
        let proposal = Proposal { at_ms: 1, request, command: append(), bytes_max: 0 };
        let outcome = |ms| Ok(Appended { id: EntryId::new(ms, 0), trimmed: 0, duplicate: false }.into());
        assert_eq!(cluster.clone().step(6, &proposal, &outcome(1), false), Ok(Done::Now));
        assert!(cluster.clone().step(6, &proposal, &outcome(2), false).is_err());
        assert!(cluster.clone().step(6, &proposal, &outcome(1), true).is_err(), "nothing was there to repeat");
        cluster.step(6, &proposal, &outcome(1), false).unwrap();
        assert!(cluster.clone().step(7, &proposal, &outcome(1), false).is_err(), "not said to be a repeat");
        assert!(cluster.clone().step(7, &proposal, &outcome(2), true).is_err(), "done twice");
        assert_eq!(cluster.step(7, &proposal, &outcome(1), true), Ok(Done::Before));
    }
}
