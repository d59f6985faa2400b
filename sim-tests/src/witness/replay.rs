//! The log, done once more: by a fresh state of the core, and by the reference model. Each observed outcome must be what
//! both say, and each state that was seen must be the fresh one's.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use millstream_streams::{Command, Entry, NoBlocks, Outcome, Proposal, Refusal, RequestId, State};
use millstream_streams_model::{Cluster, Done};

use super::log::Committed;
use super::states::States;

/// A command of the log, after the replay.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// What was asked.
    pub command: Command,
    /// As which request of which session.
    pub request: Option<RequestId>,
    /// What became of it.
    pub outcome: Outcome,
    /// How that came about.
    pub done: Done,
    /// What the ids in the outcome name, in its order; `None`: no longer there. Of a repeated batch unknown, and empty.
    pub payloads: Vec<Option<Entry>>,
}

/// The commands of a log, by index.
pub type Commands = BTreeMap<u64, Replayed>;

/// Looks at the model after the entry at this index was done.
pub(super) type Ask<'a> = dyn FnMut(u64, &Cluster) -> Result<(), String> + 'a;

/// What the replay says of the log.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The commands, as far as it came.
    pub commands: Commands,
    /// What the outcomes should have been, where they were something else: the first.
    pub outcomes: Option<String>,
    /// Where a state was not the fresh one's: the first.
    pub states: Option<String>,
    /// What `ask` said first.
    pub answers: Option<String>,
    /// How many questions were asked.
    pub questions: u64,
}

/// The commands as the log shows them without a replay: payloads unknown.
pub(super) fn commands(log: &Committed) -> Commands {
    let command = |(index, applied): (u64, &super::log::Applied)| {
        let Proposal { request, command, .. } = Proposal::decode(&applied.proposal).ok()?;
        let outcome = applied.outcome.clone()?;
        let refused = matches!(
            outcome,
            Err(Refusal::SessionNotFound { .. } | Refusal::SequenceOutOfWindow { .. } | Refusal::SequenceReused { .. })
        );
        let done = match applied.repeated {
            true => Done::Before,
            false if refused => Done::NotTaken,
            false => Done::Now,
        };
        Some((index, Replayed { command, request, outcome, done, payloads: Vec::new() }))
    };
    log.entries().filter_map(command).collect()
}

/// Replays the log.
pub(super) fn replay(log: &Committed, states: &States, ask: &mut Ask<'_>) -> Replay {
    let mut replay = Replay::default();
    let (mut fresh, mut cluster) = (State::new(), Cluster::default());
    let mut seen = states.indexes().peekable();
    for (index, applied) in log.entries() {
        if !applied.proposal.is_empty() {
            match step(&mut fresh, &mut cluster, index, applied) {
                Ok(done) => {
                    replay.commands.insert(index, done);
                }
                Err(problem) => {
                    replay.outcomes = Some(format!("entry {index}: {problem}"));
                    return replay;
                }
            }
        }
        while let Some(at) = seen.next_if(|at| *at <= index) {
            if replay.states.is_none() && at == index {
                replay.states = states.compare(index, &fresh, &NoBlocks).err();
            }
        }
        if replay.answers.is_none() {
            replay.answers = ask(index, &cluster).err();
        }
    }
    replay
}

fn step(
    fresh: &mut State,
    cluster: &mut Cluster,
    index: u64,
    applied: &super::log::Applied,
) -> Result<Replayed, String> {
    let Some(observed) = &applied.outcome else { return Err("a command without an outcome".into()) };
    let proposal = Proposal::decode(&applied.proposal).map_err(|error| format!("it does not decode: {error}"))?;
    let again = fresh.apply(index, &applied.proposal, &NoBlocks, false);
    let again = again.map_err(|error| format!("a fresh state cannot apply it: {error}"))?;
    if (&again.outcome, again.repeated) != (observed, applied.repeated) {
        return Err(format!("a fresh state says {:?}\nobserved: {observed:?}", again.outcome));
    }
    // The model does not go on where it contradicts itself.
    let judged = catch_unwind(AssertUnwindSafe(|| cluster.step(index, &proposal, observed, applied.repeated)));
    let judged = judged.unwrap_or_else(|_| Err("the model panicked".into()));
    let Proposal { request, command, .. } = proposal;
    let done = judged.map_err(|problem| format!("{command:?}: the model does not agree.\n{problem}"))?;
    let payloads = std::mem::take(&mut cluster.model.payloads);
    Ok(Replayed { command, request, outcome: observed.clone(), done, payloads })
}
