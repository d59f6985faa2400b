//! Every reason of the error contract, driven through gRPC at least once.

mod api_support;
mod wal_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api_support::{
    Clients, Network, Node, PATIENCE, append_to, eventually, facts, field, id, new_entries, op, seconds,
};
use millstream_node::config::Config;
use millstream_node::replica::Leadership;
use millstream_node::server::Server;
use millstream_node::world::World;
use millstream_proto::admin::v1 as admin;
use millstream_proto::reasons;
use millstream_proto::v1 as pb;
use pb::batch_operation::Operation;
use pb::new_entry_id::Choice;
use tonic::{Request, Status};

/// The reasons that were seen.
#[derive(Default)]
struct Seen(BTreeSet<&'static str>);

impl Seen {
    /// Notes the reason of a refused call, and holds its code and facts against the contract.
    #[track_caller]
    fn refused<T: std::fmt::Debug>(
        &mut self,
        answer: Result<T, Status>,
        reason: &'static str,
        expected: &[(&str, &str)],
    ) {
        api_support::check_refused(answer, reason, expected);
        self.0.insert(reason);
    }
}

fn append(stream: &str, choice: Option<Choice>) -> pb::AppendRequest {
    let id = choice.map(|choice| pb::NewEntryId { choice: Some(choice) });
    pb::AppendRequest { fields: vec![field("f", "v")], id, ..append_to(stream) }
}

/// What depends on the request and the state alone.
async fn of_requests_and_states(seen: &mut Seen) {
    let node = Node::start(|config| config.limits.waiters_max = 1).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;

    seen.refused(c.streams.append(append_to("s")).await, "INVALID_ARGUMENT", &[("field", "fields")]);
    let long = append(&"n".repeat(1_025), None);
    seen.refused(c.streams.append(long).await, "LIMIT_EXCEEDED", &[("field", "stream"), ("limit", "1024")]);

    seen.refused(c.streams.append(append("s", Some(Choice::Explicit(id(0, 0))))).await, "ID_ZERO", &[]);
    c.streams.append(append("s", Some(Choice::Explicit(id(5, 1))))).await.expect("appended");
    c.streams.append(append("s", Some(Choice::Explicit(id(5, 2))))).await.expect("appended");
    let small = append("s", Some(Choice::Explicit(id(5, 1))));
    seen.refused(c.streams.append(small).await, "ID_NOT_GREATER", &[("last_id", "5-2")]);
    let greatest = append("full", Some(Choice::Explicit(id(u64::MAX, u64::MAX))));
    c.streams.append(greatest).await.expect("appended");
    seen.refused(c.streams.append(append("full", None)).await, "ID_EXHAUSTED", &[]);

    let no_create = pb::AppendRequest { no_create: true, ..append("none", None) };
    seen.refused(c.streams.append(no_create).await, "STREAM_NOT_FOUND", &[("stream", "none")]);
    let read = c.groups.read_group(new_entries("none", "ada", "s")).await;
    seen.refused(read, "GROUP_NOT_FOUND", &[("stream", "s"), ("group", "none")]);
    let again = pb::CreateGroupRequest {
        stream: "s".into(),
        group: "g".into(),
        position: Some(pb::GroupPosition { position: Some(pb::group_position::Position::End(true)) }),
        ..Default::default()
    };
    seen.refused(c.groups.create_group(again).await, "GROUP_EXISTS", &[("stream", "s"), ("group", "g")]);

    let set = |last_id| pb::SetLastIdRequest { stream: "s".into(), last_id: Some(last_id), ..Default::default() };
    let too_small = c.streams.set_last_id(set(id(5, 1))).await;
    seen.refused(too_small, "LAST_ID_TOO_SMALL", &[("bound", "last_entry"), ("id", "5-2")]);
    let beside = pb::SetLastIdRequest { max_deleted_id: Some(id(7, 0)), ..set(id(6, 0)) };
    let too_small = c.streams.set_last_id(beside).await;
    seen.refused(too_small, "LAST_ID_TOO_SMALL", &[("bound", "given_max_deleted_id"), ("id", "7-0")]);
    let too_few = pb::SetLastIdRequest { entries_added: Some(1), ..set(id(9, 0)) };
    seen.refused(c.streams.set_last_id(too_few).await, "ENTRIES_ADDED_TOO_SMALL", &[("length", "2")]);

    let record = |id| pb::RecordIdempotencyRequest {
        stream: "s".into(),
        producer_id: "p".into(),
        key: "k".into(),
        id: Some(id),
        request: None,
    };
    let missing = c.streams.record_idempotency(record(id(5, 3))).await;
    seen.refused(missing, "ENTRY_NOT_FOUND", &[("stream", "s"), ("id", "5-3")]);
    // Of an entry that is young enough for its key to be remembered.
    let young = c.streams.append(pb::AppendRequest { fields: vec![field("f", "v")], ..append_to("s") }).await;
    let young = young.expect("appended").into_inner().id.expect("has an id");
    c.streams.record_idempotency(record(young)).await.expect("recorded");
    let other = c.streams.record_idempotency(record(id(5, 2))).await;
    seen.refused(other, "IDEMPOTENCY_CONFLICT", &[("id", &format!("{}-{}", young.ms, young.seq))]);

    let guards = vec![pb::Guard { stream: "s".into(), condition: Some(pb::guard::Condition::Absent(true)) }];
    let operations = vec![op(Operation::Append(append("s", None)))];
    let index = c.info("s").await.last_change_index.to_string();
    let guarded = c.batches.batch(pb::BatchRequest { operations, guards, ..Default::default() }).await;
    seen.refused(guarded, "GUARD_FAILED", &[("guard", "0"), ("last_change_index", &index)]);

    let numbered = |session_id, sequence, completed_below, stream: &str| pb::AppendRequest {
        request: Some(pb::RequestIdentity { session_id, sequence, completed_below }),
        ..append(stream, None)
    };
    seen.refused(c.streams.append(numbered(999, 1, 0, "s")).await, "SESSION_NOT_FOUND", &[("session", "999")]);
    let session = c.session().await;
    c.streams.append(numbered(session, 1, 0, "s")).await.expect("appended");
    seen.refused(c.streams.append(numbered(session, 1, 0, "t")).await, "SEQUENCE_REUSED", &[("sequence", "1")]);
    let beyond = c.streams.append(numbered(session, 5_000, 0, "s")).await;
    seen.refused(beyond, "SEQUENCE_OUT_OF_WINDOW", &[("sequence", "5000"), ("floor", "1")]);

    let remove = |node_id| admin::ChangeVotersRequest { remove_node_ids: vec![node_id], ..Default::default() };
    seen.refused(c.cluster.change_voters(remove(9)).await, "MEMBER_NOT_FOUND", &[("node_id", "9")]);
    let problem = "no voter would remain: promote another node first";
    let facts = [("node_id", "1"), ("problem", problem)];
    seen.refused(c.cluster.change_voters(remove(1)).await, "MEMBERSHIP_REFUSED", &facts);
    let absent = admin::AddLearnerRequest { node_id: 9, peer_address: "nowhere:1".into() };
    let status = c.cluster.add_learner(absent).await.expect_err("nobody is there");
    let (_, problem) = api_support::facts(&status);
    assert!(problem["problem"].contains("--join"), "{problem:?}");
    let facts = [("node_id", "9"), ("problem", problem["problem"].as_str())];
    seen.refused(Err::<(), _>(status), "MEMBERSHIP_NOT_READY", &facts);

    // One waits, which is as many as may.
    let position = Some(pb::read_position::Position::NewEntries(true));
    let streams = vec![pb::ReadPosition { stream: "s".into(), position }];
    let wait = pb::ReadRequest { streams, wait: seconds(60), ..Default::default() };
    let waiting = {
        let (mut streams, wait) = (c.streams.clone(), wait.clone());
        tokio::spawn(async move { streams.read(wait).await })
    };
    node.waiting(1).await;
    seen.refused(c.streams.read(wait).await, "OVERLOADED", &[("limit", "1")]);
    // And it is sent away when the node stops.
    let Node { server, .. } = node;
    server.shutdown().await.expect("in good order");
    seen.refused(waiting.await.expect("not aborted"), "NOT_READY", &[]);
}

/// One of three members, alone: it never finds a leader.
async fn of_a_member_without_others(seen: &mut Seen) {
    let node = Node::start_alone(World::real(), |config| {
        config.node_id = 2;
        config.initial_members = (1..=3).map(|id| (id, format!("n{id}:7421"))).collect();
    })
    .await;
    let mut c = node.clients.clone();
    seen.refused(c.streams.append(append("s", None)).await, "NO_LEADER", &[]);
}

/// A leader whose commands do not reach a majority in time, and a follower that was asked by another follower.
async fn of_a_cluster(seen: &mut Seen) {
    let network = Network::default();
    let directory = tempfile::tempdir().expect("a directory");
    let address = |id: u64| format!("n{id}:7420");
    let peer = |id: u64| format!("n{id}:7421");
    let mut servers = BTreeMap::new();
    for id in 1..=2 {
        let mut config = Config::single_node();
        config.node_id = id;
        config.data_dir = directory.path().join(id.to_string());
        (config.listen, config.advertise) = (address(id), address(id));
        (config.peer_listen, config.peer_advertise) = (peer(id), peer(id));
        config.initial_members = (1..=2).map(|id| (id, peer(id))).collect();
        config.limits.call_time_max = Duration::from_millis(1_000);
        let world = World { net: Arc::new(network.clone()), ..World::real() };
        let server = Server::start(world, config).await.expect("the node starts");
        servers.insert(id, server);
    }
    let leader_of = |servers: &BTreeMap<u64, Server>| {
        let follows = servers.values().find_map(|server| match server.replica().leadership() {
            Leadership::Follower { leader } if !leader.client_address.is_empty() => Some(leader.node_id),
            _ => None,
        });
        follows.filter(|id| matches!(servers[id].replica().leadership(), Leadership::Leader { .. }))
    };
    eventually("a leader", || leader_of(&servers).is_some()).await;
    let leader = leader_of(&servers).expect("it is stable");
    let follower = 3 - leader;

    let mut forwarded = Request::new(pb::OpenSessionRequest {});
    forwarded.metadata_mut().insert("millstream-forwarded", "9".parse().expect("a number"));
    let mut c = Clients::connect(&network, &address(follower));
    let (id, at) = (leader.to_string(), address(leader));
    let answer = c.sessions.open_session(forwarded).await;
    seen.refused(answer, "NOT_LEADER", &[("leader_id", &id), ("leader_address", &at)]);

    // The other half goes. What the leader proposes now is in its log and nowhere else.
    let mut c = Clients::connect(&network, &address(leader));
    let gone = servers.remove(&follower).expect("it runs");
    let stopping = tokio::spawn(gone.shutdown());
    let start = tokio::time::Instant::now();
    loop {
        let Err(status) = c.streams.append(append("s", None)).await else { continue };
        // Before it has noticed, it proposes; after, it says that nobody leads.
        let (reason, _) = facts(&status);
        match reason.as_str() {
            "COMMIT_UNKNOWN" => break seen.refused(Err::<(), _>(status), "COMMIT_UNKNOWN", &[]),
            "NO_LEADER" | "NOT_LEADER" | "NOT_READY" => {}
            other => panic!("{other}: {status:?}"),
        }
        assert!(start.elapsed() < PATIENCE, "never proposed in vain");
    }
    stopping.await.expect("not aborted").expect("in good order");
}

/// A node whose disk fails under it.
async fn of_a_dying_node(seen: &mut Seen) {
    let disk = wal_support::Disk::default();
    let (world, aborts) = wal_support::world(&disk, true);
    let node = Node::start_in(world, |config| config.limits.call_time_max = Duration::from_millis(500)).await;
    let mut c = node.clients.clone();
    c.append("s", "x").await;
    disk.fail_syncs.store(true, Ordering::SeqCst);
    // In production the process ends here. What is left of it in this test tells those who ask.
    let start = tokio::time::Instant::now();
    loop {
        let status = c.streams.append(append("s", None)).await.expect_err("the disk is gone");
        match facts(&status).0.as_str() {
            "NODE_STOPPED" => break seen.refused(Err::<(), _>(status), "NODE_STOPPED", &[]),
            "COMMIT_UNKNOWN" => {}
            other => panic!("{other}: {status:?}"),
        }
        assert!(start.elapsed() < PATIENCE, "it never stopped");
    }
    assert!(!aborts.0.lock().expect("not poisoned").is_empty(), "the node was to end");
}

/// A node that is to keep more free than there is on any disk.
async fn of_a_full_disk(seen: &mut Seen) {
    let node = Node::start(|config| config.log.reserve_bytes = u64::MAX / 2).await;
    let mut c = node.clients.clone();
    seen.refused(c.streams.append(append("s", None)).await, "DISK_FULL", &[("nodes", "1")]);
}

#[tokio::test]
async fn every_reason_of_the_contract_can_be_met() {
    let mut seen = Seen::default();
    of_requests_and_states(&mut seen).await;
    of_a_member_without_others(&mut seen).await;
    of_a_full_disk(&mut seen).await;
    of_a_cluster(&mut seen).await;
    of_a_dying_node(&mut seen).await;
    let all: BTreeSet<_> = reasons::TABLE.iter().map(|row| row.name).collect();
    let missed: Vec<_> = all.difference(&seen.0).collect();
    assert!(missed.is_empty(), "never driven: {missed:?}");
}
