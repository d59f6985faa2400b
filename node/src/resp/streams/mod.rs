//! The commands on streams: from arguments to a [`Call`], which the core understands.
//!
//! A parser knows Redis's order of checks and its texts, and nothing of any state. How the outcome is told is part of the
//! call ([`Tell`]), since one command of the core serves several of Redis's.

mod append;
mod groups;
mod pending;
mod reads;
mod removal;
pub(super) mod tell;
#[cfg(test)]
mod tests;

use std::time::Duration;

use millstream_streams::{Command, GroupName, RangeQuery, ReadGroup, ReadStreams, StreamName};

use super::arguments::{Arguments, Complaint, Parsed};
use super::reply::Reply;

/// What a request on streams comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    /// Something for the core, and how its outcome is told. Questions are commands, too.
    Core {
        /// What.
        command: Command,
        /// How.
        tell: Tell,
    },
    /// XRANGE, XREVRANGE.
    Range {
        /// What.
        query: RangeQuery,
        /// Entries at most, if it says so; all of them are wanted, whatever the bounds of one question.
        count: Option<u64>,
    },
    /// XREAD.
    Read {
        /// What.
        read: ReadStreams,
        /// How long; `None`: not at all.
        wait: Option<Wait>,
    },
    /// XREADGROUP.
    ReadGroup {
        /// What.
        read: ReadGroup,
        /// How long; `None`: not at all.
        wait: Option<Wait>,
    },
    /// Redis looks at some arguments only if the stream, and the group, is there.
    Presence {
        /// What must be there, one after the other, and the answer if it is not.
        wanted: Vec<Wanted>,
        /// The answer if all of it is.
        present: Reply,
    },
}

/// Something that must be there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The stream.
    pub(super) stream: StreamName,
    /// The group; `None`: the stream alone matters.
    pub(super) group: Option<GroupName>,
    /// The answer if it is not there.
    pub(super) absent: Reply,
}

impl Call {
    /// Only one thing is wanted.
    fn presence(stream: StreamName, group: Option<GroupName>, absent: Reply, present: Reply) -> Self {
        Self::Presence { wanted: vec![Wanted { stream, group, absent }], present }
    }
}

/// How long a read may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// So long.
    For(Duration),
    /// For ever.
    Forever,
}

/// How an outcome is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// The id of a new entry; null if there is no such stream and none was to be made.
    AppendedId,
    /// OK.
    Ok(NoGroup),
    /// A number: of what was removed, acknowledged, released, or pending with a consumer; or whether something was.
    Number(NoGroup),
    /// One number for each id: what became of the entry.
    Removals,
    /// The length of a stream; 0 if there is none.
    Length,
    /// Entries.
    Entries,
    /// Pending entries, summarised.
    PendingSummary,
    /// Pending entries.
    PendingList,
    /// Claimed entries, or their ids.
    Claimed {
        /// Only the ids (JUSTID).
        ids_only: bool,
    },
    /// The same with a cursor and what was gone.
    AutoClaimed {
        /// Only the ids (JUSTID).
        ids_only: bool,
    },
    /// A stream.
    StreamInfo,
    /// A stream in full.
    StreamDetails,
    /// A stream's groups.
    Groups,
    /// A group's consumers.
    Consumers,
}

/// How it is told that there is no such stream, or no such group in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoGroup {
    /// As 0: there was nothing to do.
    Zero,
    /// `no such key`.
    NoSuchKey,
    /// As the subcommands of XGROUP do: the key is required, and the group has a text of its own.
    Required,
    /// `No such key ... or consumer group ...`.
    Either,
}

/// The parser of a command.
pub(super) type Parse = fn(&mut Arguments<'_>) -> Parsed<Call>;

/// The parser of a command by its name in lower case; those of containers take their subcommand.
pub(super) fn parser(name: &str) -> Option<Parse> {
    Some(match name {
        "xadd" => append::xadd,
        "xtrim" => append::xtrim,
        "xsetid" => append::xsetid,
        "xcfgset" => append::xcfgset,
        "xidmprecord" => append::xidmprecord,
        "xlen" => reads::xlen,
        "xrange" => reads::xrange,
        "xrevrange" => reads::xrevrange,
        "xread" => reads::xread,
        "xreadgroup" => reads::xreadgroup,
        "xinfo" => reads::xinfo,
        "xdel" => removal::xdel,
        "xdelex" => removal::xdelex,
        "xack" => removal::xack,
        "xackdel" => removal::xackdel,
        "xgroup" => groups::xgroup,
        "xpending" => pending::xpending,
        "xclaim" => pending::xclaim,
        "xautoclaim" => pending::xautoclaim,
        "xnack" => pending::xnack,
        _ => return None,
    })
}

/// What a container says to a subcommand that it has, with arguments that make no sense, as the client wrote it.
fn bad_tail(container: &str, subcommand: &[u8]) -> Complaint {
    let subcommand = String::from_utf8_lossy(subcommand);
    Complaint::err(format!("unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} HELP."))
}

/// And to one that it has not.
fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Complaint {
    let subcommand = String::from_utf8_lossy(subcommand);
    Complaint::err(format!("unknown subcommand '{subcommand}'. Try {container} HELP."))
}

fn core(command: impl Into<Command>, tell: Tell) -> Call {
    Call::Core { command: command.into(), tell }
}
