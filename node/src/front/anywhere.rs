//! Commands of clients that do not know who leads: done at the leader, wherever it is, once each.
//!
//! A command has a number in one of this node's sessions. So an answer that is lost, or a leader that changes, only means to
//! ask again under the same number, and what became of the command is known in the end; only if nobody can be asked for too
//! long does it stay open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_streams::{Command, CreateConsumer, OpenSession, ReadGroup, Refusal, Reply};
use tokio::time::Instant;

use super::sessions::{Sessions, TURN_MAX, Turn};
use super::{Denied, Done, Front, Result, leader};
use crate::network::{Execute, Executed, NotExecuted, Stored};
use crate::replica::{Leadership, Unavailable};

/// Before a command is tried again: the shortest and the longest pause. A change of leaders ends it.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// For an answer, beyond the time that the leader itself takes at most: the caller's patience ends it sooner.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Does commands wherever the leader is. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Anywhere {
    front: Front,
    sessions: Sessions,
}

/// Why an attempt came to nothing.
enum Missed {
    /// Nothing was proposed. Another may be luckier.
    NothingDone(Unavailable),
    /// It may have been done.
    Open(String),
    /// Another attempt would end alike.
    Final(Denied),
}

impl Anywhere {
    pub(crate) fn new(front: Front) -> Self {
        Self { front, sessions: Sessions::default() }
    }

    /// This node.
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// Does a command. Without a leader it waits for one as long as `patience` lasts.
    pub(crate) async fn perform(&self, command: Command, patience: Duration) -> Result<Done> {
        command.check()?;
        let done = self.numbered(command, Instant::now(), patience, std::future::pending(), &|| {}).await?;
        done.ok_or(Denied::Broken("a command without an outcome"))
    }

    /// Delivers entries of a group, waiting for the first until `deadline` or until `enough` resolves, after having said so by
    /// `waits`; `None`: there were none. A change of leaders is waited out for as long as `patience` lasts.
    pub(crate) async fn read_group(
        &self,
        read: ReadGroup,
        deadline: Instant,
        patience: Duration,
        enough: impl Future<Output = ()>,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Option<Done>> {
        let command = Command::from(read);
        command.check()?;
        self.numbered(command, deadline, patience, enough, waits).await
    }

    /// Where a log entry is on stable storage; `None`: nobody who leads could be asked.
    pub(crate) async fn stored(&self, log_index: u64) -> Option<Stored> {
        self.front.replica.stored(log_index).await
    }

    /// Does a command under a number, in another session if the first has expired.
    async fn numbered(
        &self,
        command: Command,
        deadline: Instant,
        patience: Duration,
        enough: impl Future<Output = ()>,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Option<Done>> {
        let mut enough = std::pin::pin!(enough);
        let mut call = Execute { request: None, command, wait: Duration::ZERO };
        let mut may_wait = true;
        loop {
            let turn = self.turn(Instant::now() + patience).await?;
            call.request = Some(turn.request);
            // An attempt in this turn that may have been proposed.
            let mut open = None;
            // A session without a command expires. Those that wait for longer go on in another turn.
            let until = deadline.min(Instant::now() + TURN_MAX);
            let mut answer = None;
            if may_wait {
                tokio::select! {
                    biased;
                    found = self.settle(&mut call, &mut open, until, patience, waits) => answer = Some(found),
                    () = &mut enough => may_wait = false,
                }
            }
            let answer = match answer {
                Some(answer) => answer,
                // A delivery may be under way. Under the same number it is the answer to this as well.
                None => self.settle(&mut call, &mut open, Instant::now(), patience, waits).await,
            };
            match answer {
                Err(Denied::Refused(Refusal::SessionNotFound { .. })) => turn.lose(),
                Ok(None) if may_wait && until < deadline => {}
                // The same, once the turn is over: an empty delivery is what the last look of it came to.
                Ok(done) if may_wait && (until..deadline).contains(&Instant::now()) && delivers_nothing(&done) => {}
                answer => return answer,
            }
        }
    }

    async fn turn(&self, end: Instant) -> Result<Turn> {
        if let Some(turn) = self.sessions.take() {
            return Ok(turn);
        }
        let mut call = Execute { request: None, command: OpenSession {}.into(), wait: Duration::ZERO };
        let now = Instant::now();
        let mut open = None;
        match self.persist(&mut call, &mut open, now, end.saturating_duration_since(now), &|| {}).await {
            Ok(Some(Done { reply: Reply::SessionOpened(opened), .. })) => Ok(self.sessions.opened(opened.session)),
            Ok(_) => Err(Denied::Broken("the reply does not fit the command")),
            // A session more or less does no harm: nothing of what the client wants was done.
            Err(Denied::Unavailable(Unavailable::CommitUnknown(_))) => Err(Unavailable::NoLeader.into()),
            Err(denied) => Err(denied),
        }
    }

    /// Tries until the answer holds. That a group read found nothing is on no record, so an attempt that was taken for lost
    /// could still deliver when it arrives late: where there was one, the number is used up before anybody is told.
    async fn settle(
        &self,
        call: &mut Execute,
        open: &mut Option<String>,
        until: Instant,
        patience: Duration,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Option<Done>> {
        let answer = self.persist(call, open, until, patience, waits).await;
        let is_on_record = match &answer {
            Ok(done) => !delivers_nothing(done),
            // Somebody had enough while the number was being used up, and it was.
            Err(Denied::Refused(Refusal::SequenceReused { .. })) => return Ok(None),
            // Without the session no attempt does anything.
            Err(Denied::Refused(Refusal::SessionNotFound { .. })) => true,
            Err(Denied::Refused(_)) => false,
            Err(_) => return answer,
        };
        if open.is_none() || is_on_record {
            return answer;
        }
        let Some(command) = uses_up(&call.command) else { return answer };
        let mut other = Execute { request: call.request, command, wait: Duration::ZERO };
        match self.persist(&mut other, open, Instant::now(), patience, waits).await {
            // The late one was first: what it delivered is on record.
            Err(Denied::Refused(Refusal::SequenceReused { .. })) => {
                self.persist(call, open, Instant::now(), patience, waits).await
            }
            Ok(_) | Err(Denied::Refused(_)) => {
                self.front.replica.mark("late_delivery_ruled_out");
                answer
            }
            Err(denied) => Err(denied),
        }
    }

    /// Tries until there is an answer; waits for something to deliver until `until`. Gives up when nobody has taken the call
    /// for as long as `patience` lasts. Refusals are certain, and one that the session is not there means that nothing was
    /// done.
    async fn persist(
        &self,
        call: &mut Execute,
        open: &mut Option<String>,
        until: Instant,
        patience: Duration,
        waits: &(dyn Fn() + Sync),
    ) -> Result<Option<Done>> {
        let mut pause = PAUSE_MIN;
        // Since when nobody has the call.
        let mut idle_since = Instant::now();
        loop {
            // Before the attempt: what changes during it ends the pause.
            let leadership_changed = self.front.replica.leadership_changed();
            call.wait = until.saturating_duration_since(Instant::now());
            let was_taken = AtomicBool::new(false);
            let taken = || {
                was_taken.store(true, Ordering::Relaxed);
                waits();
            };
            let answer_by = until.max(idle_since) + patience;
            // Whoever drops this in the middle leaves an attempt under way.
            let before = open.replace("it was given up".into());
            let ended = tokio::time::timeout_at(answer_by, self.attempt(call, &taken)).await;
            *open = before;
            let missed = match ended {
                Ok(Ok(done)) => {
                    if open.is_some() {
                        self.front.replica.mark("asked_again");
                    }
                    return Ok(done);
                }
                Ok(Err(missed)) => missed,
                Err(_) => Missed::Open("no answer in time".into()),
            };
            if was_taken.load(Ordering::Relaxed) {
                (idle_since, pause) = (Instant::now(), PAUSE_MIN);
            }
            let denied = match missed {
                // The outcome may have been forgotten together with the session.
                Missed::Final(Denied::Refused(refusal @ Refusal::SessionNotFound { .. })) => {
                    return Err(open.take().map_or(Denied::Refused(refusal), unknown));
                }
                Missed::Final(Denied::Refused(refusal)) => return Err(refusal.into()),
                Missed::Final(denied) => return Err(open.take().map_or(denied, unknown)),
                Missed::NothingDone(unavailable) => unavailable.into(),
                Missed::Open(problem) => {
                    *open = Some(problem.clone());
                    if millstream_streams::mutant!(DoorRenumbers) {
                        call.request = None;
                    }
                    unknown(problem)
                }
            };
            let end = idle_since + patience;
            if end <= Instant::now() {
                if millstream_streams::mutant!(DoorLostMeansNothing) {
                    return Err(Unavailable::NoLeader.into());
                }
                return Err(open.take().map_or(denied, unknown));
            }
            let pause_end = (Instant::now() + pause).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(pause_end) => {}
                () = leadership_changed => {
                    if millstream_streams::mutant!(DoorRenumbersForNextLeader) {
                        call.request = None;
                    }
                }
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn attempt(&self, call: &Execute, waits: &(dyn Fn() + Sync)) -> std::result::Result<Option<Done>, Missed> {
        if !self.front.replica.is_ready() {
            return Err(Missed::Final(Unavailable::NotReady.into()));
        }
        let answer = match self.front.replica.leadership() {
            Leadership::Leader { .. } => leader::here(&self.front, call.clone(), waits).await,
            Leadership::NoLeader => return Err(Missed::NothingDone(Unavailable::NoLeader)),
            Leadership::Follower { leader } => {
                let time = call.wait.saturating_add(ANSWER_TIME_MAX);
                match self.front.replica.execute_at(leader.node_id, call, time, waits).await {
                    Ok(answer) => answer,
                    Err(error) => return Err(Missed::Open(error.to_string())),
                }
            }
        };
        match answer {
            Ok(Executed::Applied { log_index, term, outcome: Ok(reply), entries }) => {
                Ok(Some(Done { reply, entries, log_index, term }))
            }
            Ok(Executed::Applied { outcome: Err(refusal), .. }) => Err(Missed::Final(refusal.into())),
            Ok(Executed::Nothing) => Ok(None),
            Err(NotExecuted::NotLeader { .. }) => Err(Missed::NothingDone(Unavailable::NoLeader)),
            Err(NotExecuted::NotReady) => Err(Missed::NothingDone(Unavailable::NotReady)),
            Err(NotExecuted::Overloaded { limit }) => Err(Missed::NothingDone(Unavailable::Overloaded { limit })),
            Err(NotExecuted::DiskFull { nodes }) => Err(Missed::Final(Unavailable::DiskFull { nodes }.into())),
            Err(NotExecuted::Unknown(problem)) => Err(Missed::Open(problem)),
        }
    }
}

fn delivers_nothing(done: &Option<Done>) -> bool {
    match done {
        Some(Done { reply: Reply::Delivered(delivered), .. }) => delivered.is_empty(),
        Some(_) => false,
        None => true,
    }
}

/// What uses up the number of a group read, so that no attempt that comes late does anything under it: another command, whose
/// outcome is recorded whatever it is. A group read creates its consumer itself.
fn uses_up(command: &Command) -> Option<Command> {
    if millstream_streams::mutant!(LateDeliveryNotRuledOut) {
        return None;
    }
    let Command::ReadGroup(ReadGroup { group, consumer, streams, .. }) = command else { return None };
    let stream = streams.first()?.stream.clone();
    Some(CreateConsumer { stream, group: group.clone(), consumer: consumer.clone() }.into())
}

fn unknown(problem: String) -> Denied {
    Unavailable::CommitUnknown(problem).into()
}
