//! From a request to what it comes to: which command it is, whether it has the arguments for it, and what they mean.

use bytes::Bytes;
use millstream_streams::{Command, Query, ReadGroup, ReadStreams};

use super::arguments::{Arguments, Complaint, Parsed};
use super::keys;
use super::ops::{Ops, Telling};
use super::reply::Reply;
use super::streams::{self, Call, Tell, Wait, Wanted};
use super::table::{self, Described};

/// Bytes of a command's name, and of its arguments, that are told to who sent what is none.
const SHOWN_BYTES: usize = 128;

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Action {
    /// The answer is known.
    Reply(Reply),
    /// Something for the core.
    Ops(Ops),
    /// XRANGE: the question, and how many entries are wanted.
    Range(millstream_streams::RangeQuery, Option<u64>),
    /// XREAD.
    Read(ReadStreams, Option<Wait>),
    /// XREADGROUP.
    ReadGroup(ReadGroup, Option<Wait>),
    /// Something for the connection, or the node that holds it.
    Here,
}

/// A command, and which of its subcommands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) command: &'static Described,
    pub(super) subcommand: Option<&'static Described>,
}

impl Found {
    /// What is in charge: the subcommand, if there is one.
    pub(super) fn row(&self) -> &'static Described {
        self.subcommand.unwrap_or(self.command)
    }

    /// As COMMAND names it: `xgroup|create`.
    pub(super) fn name(&self) -> String {
        match self.subcommand {
            Some(subcommand) => format!("{}|{}", self.command.name, subcommand.name),
            None => self.command.name.to_owned(),
        }
    }
}

/// Which command a request is, in Redis's order of checks: its name, its subcommand, the number of its arguments.
pub(super) fn find(request: &[Bytes]) -> Parsed<Found> {
    let name = request.first().map(|name| &**name).unwrap_or_default();
    let command = table::find(name).ok_or_else(|| unknown(request))?;
    let subcommand = match (command.subcommands, request.get(1)) {
        ([], _) | (_, None) => None,
        (_, Some(subcommand)) => Some(command.subcommand(subcommand).ok_or_else(|| {
            let container = command.name.to_uppercase();
            Complaint::err(format!(
                "unknown subcommand '{}'. Try {container} HELP.",
                shortened(subcommand, SHOWN_BYTES)
            ))
        })?),
    };
    let found = Found { command, subcommand };
    match found.row().takes(request.len()) {
        true => Ok(found),
        false => Err(Complaint::arity(&found.name())),
    }
}

fn unknown(request: &[Bytes]) -> Complaint {
    let (name, arguments) = request.split_first().map_or((&b""[..], &[][..]), |(name, rest)| (&**name, rest));
    let mut shown = String::new();
    for argument in arguments {
        // Redis counts the quotes as well, and stops here.
        let Some(room) = SHOWN_BYTES.checked_sub(shown.len()).filter(|room| 0 < *room) else { break };
        shown.push_str(&format!("'{}' ", shortened(argument, room)));
    }
    Complaint::err(format!("unknown command '{}', with args beginning with: {shown}", shortened(name, SHOWN_BYTES)))
}

/// So many bytes of it, in which a line end would be the end of the reply.
fn shortened(text: &[u8], bytes: usize) -> String {
    String::from_utf8_lossy(text.get(..bytes).unwrap_or(text)).replace(['\r', '\n'], " ")
}

/// What the arguments of a command mean.
pub(super) fn action(found: Found, request: &[Bytes]) -> Parsed<Action> {
    let arguments = request.get(1..).unwrap_or_default();
    let mut left = Arguments::new(arguments);
    if found.subcommand.is_some_and(|subcommand| subcommand.name == "help") {
        return Ok(Action::Reply(help(found.command)));
    }
    if let Some(parse) = streams::parser(found.command.name) {
        return parse(&mut left).map(stream);
    }
    let ask = |stream| Command::from(Query::Stream(stream));
    let presence = |absent, present, name: &[Bytes]| match keys::names(name).pop() {
        Some(stream) => Action::Ops(Ops::one(ask(stream), Telling::Presence { absent: vec![absent], present })),
        None => Action::Reply(absent),
    };
    Ok(match found.command.name {
        "del" | "unlink" => match keys::delete(keys::names(arguments))? {
            Some(Command::Batch(batch)) => Action::Ops(Ops { commands: batch.operations, telling: Telling::Deleted }),
            _ => Action::Reply(Reply::Integer(0)),
        },
        "exists" => {
            keys::bounded(arguments)?;
            let commands = keys::names(arguments).into_iter().map(ask).collect();
            Action::Ops(Ops { commands, telling: Telling::Existing })
        }
        "type" => presence(Reply::Simple("none"), Reply::Simple("stream"), arguments),
        "object" => presence(Reply::Null, Reply::text("stream"), arguments.get(1..).unwrap_or_default()),
        "flushall" | "flushdb" => Action::Ops(Ops::one(keys::flush(&left)?, Telling::Ok)),
        "function" | "script" => Action::Reply(Reply::OK),
        "expire" | "expireat" | "pexpire" | "pexpireat" | "persist" => {
            return Err(Complaint::err(
                "streams do not expire in Millstream: XADD and XTRIM take MAXLEN and MINID, and a stream can be given \
                 a retention",
            ));
        }
        "rename" | "renamenx" => return Err(Complaint::err("a stream keeps its name in Millstream")),
        _ => Action::Here,
    })
}

fn stream(call: Call) -> Action {
    match call {
        Call::Core { command, tell } => Action::Ops(Ops::one(command, Telling::Stream(tell))),
        Call::Range { query, count } => Action::Range(query, count),
        Call::Read { read, wait } => Action::Read(read, wait),
        Call::ReadGroup { read, wait } => Action::ReadGroup(read, wait),
        Call::Presence { wanted, present } => {
            let question = |Wanted { stream, group, .. }: &Wanted| match group.clone() {
                Some(group) => Query::PendingSummary { stream: stream.clone(), group },
                None => Query::Stream(stream.clone()),
            };
            let commands = wanted.iter().map(question).map(Command::from).collect();
            let absent = wanted.into_iter().map(|wanted| wanted.absent).collect();
            Action::Ops(Ops { commands, telling: Telling::Presence { absent, present } })
        }
    }
}

/// Within MULTI nothing waits, and everything is one entry of the log.
pub(super) fn within_multi(action: Action) -> Action {
    match action {
        Action::Range(query, count) => Action::Ops(Ops::one(Query::Range(query), Telling::Range(count))),
        Action::Read(read, _) => Action::Ops(Ops::one(Query::Read(read), Telling::Stream(Tell::Entries))),
        Action::ReadGroup(read, _) => Action::Ops(Ops::one(read, Telling::Stream(Tell::Entries))),
        action => action,
    }
}

fn help(command: &Described) -> Reply {
    let mut lines =
        vec![format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", command.name.to_uppercase())];
    for row in command.subcommands {
        lines.push(row.name.to_uppercase());
        lines.push(format!("    {}", row.summary));
    }
    Reply::Array(lines.into_iter().map(Reply::Line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&'static str]) -> Parsed<String> {
        let request: Vec<Bytes> = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        find(&request).map(|found| found.name())
    }

    #[test]
    fn commands_are_found_in_the_order_of_redis() {
        let err = |text: &str| Err(Complaint::err(text));
        assert_eq!(found(&["XAdd", "s", "*", "a", "b"]), Ok("xadd".into()));
        assert_eq!(found(&["XGROUP", "CREATE", "s", "g", "$"]), Ok("xgroup|create".into()));
        assert_eq!(found(&["command"]), Ok("command".into()));
        assert_eq!(found(&["xadd", "s"]), err("wrong number of arguments for 'xadd' command"));
        assert_eq!(found(&["xgroup"]), err("wrong number of arguments for 'xgroup' command"));
        assert_eq!(found(&["xgroup", "create", "s"]), err("wrong number of arguments for 'xgroup|create' command"));
        assert_eq!(found(&["xgroup", "what"]), err("unknown subcommand 'what'. Try XGROUP HELP."));
        assert_eq!(
            found(&["GETX", "a", "b\r\nc"]),
            err("unknown command 'GETX', with args beginning with: 'a' 'b  c' ")
        );
        assert_eq!(found(&["nope"]), err("unknown command 'nope', with args beginning with: "));
    }
}
