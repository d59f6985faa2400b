//! Replicas that no longer agree: the one that differs stops, and nobody is asked to believe it.

mod support;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use millstream_client::{Append, Client};
use millstream_node::config::{Config, Engine};
use millstream_node::storage::StateDir;
use millstream_node::world::World;
use support::{Cluster, run};

/// Stored key of the row that holds the state's digest.
const META: [u8; 2] = [1, 1];
/// What the stored keys of block bodies begin with.
const BODIES: [u8; 2] = [1, 240];

fn often(config: &mut Config) {
    config.checks.compare_interval = Duration::from_millis(100);
}

/// Appends so many entries, many at a time.
async fn append(client: &Client, stream: &str, entries: usize) {
    futures::stream::iter(0..entries)
        .for_each_concurrent(256, |number| async move {
            client.append(Append::to(stream).field("number", number.to_string())).await.expect("appended");
        })
        .await;
}

/// Changes a row of the stopped node's store, checksum and all.
fn change_row(state: &Path, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
    let (directory, store) = StateDir::open(&World::real(), state, Engine::default()).expect("opens");
    let mut value = store.get(key).expect("reads").expect("is there").to_vec();
    change(&mut value);
    store.commit(vec![(key.to_vec(), Some(Bytes::from(value)))]).expect("commits");
    drop((store, directory));
}

/// Gives the stopped node another history.
fn falsify_digest(cluster: &Cluster, node: u64, digest: u128) {
    let digest = digest.to_be_bytes();
    change_row(&cluster.data_dir(node).join("state"), &META, |row| {
        let at = row.windows(16).position(|window| window == digest).expect("the digest is in the row");
        row[at] ^= 1;
    });
}

#[test]
fn a_replica_that_differs_from_the_majority_stops() {
    let mut cluster = Cluster::start(3, often);
    let leader = cluster.leader();
    let wrong = if leader == 3 { 2 } else { 3 };
    run(append(&cluster.client([leader]), "orders", 1_100));
    cluster.converged();
    cluster.eventually("a comparison", || (0 < cluster.status(cluster.leader()).comparison.equal_index).then_some(()));
    let digest = cluster.status(wrong).state_digest;
    cluster.stop(wrong);
    falsify_digest(&cluster, wrong, digest);
    cluster.boot(wrong).expect("nothing tells it yet");

    run(append(&cluster.client([leader]), "orders", 1_100));
    let sentence = run(cluster.server(wrong).failed());
    assert!(sentence.contains("differs from the state that a majority of the nodes has"), "{sentence}");
    cluster.eventually("end of its service", || (!cluster.server(wrong).replica().is_ready()).then_some(()));
    // The others go on.
    cluster.stop(wrong);
    run(append(&cluster.client(cluster.running()), "orders", 10));
}

/// The entries of a stopped node change behind its back: what it decided stays right, and what it would serve does not.
#[test]
fn a_replica_whose_entries_have_changed_stops() {
    let mut cluster = Cluster::start(3, often);
    let leader = cluster.leader();
    let wrong = if leader == 3 { 2 } else { 3 };
    run(append(&cluster.client([leader]), "orders", 1_100));
    cluster.converged();
    cluster.stop(wrong);
    let state = cluster.data_dir(wrong).join("state");
    let (directory, store) = StateDir::open(&World::real(), &state, Engine::default()).expect("opens");
    let changed = store.scan(&BODIES, &[2]).map(|row| {
        let (key, value) = row.expect("verifies");
        let mut value = value.to_vec();
        // A digit of the last entry's number.
        *value.last_mut().expect("has bytes") ^= 1;
        (key, Some(Bytes::from(value)))
    });
    let changed: Vec<_> = changed.collect();
    assert!(5 < changed.len());
    store.commit(changed).expect("commits");
    drop((store, directory));
    cluster.boot(wrong).expect("every checksum is right");

    // Until a sample has looked there.
    let client = cluster.client([leader]);
    run(async {
        let appends = async {
            for _ in 0..20 {
                append(&client, "orders", 1_024).await;
            }
        };
        tokio::select! {
            () = appends => panic!("it was not noticed"),
            sentence = cluster.server(wrong).failed() => assert!(sentence.contains("differs"), "{sentence}"),
        }
    });
    assert_eq!(cluster.status(leader).comparison.disputed, None);
}

#[test]
fn of_two_replicas_nobody_knows_which_is_right() {
    let mut cluster = Cluster::start(2, often);
    let leader = cluster.leader();
    let other = 3 - leader;
    run(append(&cluster.client([leader]), "orders", 1_100));
    cluster.converged();
    let digest = cluster.status(other).state_digest;
    cluster.stop(other);
    falsify_digest(&cluster, other, digest);
    cluster.boot(other).expect("it starts");
    cluster.leader();
    run(append(&cluster.client([1, 2]), "orders", 1_100));
    let disputed = cluster.eventually("a dispute", || cluster.status(cluster.leader()).comparison.disputed);
    assert!(disputed.contains("differ at log index"), "{disputed}");
    run(append(&cluster.client([1, 2]), "orders", 1));
}
