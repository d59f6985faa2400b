//! MULTI, EXEC, DISCARD and WATCH at the Redis door.

mod resp_support;
mod support;

use resp_support::{Redis, with_door};
use support::{Cluster, run};

#[test]
fn a_transaction_is_one_entry_of_the_log() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g 0 MKSTREAM").await;
        client.ask("XADD s 1 a b").await;
        let before = cluster.status(1).last_log_index;
        let replies = client
            .ask_all(&[
                "MULTI",
                "XREADGROUP GROUP g c STREAMS s >",
                "XADD dead 1-1 from s",
                "XACK s g 1-0",
                "XADD dead 1-1 again no",
                "PING",
                "EXISTS s dead none",
                "XRANGE dead - +",
                "XINFO STREAM none",
                "TYPE dead",
                "DEL s dead none",
                "EXEC",
            ])
            .await;
        assert_eq!(replies[0], "OK");
        assert!(replies[1..11].iter().all(|reply| reply == "QUEUED"));
        assert_eq!(
            replies[11],
            r#"[[["s" [["1-0" ["a" "b"]]]]] "1-1" :1 -ERR The ID specified in XADD is equal or smaller than the target stream top item PONG :2 [["1-1" ["from" "s"]]] -ERR no such key stream :2]"#
        );
        // The session of the first write was opened before.
        assert_eq!(cluster.status(1).last_log_index - before, 1);
        assert_eq!(client.ask("DBSIZE").await, ":0");
    });
}

#[test]
fn what_was_watched_must_not_have_changed() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let (mut client, mut other) = (Redis::connect(&cluster, 1), Redis::connect(&cluster, 1));
        for (watched, change, holds) in [
            ("s", "XADD s * a b", false),
            ("s", "XADD elsewhere * a b", true),
            ("s none", "DEL s", false),
            ("none", "XADD none * a b", false),
        ] {
            for queued in ["XADD done * a b", ""] {
                other.ask("FLUSHALL").await;
                other.ask("XADD s * a b").await;
                assert_eq!(client.ask(&format!("WATCH {watched}")).await, "OK");
                other.ask(change).await;
                client.ask("MULTI").await;
                if !queued.is_empty() {
                    client.ask(queued).await;
                }
                let reply = client.ask("EXEC").await;
                assert_eq!(reply != "nil[]", holds, "WATCH {watched}, {change}: {reply}");
                assert_eq!(client.ask("EXISTS done").await, format!(":{}", i32::from(holds && !queued.is_empty())));
            }
        }
        // Forgotten by UNWATCH, DISCARD and EXEC.
        for forget in ["UNWATCH", "DISCARD", "EXEC"] {
            client.ask("WATCH s").await;
            if forget != "UNWATCH" {
                client.ask("MULTI").await;
            }
            client.ask(forget).await;
            other.ask("XADD s * a b").await;
            client.ask("MULTI").await;
            client.ask("PING").await;
            assert_eq!(client.ask("EXEC").await, "[PONG]", "{forget}");
        }
    });
}

#[test]
fn what_cannot_be_queued_spoils_all() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        assert_eq!(client.ask("EXEC").await, "-ERR EXEC without MULTI");
        assert_eq!(client.ask("DISCARD").await, "-ERR DISCARD without MULTI");
        for bad in ["XADD s", "NOPE", "XGROUP NOPE"] {
            client.ask("MULTI").await;
            assert_eq!(client.ask("XADD s * a b").await, "QUEUED");
            assert!(client.ask(bad).await.starts_with("-ERR"), "{bad}");
            let aborted = "-EXECABORT Transaction discarded because of previous errors.";
            assert_eq!(client.ask("EXEC").await, aborted, "{bad}");
        }
        assert_eq!(client.ask("EXISTS s").await, ":0");
        // An EXEC that is wrong ends the transaction; a WATCH only is wrong.
        client.ask_all(&["MULTI", "XADD s * a b"]).await;
        let aborted = "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
        assert_eq!(client.ask("EXEC EXEC").await, aborted);
        assert_eq!(client.ask("EXEC").await, "-ERR EXEC without MULTI");
        let replies = client.ask_all(&["MULTI", "WATCH s", "PING", "EXEC"]).await;
        assert_eq!(replies[1..], ["-ERR WATCH inside MULTI is not allowed", "QUEUED", "[PONG]"]);
        // Arguments are looked at only when it is done.
        let replies = client.ask_all(&["MULTI", "MULTI", "XADD s bad a b", "XADD s 1 a b", "EXEC"]).await;
        assert_eq!(replies[1], "-ERR MULTI calls can not be nested");
        assert_eq!(replies[4], r#"[-ERR Invalid stream ID specified as stream command argument "1-0"]"#);
    });
}

#[test]
fn what_does_not_fit_into_a_transaction_is_an_error() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        // More entries than one question may ask for.
        let lines: Vec<String> = (1..=10_100).map(|n| format!("XADD s {n} a b")).collect();
        for lines in lines.chunks(1_000) {
            client.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let cut = "-ERR the reply is too large for a transaction in Millstream; use COUNT";
        let replies = client.ask_all(&["MULTI", "XRANGE s - +", "EXEC"]).await;
        assert_eq!(replies[2], format!("[{cut}]"));
        let replies = client.ask_all(&["MULTI", "XRANGE s - + COUNT 10050", "XRANGE s - + COUNT 2", "EXEC"]).await;
        assert_eq!(replies[3], format!(r#"[{cut} [["1-0" ["a" "b"]] ["2-0" ["a" "b"]]]]"#));
        let names = vec!["k"; 1_001].join(" ");
        assert_eq!(client.ask(&format!("WATCH {names}")).await, "-ERR at most 1000 keys can be watched in Millstream");
    });
}
