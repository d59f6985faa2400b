//! Waiting at the Redis door: who is served first, how a wait ends, and that those who leave leave nothing behind.

mod resp_support;
mod support;

use resp_support::{Redis, blocked, with_door};
use support::{Cluster, run};

#[test]
fn who_waits_first_is_served_first() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        let mut waiting = Vec::new();
        for n in 0..5 {
            let mut waiter = Redis::connect(&cluster, 1);
            waiter.send_lines(&[&format!("XREADGROUP GROUP g c{n} COUNT 1 BLOCK 0 STREAMS s >")]).await;
            blocked(&mut client, n + 1).await;
            waiting.push(waiter);
        }
        for (n, waiter) in waiting.iter_mut().enumerate() {
            client.ask(&format!("XADD s {} a b", n + 1)).await;
            assert_eq!(waiter.reply().await, format!(r#"[["s" [["{}-0" ["a" "b"]]]]]"#, n + 1));
            blocked(&mut client, 4 - n).await;
        }
        // Readers without a group are all served.
        let mut readers = Vec::new();
        for n in 0..3 {
            let mut reader = Redis::connect(&cluster, 1);
            reader.send_lines(&["XREAD BLOCK 0 STREAMS none s $ $"]).await;
            blocked(&mut client, n + 1).await;
            readers.push(reader);
        }
        client.ask("XADD s 100 x y").await;
        for reader in &mut readers {
            assert_eq!(reader.reply().await, r#"[["s" [["100-0" ["x" "y"]]]]]"#);
        }
    });
}

#[test]
fn who_waits_first_takes_all_that_comes_at_once() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        for _ in 0..20 {
            let mut waiting = Vec::new();
            for n in 0..3 {
                let mut waiter = Redis::connect(&cluster, 1);
                waiter.send_lines(&[&format!("XREADGROUP GROUP g c{n} COUNT 2 BLOCK 0 STREAMS s >")]).await;
                blocked(&mut client, n + 1).await;
                waiting.push(waiter);
            }
            let ids = client.ask_all(&["MULTI", "XADD s * a b", "XADD s * a b", "XADD s * a b", "EXEC"]).await;
            let ids: Vec<&str> = ids[4].trim_matches(['[', ']']).split(' ').collect();
            let of = |id: &str| format!(r#"[{id} ["a" "b"]]"#);
            assert_eq!(waiting[0].reply().await, format!(r#"[["s" [{} {}]]]"#, of(ids[0]), of(ids[1])));
            assert_eq!(waiting[1].reply().await, format!(r#"[["s" [{}]]]"#, of(ids[2])));
            blocked(&mut client, 1).await;
            drop(waiting);
            blocked(&mut client, 0).await;
        }
    });
}

#[test]
fn a_wait_ends_in_time_or_when_somebody_says_so() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        for line in ["XREAD BLOCK 20 STREAMS s $", "XREADGROUP GROUP g c BLOCK 20 STREAMS s >"] {
            assert_eq!(client.ask(line).await, "nil[]");
            let mut waiter = Redis::connect(&cluster, 1);
            let id = waiter.ask("CLIENT ID").await[1..].to_owned();
            let waits = line.replace("20", "0");
            for (word, expected) in
                [("", "nil[]"), (" TIMEOUT", "nil[]"), (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
            {
                waiter.send_lines(&[&waits, "PING"]).await;
                blocked(&mut client, 1).await;
                assert_eq!(client.ask(&format!("CLIENT UNBLOCK {id}{word}")).await, ":1");
                assert_eq!(waiter.reply().await, expected, "{line}{word}");
                assert_eq!(waiter.reply().await, "PONG", "the pipeline goes on");
                assert_eq!(client.ask(&format!("CLIENT UNBLOCK {id}")).await, ":0");
            }
            waiter.send_lines(&[&waits]).await;
            blocked(&mut client, 1).await;
            assert_eq!(client.ask(&format!("CLIENT KILL ID {id}")).await, ":1");
            assert_eq!(waiter.reply().await, "closed");
            blocked(&mut client, 0).await;
        }
        assert_eq!(client.ask("XREAD BLOCK -1 STREAMS s $").await, "-ERR timeout is negative");
    });
}

#[test]
fn what_stands_before_a_wait_is_answered_before_it() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        for wait in ["XREAD BLOCK 0 STREAMS s $", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "WAIT 1 0"] {
            let mut waiter = Redis::connect(&cluster, 1);
            waiter.send_lines(&["XGROUP CREATE s g $ MKSTREAM", "PING", wait, "PING"]).await;
            waiter.reply().await;
            assert_eq!(waiter.reply().await, "PONG", "{wait}");
            blocked(&mut client, 1).await;
            drop(waiter);
            blocked(&mut client, 0).await;
        }
    });
}

#[test]
fn what_was_sent_before_hanging_up_is_done() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g 0 MKSTREAM").await;
        client.ask("XADD s 1 a b").await;
        let mut hasty = Redis::connect(&cluster, 1);
        hasty
            .send_lines(&["XREADGROUP GROUP g c STREAMS s >", "XADD s 2 a b", "XREAD STREAMS s 0", "XADD s 3 a b"])
            .await;
        hasty.hang_up().await;
        assert_eq!(hasty.reply().await, r#"[["s" [["1-0" ["a" "b"]]]]]"#);
        assert_eq!(hasty.reply().await, "\"2-0\"");
        assert!(hasty.reply().await.starts_with("[["));
        assert_eq!(hasty.reply().await, "\"3-0\"");
        assert_eq!(hasty.reply().await, "closed");
        assert_eq!(client.ask("XLEN s").await, ":3");
    });
}

#[test]
fn a_wait_ends_with_its_group() {
    let cluster = Cluster::start(1, with_door);
    let gone = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        for line in ["XGROUP DESTROY s g", "DEL s", "FLUSHALL"] {
            client.ask("XGROUP CREATE s g $ MKSTREAM").await;
            let mut waiter = Redis::connect(&cluster, 1);
            waiter.send_lines(&["XREADGROUP GROUP g c BLOCK 0 STREAMS s >"]).await;
            blocked(&mut client, 1).await;
            client.ask(line).await;
            assert_eq!(waiter.reply().await, gone, "{line}");
        }
    });
}

#[test]
fn who_leaves_while_waiting_leaves_nothing_behind() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        let mut gone = Redis::connect(&cluster, 1);
        gone.send_lines(&["XREADGROUP GROUP g gone BLOCK 0 STREAMS s >"]).await;
        blocked(&mut client, 1).await;
        let mut stays = Redis::connect(&cluster, 1);
        stays.send_lines(&["XREADGROUP GROUP g stays BLOCK 0 STREAMS s >"]).await;
        blocked(&mut client, 2).await;
        drop(gone);
        blocked(&mut client, 1).await;
        client.ask("XADD s 1 a b").await;
        assert_eq!(stays.reply().await, r#"[["s" [["1-0" ["a" "b"]]]]]"#);
        assert_eq!(client.ask("XPENDING s g").await, r#"[:1 "1-0" "1-0" [["stays" "1"]]]"#);
    });
}

#[test]
fn who_leaves_with_much_unread_while_waiting_is_noticed() {
    let cluster = Cluster::start(1, |config| {
        with_door(config);
        config.resp.argument_bytes_max = 900_000;
    });
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        let ahead = "x".repeat(460_000);
        let mut gone = Redis::connect(&cluster, 1);
        gone.send_lines(&["XREADGROUP GROUP g gone BLOCK 0 STREAMS s >", &format!("ECHO {ahead}")]).await;
        blocked(&mut client, 1).await;
        drop(gone);
        blocked(&mut client, 0).await;
        // Nobody may send without end meanwhile.
        let mut talks = Redis::connect(&cluster, 1);
        talks.send_lines(&["XREADGROUP GROUP g talks BLOCK 0 STREAMS s >"]).await;
        blocked(&mut client, 1).await;
        talks.send_lines(&[&format!("ECHO {ahead}"), &format!("ECHO {ahead}")]).await;
        assert_eq!(talks.reply().await, "closed");
        blocked(&mut client, 0).await;
    });
}

#[test]
fn within_a_transaction_nobody_waits() {
    let cluster = Cluster::start(1, with_door);
    run(async {
        let mut client = Redis::connect(&cluster, 1);
        client.ask("XGROUP CREATE s g $ MKSTREAM").await;
        let lines =
            ["MULTI", "XREAD BLOCK 0 STREAMS s $", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "WAIT 5 0", "EXEC"];
        assert_eq!(client.ask_all(&lines).await[4], "[nil[] nil[] :0]");
    });
}
