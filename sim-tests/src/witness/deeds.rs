//! What a call asks for and what a command of the log does, in the same words: so that they can be told to belong
//! together.
//!
//! The words hold what makes a call different from others (stream, group, consumer, ids, contents) and leave out how the
//! client library and the server put it.

use std::fmt::Write as _;

use millstream_streams::{
    Ack, AckAndDelete, Append, AutoClaim, Batch, BatchMode, Claim, Command, ConfigureStream, CreateGroup,
    DeleteEntries, DeleteGroup, EntryId, GroupPosition, GroupReadFrom, Guard as CoreGuard, Nack, NewId, ReadGroup,
    SetGroupPosition, StreamName, TrimPolicy, TrimThreshold,
};

use crate::history::{Action, After, GroupName, Guard, Id, Keep, Mode, Put, Trim};
use crate::trace::fingerprint;

/// The field that holds an entry's content.
const CONTENT: &[u8] = b"content";

/// What a call asks for; `None`: nothing that the log would show.
pub(super) fn of_action(action: &Action) -> Option<String> {
    let of_group = |what: &str, (stream, group): &GroupName| format!("{what} {stream}/{group}");
    Some(match action {
        Action::Append(put) => of_put(put),
        Action::Batch { puts, mode, guard, is_refused } => {
            let mut words = format!("batch {mode:?}");
            if let Some(Guard { stream, last_change, .. }) = guard {
                let _ = write!(words, " if {stream} {last_change:?}");
            }
            for put in puts {
                let _ = write!(words, "; {}", of_put(put));
            }
            if *is_refused {
                words.push_str("; refused");
            }
            words
        }
        Action::Delete { stream, ids } => format!("delete {stream} {ids:?}"),
        Action::Trim { stream, trim } => format!("trim {stream} {}", of_trim(trim)),
        Action::Configure { stream } => format!("configure {stream}"),
        Action::CreateGroup { group, after } => of_group("create", group) + &of_after(after),
        Action::MoveGroup { group, after } => of_group("move", group) + &of_after(after),
        Action::DeleteGroup { group } => of_group("delete", group),
        Action::ReadGroup { group, consumer, .. } => of_group("read", group) + &format!(" {consumer}"),
        Action::ReadPending { group, consumer, after, .. } => {
            of_group("read pending", group) + &format!(" {consumer} {after}")
        }
        Action::Claim { group, consumer, ids, .. } => of_group("claim", group) + &format!(" {consumer} {ids:?}"),
        Action::AutoClaim { group, consumer, .. } => of_group("auto-claim", group) + &format!(" {consumer}"),
        Action::Ack { group, ids } => of_group("ack", group) + &format!(" {ids:?}"),
        Action::AckAndDelete { group, ids } => of_group("ack and delete", group) + &format!(" {ids:?}"),
        Action::Nack { group, ids } => of_group("nack", group) + &format!(" {ids:?}"),
        Action::Range { .. }
        | Action::Read { .. }
        | Action::Describe { .. }
        | Action::ListPending { .. }
        | Action::CountPending { .. }
        | Action::CloseSessions => return None,
    })
}

fn of_put(Put { stream, content, id, key, trim }: &Put) -> String {
    put(stream, content, *id, key.as_ref().map(|(producer, key)| (&producer[..], &key[..])), trim.as_ref())
}

fn put(stream: &str, content: &[u8], id: Option<Id>, key: Option<(&str, &str)>, trim: Option<&Trim>) -> String {
    let mut words = format!("append {stream} {:016x}", fingerprint(content));
    if let Some(id) = id {
        let _ = write!(words, " at {id}");
    }
    if let Some((producer, key)) = key {
        let _ = write!(words, " as {producer}/{key}");
    }
    if let Some(trim) = trim {
        let _ = write!(words, " trim {}", of_trim(trim));
    }
    words
}

fn of_trim(Trim { keep, exact }: &Trim) -> String {
    format!("{keep:?}{}", if *exact { "" } else { " or more" })
}

fn of_after(after: &After) -> String {
    match after {
        After::Id(id) => format!(" after {id}"),
        After::Arrival => " at its end".into(),
    }
}

/// What a command does; `None`: it is of the cluster's own making, and no client's. No client of the simulation creates
/// consumers: a node does, to use up the number of a group read that found nothing.
pub(super) fn of_command(command: &Command) -> Option<String> {
    let of_group = |what: &str, stream: &StreamName, group: &millstream_streams::GroupName| {
        format!("{what} {}/{}", stream.as_str(), group.as_str())
    };
    Some(match command {
        Command::OpenSession(_)
        | Command::CloseSession(_)
        | Command::CreateCluster(_)
        | Command::RegisterNode(_)
        | Command::CreateConsumer(_)
        | Command::EnforceRetention(_) => return None,
        Command::Append(append) => of_append(append),
        Command::Batch(Batch { operations, guards, mode }) => {
            let mode = match mode {
                BatchMode::AllOrNothing => Mode::AllOrNothing,
                _ => Mode::Continue,
            };
            let mut words = format!("batch {mode:?}");
            for guard in guards {
                let (stream, last_change) = match guard {
                    CoreGuard::Unchanged { stream, last_change_index } => (stream, Some(*last_change_index)),
                    CoreGuard::Absent { stream } => (stream, None),
                };
                let _ = write!(words, " if {} {last_change:?}", stream.as_str());
            }
            for operation in operations {
                let words_of = match operation {
                    Command::Append(Append { no_create: true, .. }) => "refused".into(),
                    Command::Append(append) => of_append(append),
                    other => format!("{other:?}"),
                };
                let _ = write!(words, "; {words_of}");
            }
            words
        }
        Command::DeleteEntries(DeleteEntries { stream, ids, .. }) => {
            format!("delete {} {:?}", stream.as_str(), seen_ids(ids))
        }
        Command::Trim(trim) => format!("trim {} {}", trim.stream.as_str(), of_trim(&policy(&trim.policy))),
        Command::ConfigureStream(ConfigureStream { stream, .. }) => format!("configure {}", stream.as_str()),
        Command::CreateGroup(CreateGroup { stream, group, position, .. }) => {
            of_group("create", stream, group) + &of_after(&after(*position))
        }
        Command::SetGroupPosition(SetGroupPosition { stream, group, position, .. }) => {
            of_group("move", stream, group) + &of_after(&after(*position))
        }
        Command::DeleteGroup(DeleteGroup { stream, group }) => of_group("delete", stream, group),
        Command::ReadGroup(ReadGroup { group, consumer, streams, .. }) => {
            let [read] = &streams[..] else { return Some(format!("{command:?}")) };
            let consumer = consumer.as_str();
            match read.from {
                GroupReadFrom::New => of_group("read", &read.stream, group) + &format!(" {consumer}"),
                GroupReadFrom::PendingAfter(after) => {
                    of_group("read pending", &read.stream, group) + &format!(" {consumer} {}", seen_id(after))
                }
            }
        }
        Command::Claim(Claim { stream, group, consumer, ids, .. }) => {
            of_group("claim", stream, group) + &format!(" {} {:?}", consumer.as_str(), seen_ids(ids))
        }
        Command::AutoClaim(AutoClaim { stream, group, consumer, .. }) => {
            of_group("auto-claim", stream, group) + &format!(" {}", consumer.as_str())
        }
        Command::Ack(Ack { stream, group, ids }) => of_group("ack", stream, group) + &format!(" {:?}", seen_ids(ids)),
        Command::AckAndDelete(AckAndDelete { stream, group, ids, .. }) => {
            of_group("ack and delete", stream, group) + &format!(" {:?}", seen_ids(ids))
        }
        Command::Nack(Nack { stream, group, ids, .. }) => {
            of_group("nack", stream, group) + &format!(" {:?}", seen_ids(ids))
        }
        // No client of the simulation asks for anything else.
        other => format!("{other:?}"),
    })
}

fn of_append(Append { stream, id, fields, trim, idempotency, .. }: &Append) -> String {
    let id = match id {
        NewId::Auto => None,
        NewId::Explicit(id) => Some(seen_id(*id)),
        NewId::Ms(_) => return format!("append {} {id:?}", stream.as_str()),
    };
    let key = idempotency.as_ref().map(|idempotency| {
        let key = idempotency.key.as_ref().map(|key| text(key.as_bytes())).unwrap_or_default();
        (text(idempotency.producer.as_bytes()), key)
    });
    let key = key.as_ref().map(|(producer, key)| (&producer[..], &key[..]));
    put(stream.as_str(), &content(fields), id, key, trim.as_ref().map(policy).as_ref())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The content among the fields.
pub(super) fn content(fields: &millstream_streams::Fields) -> Vec<u8> {
    fields.iter().find(|(name, _)| *name == CONTENT).map(|(_, value)| value.to_vec()).unwrap_or_default()
}

fn policy(TrimPolicy { threshold, approximate, .. }: &TrimPolicy) -> Trim {
    let keep = match threshold {
        TrimThreshold::MaxLength(length) => Keep::Newest(*length),
        TrimThreshold::MinId(id) => Keep::From(seen_id(*id)),
    };
    Trim { keep, exact: !approximate }
}

fn after(position: GroupPosition) -> After {
    match position {
        GroupPosition::After(id) => After::Id(seen_id(id)),
        GroupPosition::End => After::Arrival,
    }
}

/// An id as clients see it.
pub(super) fn seen_id(id: EntryId) -> Id {
    Id { ms: id.ms, seq: id.seq }
}

/// Ids as clients see them.
pub(super) fn seen_ids(ids: &[EntryId]) -> Vec<Id> {
    ids.iter().copied().map(seen_id).collect()
}
