//! A call may go to any node: what a follower hands on, what it adds, and what it says when it cannot.

mod api_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_support::{Clients, Network, append_to, check_refused, eventually, field, id, new_entries, seconds};
use millstream_node::config::Config;
use millstream_node::replica::{LeaderHint, Leadership};
use millstream_node::server::Server;
use millstream_node::world::World;
use millstream_proto::v1 as pb;
use tonic::Request;

struct Cluster {
    network: Network,
    servers: BTreeMap<u64, Server>,
    _directory: tempfile::TempDir,
}

fn address(id: u64) -> String {
    format!("n{id}:7420")
}

impl Cluster {
    /// Starts three nodes and waits until all know the same leader and where it takes calls.
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let network = Network::default();
        let peer = |id: u64| format!("n{id}:7421");
        let mut servers = BTreeMap::new();
        for id in 1..=3 {
            let mut config = Config::single_node();
            config.node_id = id;
            config.data_dir = directory.path().join(id.to_string());
            (config.listen, config.advertise) = (address(id), address(id));
            (config.peer_listen, config.peer_advertise) = (peer(id), peer(id));
            config.initial_members = (1..=3).map(|id| (id, peer(id))).collect();
            let world = World { net: Arc::new(network.clone()), ..World::real() };
            servers.insert(id, Server::start(world, config).await.expect("the node starts"));
        }
        let cluster = Self { network, servers, _directory: directory };
        eventually("a leader that everyone can reach", || cluster.leader().is_some()).await;
        cluster
    }

    /// The leader, if all others follow it.
    fn leader(&self) -> Option<u64> {
        let mut leader = None;
        let mut hints = Vec::new();
        for (id, server) in &self.servers {
            match server.replica().leadership() {
                Leadership::Leader { .. } => leader = Some(*id),
                Leadership::Follower { leader } => hints.push(leader),
                Leadership::NoLeader => return None,
            }
        }
        let leader = leader?;
        let hint = LeaderHint { node_id: leader, client_address: address(leader) };
        (hints.len() == 2 && hints.iter().all(|other| *other == hint)).then_some(leader)
    }

    fn leader_and_follower(&self) -> (u64, u64) {
        let leader = self.leader().expect("it is stable");
        (leader, if leader == 1 { 2 } else { 1 })
    }

    fn clients(&self, id: u64) -> Clients {
        Clients::connect(&self.network, &address(id))
    }
}

#[tokio::test]
async fn a_follower_hands_mutating_calls_on_and_reads_for_itself() {
    let cluster = Cluster::start().await;
    let (leader, follower) = cluster.leader_and_follower();
    let mut c = cluster.clients(follower);
    let append = pb::AppendRequest { fields: vec![field("f", "v")], ..append_to("orders") };
    let answer = c.streams.append(append).await.expect("appended");
    let told = answer.metadata().get("millstream-leader").expect("the leader is named").to_str().expect("text");
    assert_eq!(told, address(leader));
    let appended = answer.into_inner();
    assert_eq!(appended.header.expect("a header").node_id, leader);

    let range =
        c.streams.range(pb::RangeRequest { stream: "orders".into(), ..Default::default() }).await.expect("read");
    assert!(range.metadata().get("millstream-leader").is_none());
    let range = range.into_inner();
    assert_eq!(range.header.expect("a header").node_id, follower);
    assert_eq!(range.entries[0].id, appended.id, "linearizable");

    // Refusals come through as they are, their facts with them.
    let twice = pb::AppendRequest {
        fields: vec![field("f", "v")],
        id: Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Explicit(id(1, 1))) }),
        ..append_to("orders")
    };
    let last = appended.id.expect("an id");
    let last = format!("{}-{}", last.ms, last.seq);
    check_refused(c.streams.append(twice).await, "ID_NOT_GREATER", &[("last_id", &last)]);
    check_refused(c.streams.append(append_to("orders")).await, "INVALID_ARGUMENT", &[("field", "fields")]);
}

#[tokio::test]
async fn large_entries_and_many_calls_at_once_go_through() {
    let cluster = Cluster::start().await;
    let (_, follower) = cluster.leader_and_follower();
    let c = cluster.clients(follower);
    let value = "v".repeat(900 << 10);
    let large = c.append("large", &value).await;
    let many = (0..200).map(|number| {
        let c = c.clone();
        tokio::spawn(async move { c.append("small", &number.to_string()).await })
    });
    let many: Vec<_> = many.collect();
    for appended in many {
        appended.await.expect("appended");
    }
    let get = |stream: &str| pb::GetStreamRequest { stream: stream.into(), options: None };
    let info = c.streams.clone().get_stream(get("small")).await.expect("described").into_inner();
    assert_eq!(info.length, 200);
    let info = c.streams.clone().get_stream(get("large")).await.expect("described").into_inner();
    let entry = info.last_entry.expect("an entry");
    assert_eq!((entry.id, entry.fields[0].value.len()), (Some(large), value.len()));
}

#[tokio::test]
async fn a_wait_is_handed_on_and_ends_with_the_client() {
    let cluster = Cluster::start().await;
    let (leader, follower) = cluster.leader_and_follower();
    let c = cluster.clients(follower);
    c.create_group("orders", "billing").await;
    let wait = |consumer: &str| {
        let request = pb::ReadGroupRequest { wait: seconds(60), ..new_entries("billing", consumer, "orders") };
        let mut groups = c.groups.clone();
        tokio::spawn(async move { groups.read_group(request).await })
    };
    let watch = cluster.servers[&leader].replica().watch();
    let ada = wait("ada");
    eventually("a waiter at the leader", || watch.places_taken() == 1).await;
    ada.abort();
    eventually("none", || watch.places_taken() == 0).await;

    let bob = wait("bob");
    eventually("a waiter at the leader", || watch.places_taken() == 1).await;
    let entry = c.append("orders", "x").await;
    let delivered = bob.await.expect("not aborted").expect("delivered").into_inner();
    assert_eq!(delivered.streams[0].entries[0].entry.as_ref().and_then(|entry| entry.id), Some(entry));
    // A read waits where it is.
    let position = Some(pb::read_position::Position::NewEntries(true));
    let streams = vec![pb::ReadPosition { stream: "orders".into(), position }];
    let mut reader = c.streams.clone();
    let reading =
        tokio::spawn(
            async move { reader.read(pb::ReadRequest { streams, wait: seconds(60), ..Default::default() }).await },
        );
    eventually("a reader at the follower", || cluster.servers[&follower].replica().watch().places_taken() == 1).await;
    let entry = c.append("orders", "y").await;
    let read = reading.await.expect("not aborted").expect("read").into_inner();
    assert_eq!(read.streams[0].entries[0].id, Some(entry));
}

#[tokio::test]
async fn a_call_is_handed_on_once() {
    let cluster = Cluster::start().await;
    let (leader, follower) = cluster.leader_and_follower();
    let mut c = cluster.clients(follower);
    let mut forwarded = Request::new(pb::OpenSessionRequest {});
    forwarded.metadata_mut().insert("millstream-forwarded", "3".parse().expect("a number"));
    let answer = c.sessions.open_session(forwarded).await;
    let (id, address) = (leader.to_string(), address(leader));
    check_refused(answer, "NOT_LEADER", &[("leader_id", &id), ("leader_address", &address)]);
}

#[tokio::test]
async fn the_clients_deadline_goes_with_the_call() {
    let cluster = Cluster::start().await;
    let (leader, follower) = cluster.leader_and_follower();
    let mut c = cluster.clients(follower);
    c.create_group("orders", "billing").await;
    let mut request =
        Request::new(pb::ReadGroupRequest { wait: seconds(60), ..new_entries("billing", "ada", "orders") });
    request.set_timeout(Duration::from_millis(300));
    c.groups.read_group(request).await.expect_err("too late");
    let watch = cluster.servers[&leader].replica().watch();
    eventually("no waiter left", || watch.places_taken() == 0).await;
}

#[tokio::test]
async fn when_the_leader_stops_followers_find_the_next() {
    let mut cluster = Cluster::start().await;
    let (leader, follower) = cluster.leader_and_follower();
    let mut c = cluster.clients(follower);
    c.create_group("orders", "billing").await;
    // The consumer is known already, so that the call waits and proposes nothing.
    c.groups.read_group(new_entries("billing", "ada", "orders")).await.expect("nothing");
    let waiting = {
        let request = pb::ReadGroupRequest { wait: seconds(60), ..new_entries("billing", "ada", "orders") };
        let mut groups = c.groups.clone();
        tokio::spawn(async move { groups.read_group(request).await })
    };
    let watch = cluster.servers[&leader].replica().watch().clone();
    eventually("a waiter at the leader", || watch.places_taken() == 1).await;
    cluster.servers.remove(&leader).expect("it runs").shutdown().await.expect("in good order");
    // It was not proposed, and the client may simply repeat it.
    let (reason, _) = api_support::facts(&waiting.await.expect("not aborted").expect_err("the leader went"));
    assert!(["NOT_READY", "NOT_LEADER", "NO_LEADER"].contains(&reason.as_str()), "{reason}");

    let start = tokio::time::Instant::now();
    loop {
        let append = pb::AppendRequest { fields: vec![field("f", "v")], ..append_to("orders") };
        match c.streams.append(append).await {
            Ok(_) => break,
            Err(status) => {
                let (reason, _) = api_support::facts(&status);
                let traits = millstream_proto::reasons::by_name(&reason).expect("in the table");
                assert!(traits.retryable, "{reason}");
                assert!(start.elapsed() < api_support::PATIENCE, "no leader in time");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
