//! One command: what must come of it, and what it leaves behind.

use millstream_streams::limits::*;
use millstream_streams::*;

use crate::groups::Level;
use crate::state::Model;

/// Why the model stops short.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The command must be refused, for one of these reasons.
    Refused(Vec<Refusal>),
    /// The core broke a promise.
    Broken(String),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(vec![refusal])
    }
}

impl From<String> for Stop {
    fn from(broken: String) -> Stop {
        Stop::Broken(broken)
    }
}

pub(crate) type Step<T> = Result<T, Stop>;

impl Model {
    /// Does what the command does, and says if the core should have said something else. `observed` is what the core
    /// said.
    pub fn step(&mut self, index: u64, proposal: &Proposal, observed: &Outcome) -> Result<(), String> {
        self.begin(proposal);
        self.judge(index, &proposal.command, observed)
    }

    /// Gets ready for a command.
    pub(crate) fn begin(&mut self, proposal: &Proposal) {
        // Section 10, "wall clock".
        self.clock_ms = self.clock_ms.max(proposal.at_ms);
        self.changes.clear();
        self.payloads.clear();
        self.shared = Level::new(proposal.bytes_max);
    }

    /// Does the command, and compares.
    pub(crate) fn judge(&mut self, index: u64, command: &Command, observed: &Outcome) -> Result<(), String> {
        match self.run(index, command, Some(observed)) {
            Err(Stop::Broken(problem)) => Err(problem),
            Err(Stop::Refused(expected)) => match observed {
                Err(refusal) if expected.iter().any(|expected| is_same_refusal(expected, refusal)) => Ok(()),
                _ => Err(format!("expected a refusal: {expected:?}\nobserved: {observed:?}")),
            },
            Ok(expected) => match observed {
                Ok(reply) if is_same_reply(&expected, reply) => Ok(()),
                _ => Err(format!("expected: {expected:?}\nobserved: {observed:?}")),
            },
        }
    }

    /// `observed` is `None` where the core said nothing about this command: an operation of a batch that was refused.
    pub(crate) fn run(&mut self, index: u64, command: &Command, observed: Option<&Outcome>) -> Step<Reply> {
        let wrong = check(command);
        if !wrong.is_empty() {
            return Err(Stop::Refused(wrong));
        }
        let reply = match command {
            Command::Append(command) => self.append(index, command, observed)?.into(),
            Command::DeleteEntries(command) => self.delete_entries(index, command)?.into(),
            Command::Trim(command) => self.trim(index, command, observed)?.into(),
            Command::DeleteStream(command) => self.delete_stream(command)?.into(),
            Command::SetLastId(command) => self.set_last_id(index, command)?.into(),
            Command::ConfigureStream(command) => self.configure_stream(index, command)?.into(),
            Command::RecordIdempotency(command) => self.record_idempotency(index, command)?.into(),
            Command::DeleteAll(command) => self.delete_all(command)?.into(),
            Command::EnforceRetention(command) => self.enforce_retention(index, command)?.into(),
            Command::CreateGroup(command) => self.create_group(index, command)?.into(),
            Command::SetGroupPosition(command) => self.set_group_position(index, command)?.into(),
            Command::DeleteGroup(command) => self.delete_group(index, command)?.into(),
            Command::CreateConsumer(command) => self.create_consumer(index, command)?.into(),
            Command::DeleteConsumer(command) => self.delete_consumer(index, command)?.into(),
            Command::ReadGroup(command) => self.read_group(index, command)?.into(),
            Command::Ack(command) => self.ack(index, command)?.into(),
            Command::AckAndDelete(command) => self.ack_and_delete(index, command)?.into(),
            Command::Nack(command) => self.nack(index, command)?.into(),
            Command::Claim(command) => self.claim(index, command)?.into(),
            Command::AutoClaim(command) => self.auto_claim(index, command)?.into(),
            Command::Batch(command) => self.batch(index, command, observed)?.into(),
            Command::Query(query) => self.query(query)?.into(),
            Command::OpenSession(_)
            | Command::CloseSession(_)
            | Command::CreateCluster(_)
            | Command::RegisterNode(_) => panic!("not of the model"),
        };
        self.collect(command, &reply);
        Ok(reply)
    }

    /// Collects the payloads of what one command returns, as they are then: what comes later in a batch may remove them.
    pub(crate) fn collect(&mut self, command: &Command, reply: &Reply) {
        let mut named: Vec<(&StreamName, EntryId)> = Vec::new();
        match (command, reply) {
            (Command::ReadGroup(ReadGroup { streams, .. }), Reply::Delivered(delivered)) => {
                for (read, delivery) in streams.iter().zip(&delivered.streams) {
                    named.extend(delivery.ids.iter().map(|id| (&read.stream, *id)));
                }
            }
            (Command::Query(Query::Read(read)), Reply::Answer(Answer::Read(found))) => {
                for (read, found) in read.streams.iter().zip(found) {
                    named.extend(found.ids.iter().map(|id| (&read.stream, *id)));
                }
            }
            (Command::Claim(Claim { stream, ids_only: false, .. }), Reply::Claimed(Claimed { ids, .. }))
            | (
                Command::AutoClaim(AutoClaim { stream, ids_only: false, .. }),
                Reply::AutoClaimed(AutoClaimed { ids, .. }),
            )
            | (Command::Query(Query::Range(RangeQuery { stream, .. })), Reply::Answer(Answer::Entries { ids, .. }))
            | (Command::Query(Query::Details { stream, .. }), Reply::Answer(Answer::Details { ids, .. }))
            | (Command::Query(Query::Stream(stream)), Reply::Answer(Answer::Stream { ids, .. })) => {
                named.extend(ids.iter().map(|id| (stream, *id)));
            }
            _ => {}
        }
        let entry = |(stream, id)| self.streams.get(stream)?.entry(id).cloned();
        self.payloads.extend(named.into_iter().map(entry));
    }
}

/// Whether the observed refusal is the expected one. The words for a bad argument are the core's own.
pub(crate) fn is_same_refusal(expected: &Refusal, observed: &Refusal) -> bool {
    match (expected, observed) {
        (Refusal::InvalidArgument { .. }, Refusal::InvalidArgument { .. }) => true,
        (Refusal::LimitExceeded { limit: a, .. }, Refusal::LimitExceeded { limit: b, .. }) => a == b,
        (
            Refusal::OperationRefused { operation: a, refusal: expected },
            Refusal::OperationRefused { operation: b, refusal: observed },
        ) => a == b && is_same_refusal(expected, observed),
        _ => expected == observed,
    }
}

fn is_same_reply(expected: &Reply, observed: &Reply) -> bool {
    match (expected, observed) {
        (Reply::Batched(expected), Reply::Batched(observed)) => {
            expected.results.len() == observed.results.len()
                && expected.results.iter().zip(&observed.results).all(|pair| match pair {
                    (Ok(expected), Ok(observed)) => is_same_reply(expected, observed),
                    (Err(expected), Err(observed)) => is_same_refusal(expected, observed),
                    _ => false,
                })
        }
        // A question for which there was no room left may say in vain that there is more: it reads no block to find out.
        (
            Reply::Answer(Answer::Entries { ids, more: false }),
            Reply::Answer(Answer::Entries { ids: observed, more: true }),
        ) if ids.is_empty() => observed.is_empty(),
        _ => expected == observed,
    }
}

pub(crate) fn invalid() -> Refusal {
    Refusal::InvalidArgument { field: String::new(), problem: String::new() }
}

pub(crate) fn too_large(limit: u64) -> Refusal {
    Refusal::LimitExceeded { field: String::new(), limit }
}

/// What no state could accept: the refusals that are right for the command, whatever the state. Empty if it is well formed.
pub(crate) fn check(command: &Command) -> Vec<Refusal> {
    let mut wrong = Vec::new();
    let mut require = |holds: bool, refusal: Refusal| {
        if !holds {
            wrong.push(refusal);
        }
    };
    let ids_fit = |ids: &[EntryId]| ids.len() <= IDS_MAX;
    match command {
        Command::Append(Append { id, trim, idempotency, .. }) => {
            require(*id != NewId::Explicit(EntryId::MIN), Refusal::IdZero);
            require(trim.is_none_or(|policy| is_well_formed(&policy)), invalid());
            require(idempotency.is_none() || *id == NewId::Auto, invalid());
        }
        Command::Trim(Trim { policy, .. }) => require(is_well_formed(policy), invalid()),
        Command::DeleteEntries(DeleteEntries { ids, .. })
        | Command::Ack(Ack { ids, .. })
        | Command::AckAndDelete(AckAndDelete { ids, .. }) => {
            require(!ids.is_empty(), invalid());
            require(ids_fit(ids), too_large(IDS_MAX as u64));
        }
        Command::Nack(Nack { ids, delivery_count, .. }) => {
            require(!ids.is_empty(), invalid());
            require(ids_fit(ids), too_large(IDS_MAX as u64));
            require(delivery_count.unwrap_or(0) <= DELIVERY_COUNT_MAX, too_large(DELIVERY_COUNT_MAX));
        }
        Command::Claim(Claim { ids, delivery_count, .. }) => {
            require(ids_fit(ids), too_large(IDS_MAX as u64));
            require(delivery_count.unwrap_or(0) <= DELIVERY_COUNT_MAX, too_large(DELIVERY_COUNT_MAX));
        }
        Command::AutoClaim(AutoClaim { count, .. }) => {
            require(*count > 0, invalid());
            require(*count <= COUNT_MAX, too_large(COUNT_MAX.into()));
        }
        Command::ReadGroup(ReadGroup { streams, count, total_max, .. }) => {
            // Section 4.10: MAXCOUNT is not smaller than COUNT.
            require(*total_max == 0 || count <= total_max, invalid());
            require(!streams.is_empty(), invalid());
            require(streams.len() <= GROUP_READ_STREAMS_MAX, too_large(GROUP_READ_STREAMS_MAX as u64));
            require(*count <= COUNT_MAX, too_large(COUNT_MAX.into()));
        }
        Command::SetLastId(SetLastId { entries_added, .. }) => {
            require(entries_added.unwrap_or(0) <= ENTRIES_ADDED_MAX, too_large(ENTRIES_ADDED_MAX));
        }
        Command::ConfigureStream(ConfigureStream {
            idempotency_duration_s: duration,
            idempotency_keys_max: keys,
            retention,
            ..
        }) => {
            require(duration.is_some() || keys.is_some() || retention.is_some(), invalid());
            require(duration.is_none_or(|duration| duration >= 1), invalid());
            require(keys.is_none_or(|keys| keys >= 1), invalid());
            let max_age_ms = retention.and_then(|retention| retention.max_age_ms);
            require(max_age_ms.is_none_or(|age| age >= 1), invalid());
            for (value, limit) in [(duration, IDEMPOTENCY_DURATION_S_MAX), (keys, IDEMPOTENCY_KEYS_MAX)] {
                require(value.is_none_or(|value| value <= limit), too_large(limit.into()));
                require(value.is_none_or(|value| value <= limit), invalid());
            }
        }
        Command::EnforceRetention(EnforceRetention { streams }) => {
            require(!streams.is_empty(), invalid());
            require(streams.len() <= RETENTION_STREAMS_MAX, too_large(RETENTION_STREAMS_MAX as u64));
        }
        Command::Batch(Batch { operations, guards, mode }) => {
            require(!operations.is_empty(), invalid());
            require(operations.len() <= BATCH_OPERATIONS_MAX, too_large(BATCH_OPERATIONS_MAX as u64));
            require(guards.len() <= BATCH_GUARDS_MAX, too_large(BATCH_GUARDS_MAX as u64));
            require(operations.iter().all(may_be_in_batch), invalid());
            // As by EXEC, what is malformed is refused when it is its turn; or before anything is done, if all are refused.
            if *mode == BatchMode::AllOrNothing {
                for (operation, number) in operations.iter().zip(0..) {
                    for refusal in check(operation) {
                        require(false, Refusal::OperationRefused { operation: number, refusal: Box::new(refusal) });
                    }
                }
            }
        }
        Command::Query(query) => {
            if let Query::Read(ReadStreams { streams, count, total_max, .. }) = query {
                require(*total_max == 0 || count <= total_max, invalid());
                require(!streams.is_empty(), invalid());
                require(streams.len() <= READ_STREAMS_MAX, too_large(READ_STREAMS_MAX as u64));
            }
            require(count_of(query) <= COUNT_MAX, too_large(COUNT_MAX.into()));
        }
        _ => {}
    }
    wrong
}

/// How much a question asks for at most.
fn count_of(query: &Query) -> u32 {
    match query {
        Query::Range(RangeQuery { count, .. })
        | Query::Read(ReadStreams { count, .. })
        | Query::Details { count, .. }
        | Query::Pending(PendingQuery { count, .. })
        | Query::Groups { count, .. }
        | Query::Consumers { count, .. } => *count,
        Query::Stream(_) | Query::PendingSummary { .. } => 0,
    }
}

/// LIMIT belongs to `~` (section 4.1).
fn is_well_formed(policy: &TrimPolicy) -> bool {
    policy.approximate || policy.limit.is_none()
}

/// What the leader proposes on its own is no command "on streams and groups" that a client gives.
fn may_be_in_batch(command: &Command) -> bool {
    !matches!(
        command,
        Command::Batch(_)
            | Command::EnforceRetention(_)
            | Command::OpenSession(_)
            | Command::CloseSession(_)
            | Command::CreateCluster(_)
            | Command::RegisterNode(_)
    )
}
