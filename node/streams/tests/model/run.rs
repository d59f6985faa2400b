//! The core and the model side by side.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use millstream_streams::rows::META_PREFIX;
use millstream_streams::*;

use super::compare;
use super::coverage::Coverage;
use super::generate::Generator;
use crate::support::Store;
use millstream_streams_model::Model;

/// One step of a run.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the largest variant")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Propose(Proposal),
    /// The core writes a checkpoint, and lets blocks leave memory.
    Checkpoint,
    /// The core writes a checkpoint and starts anew from it.
    Restart,
}

/// After how many commands all streams are compared, not only those that the command names.
const COMPARE_ALL_EVERY: u64 = 16;

#[derive(Default)]
pub(crate) struct Pair {
    pub(crate) model: Model,
    core: State,
    store: Store,
    index: u64,
}

impl Pair {
    /// Does one step in both, and says where they differ.
    pub(crate) fn step(&mut self, event: &Event, coverage: &mut Coverage) -> Result<(), String> {
        let proposal = match event {
            Event::Propose(proposal) => proposal,
            Event::Checkpoint => {
                self.store.checkpoint(&mut self.core);
                return Ok(());
            }
            Event::Restart => {
                self.store.checkpoint(&mut self.core);
                self.core = self.store.restore();
                return compare::all(&self.model, &self.core, &self.store);
            }
        };
        // As in a log: with gaps.
        self.index += 1 + self.index % 2;
        let command = &proposal.command;
        let may_be_undone = matches!(command, Command::Batch(Batch { mode: BatchMode::AllOrNothing, .. }));
        let before = if may_be_undone { self.rows() } else { Vec::new() };
        let applied = self
            .core
            .apply(self.index, &proposal.encode(), &self.store, true)
            .map_err(|error| format!("the core failed: {error}"))?;
        coverage.count(command, &applied.outcome);
        self.model.step(self.index, proposal, &applied.outcome)?;
        if may_be_undone && applied.outcome.is_err() && before != self.rows() {
            return Err("a batch that was refused left a trace in the rows".to_owned());
        }
        compare::applied(&self.model, &applied)?;
        if self.index % COMPARE_ALL_EVERY < 2 || matches!(command, Command::Batch(_) | Command::DeleteAll(_)) {
            return compare::all(&self.model, &self.core, &self.store);
        }
        for stream in streams_of(command) {
            compare::stream(stream, &self.model, &self.core, &self.store)?;
        }
        Ok(())
    }
}

impl Pair {
    /// All that the core would store, but for its clock and digest.
    fn rows(&self) -> Vec<(RowKey, Bytes)> {
        let mut rows = self.core.all_rows(&self.store).unwrap();
        rows.retain(|(key, _)| key.as_bytes()[0] != META_PREFIX);
        rows
    }
}

/// Why a run ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The step at which it did, from 0.
    pub(crate) at: usize,
    pub(crate) problem: String,
}

/// Runs given steps.
pub(crate) fn replay(events: &[Event]) -> Result<(), Failure> {
    let mut pair = Pair::default();
    let mut coverage = Coverage::default();
    for (at, event) in events.iter().enumerate() {
        guarded(|| pair.step(event, &mut coverage)).map_err(|problem| Failure { at, problem })?;
    }
    guarded(|| compare::all(&pair.model, &pair.core, &pair.store))
        .map_err(|problem| Failure { at: events.len().saturating_sub(1), problem })
}

/// Runs random steps. Returns those taken.
pub(crate) fn random(seed: u64, length: u64, coverage: &mut Coverage) -> Result<Vec<Event>, (Vec<Event>, Failure)> {
    let mut generator = Generator::new(seed);
    let mut pair = Pair::default();
    let mut events = Vec::new();
    for _ in 0..length {
        events.push(generator.event(&pair.model));
        let at = events.len() - 1;
        if let Err(problem) = guarded(|| pair.step(&events[at], coverage)) {
            return Err((events, Failure { at, problem }));
        }
    }
    let same = guarded(|| compare::all(&pair.model, &pair.core, &pair.store));
    coverage.add_corners(&pair.model.corners);
    match same {
        Ok(()) => Ok(events),
        Err(problem) => Err((events, Failure { at: length as usize - 1, problem })),
    }
}

/// Makes a panic a failure like others.
fn guarded(step: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        Err(format!("panic: {}", words.unwrap_or_default()))
    })
}

/// The streams that a simple command names.
pub(crate) fn streams_of(command: &Command) -> Vec<&StreamName> {
    match command {
        Command::Append(Append { stream, .. })
        | Command::DeleteEntries(DeleteEntries { stream, .. })
        | Command::Trim(Trim { stream, .. })
        | Command::DeleteStream(DeleteStream { stream })
        | Command::CreateGroup(CreateGroup { stream, .. })
        | Command::SetGroupPosition(SetGroupPosition { stream, .. })
        | Command::DeleteGroup(DeleteGroup { stream, .. })
        | Command::CreateConsumer(CreateConsumer { stream, .. })
        | Command::DeleteConsumer(DeleteConsumer { stream, .. })
        | Command::Ack(Ack { stream, .. })
        | Command::AckAndDelete(AckAndDelete { stream, .. })
        | Command::Nack(Nack { stream, .. })
        | Command::Claim(Claim { stream, .. })
        | Command::AutoClaim(AutoClaim { stream, .. })
        | Command::SetLastId(SetLastId { stream, .. })
        | Command::ConfigureStream(ConfigureStream { stream, .. })
        | Command::RecordIdempotency(RecordIdempotency { stream, .. }) => vec![stream],
        Command::ReadGroup(ReadGroup { streams, .. }) => streams.iter().map(|read| &read.stream).collect(),
        Command::EnforceRetention(EnforceRetention { streams }) => streams.iter().collect(),
        _ => Vec::new(),
    }
}

/// Adds up what waiters are told, in any order.
pub(crate) fn sum(changes: &[Change]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for change in changes {
        let (what, entries) = match change {
            Change::Appended { stream, entries } => (format!("appended {stream:?}"), *entries),
            Change::Released { stream, group, entries } => (format!("released {stream:?} {group:?}"), *entries),
            other => (format!("{other:?}"), 1),
        };
        *sums.entry(what).or_default() += entries;
    }
    sums
}
