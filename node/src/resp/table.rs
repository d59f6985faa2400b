//! The commands that there are, as COMMAND tells them: how many arguments they take, what they are, and where their keys
//! stand. The one list of names: whoever answers a command is found by it.
//!
//! Source: the command files of Redis, by way of the specification that the conformance page names.

/// A command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    /// In lower case.
    pub(super) name: &'static str,
    /// Arguments, the name included; negative: at least so many.
    pub(super) arity: i64,
    /// What COMMAND INFO says of it, by words with spaces between.
    pub(super) flags: &'static str,
    /// The first key, the last (negative: counted from the end), and the step between them; all 0 without keys.
    pub(super) keys: (i64, i64, i64),
    /// What it is about, as COMMAND DOCS says.
    pub(super) group: &'static str,
    /// In one sentence.
    pub(super) summary: &'static str,
    /// Of a container.
    pub(super) subcommands: &'static [Described],
}

impl Described {
    /// Whether a request of so many arguments, the name included, is one.
    pub(super) fn takes(&self, arguments: usize) -> bool {
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if self.arity < 0 { -self.arity <= arguments } else { self.arity == arguments }
    }

    /// Whether it may change something.
    pub(super) fn writes(&self) -> bool {
        self.has("write")
    }

    /// Whether it is done at once also where MULTI queues all others.
    pub(super) fn ends_multi(&self) -> bool {
        ["exec", "discard", "multi", "watch", "quit", "reset"].contains(&self.name)
    }

    /// Whether it has this flag.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|word| word == flag)
    }

    /// Its subcommand of this name, in any case.
    pub(super) fn subcommand(&self, name: &[u8]) -> Option<&'static Described> {
        self.subcommands.iter().find(|described| name.eq_ignore_ascii_case(described.name.as_bytes()))
    }
}

/// The command of this name, in any case.
pub(super) fn find(name: &[u8]) -> Option<&'static Described> {
    TABLE.iter().find(|described| name.eq_ignore_ascii_case(described.name.as_bytes()))
}

const NO_KEY: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);
/// Of subcommands: the key stands behind the name of the subcommand.
const SECOND: (i64, i64, i64) = (2, 2, 1);

const fn row(
    name: &'static str,
    arity: i64,
    flags: &'static str,
    keys: (i64, i64, i64),
    group: &'static str,
    summary: &'static str,
) -> Described {
    Described { name, arity, flags, keys, group, summary, subcommands: &[] }
}

const fn container(
    name: &'static str,
    group: &'static str,
    summary: &'static str,
    subcommands: &'static [Described],
) -> Described {
    Described { name, arity: -2, flags: "", keys: NO_KEY, group, summary, subcommands }
}

/// All of them, by name.
pub(super) const TABLE: &[Described] = &[
    row(
        "auth",
        -2,
        "noscript loading stale fast no_auth allow_busy",
        NO_KEY,
        "connection",
        "Authenticates the connection.",
    ),
    container("client", "connection", "A container for commands on connections.", CLIENT),
    Described {
        arity: -1,
        flags: "loading stale",
        ..container("command", "server", "Tells what commands there are.", COMMAND)
    },
    container("config", "server", "A container for commands on settings.", CONFIG),
    row("dbsize", 1, "readonly fast", NO_KEY, "server", "Returns the number of streams."),
    row("del", -2, "write", ALL_KEYS, "generic", "Deletes streams."),
    row("discard", 1, "noscript loading stale fast allow_busy", NO_KEY, "transactions", "Discards a transaction."),
    row("echo", 2, "loading stale fast", NO_KEY, "connection", "Returns what it is given."),
    row("exec", 1, "noscript loading stale skip_slowlog", NO_KEY, "transactions", "Does all that a transaction holds."),
    row("exists", -2, "readonly fast", ALL_KEYS, "generic", "Counts the streams that exist."),
    row("expire", -3, "write fast", ONE_KEY, "generic", "Refused: streams have retention instead."),
    row("expireat", -3, "write fast", ONE_KEY, "generic", "Refused: streams have retention instead."),
    row("flushall", -1, "write", NO_KEY, "server", "Deletes all streams."),
    row("flushdb", -1, "write", NO_KEY, "server", "Deletes all streams."),
    container("function", "scripting", "A container for commands on functions, of which there are none.", FUNCTION),
    row(
        "hello",
        -1,
        "noscript loading stale fast no_auth allow_busy",
        NO_KEY,
        "connection",
        "Says which protocol to speak.",
    ),
    row("info", -1, "loading stale", NO_KEY, "server", "Tells about the node."),
    row("keys", 2, "readonly", NO_KEY, "generic", "Returns the names of streams that match."),
    row("multi", 1, "noscript loading stale fast allow_busy", NO_KEY, "transactions", "Begins a transaction."),
    container("object", "generic", "A container for commands on what holds a key.", OBJECT),
    row("persist", 2, "write fast", ONE_KEY, "generic", "Refused: streams have retention instead."),
    row("pexpire", -3, "write fast", ONE_KEY, "generic", "Refused: streams have retention instead."),
    row("pexpireat", -3, "write fast", ONE_KEY, "generic", "Refused: streams have retention instead."),
    row("ping", -1, "fast", NO_KEY, "connection", "Returns PONG, or what it is given."),
    row("quit", -1, "noscript loading stale fast no_auth allow_busy", NO_KEY, "connection", "Closes the connection."),
    row("rename", 3, "write", (1, 2, 1), "generic", "Refused: a stream keeps its name."),
    row("renamenx", 3, "write fast", (1, 2, 1), "generic", "Refused: a stream keeps its name."),
    row(
        "reset",
        1,
        "noscript loading stale fast no_auth allow_busy",
        NO_KEY,
        "connection",
        "Makes the connection a new one.",
    ),
    row("scan", -2, "readonly", NO_KEY, "generic", "Returns the names of streams, some at a time."),
    container("script", "scripting", "A container for commands on scripts, of which there are none.", SCRIPT),
    row("select", 2, "loading stale fast", NO_KEY, "connection", "Chooses database 0, the only one."),
    row("time", 1, "loading stale fast", NO_KEY, "server", "Returns the time of the node."),
    row("type", 2, "readonly fast", ONE_KEY, "generic", "Returns what a key holds: a stream, or nothing."),
    row("unlink", -2, "write fast", ALL_KEYS, "generic", "Deletes streams."),
    row("unwatch", 1, "noscript loading stale fast allow_busy", NO_KEY, "transactions", "Forgets what is watched."),
    row("wait", 3, "blocking", NO_KEY, "generic", "Waits until followers have stored what was written."),
    row(
        "waitaof",
        4,
        "blocking",
        NO_KEY,
        "generic",
        "Waits until the leader and followers have stored what was written.",
    ),
    row(
        "watch",
        -2,
        "noscript loading stale fast allow_busy",
        ALL_KEYS,
        "transactions",
        "Lets a transaction fail if a stream changes.",
    ),
    row("xack", -4, "write fast", ONE_KEY, "stream", "Acknowledges entries."),
    row("xackdel", -6, "write fast", ONE_KEY, "stream", "Acknowledges entries and deletes them."),
    row("xadd", -5, "write denyoom fast", ONE_KEY, "stream", "Appends an entry."),
    row("xautoclaim", -6, "write fast", ONE_KEY, "stream", "Takes over pending entries that have been idle."),
    row("xcfgset", -2, "write fast", ONE_KEY, "stream", "Changes a stream's settings."),
    row("xclaim", -6, "write fast", ONE_KEY, "stream", "Takes over pending entries by their ids."),
    row("xdel", -3, "write fast", ONE_KEY, "stream", "Deletes entries."),
    row("xdelex", -5, "write fast", ONE_KEY, "stream", "Deletes entries with regard to groups."),
    container("xgroup", "stream", "A container for commands on consumer groups.", XGROUP),
    row("xidmprecord", 5, "write fast", ONE_KEY, "stream", "Remembers that an entry was appended under a key."),
    container("xinfo", "stream", "A container for commands that describe streams.", XINFO),
    row("xlen", 2, "readonly fast", ONE_KEY, "stream", "Returns the number of entries."),
    row("xnack", -7, "write fast", ONE_KEY, "stream", "Gives pending entries back."),
    row("xpending", -3, "readonly", ONE_KEY, "stream", "Returns what is pending in a group."),
    row("xrange", -4, "readonly", ONE_KEY, "stream", "Returns entries between two ids."),
    row("xread", -4, "readonly blocking movablekeys", NO_KEY, "stream", "Returns entries behind given ids, or waits."),
    row("xreadgroup", -7, "write blocking movablekeys", NO_KEY, "stream", "Delivers entries to a consumer, or waits."),
    row("xrevrange", -4, "readonly", ONE_KEY, "stream", "Returns entries between two ids, newest first."),
    row("xsetid", -3, "write denyoom fast", ONE_KEY, "stream", "Sets a stream's last id."),
    row("xtrim", -4, "write", ONE_KEY, "stream", "Deletes the oldest entries."),
];

const CONNECTION: &str = "noscript loading stale";

/// Of what is about others.
const OTHERS: &str = "admin noscript loading stale";

const CLIENT: &[Described] = &[
    row("getname", 2, CONNECTION, NO_KEY, "connection", "Returns the connection's name."),
    row("help", 2, "loading stale", NO_KEY, "connection", "Returns what there is."),
    row("id", 2, CONNECTION, NO_KEY, "connection", "Returns the connection's number."),
    row("info", 2, CONNECTION, NO_KEY, "connection", "Tells about the connection."),
    row("kill", -3, OTHERS, NO_KEY, "connection", "Closes connections."),
    row("list", -2, OTHERS, NO_KEY, "connection", "Tells about all connections of the node."),
    row("no-evict", 3, OTHERS, NO_KEY, "connection", "Has no effect: nobody is evicted."),
    row("no-touch", 3, CONNECTION, NO_KEY, "connection", "Has no effect: nothing is evicted."),
    row("reply", 3, CONNECTION, NO_KEY, "connection", "Says whether to reply."),
    row("setinfo", 4, CONNECTION, NO_KEY, "connection", "Names the client's library."),
    row("setname", 3, CONNECTION, NO_KEY, "connection", "Names the connection."),
    row("unblock", -3, OTHERS, NO_KEY, "connection", "Ends the wait of a connection."),
];

const COMMAND: &[Described] = &[
    row("count", 2, "loading stale", NO_KEY, "server", "Returns how many commands there are."),
    row("docs", -2, "loading stale", NO_KEY, "server", "Describes commands."),
    row("getkeys", -3, "loading stale", NO_KEY, "server", "Returns the keys of a request."),
    row("info", -2, "loading stale", NO_KEY, "server", "Tells what commands are."),
    row("list", -2, "loading stale", NO_KEY, "server", "Returns the names of commands."),
];

const CONFIG: &[Described] = &[
    row("get", -3, "admin noscript loading stale", NO_KEY, "server", "Returns settings."),
    row("resetstat", 2, "admin noscript loading stale", NO_KEY, "server", "Has no effect."),
    row("set", -4, "admin noscript loading stale", NO_KEY, "server", "Changes settings, if they may be."),
];

const FUNCTION: &[Described] =
    &[row("flush", -2, "noscript write", NO_KEY, "scripting", "Has no effect: there are no functions.")];

const SCRIPT: &[Described] =
    &[row("flush", -2, "noscript", NO_KEY, "scripting", "Has no effect: there are no scripts.")];

const OBJECT: &[Described] = &[row("encoding", 3, "readonly", SECOND, "generic", "Returns how a key is held: stream.")];

const XGROUP: &[Described] = &[
    row("create", -5, "write denyoom", SECOND, "stream", "Creates a group."),
    row("createconsumer", 5, "write denyoom", SECOND, "stream", "Creates a consumer."),
    row("delconsumer", 5, "write", SECOND, "stream", "Deletes a consumer."),
    row("destroy", 4, "write", SECOND, "stream", "Deletes a group."),
    row("help", 2, "loading stale", NO_KEY, "stream", "Returns what there is."),
    row("setid", -5, "write", SECOND, "stream", "Moves a group."),
];

const XINFO: &[Described] = &[
    row("consumers", 4, "readonly", SECOND, "stream", "Describes the consumers of a group."),
    row("groups", 3, "readonly", SECOND, "stream", "Describes the groups of a stream."),
    row("help", 2, "loading stale", NO_KEY, "stream", "Returns what there is."),
    row("stream", -3, "readonly", SECOND, "stream", "Describes a stream."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::streams;

    fn sorted(table: &[Described]) -> bool {
        table.windows(2).all(|pair| pair[0].name < pair[1].name) && table.iter().all(|row| sorted(row.subcommands))
    }

    #[test]
    fn names_are_found_in_any_case_and_in_order() {
        assert!(sorted(TABLE));
        assert_eq!(find(b"XAdd").map(|row| row.name), Some("xadd"));
        assert!(find(b"get").is_none());
        let create = find(b"xgroup").and_then(|row| row.subcommand(b"CREATE"));
        assert!(create.is_some_and(|row| row.takes(5) && !row.takes(4) && row.writes() && !row.has("fast")));
    }

    #[test]
    fn every_command_on_streams_has_a_parser() {
        for row in TABLE {
            assert_eq!(streams::parser(row.name).is_some(), row.group == "stream", "{}", row.name);
        }
    }
}
