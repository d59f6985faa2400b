//! The Redis doors of three nodes: any of them takes any command, and what becomes of it is known when a leader dies.

mod resp_support;
mod support;

use std::time::Duration;

use resp_support::{Redis, blocked, with_door};
use support::{Cluster, run};

fn followers(cluster: &Cluster) -> Vec<u64> {
    let leader = cluster.leader();
    cluster.running().into_iter().filter(|id| *id != leader).collect()
}

#[test]
fn any_node_takes_any_command() {
    let cluster = Cluster::start(3, with_door);
    cluster.leader();
    run(async {
        let mut clients: Vec<Redis> = (1..=3).map(|id| Redis::connect(&cluster, id)).collect();
        assert_eq!(clients[0].ask("XGROUP CREATE s g 0 MKSTREAM").await, "OK");
        for n in 1..=30 {
            let line = format!("XADD s {n} a b");
            assert_eq!(clients[n % 3].ask(&line).await, format!("\"{n}-0\""));
            // Another node knows it at once.
            assert_eq!(clients[(n + 1) % 3].ask("XLEN s").await, format!(":{n}"));
        }
        assert_eq!(clients[1].ask("WATCH s").await, "OK");
        assert_eq!(clients[2].ask("XREADGROUP GROUP g c COUNT 1 STREAMS s >").await, r#"[["s" [["1-0" ["a" "b"]]]]]"#);
        let replies = clients[1].ask_all(&["MULTI", "XADD s * a b", "EXEC"]).await;
        assert_eq!(replies[2], "nil[]", "the delivery at another node was a change");
        for client in &mut clients {
            assert_eq!(client.ask("XPENDING s g").await, r#"[:1 "1-0" "1-0" [["c" "1"]]]"#);
            client.ask("XADD s * a b").await;
            // A majority has it at once, and all have it soon.
            assert_eq!(client.ask("WAIT 2 30000").await, ":2");
            assert_eq!(client.ask("WAITAOF 1 2 30000").await, "[:1 :2]");
        }
    });
}

#[test]
fn who_waits_first_is_served_first_at_any_node() {
    let cluster = Cluster::start(3, with_door);
    cluster.leader();
    run(async {
        let mut clients: Vec<Redis> = (1..=3).map(|id| Redis::connect(&cluster, id)).collect();
        clients[0].ask("XGROUP CREATE s g $ MKSTREAM").await;
        for round in 0..5 {
            let mut waiting = Vec::new();
            for n in 0..9 {
                // Three at each door, one right after the other; doors in any order.
                let at = (n / 3 + round) % 3;
                let mut waiter = Redis::connect(&cluster, at as u64 + 1);
                waiter.send_lines(&[&format!("XREADGROUP GROUP g c{n} COUNT 1 BLOCK 0 STREAMS s >")]).await;
                blocked(&mut clients[at], n % 3 + 1).await;
                waiting.push(waiter);
            }
            for (n, waiter) in waiting.iter_mut().enumerate() {
                let id = clients[n % 3].ask("XADD s * a b").await;
                assert_eq!(
                    waiter.reply().await,
                    format!(r#"[["s" [[{id} ["a" "b"]]]]]"#),
                    "waiter {n} of round {round}"
                );
            }
        }
    });
}

#[test]
fn a_leader_dies_and_clients_of_the_others_notice_nothing() {
    let mut cluster = Cluster::start(3, with_door);
    let leader = cluster.leader();
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = Vec::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let followers = followers(&cluster);
    for (number, id) in followers.iter().cycle().take(6).enumerate() {
        let mut client = Redis::connect(&cluster, *id);
        tasks.push(runtime.spawn(async move {
            // Every acknowledgement counts once: what was asked for twice under the surface was done once.
            for n in 0..200 {
                let reply = client.ask(&format!("XADD s{number} * n {n}")).await;
                assert!(reply.starts_with('"'), "{reply}");
            }
        }));
    }
    // A consumer that waits all the while at a follower.
    let mut consumer = Redis::connect(&cluster, followers[0]);
    let mut waiting = Redis::connect(&cluster, followers[1]);
    runtime.block_on(async {
        assert_eq!(consumer.ask("XGROUP CREATE jobs g $ MKSTREAM").await, "OK");
        consumer.send_lines(&["XREADGROUP GROUP g c BLOCK 0 STREAMS jobs >"]).await;
        assert!(consumer.is_silent().await);
        let _ = kill.send(());
        let _ = killed.await;
    });
    cluster.kill(leader);
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no error");
        }
        for number in 0..6 {
            assert_eq!(waiting.ask(&format!("XLEN s{number}")).await, ":200", "neither lost nor doubled");
        }
        assert_eq!(waiting.ask("XADD jobs 5 a b").await, "\"5-0\"");
        assert_eq!(consumer.reply().await, r#"[["jobs" [["5-0" ["a" "b"]]]]]"#);
    });
    drop(runtime);
}

#[test]
fn without_a_majority_nothing_is_claimed() {
    let mut cluster = Cluster::start(3, |config| {
        with_door(config);
        config.resp.wait = Duration::from_millis(1_500);
    });
    let leader = cluster.leader();
    let mut clients: Vec<(u64, Redis)> = (1..=3).map(|id| (id, Redis::connect(&cluster, id))).collect();
    run(async {
        for (_, client) in &mut clients {
            client.ask("XADD s * a b").await;
        }
    });
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.kill(*id);
    }
    run(async {
        let (_, client) = clients.iter_mut().find(|(id, _)| *id == leader).expect("three clients");
        let reply = client.ask("XADD s * a b").await;
        assert!(reply.starts_with("-UNKNOWN nobody knows") || reply.starts_with("-CLUSTERDOWN"), "{reply}");
        let reply = client.ask("XLEN s").await;
        assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
        assert_eq!(client.ask("PING").await, "PONG");
        assert_eq!(client.ask("WAIT 1 50").await.chars().next(), Some(':'));
    });
    for id in others {
        cluster.boot(id).expect("it starts");
    }
    cluster.leader();
    run(async {
        let (_, client) = clients.iter_mut().find(|(id, _)| *id == leader).expect("three clients");
        assert!(client.ask("XADD s * a b").await.starts_with('"'), "the same connection goes on");
    });
}
