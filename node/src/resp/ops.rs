//! What a request asks of the core, and how what came of it is told. The same within MULTI and outside.

use millstream_streams::{Answer, Batch, BatchMode, Command, Entry, Guard, Outcome, Reply as Done};

use super::reply::Reply;
use super::streams::{Tell, tell};

/// Commands and questions of the core that one request comes to.
#[derive(Debug, Clone)]
pub(super) struct Ops {
    pub(super) commands: Vec<Command>,
    pub(super) telling: Telling,
}

/// How it is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Telling {
    /// As the command on streams that it is.
    Stream(Tell),
    /// As entries, of which so many are wanted; `None`: all.
    Range(Option<u64>),
    /// The answer of the first thing that is not there, or that all of them are.
    Presence { absent: Vec<Reply>, present: Reply },
    /// How many were deleted.
    Deleted,
    /// How many there are.
    Existing,
    /// Whatever: done.
    Ok,
}

/// What came of one command, and the entries that it names.
pub(super) type Result = (Outcome, Vec<Option<Entry>>);

impl Ops {
    pub(super) fn one(command: impl Into<Command>, telling: Telling) -> Self {
        Self { commands: vec![command.into()], telling }
    }

    /// Whether nothing of it changes anything.
    pub(super) fn only_asks(&self) -> bool {
        self.commands.iter().all(|command| matches!(command, Command::Query(_)))
    }

    /// Whether it may share an entry of the log with others of its pipeline: what has a small answer and is soon done. In a
    /// batch the bounds on answers and work are for all together.
    pub(super) fn can_share(&self) -> bool {
        let small = |command: &Command| {
            matches!(
                command,
                Command::Append(_)
                    | Command::Ack(_)
                    | Command::AckAndDelete(_)
                    | Command::DeleteEntries(_)
                    | Command::CreateGroup(_)
                    | Command::CreateConsumer(_)
            )
        };
        self.commands.iter().all(small)
    }

    /// Whether it only matters what is there.
    pub(super) fn is_about_presence(&self) -> bool {
        matches!(self.telling, Telling::Existing | Telling::Presence { .. })
    }

    /// Tells what is there of what its commands ask for, in their order.
    pub(super) fn tell_presence(self, there: Vec<bool>) -> Reply {
        match self.telling {
            Telling::Presence { absent, present } => {
                absent.into_iter().zip(there).find(|(_, is_there)| !is_there).map_or(present, |(absent, _)| absent)
            }
            _ => count(there.into_iter().filter(|is_there| *is_there).count()),
        }
    }

    /// Tells what came of its commands, in their order.
    pub(super) fn tell(self, results: Vec<Result>) -> Reply {
        if self.is_about_presence() {
            return self.tell_presence(results.iter().map(|(outcome, _)| outcome.is_ok()).collect());
        }
        let how = match self.telling {
            Telling::Deleted => {
                let is_deleted = |done: &Done| matches!(done, Done::StreamDeleted(deleted) if deleted.existed);
                return count(results.iter().filter(|(outcome, _)| outcome.as_ref().is_ok_and(is_deleted)).count());
            }
            Telling::Ok => return Reply::OK,
            Telling::Stream(how) => how,
            _ => Tell::Entries,
        };
        let (Some(command), Some((outcome, entries))) = (self.commands.first(), results.into_iter().next()) else {
            return Reply::Error("ERR no outcome; this is a fault of the program, please report it".into());
        };
        if self.is_cut(&outcome) {
            return Reply::Error("ERR the reply is too large for a transaction in Millstream; use COUNT".into());
        }
        // Asked for again, because the first answer was lost, it finds only what is still there.
        if matches!(command, Command::Query(_)) && entries.iter().any(Option::is_none) {
            return Reply::Error(
                "UNKNOWN it was done, but what it read was deleted before it could be answered".into(),
            );
        }
        tell::tell(command, how, &outcome, entries)
    }

    /// Whether an answer lacks what was wanted, for want of room.
    fn is_cut(&self, outcome: &Outcome) -> bool {
        let Ok(Done::Answer(answer)) = outcome else { return false };
        match (answer, &self.telling) {
            (Answer::Entries { ids, more }, Telling::Range(count)) => {
                *more && count.is_none_or(|count| (ids.len() as u64) < count)
            }
            (Answer::Stream { info, ids }, Telling::Stream(Tell::StreamInfo)) => 0 < info.length && ids.len() < 2,
            (Answer::Read(found), _) => found.iter().any(|found| found.ids.is_empty() && found.more),
            _ => false,
        }
    }
}

fn count(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The commands of all of them, in order.
pub(super) fn commands(all: &[Ops]) -> impl Iterator<Item = &Command> {
    all.iter().flat_map(|ops| &ops.commands)
}

/// All of them as one entry of the log; what is refused leaves the others alone, as in EXEC.
pub(super) fn batch(all: &[Ops], guards: Vec<Guard>) -> Batch {
    Batch { operations: commands(all).cloned().collect(), guards, mode: BatchMode::ContinueOnError }
}

/// Takes apart what came of a batch: for each of its commands the outcome and its entries.
pub(super) fn apart(all: &[Ops], outcomes: Vec<Outcome>, entries: Vec<Option<Entry>>) -> Vec<Result> {
    let mut entries = entries.into_iter();
    let result = |(command, outcome): (&Command, Outcome)| {
        let count = outcome.as_ref().map_or(0, |reply| command.payloads(reply));
        (outcome, entries.by_ref().take(count).collect())
    };
    commands(all).zip(outcomes).map(result).collect()
}
