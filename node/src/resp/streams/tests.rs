//! Requests against a state, told as Redis tells them. Sources: the traps that the specification of the commands lists, and
//! its tables of errors.

use bytes::{Bytes, BytesMut};
use millstream_streams::{Command, NoBlocks, Outcome, Proposal, Query, State};

use super::tell::tell;
use super::{Call, Tell, Wanted, parser};
use crate::resp::arguments::{Arguments, Complaint};
use crate::resp::reply::Reply;
use crate::resp::request::{Bounds, Parser};

/// A state with a clock, and nobody else at it.
struct Door {
    state: State,
    index: u64,
    now_ms: u64,
}

impl Door {
    fn new() -> Self {
        Self { state: State::new(), index: 0, now_ms: 1_000 }
    }

    fn run(&mut self, command: Command) -> (Outcome, Vec<Option<millstream_streams::Entry>>) {
        if let Err(refusal) = command.check() {
            return (Err(refusal), Vec::new());
        }
        self.index += 1;
        let proposal = Proposal { at_ms: self.now_ms, request: None, command, bytes_max: 1 << 20 };
        let applied = self.state.apply(self.index, &proposal.encode(), &NoBlocks, true).expect("applied");
        (applied.outcome, applied.entries)
    }

    /// One request, as a person types it.
    fn ask(&mut self, line: &str) -> String {
        let bounds = Bounds { arguments_max: 100, argument_bytes_max: 1_000, request_bytes_max: 10_000 };
        let mut buffer = BytesMut::from(format!("{line}\n").as_bytes());
        let words = Parser::new(bounds).next(&mut buffer).expect("good quotes").expect("a request");
        let name = String::from_utf8_lossy(&words[0]).to_lowercase();
        let parse = parser(&name).expect("a command on streams");
        show(&match parse(&mut Arguments::new(&words[1..])) {
            Ok(call) => self.call(call),
            Err(Complaint(text)) => Reply::Error(text),
        })
    }

    fn call(&mut self, call: Call) -> Reply {
        let (command, how) = match call {
            Call::Core { command, tell } => (command, tell),
            Call::Range { query, .. } => (Query::Range(query).into(), Tell::Entries),
            Call::Read { read, .. } => (Query::Read(read).into(), Tell::Entries),
            Call::ReadGroup { read, .. } => (read.into(), Tell::Entries),
            Call::Presence { wanted, present } => {
                for Wanted { stream, group, absent } in wanted {
                    let question = match group {
                        Some(group) => Query::PendingSummary { stream, group },
                        None => Query::Stream(stream),
                    };
                    if self.run(question.into()).0.is_err() {
                        return absent;
                    }
                }
                return present;
            }
        };
        let (outcome, payloads) = self.run(command.clone());
        tell(&command, how, &outcome, payloads)
    }
}

/// As short as can be: `[1-0 [f v]]`, `nil`, `nil[]`, `(ERR ...)`.
fn show(reply: &Reply) -> String {
    let all = |items: &[Reply]| items.iter().map(show).collect::<Vec<_>>().join(" ");
    let pairs = |pairs: &[(Reply, Reply)]| {
        pairs.iter().map(|(name, value)| format!("{}={}", show(name), show(value))).collect::<Vec<_>>().join(" ")
    };
    match reply {
        Reply::Simple(line) => (*line).to_owned(),
        Reply::Error(text) => format!("({text})"),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) if bytes.is_empty() => "''".to_owned(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Verbatim(text) => text.clone(),
        Reply::Line(line) => line.clone(),
        Reply::Null => "nil".to_owned(),
        Reply::NullArray => "nil[]".to_owned(),
        Reply::Array(items) | Reply::Set(items) => format!("[{}]", all(items)),
        Reply::Written(_) => "written".to_owned(),
        Reply::Map(items) | Reply::Pairs(items) => format!("{{{}}}", pairs(items)),
    }
}

#[track_caller]
fn story(steps: &[(&str, &str)]) {
    let mut door = Door::new();
    for (request, expected) in steps {
        door.now_ms += 10;
        assert_eq!(door.ask(request), *expected, "{request}");
    }
}

#[test]
fn appends() {
    story(&[
        ("XADD s NOMKSTREAM * f v", "nil"),
        ("XLEN s", "0"),
        ("XADD s 5 f v", "5-0"),
        ("XADD s 5-* f v", "5-1"),
        ("xadd s maxlen ~ 10 limit 0 5-2 f v", "5-2"),
        ("XADD s 5-2 f v", "(ERR The ID specified in XADD is equal or smaller than the target stream top item)"),
        ("XADD s 0 f v", "(ERR The ID specified in XADD must be greater than 0-0)"),
        ("XADD s 5-x f v", "(ERR Invalid stream ID specified as stream command argument)"),
        ("XADD s * f", "(ERR wrong number of arguments for 'xadd' command)"),
        ("XADD s MAXLEN -1 * f v", "(ERR The MAXLEN argument must be >= 0.)"),
        ("XADD s MAXLEN x * f v", "(ERR value is not an integer or out of range)"),
        (
            "XADD s MAXLEN 1 MINID 1 * f v",
            "(ERR syntax error, MAXLEN and MINID options at the same time are not compatible)",
        ),
        ("XADD s MAXLEN 5 LIMIT 1 * f v", "(ERR syntax error, LIMIT cannot be used without the special ~ option)"),
        ("XADD s LIMIT 1 * f v", "(ERR syntax error, LIMIT cannot be used without specifying a trimming strategy)"),
        ("XADD s MAXLEN 0 * f v", "1150-0"),
        ("XLEN s", "0"),
        ("XADD s IDMP p k * a 1", "1170-0"),
        ("XADD s IDMP p k * a 2", "1170-0"),
        ("XADD s IDMP p k 9-9 a 2", "(ERR syntax error, IDMP/IDMPAUTO can be used only with auto-generated IDs)"),
        ("XADD s IDMP '' k * a 2", "(ERR syntax error, IDMP requires a non-empty producer ID)"),
        ("XRANGE s - +", "[[1170-0 [a 1]]]"),
        ("XADD s 18446744073709551615-18446744073709551615 f v", "18446744073709551615-18446744073709551615"),
        ("XADD s * f v", "(ERR The stream has exhausted the last possible ID, unable to add more items)"),
    ]);
}

#[test]
fn ranges_and_reads() {
    story(&[
        ("XRANGE s - + COUNT 0", "[]"),
        ("XADD s 1 a ''", "1-0"),
        ("XADD s 2 b 2", "2-0"),
        ("XADD s 3 c 3", "3-0"),
        ("XRANGE s - +", "[[1-0 [a '']] [2-0 [b 2]] [3-0 [c 3]]]"),
        ("XRANGE s (1 3 COUNT 1", "[[2-0 [b 2]]]"),
        ("XREVRANGE s + -  COUNT 2", "[[3-0 [c 3]] [2-0 [b 2]]]"),
        ("XRANGE s - + COUNT 0", "nil[]"),
        ("XRANGE s 3 1", "[]"),
        ("XRANGE s (- +", "(ERR Invalid stream ID specified as stream command argument)"),
        ("XRANGE s - + LIMIT 1", "(ERR syntax error)"),
        ("XREAD COUNT 1 STREAMS s t 1 0", "{s=[[2-0 [b 2]]]}"),
        ("XREAD STREAMS s +", "{s=[[3-0 [c 3]]]}"),
        ("XREAD STREAMS s $", "nil[]"),
        (
            "XREAD STREAMS s t 1",
            "(ERR Unbalanced 'xread' list of streams: for each stream key an ID, '+', or '$' must be specified.)",
        ),
        (
            "XREAD STREAMS s >",
            "(ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.)",
        ),
        ("XREAD BLOCK -1 STREAMS s 0", "(ERR timeout is negative)"),
        (
            "XREAD NOACK STREAMS s 0",
            "(ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.)",
        ),
        ("XDEL s 3 3 9", "1"),
        ("XDEL s x", "(ERR Invalid stream ID specified as stream command argument)"),
        ("XDEL none x", "0"),
        ("XREAD STREAMS s +", "{s=[[2-0 [b 2]]]}"),
        ("XTRIM s MAXLEN 1", "1"),
        ("XTRIM s", "(ERR syntax error, XTRIM must be called with a trimming strategy)"),
        ("XTRIM none MINID 5", "0"),
        ("XSETID s 1", "(ERR The ID specified in XSETID is smaller than current max_deleted_entry_id)"),
        ("XSETID none 1", "(ERR no such key)"),
        (
            "XSETID s 9 ENTRIESADDED 0",
            "(ERR The entries_added specified in XSETID is smaller than the target stream length)",
        ),
        ("XSETID s 9 ENTRIESADDED 7", "OK"),
    ]);
}

#[test]
fn groups() {
    story(&[
        (
            "XGROUP CREATE s g $",
            "(ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
             option to create an empty stream automatically.)",
        ),
        ("XGROUP CREATE s g $ MKSTREAM", "OK"),
        ("XGROUP CREATE s g 0", "(BUSYGROUP Consumer Group name already exists)"),
        ("XGROUP create s", "(ERR wrong number of arguments for 'xgroup|create' command)"),
        (
            "XGROUP CREATE s h 0 WHAT",
            "(ERR unknown subcommand or wrong number of arguments for 'CREATE'. Try XGROUP HELP.)",
        ),
        ("XGROUP foo s h", "(ERR unknown subcommand 'foo'. Try XGROUP HELP.)"),
        ("XGROUP CREATE s h -", "(ERR Invalid stream ID specified as stream command argument)"),
        ("XADD s 1 f v", "1-0"),
        ("XADD s 2 f v", "2-0"),
        ("XREADGROUP GROUP g a COUNT 1 STREAMS s >", "{s=[[1-0 [f v]]]}"),
        ("XREADGROUP GROUP g a STREAMS s 0", "{s=[[1-0 [f v]]]}"),
        ("XREADGROUP GROUP g b STREAMS s 0", "{s=[]}"),
        (
            "XREADGROUP GROUP none b STREAMS s >",
            "(NOGROUP No such key 's' or consumer group 'none' in XREADGROUP with GROUP option)",
        ),
        ("XREADGROUP COUNT 1 STREAMS s >", "(ERR Missing GROUP option for XREADGROUP)"),
        ("XPENDING s g", "[1 1-0 1-0 [[a 1]]]"),
        ("XPENDING s g - + 10", "[[1-0 a 50 2]]"),
        ("XPENDING s g - + 0", "[]"),
        ("XPENDING s none", "(NOGROUP No such key 's' or consumer group 'none')"),
        ("XPENDING s g 1", "(ERR syntax error)"),
        ("XCLAIM s g b 0 1 FORCE JUSTID", "[1-0]"),
        ("XCLAIM s g b 0 2 FORCE", "[[2-0 [f v]]]"),
        ("XPENDING s g - + 10 b", "[[1-0 b 20 2] [2-0 b 10 2]]"),
        ("XCLAIM s g b 0 1 x", "(ERR Unrecognized XCLAIM option 'x')"),
        ("XCLAIM s none b x 1", "(NOGROUP No such key 's' or consumer group 'none')"),
        ("XAUTOCLAIM s g c 0 - COUNT 1", "[2-0 [[1-0 [f v]]] []]"),
        ("XAUTOCLAIM s g c 0 - COUNT 0", "(ERR COUNT must be > 0)"),
        ("XNACK s g FATAL IDS 1 1", "1"),
        ("XPENDING s g - + 10", "[[1-0 '' -1 9223372036854775807] [2-0 b 70 2]]"),
        ("XNACK s g WHAT IDS 1 1", "(ERR mode must be SILENT, FAIL, or FATAL)"),
        ("XACK s g 1 1", "1"),
        ("XACK s none x", "0"),
        ("XACK s g x", "(ERR Invalid stream ID specified as stream command argument)"),
        ("XACKDEL s g IDS 2 2 7", "[1 -1]"),
        ("XACKDEL none g IDS 2 x y", "[-1 -1]"),
        ("XDELEX s ACKED IDS 1 1", "[1]"),
        ("XDELEX s IDS 0 1", "(ERR Number of IDs must be a positive integer)"),
        ("XDELEX s IDS 3 1", "(ERR The `numids` parameter must match the number of arguments)"),
        ("XPENDING s g", "[0 nil nil nil[]]"),
        ("XGROUP SETID s g - ENTRIESREAD -2", "(ERR value for ENTRIESREAD must be positive or -1)"),
        ("XGROUP SETID s g -", "OK"),
        ("XGROUP SETID s none 0", "(NOGROUP No such consumer group 'none' for key name 's')"),
        ("XGROUP CREATECONSUMER s g z", "1"),
        ("XGROUP CREATECONSUMER s g z", "0"),
        ("XGROUP DELCONSUMER s g z", "0"),
        ("XINFO CONSUMERS s none", "(NOGROUP No such consumer group 'none' for key name 's')"),
        ("XGROUP DESTROY s none", "0"),
        ("XGROUP DESTROY s g", "1"),
        ("XINFO GROUPS s", "[]"),
        ("XINFO GROUPS none", "(ERR no such key)"),
    ]);
}

#[test]
fn descriptions() {
    let mut door = Door::new();
    for request in ["XADD s 1 f v", "XADD s 2 f v", "XGROUP CREATE s g 0", "XREADGROUP GROUP g a COUNT 1 STREAMS s >"] {
        door.ask(request);
    }
    assert_eq!(
        door.ask("XINFO STREAM s"),
        "{length=2 radix-tree-keys=1 radix-tree-nodes=2 last-generated-id=2-0 max-deleted-entry-id=0-0 entries-added=2 \
         recorded-first-entry-id=1-0 idmp-duration=100 idmp-maxsize=100 pids-tracked=0 iids-tracked=0 iids-added=0 \
         iids-duplicates=0 groups=1 first-entry=[1-0 [f v]] last-entry=[2-0 [f v]]}"
    );
    assert_eq!(
        door.ask("XINFO GROUPS s"),
        "[{name=g consumers=1 pending=1 last-delivered-id=1-0 entries-read=1 lag=1}]"
    );
    assert_eq!(door.ask("XINFO CONSUMERS s g"), "[{name=a pending=1 idle=0 inactive=0}]");
    let full = door.ask("XINFO STREAM s FULL COUNT 1");
    assert!(full.contains("iids-duplicates=0 entries=[[1-0 [f v]]] groups=[{name=g last-delivered-id=1-0 "), "{full}");
    assert!(
        full.contains("pel-count=1 nacked-count=0 pending=[[1-0 a 1000 1]] consumers=[{name=a seen-time=1000 "),
        "{full}"
    );
    assert_eq!(door.ask("XINFO STREAM none"), "(ERR no such key)");
    assert_eq!(
        door.ask("XINFO STREAM s WHAT"),
        "(ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.)"
    );
    assert_eq!(door.ask("XCFGSET s"), "(ERR At least one parameter must be specified)");
    assert_eq!(door.ask("XCFGSET none"), "(ERR no such key)");
    assert_eq!(door.ask("XCFGSET s IDMP-DURATION 5"), "OK");
    assert_eq!(door.ask("XIDMPRECORD s p k 9-9"), "(ERR No such message in stream)");
    assert_eq!(door.ask("XIDMPRECORD s p k 2"), "OK");
    assert_eq!(
        door.ask("XIDMPRECORD s p k 1"),
        "(ERR IID already exists for this producer with a different stream ID)"
    );
}

#[test]
fn arguments_are_any_bytes_and_names_are_text() {
    let mut door = Door::new();
    assert_eq!(door.ask(r#"XADD s 1 "a\xff" "\x00""#), "1-0");
    let Reply::Array(found) = door.call(super::core(
        Query::Range(millstream_streams::RangeQuery {
            stream: millstream_streams::StreamName::new("s").expect("a name"),
            start: millstream_streams::EntryId::MIN,
            end: millstream_streams::EntryId::MAX,
            reverse: false,
            count: 10,
        }),
        Tell::Entries,
    )) else {
        panic!("no array");
    };
    let Some(Reply::Array(entry)) = found.first() else { panic!("no entry") };
    let fields = Reply::Array(vec![Reply::Bulk(Bytes::from_static(b"a\xff")), Reply::Bulk(Bytes::from_static(b"\0"))]);
    assert_eq!(entry.get(1), Some(&fields));
    assert_eq!(door.ask(r#"XADD "s\xff" 1 a b"#), "(ERR the name of a stream must be UTF-8 in Millstream)");
}
