//! Several commands and questions as one: what MULTI, EXEC and WATCH are in Redis.

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode};

use super::{Apply, Command, Context, Stop};
use crate::block::BlockError;
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::{Outcome, Refusal};
use crate::limits::{BATCH_GUARDS_MAX, BATCH_IDS_MAX, BATCH_OPERATIONS_MAX};
use crate::names::StreamName;

/// Does several things as one entry of the log: nothing comes in between.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    /// 1 to [`BATCH_OPERATIONS_MAX`](crate::limits::BATCH_OPERATIONS_MAX) operations, done in this order. Commands on
    /// streams and groups, and queries; no batch, and nothing about sessions, nodes or the cluster. They name at most
    /// [`BATCH_IDS_MAX`](crate::limits::BATCH_IDS_MAX) ids together, and look at [`LOOKS_MAX`](crate::limits::LOOKS_MAX)
    /// things: later ones return, deliver and trim no more.
    #[n(0)]
    #[cbor(decode_with = "decode_operations")]
    pub operations: Vec<Command>,
    /// 0 to [`BATCH_GUARDS_MAX`](crate::limits::BATCH_GUARDS_MAX) conditions. If one does not hold, nothing is done.
    #[n(1)]
    pub guards: Vec<Guard>,
    /// What an operation that is refused means for the others.
    #[n(2)]
    pub mode: BatchMode,
}

/// What an operation that is refused means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BatchMode {
    /// All are done, or none: the batch is refused with [`OperationRefused`](crate::Refusal::OperationRefused).
    #[n(0)]
    AllOrNothing,
    /// The others are done nevertheless (EXEC).
    #[n(1)]
    ContinueOnError,
}

/// A condition on which a batch depends (WATCH).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Guard {
    /// The stream exists, and this is the log index of the last command that changed it or one of its groups. See
    /// [`StreamInfo::last_change_index`](crate::StreamInfo::last_change_index).
    #[n(0)]
    Unchanged {
        /// The stream.
        #[n(0)]
        stream: StreamName,
        /// The log index.
        #[n(1)]
        last_change_index: u64,
    },
    /// There is no such stream.
    #[n(1)]
    Absent {
        /// The stream.
        #[n(0)]
        stream: StreamName,
    },
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Batched {
    /// The outcome of each operation, in their order. All are replies in mode [`BatchMode::AllOrNothing`].
    #[n(0)]
    #[cbor(decode_with = "decode_results")]
    pub results: Vec<Outcome>,
}

impl Apply for Batch {
    type Reply = Batched;

    fn check(&self) -> Result<(), Refusal> {
        if self.operations.is_empty() {
            return Err(Refusal::invalid("operations", "at least one operation is needed"));
        }
        Refusal::check_limit("operations", self.operations.len() as u64, BATCH_OPERATIONS_MAX as u64)?;
        Refusal::check_limit("guards", self.guards.len() as u64, BATCH_GUARDS_MAX as u64)?;
        for (operation, n) in self.operations.iter().zip(0..) {
            if !may_stand_in_batch(operation) {
                let problem = format!("{} cannot stand in a batch", operation.name());
                return Err(Refusal::invalid(&format!("operations[{n}]"), problem));
            }
            // What no state could accept is that operation's own affair in EXEC. Where it is everybody's, it is known
            // before anything is done.
            if self.mode == BatchMode::AllOrNothing {
                let refused = |refusal| Refusal::OperationRefused { operation: n, refusal: Box::new(refusal) };
                operation.check().map_err(refused)?;
            }
        }
        Refusal::check_limit("operations.ids", self.ids(), BATCH_IDS_MAX)
    }

    fn ids(&self) -> u64 {
        self.operations.iter().map(Command::ids).sum()
    }

    fn summarize(&self, reply: &Batched, summary: &mut Summary) {
        for (operation, result) in self.operations.iter().zip(&reply.results) {
            summary.outcome(operation, result);
        }
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Batched, Stop> {
        for (guard, n) in self.guards.iter().zip(0..) {
            guard.hold(context).map_err(|last_change_index| Refusal::GuardFailed { guard: n, last_change_index })?;
        }
        match self.mode {
            BatchMode::AllOrNothing => self.all_or_nothing(context),
            BatchMode::ContinueOnError => {
                let results: Result<_, BlockError> = self.operations.iter().map(|each| context.run(each)).collect();
                Ok(Batched { results: results? })
            }
        }
    }

    fn delivered<'a>(&'a self, reply: &'a Batched) -> Vec<(&'a StreamName, &'a [EntryId])> {
        let done = self.operations.iter().zip(&reply.results);
        done.filter_map(|(operation, result)| Some(operation.delivered(result.as_ref().ok()?))).flatten().collect()
    }
}

impl Batch {
    fn all_or_nothing(&self, context: &mut Context<'_>) -> Result<Batched, Stop> {
        let changes = context.changes.len();
        let payloads = context.payloads.as_ref().map_or(0, |payloads| payloads.len());
        context.state.streams.begin();
        let mut results = Vec::with_capacity(self.operations.len());
        for (each, operation) in self.operations.iter().zip(0..) {
            match context.run(each)? {
                Ok(reply) => results.push(Ok(reply)),
                Err(refusal) => {
                    if crate::mutant!(RefusedBatchKept) {
                        context.state.streams.commit();
                    }
                    context.state.streams.rollback();
                    context.changes.truncate(changes);
                    if let Some(collected) = &mut context.payloads {
                        collected.truncate(payloads);
                    }
                    return Err(Refusal::OperationRefused { operation, refusal: Box::new(refusal) }.into());
                }
            }
        }
        context.state.streams.commit();
        Ok(Batched { results })
    }
}

impl Guard {
    /// Whether it holds; if not, the stream's last-change index, if there is such a stream.
    fn hold(&self, context: &Context<'_>) -> Result<(), Option<u64>> {
        let (stream, expected) = match self {
            Guard::Unchanged { stream, last_change_index } => (stream, Some(*last_change_index)),
            Guard::Absent { stream } => (stream, None),
        };
        let found = context.state.last_change_index(stream);
        if found == expected { Ok(()) } else { Err(found) }
    }
}

fn may_stand_in_batch(operation: &Command) -> bool {
    !matches!(
        operation,
        Command::Batch(_)
            | Command::OpenSession(_)
            | Command::CloseSession(_)
            | Command::CreateCluster(_)
            | Command::RegisterNode(_)
            | Command::EnforceRetention(_)
    )
}

/// The number of a batch among commands and replies.
const BATCH: u32 = 24;

/// Operations, but no batch: decoding goes down one level of the stack for each, and bytes may come damaged.
fn decode_operations<C>(d: &mut Decoder<'_>, context: &mut C) -> Result<Vec<Command>, DecodeError> {
    let count = d.array()?.ok_or_else(|| DecodeError::message("array of unknown length"))?;
    let mut operations = Vec::new();
    for _ in 0..count {
        refuse_nested(d.clone())?;
        operations.push(d.decode_with(context)?);
    }
    Ok(operations)
}

/// Results, but no batch, for the same reason.
fn decode_results<C>(d: &mut Decoder<'_>, context: &mut C) -> Result<Vec<Outcome>, DecodeError> {
    let count = d.array()?.ok_or_else(|| DecodeError::message("array of unknown length"))?;
    let mut results = Vec::new();
    for _ in 0..count {
        let mut inner = d.clone();
        inner.array()?;
        if inner.u32()? == 0 {
            refuse_nested(inner)?;
        }
        results.push(d.decode_with(context)?);
    }
    Ok(results)
}

fn refuse_nested(mut d: Decoder<'_>) -> Result<(), DecodeError> {
    d.array()?;
    if d.u32()? == BATCH {
        return Err(DecodeError::message("a batch within a batch"));
    }
    Ok(())
}
