//! Whatever a client of the Redis door sends: it gets one reply for each request, or is told why its connection ends, and the
//! node goes on. `MILLSTREAM_FUZZ_ROUNDS` says how long to try.

mod resp_support;
mod support;

use std::time::Duration;

use resp_support::{Redis, request, with_door};
use support::{Cluster, run};

/// Numbers from a seed (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const COMMANDS: &[&str] = &[
    "XADD",
    "XADD",
    "XADD",
    "XTRIM",
    "XLEN",
    "XRANGE",
    "XREVRANGE",
    "XREAD",
    "XREADGROUP",
    "XREADGROUP",
    "XACK",
    "XACKDEL",
    "XDEL",
    "XDELEX",
    "XGROUP",
    "XGROUP",
    "XINFO",
    "XPENDING",
    "XCLAIM",
    "XAUTOCLAIM",
    "XNACK",
    "XSETID",
    "XCFGSET",
    "XIDMPRECORD",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TYPE",
    "KEYS",
    "SCAN",
    "DBSIZE",
    "OBJECT",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH",
    "UNWATCH",
    "PING",
    "ECHO",
    "HELLO",
    "CLIENT",
    "COMMAND",
    "CONFIG",
    "INFO",
    "TIME",
    "WAIT",
    "WAITAOF",
    "SELECT",
    "AUTH",
    "RENAME",
    "EXPIRE",
    "FLUSHALL",
    "FUNCTION",
    "SCRIPT",
    "RESET",
    "NOPE",
    "",
];
const WORDS: &[&str] = &[
    "s",
    "s",
    "t",
    "g",
    "g",
    "c",
    "d",
    "*",
    "0",
    "0-0",
    "1-1",
    "2-*",
    "5",
    "1000",
    "-",
    "+",
    "$",
    ">",
    "(1",
    "-1",
    "0-1",
    "18446744073709551615-18446744073709551615",
    "99999999999999999999",
    "COUNT",
    "BLOCK",
    "5",
    "STREAMS",
    "STREAMS",
    "GROUP",
    "NOACK",
    "CLAIM",
    "MAXLEN",
    "MINID",
    "~",
    "=",
    "LIMIT",
    "NOMKSTREAM",
    "KEEPREF",
    "DELREF",
    "ACKED",
    "IDMP",
    "IDMPAUTO",
    "IDS",
    "1",
    "2",
    "CREATE",
    "SETID",
    "DESTROY",
    "CREATECONSUMER",
    "DELCONSUMER",
    "MKSTREAM",
    "ENTRIESREAD",
    "STREAM",
    "GROUPS",
    "CONSUMERS",
    "FULL",
    "HELP",
    "FORCE",
    "JUSTID",
    "IDLE",
    "TIME",
    "RETRYCOUNT",
    "LASTID",
    "FAIL",
    "FATAL",
    "SILENT",
    "MAXCOUNT",
    "MAXSIZE",
    "ENTRIESADDED",
    "MAXDELETEDID",
    "ID",
    "LIST",
    "GETNAME",
    "SETNAME",
    "INFO",
    "UNBLOCK",
    "DOCS",
    "GETKEYS",
    "GET",
    "SET",
    "FLUSH",
    "ENCODING",
    "MATCH",
    "TYPE",
    "a\r\nb",
    "\u{e9}",
    "",
    "3",
    "2",
    "AUTH",
];

/// A request of words that often go together.
fn words(draw: &mut Draw) -> Vec<&'static str> {
    let mut words = match draw.below(8) {
        0 => vec!["XADD", "s", "*", "f", "v"],
        1 => vec!["XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"],
        2 => vec!["XREADGROUP", "GROUP", "g", "c", "COUNT", "2", "STREAMS", "s", ">"],
        _ => vec![draw.one_of(COMMANDS)],
    };
    let whole = words.len();
    for _ in 0..draw.below(if whole == 1 { 9 } else { 3 }) {
        let word = draw.one_of(WORDS);
        let at = 1 + draw.below(words.len());
        words.insert(at, word);
    }
    if 1 < whole && draw.below(2) == 0 {
        words.truncate(whole);
    }
    words
}

/// Whether the number of its replies, or when they come, is another matter.
fn is_special(words: &[&str]) -> bool {
    let is = |word: &str| words.iter().any(|other| other.eq_ignore_ascii_case(word));
    words[0].is_empty() && words.len() == 1
        || is("BLOCK")
        || is("WAIT")
        || is("WAITAOF")
        || (is("CLIENT") && (is("KILL") || is("REPLY") || is("UNBLOCK")))
        || is("QUIT")
}

#[test]
fn each_request_has_one_reply() {
    let rounds = std::env::var("MILLSTREAM_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut errors = 0;
        for round in 1..=rounds {
            let mut draw = Draw(0x9e37_79b9_7f4a_7c15 ^ round);
            let mut client = Redis::connect(&cluster, 1);
            let (mut bytes, mut sent) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                let words = words(&mut draw);
                if !is_special(&words) {
                    bytes.extend(request(&words));
                    sent.push(words);
                }
            }
            bytes.extend(request(&["ECHO", "the end"]));
            // In pieces of any size.
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(1 + draw.below(400)));
                client.send(piece).await;
                rest = behind;
            }
            for words in &sent {
                let reply = client.reply().await;
                assert!(
                    !reply.contains("fault of the program") && reply != "closed",
                    "{words:?} of round {round}: {reply}"
                );
                errors += usize::from(reply.starts_with('-'));
            }
            let last = client.reply().await;
            assert!(["\"the end\"", "QUEUED"].contains(&last.as_str()), "after round {round}: {last}");
        }
        assert!(rounds < 100 || 1_000 < errors, "mistakes were made: {errors}");
        let mut client = Redis::connect(&cluster, 1);
        assert_eq!(client.ask("PING").await, "PONG");
        client.ask("FLUSHALL").await;
        assert_eq!(client.ask("DBSIZE").await, ":0");
    });
}

#[test]
fn noise_ends_a_connection_at_most() {
    let cluster = Cluster::start(1, with_door);
    let pieces: [&[u8]; 14] = [
        b"*",
        b"$",
        b"\r\n",
        b"\n",
        b"1",
        b"3",
        b"-",
        b"\"",
        b"'",
        b"XADD",
        b" ",
        b"*3\r\n$4\r\nXLEN\r\n",
        b"\xff\0",
        b"*1\r\n$4\r\nPING\r\n",
    ];
    run(async {
        for round in 1..=300 {
            let mut draw = Draw(0x51_7cc1_b727_220a ^ (round << 8));
            let noise: Vec<u8> = (0..draw.below(60)).flat_map(|_| pieces[draw.below(14)].iter().copied()).collect();
            let mut client = Redis::connect(&cluster, 1);
            client.send(&noise).await;
            // Either it goes on, or it was told why not.
            let mut last = String::new();
            while let Ok(reply) = tokio::time::timeout(Duration::from_millis(5), client.reply()).await {
                if reply == "closed" {
                    assert!(last.starts_with("-ERR Protocol error: "), "{}: {last}", noise.escape_ascii());
                    break;
                }
                last = reply;
            }
        }
        assert_eq!(Redis::connect(&cluster, 1).ask("PING").await, "PONG");
    });
}
