//! The witness: it sees what every node applies, and holds that against a model and against what clients were told.
//!
//! Raft gives the order in which everything happened, so it need not be searched for, only verified. While the simulation
//! runs, every node's probe tells what it applies ([`log`]) and shows its state now and then ([`states`]): all must be the
//! same. At the end the log is replayed ([`replay`]) through a fresh state and through the naive model; every outcome must
//! be theirs. Then the clients' calls are held against it: each answer is what the log has at the place that it names, every
//! command was asked for, none took effect twice, nothing happened where that was promised ([`answers`]); what was asked
//! later stands later ([`order`]); questions were answered as the model would have ([`questions`]); and the state's clock
//! went on as time did ([`time`]).
//!
//! What is absent: an entry that nobody applied. What a node only *has* in its log is for the invariants on disks.

mod answers;
mod deeds;
mod log;
mod order;
mod probe;
mod questions;
mod replay;
mod states;
#[cfg(test)]
mod testing;
mod time;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use millstream_node::world::{Look, Probe};

use self::answers::Requests;
pub use self::log::{Applied, Committed, Life};
use self::probe::NodeProbe;
use self::questions::Questions;
use self::replay::Replay;
pub use self::replay::{Commands, Replayed};
use self::states::States;
use crate::checks::{Evidence, Violation};
use crate::trace::{Trace, fingerprint};

/// Collects what the nodes' probes tell. Cheap to clone.
#[derive(Clone)]
pub struct Witness(Arc<Mutex<Inner>>);

struct Inner {
    trace: Trace,
    log: Committed,
    states: States,
    looks: BTreeMap<String, Weak<dyn Look>>,
    marks: BTreeMap<&'static str, u64>,
    marks_of: BTreeMap<(String, &'static str), u64>,
    questions: u64,
    violation: Option<Violation>,
}

/// All marks that nodes and probes may set, by name, with what each says.
pub fn marks() -> BTreeMap<&'static str, &'static str> {
    millstream_node::world::MARKS.into_iter().chain(probe::MARKS).chain([AFTER_RESTART]).collect()
}

const AFTER_RESTART: (&str, &str) =
    ("dedup_hit_after_restart", "a session answered from a record that the node had read from its store");

impl Witness {
    /// Has seen nothing yet. What is applied is traced, too.
    pub fn new(trace: Trace) -> Self {
        let (log, states) = Default::default();
        let (looks, marks, marks_of) = Default::default();
        let inner = Inner { trace, log, states, looks, marks, marks_of, questions: 0, violation: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// A probe for a new life of a node's process.
    pub fn probe(&self, node: &str) -> Arc<dyn Probe> {
        let mut inner = self.lock();
        inner.looks.remove(node);
        inner.log.begin(node);
        Arc::new(NodeProbe { node: node.to_owned(), witness: self.clone() })
    }

    /// The first thing that must not have happened, if anything has. To be asked after each step.
    pub fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// How often each mark was set; only those that were.
    pub fn marks(&self) -> BTreeMap<&'static str, u64> {
        self.lock().marks.clone()
    }

    /// How often a node has set this mark.
    pub fn marks_of(&self, node: &str, mark: &'static str) -> u64 {
        self.lock().marks_of.get(&(node.to_owned(), mark)).copied().unwrap_or_default()
    }

    /// The requests that were answered from their session's record: where each was done, and where it came again.
    pub fn repeats(&self) -> Vec<(u64, u64)> {
        let mut first = BTreeMap::new();
        let mut repeats = Vec::new();
        for (index, replayed) in replay::commands(&self.committed()) {
            let Some(request) = replayed.request else { continue };
            let done = *first.entry((request.session, request.sequence)).or_insert(index);
            if replayed.done == millstream_streams_model::Done::Before {
                repeats.push((done, index));
            }
        }
        repeats
    }

    /// What a node has done in its present life; `None`: it never had one.
    pub fn life(&self, node: &str) -> Option<Life> {
        self.lock().log.lives().get(node).and_then(|lives| lives.last()).copied()
    }

    /// The log so far.
    pub fn committed(&self) -> Committed {
        self.lock().log.clone()
    }

    /// How many looks at whole states there were.
    pub fn looks(&self) -> u64 {
        self.lock().states.looks
    }

    /// Looks at the states of all nodes that run.
    pub fn look(&self) {
        // Outside the lock: the node's own lock comes first.
        let looks: Vec<_> = self.lock().looks.iter().map(|(node, look)| (node.clone(), look.clone())).collect();
        for (node, look) in looks {
            let Some(look) = look.upgrade() else { continue };
            look.look(&mut |index, state, blocks| {
                let mut inner = self.lock();
                let seen = inner.states.look(&node, index, state, blocks);
                inner.note("replicas are the same", seen);
            });
        }
    }

    /// How many questions were held against the model by [`Witness::check`].
    pub fn questions(&self) -> u64 {
        self.lock().questions
    }

    /// Replays the log, holds the clients' evidence against it, and says all that is wrong: one violation per property.
    pub fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        self.look();
        let (log, states, found) = {
            let inner = self.lock();
            (inner.log.clone(), inner.states.clone(), inner.violation.clone())
        };
        let mut violations: Vec<_> = found.into_iter().collect();
        let mut found = |property, problem: Option<String>| {
            violations.extend(problem.map(|problem| Violation { property, problem }));
        };
        found("the log has no gaps", log.check().err());
        let (replay, problems) = hold(&log, &states, evidence);
        for (property, problem) in problems {
            found(property, Some(problem));
        }
        let after_restart = after_restart(&log, &replay.commands);
        let answers = evidence.calls.iter().filter(|call| call.answer.as_ref().is_some_and(|it| it.index.is_some()));
        tracing::info!(
            entries = log.last(),
            commands = replay.commands.len(),
            answers = answers.count(),
            questions = replay.questions,
            looks = states.looks,
            "the witness has held the log against the model and the clients"
        );
        let mut inner = self.lock();
        inner.questions = replay.questions;
        if 0 < after_restart {
            *inner.marks.entry(AFTER_RESTART.0).or_default() += after_restart;
        }
        violations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, property: &'static str, seen: Result<(), String>) {
        if let Err(problem) = seen {
            self.violation.get_or_insert(Violation { property, problem });
        }
    }

    fn mark(&mut self, node: &str, name: &'static str) {
        self.trace.line("mark", format_args!("{node} {name}"));
        *self.marks.entry(name).or_default() += 1;
        *self.marks_of.entry((node.to_owned(), name)).or_default() += 1;
    }

    fn trace_applied(&mut self, node: &str, index: u64, applied: &Applied) {
        let Applied { term, proposal, outcome, repeated } = applied;
        let (proposal, is_refused) = (fingerprint(proposal), matches!(outcome, Some(Err(_))));
        self.trace.line(
            "apply",
            format_args!("{node} {index} {term} {proposal:016x} refused {is_refused} repeated {repeated}"),
        );
    }
}

/// Replays a log and holds the evidence against it: all that is wrong, by property.
fn hold(log: &Committed, states: &States, evidence: &Evidence) -> (Replay, Vec<(&'static str, String)>) {
    let calls = &evidence.calls[..];
    // Where questions may be answered from follows from where changes stand, which needs no replay.
    let places = replay::commands(log);
    let requests = Requests::of(&places);
    let told = order::told(calls, requests.as_ref().ok());
    let not_beyond = requests.as_ref().map(|requests| order::not_beyond(calls, requests)).unwrap_or_default();
    let mut questions = Questions::new(calls, &told, &not_beyond, log.last().unwrap_or_default());
    let mut replay = replay::replay(log, states, &mut |index, cluster| questions.ask(index, cluster));
    replay.questions = questions.checked;
    let mut problems = Vec::new();
    let mut found = |property, problem: Option<String>| problems.extend(problem.map(|problem| (property, problem)));
    found("outcomes are the model's", replay.outcomes.take());
    found("replicas are the same", replay.states.take());
    if !problems.is_empty() {
        return (replay, problems);
    }
    let mut found = |property, problem: Option<String>| problems.extend(problem.map(|problem| (property, problem)));
    found("questions are answered as by the model", replay.answers.take().or(questions.finish().err()));
    found("answers are the log's", answers::fit(calls, &replay.commands).err());
    found("no entry is appended twice", answers::once(&replay.commands).err());
    found("time passes", time::check(calls, log).err());
    match &requests {
        Ok(requests) => {
            let meant = answers::fit_where_meant(calls, &replay.commands, requests);
            found("answers are the log's, where only one can be meant", meant.err());
            found("commands were asked for", answers::belong(calls, requests).err());
            found("real time is kept", order::check(calls, requests, &told).err());
        }
        Err(problem) => found("requests take effect once", Some(problem.clone())),
    }
    (replay, problems)
}

/// How many repeats some node answered from what its store had of the session.
fn after_restart(log: &Committed, commands: &Commands) -> u64 {
    let mut first = BTreeMap::new();
    let mut hits = 0;
    for (index, replayed) in commands {
        let Some(request) = replayed.request else { continue };
        let done = *first.entry((request.session, request.sequence)).or_insert(*index);
        if replayed.done == millstream_streams_model::Done::Before {
            let read = |life: &Life| life.began.is_some_and(|began| done <= began && began < *index);
            hits += log.lives().values().flatten().filter(|life| read(life) && Some(*index) <= life.applied).count();
        }
    }
    hits as u64
}
