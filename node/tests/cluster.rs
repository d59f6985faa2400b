//! Three nodes: what survives the death of one, a restart, and a lost disk.

mod support;

use std::ops::Bound;
use std::time::Duration;

use futures::TryStreamExt;
use millstream_client::{
    Append, AutoClaim, Client, CreateGroup, EntryId, ErrorReason, Freshness, GroupPosition, Range, ReadGroup,
};
use millstream_node::replica::Unavailable;
use millstream_streams as core;
use support::{Cluster, run, wipe};

async fn append(client: &Client, stream: &str, number: usize) -> EntryId {
    client.append(Append::to(stream).field("number", number.to_string())).await.expect("appended").id
}

async fn numbers(client: &Client, stream: &str) -> Vec<(EntryId, usize)> {
    let entries: Vec<_> = client.range_all(Range::of(stream)).try_collect().await.expect("readable");
    let number = |value: &[u8]| std::str::from_utf8(value).expect("text").parse().expect("a number");
    entries.iter().map(|entry| (entry.id, number(entry.get("number").expect("the field")))).collect()
}

#[test]
fn acknowledged_entries_and_groups_survive_the_leaders_death() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);

    // Ada works through a part of the orders, acknowledges some, and the leader dies.
    let mut ids = Vec::new();
    run(async {
        client
            .create_group(CreateGroup::new("orders", "billing", GroupPosition::After(EntryId::MIN)).create_stream())
            .await
            .expect("created");
        for number in 0..50 {
            ids.push(append(&client, "orders", number).await);
        }
        let read = ReadGroup::new("billing", "ada").new_entries("orders").count(20);
        let delivered = client.read_group(read).await.expect("delivered");
        assert_eq!(delivered.streams[0].entries.len(), 20);
        client.ack("orders", "billing", ids[..5].iter().copied()).await.expect("acknowledged");
    });
    cluster.kill(leader);

    // The same client goes on, with another leader.
    run(async {
        for number in 50..100 {
            ids.push(append(&client, "orders", number).await);
        }
        let expected: Vec<_> = ids.iter().copied().zip(0..).collect();
        assert_eq!(numbers(&client, "orders").await, expected);

        let pending = client.get_pending("orders", "billing").await.expect("summarised");
        assert_eq!((pending.count, pending.min_id, pending.max_id), (15, Some(ids[5]), Some(ids[19])));
        let read = ReadGroup::new("billing", "bob").new_entries("orders").count(1);
        let delivered = client.read_group(read).await.expect("delivered");
        assert_eq!(delivered.streams[0].entries[0].entry.id, ids[20], "the group goes on where it stood");
        let claimed =
            client.auto_claim(AutoClaim::new("orders", "billing", "bob", Duration::ZERO)).await.expect("claimed");
        assert_eq!(claimed.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids[5..21]);
    });

    // The dead node comes back with what was on its disk, and catches up.
    cluster.boot(leader).expect("it starts");
    cluster.leader();
    cluster.converged();
}

#[test]
fn everything_is_there_after_all_nodes_died_at_once() {
    let mut cluster = Cluster::start(3, |config| config.checkpoint.entries = 100);
    cluster.leader();
    let mut ids = Vec::new();
    run(async {
        let client = cluster.client([1]);
        for number in 0..250 {
            ids.push(append(&client, "orders", number).await);
        }
    });
    for id in [1, 2, 3] {
        cluster.kill(id);
    }
    for id in [1, 2, 3] {
        cluster.boot(id).expect("it starts");
    }
    cluster.leader();
    run(async {
        let client = cluster.client([2]);
        let expected: Vec<_> = ids.iter().copied().zip(0..).collect();
        assert_eq!(numbers(&client, "orders").await, expected);
    });
    cluster.converged();
}

#[test]
fn a_node_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, |config| {
        config.checkpoint.entries = 100;
        config.checkpoint.interval = Duration::from_millis(20);
        config.log.entries_kept = 50;
    });
    let leader = cluster.leader();
    let behind = if leader == 3 { 2 } else { 3 };
    let client = cluster.client([leader]);
    run(async {
        client
            .create_group(CreateGroup::new("orders", "billing", GroupPosition::After(EntryId::MIN)).create_stream())
            .await
            .expect("created");
        append(&client, "orders", 0).await;
    });
    cluster.converged();
    cluster.stop(behind);

    run(async {
        for number in 1..600 {
            append(&client, "orders", number).await;
        }
        let read = ReadGroup::new("billing", "ada").new_entries("orders").count(300);
        client.read_group(read).await.expect("delivered");
    });
    cluster.eventually("purged log", || (200 < cluster.status(leader).first_log_index).then_some(()));

    cluster.boot(behind).expect("it starts");
    cluster.converged();
    assert!(200 < cluster.status(behind).first_log_index, "it cannot have got there entry by entry");

    // What it was sent is on its disk, and whole.
    cluster.kill(behind);
    cluster.boot(behind).expect("it starts");
    cluster.converged();
    run(async {
        let local = cluster.client([behind]).with_freshness(Freshness::Local);
        assert_eq!(numbers(&local, "orders").await.len(), 600);
        assert_eq!(local.get_pending("orders", "billing").await.expect("summarised").count, 300);
    });
}

#[test]
fn a_node_whose_disk_was_wiped_is_kept_out() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    run(async { append(&cluster.client([1, 2, 3]), "orders", 0).await });
    // Every node must be known before one can be recognised as an impostor.
    cluster.eventually("known nodes", || {
        let status = cluster.status(leader);
        status.members.iter().all(|member| !member.client_address.is_empty()).then_some(())
    });
    cluster.converged();

    let wiped = if leader == 1 { 2 } else { 1 };
    cluster.kill(wiped);
    wipe(&cluster.data_dir(wiped));
    cluster.boot(wiped).expect("nothing is wrong with an empty directory by itself");
    let reason = run(cluster.server(wiped).failed());
    assert!(reason.contains("new node id"), "{reason}");
    assert_eq!(cluster.status(wiped).last_log_index.min(1), cluster.status(wiped).last_log_index, "it got nothing");

    // The others go on without it.
    run(async { append(&cluster.client([leader]), "orders", 1).await });
}

#[test]
fn a_follower_answers_as_the_leader_does() {
    let cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    cluster.eventually("known nodes", || {
        let status = cluster.status(leader);
        status.members.iter().all(|member| !member.client_address.is_empty()).then_some(())
    });
    cluster.converged();
    let follower = if leader == 1 { 2 } else { 1 };
    run(async {
        let answers = |node: u64| {
            let client = cluster.client([node]);
            async move {
                let ack = client.append(Append::to("orders").no_create().field("a", "b")).await.expect_err("no stream");
                let read =
                    client.read_group(ReadGroup::new("none", "ada").new_entries("orders")).await.expect_err("no group");
                let zero =
                    client.append(Append::to("orders").id(EntryId::MIN).field("a", "b")).await.expect_err("zero");
                [ack, read, zero].map(|error| (error.reason(), error.to_string()))
            }
        };
        let (from_leader, from_follower) = (answers(leader).await, answers(follower).await);
        assert_eq!(from_leader, from_follower);
        let reasons = from_leader.map(|(reason, _)| reason);
        assert_eq!(
            reasons,
            [Some(ErrorReason::StreamNotFound), Some(ErrorReason::GroupNotFound), Some(ErrorReason::IdZero)]
        );
    });
}

#[test]
fn a_follower_serves_linearizable_reads() {
    let cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    run(async {
        let (writer, reader) = (cluster.client([leader]), cluster.client([follower]));
        for number in 0..50 {
            let id = append(&writer, "orders", number).await;
            let page = reader.range(Range::of("orders").start(Bound::Included(id))).await.expect("readable");
            assert_eq!(page.entries.len(), 1, "what was acknowledged is visible on every node");
        }
    });
}

/// State that is not stored yet is bounded: apply waits for checkpoints, and goes on.
#[test]
fn apply_waits_for_checkpoints() {
    let mut cluster = Cluster::start(1, |config| {
        config.checkpoint.dirty_bytes = 1;
        config.checkpoint.dirty_bytes_max = 1;
        config.checkpoint.interval = Duration::from_millis(5);
    });
    cluster.leader();
    let client = cluster.client([1]);
    for number in 0..20 {
        let before = cluster.status(1).applied_index;
        run(append(&client, "orders", number));
        assert!(before <= cluster.status(1).checkpoint_index, "nothing is applied on top of what is not stored");
    }
    run(async { assert_eq!(numbers(&client, "orders").await.len(), 20) });
    // A node that stops does not wait.
    cluster.stop(1);
}

/// Proposals under way are bounded in bytes.
#[test]
fn more_bytes_than_may_be_under_way_are_refused() {
    let cluster = Cluster::start(1, |config| {
        config.limits.proposal_bytes_max = 100_000;
        // Commits take a while, so that proposals meet.
        config.checkpoint.dirty_bytes_max = 1;
        config.checkpoint.dirty_bytes = 1;
        config.checkpoint.interval = Duration::from_millis(100);
    });
    cluster.leader();
    let replica = cluster.server(1).replica();
    let append = |n: usize| core::Append {
        stream: core::StreamName::new("orders").expect("a good name"),
        id: core::NewId::Auto,
        fields: core::Fields::from_pairs([("n", vec![b'x'; n])]).expect("good fields"),
        no_create: false,
        trim: None,
        idempotency: None,
    };
    run(async {
        assert!(replica.propose(None, append(500_000).into()).await.is_ok(), "a larger one goes when it is alone");
        let results = futures::future::join_all((0..8).map(|_| replica.propose(None, append(40_000).into()))).await;
        let refused = Unavailable::Overloaded { limit: 100_000 };
        let refusals = results.iter().filter(|result| result.as_ref().is_err_and(|error| *error == refused));
        assert_eq!(refusals.count(), 6, "two have room");
        assert!(replica.propose(None, append(40_000).into()).await.is_ok(), "room is given back");
    });
}
