//! The Redis door of one node: what clients see, byte for byte where it matters.

mod resp_support;
mod support;

use std::time::Duration;

use resp_support::{Redis, request, with_door};
use support::{Cluster, run};

#[test]
fn a_group_is_read_and_acknowledged_in_both_versions_of_the_protocol() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut two = Redis::connect(&cluster, 1);
        assert_eq!(two.ask("XADD s 1-1 a b").await, r#""1-1""#);
        assert_eq!(two.ask("XADD s 2-* c d e f").await, r#""2-0""#);
        assert_eq!(two.ask("XGROUP CREATE s g 0").await, "OK");
        let read = r#"[["s" [["1-1" ["a" "b"]]]]]"#;
        assert_eq!(two.ask("XREADGROUP GROUP g alice COUNT 1 STREAMS s >").await, read);
        assert_eq!(two.ask("XREADGROUP GROUP g alice STREAMS s 0").await, read);
        assert_eq!(two.ask("XREADGROUP GROUP g bob STREAMS s 0").await, r#"[["s" []]]"#);
        assert_eq!(two.ask("XPENDING s g").await, r#"[:1 "1-1" "1-1" [["alice" "1"]]]"#);
        assert_eq!(two.ask("XREAD STREAMS s 2").await, "nil[]");
        assert_eq!(
            two.ask("XADD s 1-1 a b").await,
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item"
        );
        assert_eq!(two.ask("XADD none NOMKSTREAM * a b").await, "nil[]".replace("[]", ""));

        let mut three = Redis::connect(&cluster, 1);
        let hello = three.ask("HELLO 3 SETNAME worker").await;
        assert!(hello.starts_with(r#"{"server": "redis", "version": "#) && hello.contains(r#""proto": :3"#), "{hello}");
        assert_eq!(three.ask("CLIENT GETNAME").await, r#""worker""#);
        assert_eq!(three.ask("XREADGROUP GROUP g bob STREAMS s >").await, r#"{"s": [["2-0" ["c" "d" "e" "f"]]]}"#);
        assert_eq!(three.ask("XREAD STREAMS s 2").await, "_");
        assert_eq!(three.ask("XACK s g 1-1 2-0 9-9").await, ":2");
        assert_eq!(three.ask("XPENDING s g").await, "[:0 _ _ _]");
        let groups = three.ask("XINFO GROUPS s").await;
        let expected = r#"[{"name": "g", "consumers": :2, "pending": :0, "last-delivered-id": "2-0", "entries-read": :2, "lag": :0}]"#;
        assert_eq!(groups, expected);
        assert_eq!(three.ask("RESET").await, "RESET");
        assert_eq!(three.ask("XREAD STREAMS s 2").await, "nil[]", "the first version again");
        assert_eq!(three.ask("HELLO 4").await, "-NOPROTO unsupported protocol version");
        assert_eq!(three.ask("QUIT").await, "OK");
        assert_eq!(three.reply().await, "closed");
    });
}

#[test]
fn writes_of_a_pipeline_share_an_entry_of_the_log_and_are_answered_in_order() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XADD s 1 a b").await;
        let before = cluster.status(1).last_log_index;
        let mut lines: Vec<String> = (2..=200).map(|n| format!("XADD s {n} a b")).collect();
        lines[99] = "XADD s 1 a b".into();
        lines[149] = "XADD s".into();
        let replies = client.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for (n, reply) in (2..).zip(&replies) {
            match n {
                101 => assert!(reply.starts_with("-ERR The ID specified in XADD is equal or smaller"), "{reply}"),
                151 => assert_eq!(reply, "-ERR wrong number of arguments for 'xadd' command"),
                n => assert_eq!(*reply, format!("\"{n}-0\"")),
            }
        }
        let entries = cluster.status(1).last_log_index - before;
        assert!(entries <= 3, "{entries} entries of the log for one pipeline");
        let replies = client.ask_all(&["XADD s 300 a b", "XLEN s", "XADD s 301 a b", "XLEN s", "PING"]).await;
        assert_eq!(replies, ["\"300-0\"", ":199", "\"301-0\"", ":200", "PONG"], "each sees what stands before it");
    });
}

#[test]
fn what_breaks_the_protocol_closes_the_connection_and_changes_nothing() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let big = b"*3\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1073741824\r\n".as_slice();
        for (bytes, expected) in [
            (big, "-ERR Protocol error: invalid bulk length"),
            (b"*99999999\r\n", "-ERR Protocol error: invalid multibulk length"),
            (b"*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'"),
            (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request"),
        ] {
            let mut client = Redis::connect(&cluster, 1);
            client.send(b"PING\r\n").await;
            client.send(bytes).await;
            assert_eq!(client.reply().await, "PONG", "what came before it is answered");
            assert_eq!(client.reply().await, expected);
            assert_eq!(client.reply().await, "closed");
        }
        let mut client = Redis::connect(&cluster, 1);
        let large = "x".repeat((1 << 20) + 1);
        client.send(&request(&["XADD", "s", "*", "a", &large])).await;
        assert_eq!(client.reply().await, "-ERR an entry may have 1048576 bytes at most");
        assert_eq!(client.ask("DBSIZE").await, ":0");
        client.send(&request(&[&b"XADD"[..], b"\xff", b"*", b"a", b"b"])).await;
        assert!(client.reply().await.starts_with("-ERR the name of a stream must be UTF-8"));
    });
}

#[test]
fn connections_are_bounded_and_told_so() {
    let cluster = Cluster::start(1, |config| {
        with_door(config);
        config.resp.connections_max = 2;
    });
    run(async {
        let mut clients = [Redis::connect(&cluster, 1), Redis::connect(&cluster, 1)];
        for client in &mut clients {
            assert_eq!(client.ask("PING").await, "PONG");
        }
        assert_eq!(Redis::connect(&cluster, 1).reply().await, "-ERR max number of clients reached");
        assert_eq!(clients[0].ask("QUIT").await, "OK");
        assert_eq!(clients[0].reply().await, "closed");
        let mut next = Redis::connect(&cluster, 1);
        assert_eq!(next.ask("PING").await, "PONG", "there is room again");
    });
}

#[test]
fn long_ranges_are_answered_whole_or_refused() {
    let cluster = Cluster::start(1, |config| {
        with_door(config);
        config.limits.response_bytes_max = 10_000;
        config.resp.reply_bytes_max = 250_000;
    });
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        let value = "x".repeat(100);
        let lines: Vec<String> = (1..=1_500).map(|n| format!("XADD s {n} a {value}")).collect();
        for lines in lines.chunks(250) {
            client.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let ids = |reply: &str| reply.matches("-0\"").count();
        assert_eq!(ids(&client.ask("XRANGE s - +").await), 1_500, "more than a page, and than a page's bytes");
        assert_eq!(ids(&client.ask("XRANGE s - + COUNT 1234").await), 1_234);
        let reversed = client.ask("XREVRANGE s + - COUNT 1100").await;
        assert!(reversed.starts_with(r#"[["1500-0""#) && ids(&reversed) == 1_100);
        let lines: Vec<String> = (1_501..=2_500).map(|n| format!("XADD s {n} a {value}")).collect();
        for lines in lines.chunks(250) {
            client.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        assert_eq!(client.ask("XRANGE s - +").await, "-ERR the reply would have more than 250000 bytes; use COUNT");
        // Within a transaction nothing is paged, and nothing is cut without a word.
        let replies = client.ask_all(&["MULTI", "XRANGE s - + COUNT 5", "XRANGE s - +", "EXEC"]).await;
        assert_eq!(ids(&replies[3]), 5);
        assert!(replies[3].ends_with("-ERR the reply is too large for a transaction in Millstream; use COUNT]"));
    });
}

#[test]
fn who_does_not_read_is_closed_before_others_lack_room() {
    let cluster = Cluster::start(1, |config| {
        with_door(config);
        config.resp.clients_bytes_max = 2_500_000;
    });
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        let value = "x".repeat(10_000);
        for n in 1..=100 {
            client.ask(&format!("XADD s {n} a {value}")).await;
        }
        // Each is sent a megabyte, and reads nothing of it.
        let mut slow = Vec::new();
        for _ in 0..5 {
            let mut one = Redis::connect(&cluster, 1);
            one.send_lines(&["XRANGE s - +"]).await;
            slow.push(one);
        }
        // One holds what it has queued.
        let mut queues = Redis::connect(&cluster, 1);
        assert_eq!(queues.ask("MULTI").await, "OK");
        assert_eq!(queues.ask(&format!("XADD s * a {value}")).await, "QUEUED");
        while client.ask("CLIENT LIST").await.matches("cmd=xrange").count() != 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(queues.ask("EXEC").await.starts_with('['), "it holds less");
        let mut whole = 0;
        for mut one in slow {
            whole += usize::from(one.reply().await != "closed");
        }
        assert_eq!(whole, 2);
        let memory = client.ask("INFO memory").await;
        let held = memory.split("mem_clients_normal:").nth(1).and_then(|rest| rest.split('\\').next());
        let held: usize = held.and_then(|held| held.parse().ok()).expect("a number");
        assert!(held < 20_000, "what is gone is still counted: {held}");
    });
}

#[test]
fn keys_are_streams() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        for name in ["a", "b", "ab"] {
            client.ask(&format!("XADD {name} * f v")).await;
        }
        for (line, expected) in [
            ("EXISTS a a b none", ":3"),
            ("TYPE a", "stream"),
            ("TYPE none", "none"),
            ("OBJECT ENCODING a", r#""stream""#),
            ("OBJECT ENCODING none", "nil"),
            ("KEYS a*", r#"["a" "ab"]"#),
            ("SCAN 0 COUNT 2", r#"["1" ["a" "ab"]]"#),
            ("SCAN 1 COUNT 2", r#"["0" ["b"]]"#),
            ("SCAN 0 TYPE hash", r#"["0" []]"#),
            ("DBSIZE", ":3"),
            ("DEL a a none", ":1"),
            ("UNLINK none", ":0"),
            ("RENAME b c", "-ERR a stream keeps its name in Millstream"),
            ("FLUSHALL ASYNC", "OK"),
            ("FLUSHDB NOW", "-ERR syntax error"),
            ("DBSIZE", ":0"),
            ("SELECT 0", "OK"),
            ("SELECT 1", "-ERR DB index is out of range"),
            ("CONFIG GET appendfsync", r#"["appendfsync" "always"]"#),
            (
                "CONFIG SET appendfsync no",
                "-ERR CONFIG SET failed (possibly related to argument 'appendfsync') - can't set immutable config",
            ),
            ("CONFIG RESETSTAT", "OK"),
            ("FUNCTION FLUSH", "OK"),
            ("SCRIPT FLUSH", "OK"),
            ("COMMAND GETKEYS XREAD STREAMS a b 0 0", r#"["a" "b"]"#),
            ("WAIT 0 100", ":0"),
            ("WAITAOF 1 0 100", "[:1 :0]"),
            ("GET a", "-ERR unknown command 'GET', with args beginning with: 'a' "),
        ] {
            assert_eq!(client.ask(line).await, expected, "{line}");
        }
        assert!(client.ask("EXPIRE a 10").await.starts_with("-ERR streams do not expire in Millstream"));
        assert!(client.ask("INFO server").await.contains("redis_version:"));
        assert!(!client.ask("INFO clients").await.contains("redis_version:"));
        // Replies can be turned off, and requests are done all the same.
        client.send_lines(&["CLIENT REPLY OFF", "XADD quiet 1 a b", "CLIENT REPLY ON"]).await;
        assert_eq!(client.reply().await, "OK");
        client.send_lines(&["CLIENT REPLY SKIP", "XADD quiet 2 a b", "XLEN quiet"]).await;
        assert_eq!(client.reply().await, ":2");
    });
}
