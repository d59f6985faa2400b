//! The network between nodes, over real connections: what arrives, who is refused, and what a dead peer costs.

// A test may panic, and its helpers are as much its own as its functions.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod network {
    pub mod fakes;
}

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use millstream_node::network::{
    NetworkFactory, NetworkOptions, PeerError, PeerNetwork, Peers, RegisterOutcome, SnapshotSink, SnapshotSource,
};
use millstream_node::types::{LogId, NodeId, PeerNode, TypeConfig, Vote};
use millstream_node::world::World;
use millstream_proto::internal::v1 as pb;
use millstream_proto::internal::v1::install_snapshot_request::Part;
use millstream_proto::internal::v1::raft_service_client::RaftServiceClient;
use network::fakes::{FETCHED, Fake, Me, Node, Plain, Source, Wire, endless, entry, log_id, meta, patterned};
use openraft::alias::SnapshotOf;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest};
use openraft::storage::Snapshot;
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Time for what must happen but has no deadline of its own.
const SOON: Duration = Duration::from_secs(10);

fn options() -> NetworkOptions {
    NetworkOptions { answer_timeout: Duration::from_millis(400), ..NetworkOptions::default() }
}

fn impatient() -> NetworkOptions {
    NetworkOptions { snapshot_idle_timeout: Duration::from_millis(500), ..options() }
}

fn rpc(ms: u64) -> RPCOption {
    RPCOption::new(Duration::from_millis(ms))
}

fn peers(me: Me) -> Arc<Peers> {
    Peers::new(World::real(), Arc::new(me), options())
}

/// Node 1's client for `id` at `address`.
async fn client(peers: &Arc<Peers>, id: NodeId, address: &str) -> PeerNetwork {
    NetworkFactory(peers.clone()).new_client(id, &PeerNode { peer_address: address.to_owned() }).await
}

async fn heartbeat_client(peers: &Arc<Peers>, id: NodeId, address: &str) -> PeerNetwork {
    NetworkFactory(peers.clone()).new_heartbeat_client(id, &PeerNode { peer_address: address.to_owned() }).await
}

/// A caller that says whatever the test says.
async fn raw_client(node: &Node) -> RaftServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.address)).unwrap();
    RaftServiceClient::new(endpoint.connect().await.unwrap())
}

fn ballot() -> VoteRequest<TypeConfig> {
    VoteRequest::new(Vote::new(3, 1), Some(log_id(2, 40)))
}

/// One entry at `index`.
fn append(index: u64) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: index.checked_sub(1).map(|before| log_id(3, before)),
        entries: vec![entry(3, index, Bytes::from(format!("proposal {index}")))],
        leader_commit: None,
    }
}

fn heartbeat(prev_log_id: Option<LogId>) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest { vote: Vote::new_committed(3, 1), prev_log_id, entries: vec![], leader_commit: prev_log_id }
}

fn is_unreachable<T>(result: &Result<T, RPCError<TypeConfig>>) -> bool {
    matches!(result, Err(RPCError::Unreachable(_)))
}

#[tokio::test]
async fn replication_is_pipelined_and_answered_in_order() {
    // The follower answers nothing before it has all eight requests.
    let node = Node::start(Me::new(2), Fake { hold_back: 8, ..Fake::default() }, &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    let answers = client.stream_append(stream::iter((0..8).map(append)), rpc(150)).await.unwrap();
    let answers: Vec<_> = timeout(SOON, answers.collect()).await.expect("the stream ends with its requests");

    let matched: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    assert_eq!(matched, (0..8).map(|index| Some(log_id(3, index))).collect::<Vec<_>>());
    let received = node.fake.received.lock().unwrap();
    let expected: Vec<_> = (0..8).flat_map(|index| append(index).entries).collect();
    assert_eq!(*received, expected, "proposals arrive as they were sent");
}

#[tokio::test]
async fn a_conflict_and_a_higher_vote_end_the_stream() {
    for error in [StreamAppendError::Conflict(log_id(3, 1)), StreamAppendError::HigherVote(Vote::new(9, 2))] {
        let fake = Fake { refuse: Some((2, error.clone())), ..Fake::default() };
        let node = Node::start(Me::new(2), fake, &options()).await;
        let peers = peers(Me::new(1));
        let mut client = client(&peers, 2, &node.address).await;

        let requests = stream::iter((0..3).map(append)).chain(stream::pending());
        let answers = client.stream_append(requests, rpc(150)).await.unwrap();
        let answers: Vec<_> = timeout(SOON, answers.collect()).await.expect("the stream ends with the error");

        assert_eq!(answers.len(), 3);
        assert_eq!(answers[2], Ok(Err(error)));
    }
}

#[tokio::test]
async fn an_idle_stream_is_kept() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;
    let (send, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);

    let mut answers = client.stream_append(requests, rpc(150)).await.unwrap();
    for index in 0..2 {
        if index == 1 {
            let idle = timeout(options().answer_timeout * 3, answers.next()).await;
            assert!(idle.is_err(), "nothing was asked, nothing may be answered: {idle:?}");
        }
        send.send(append(index)).await.unwrap();
        let answer = timeout(SOON, answers.next()).await.unwrap().unwrap();
        assert_eq!(answer, Ok(Ok(Some(log_id(3, index)))));
    }
    assert_eq!(node.fake.streams.load(Ordering::SeqCst), 1, "one stream served both");
}

#[tokio::test]
async fn nothing_is_dialled_before_there_is_something_to_send() {
    // openraft backs off inside the first request of a session; dialling earlier would make a storm of it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &listener.local_addr().unwrap().to_string()).await;

    let mut answers = client.stream_append(stream::pending(), rpc(150)).await.unwrap();
    let waited = timeout(Duration::from_millis(100), async {
        tokio::select! {
            answer = answers.next() => panic!("answered: {answer:?}"),
            dialled = listener.accept() => panic!("dialled: {dialled:?}"),
        }
    });
    assert!(waited.await.is_err());
}

#[tokio::test]
async fn a_follower_that_does_not_answer_is_given_up() {
    let node = Node::start(Me::new(2), Fake { hold_back: 100, ..Fake::default() }, &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    let begin = Instant::now();
    let requests = stream::iter([append(0)]).chain(stream::pending());
    let mut answers = client.stream_append(requests, rpc(150)).await.unwrap();
    let answer = timeout(SOON, answers.next()).await.unwrap().unwrap();

    assert!(is_unreachable(&answer), "{answer:?}");
    assert!(begin.elapsed() < options().answer_timeout * 3, "took {:?}", begin.elapsed());
    assert_eq!(answers.next().await, None);
}

#[tokio::test]
async fn a_follower_that_ends_the_stream_and_owes_answers_is_unreachable() {
    // It answers nothing before it has two requests, and gets one.
    let node = Node::start(Me::new(2), Fake { hold_back: 2, ..Fake::default() }, &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    let mut answers = client.stream_append(stream::iter([append(0)]), rpc(150)).await.unwrap();
    let answer = timeout(SOON, answers.next()).await.unwrap().expect("openraft would take an end for leave to go on");
    assert!(is_unreachable(&answer), "{answer:?}");
    assert_eq!(answers.next().await, None);
}

#[tokio::test]
async fn dropped_answers_let_go_of_the_requests_at_once() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;
    let (send, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);

    let mut answers = client.stream_append(requests, rpc(150)).await.unwrap();
    send.send(append(0)).await.unwrap();
    timeout(SOON, answers.next()).await.unwrap().unwrap().unwrap().unwrap();
    drop(answers);

    assert!(send.is_closed(), "openraft's next session must find its log reader free");
    // And the follower's end ends, too.
    timeout(SOON, node.fake.stream_ended.notified()).await.unwrap();
}

#[tokio::test]
async fn heartbeats_are_unary_calls() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = heartbeat_client(&peers, 2, &node.address).await;

    for prev in [None, Some(log_id(3, 7))] {
        let answers = client.stream_append(stream::iter([heartbeat(prev)]), rpc(2_000)).await.unwrap();
        let answers: Vec<_> = timeout(SOON, answers.collect()).await.unwrap();
        assert_eq!(answers, [Ok(Ok(prev))]);
    }
    assert_eq!(node.fake.appends.load(Ordering::SeqCst), 2);
    assert_eq!(node.fake.streams.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn votes_and_the_small_calls() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    let vote = client.vote(ballot(), rpc(2_000)).await.unwrap();
    assert!(vote.vote_granted);
    assert_eq!((vote.vote, vote.last_log_id), (Vote::new(3, 1), Some(log_id(2, 40))));
    // The fake does not grant pre-votes: an answer made up on this side would.
    assert!(!client.pre_vote(ballot(), rpc(2_000)).await.unwrap().vote_granted);

    let transfer = |to, last| TransferLeaderRequest::new(Vote::new_committed(3, 1), to, Some(last));
    assert_eq!(client.transfer_leader(transfer(2, log_id(2, 40)), rpc(2_000)).await, Ok(Ok(())));
    let declined = client.transfer_leader(transfer(2, log_id(2, 41)), rpc(2_000)).await;
    assert!(is_unreachable(&declined), "{declined:?}");
    // All voters are told who is to lead. Who took itself for the one would campaign against it.
    let other = client.transfer_leader(transfer(5, log_id(2, 40)), rpc(2_000)).await;
    assert!(is_unreachable(&other), "{other:?}");

    assert_eq!(peers.read_index(2, &node.address).await, Ok(log_id(3, 99)));
    node.fake.follows.store(true, Ordering::SeqCst);
    let refused = peers.read_index(2, &node.address).await;
    assert_eq!(refused, Err(PeerError::Other("node 2 does not lead; node 5 does".into())));

    let outcome = peers.register(2, &node.address, "one:7421".into(), "one:7420".into()).await;
    assert_eq!(outcome, Ok(RegisterOutcome { recorded: true, leader_id: 2, removed: false }));
    let registered = node.fake.registered.lock().unwrap().clone();
    assert_eq!(registered, [(1, 101, "one:7421".to_owned(), "one:7420".to_owned())]);
}

#[tokio::test]
async fn strangers_are_refused_by_the_one_they_ask() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let other_cluster = Me { cluster: "other", ..Me::new(1) };
    let wiped = Me { incarnation: 999, ..Me::new(1) };

    for me in [other_cluster, wiped] {
        let peers = peers(me);
        let refused = peers.register(2, &node.address, String::new(), String::new()).await;
        assert!(matches!(refused, Err(PeerError::Identity(_))), "{refused:?}");

        let mut client = client(&peers, 2, &node.address).await;
        assert!(is_unreachable(&client.vote(ballot(), rpc(2_000)).await));
        assert!(is_unreachable(&client.pre_vote(ballot(), rpc(2_000)).await));
        let mut answers = client.stream_append(stream::iter([append(0)]), rpc(150)).await.unwrap();
        assert!(is_unreachable(&answers.next().await.unwrap()));
        drop(answers);
        let sent = client.full_snapshot(Vote::new(3, 1), snapshot(10), std::future::pending(), rpc(150)).await;
        assert!(matches!(sent, Err(StreamingError::Unreachable(_))), "{sent:?}");
    }

    // Meant for node 3, which is not the caller's fault.
    let refused = peers(Me::new(1)).read_index(3, &node.address).await;
    assert!(matches!(refused, Err(PeerError::Unreachable(_))), "{refused:?}");

    assert_eq!(node.fake.heard(), 0, "the replica must not hear of any of it");
}

#[tokio::test]
async fn an_answer_from_a_stranger_is_no_answer() {
    let strangers = [
        // Another node, which does not look at whom a message is for.
        Me { gullible: true, ..Me::new(3) },
        Me { cluster: "other", gullible: true, ..Me::new(2) },
        Me { incarnation: 999, gullible: true, ..Me::new(2) },
    ];
    for stranger in strangers {
        let node = Node::start(stranger, Fake::default(), &options()).await;
        let peers = peers(Me::new(1));
        let mut network = client(&peers, 2, &node.address).await;

        assert!(is_unreachable(&network.vote(ballot(), rpc(2_000)).await));
        let mut answers = network.stream_append(stream::iter([append(0)]), rpc(150)).await.unwrap();
        assert!(is_unreachable(&answers.next().await.unwrap()));
        assert_eq!(answers.next().await, None);
        let refused = peers.read_index(2, &node.address).await;
        assert!(matches!(refused, Err(PeerError::Unreachable(_))), "{refused:?}");
        assert_ne!(node.fake.heard(), 0, "the fault is in the answer");
    }
}

#[tokio::test]
async fn a_request_that_makes_no_sense_ends_the_stream() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let mut client = raw_client(&node).await;
    let good = || {
        let vote = pb::Vote { leader_id: Some(pb::LeaderId { term: 3, node_id: 1 }), committed: true };
        let append = pb::AppendEntries { vote: Some(vote), ..pb::AppendEntries::default() };
        pb::StreamAppendRequest { envelope: Some(Me::new(1).to(2)), append: Some(append) }
    };
    let empty = pb::StreamAppendRequest { append: None, ..good() };
    let foreign = pb::StreamAppendRequest { envelope: Some(Me { cluster: "other", ..Me::new(1) }.to(2)), ..good() };
    let changed = pb::StreamAppendRequest { envelope: Some(Me::new(3).to(2)), ..good() };
    let unsigned = pb::StreamAppendRequest { envelope: None, ..good() };

    for (bad, code) in [
        (empty, Code::InvalidArgument),
        (foreign, Code::FailedPrecondition),
        (changed, Code::FailedPrecondition),
        (unsigned, Code::FailedPrecondition),
    ] {
        let requests = stream::iter([good(), bad, good()]).chain(stream::pending());
        let mut answers = client.stream_append(requests).await.unwrap().into_inner();
        timeout(SOON, answers.message()).await.unwrap().unwrap().expect("the first request is answered");
        let status = timeout(SOON, answers.message()).await.unwrap().expect_err("the second is not");
        assert_eq!(status.code(), code, "{status:?}");
    }
}

fn snapshot(length: u64) -> SnapshotOf<TypeConfig, Box<dyn SnapshotSource>> {
    Snapshot { meta: meta(), snapshot: Box::new(Source { length }) }
}

#[tokio::test]
async fn a_snapshot_arrives_whole() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    for length in [0, 1, 3 * (512 << 10), (3 << 20) + 17] {
        let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(length), std::future::pending(), rpc(200));
        assert_eq!(timeout(SOON, sent).await.unwrap().unwrap().vote, Vote::new_committed(3, 1));
        let (covers, bytes) = node.fake.installed.lock().unwrap().pop().expect("installed");
        assert_eq!(covers, meta());
        assert!(bytes == patterned(0, length as usize), "of {length} bytes, {} came or some have changed", bytes.len());
    }
}

#[tokio::test]
async fn a_cancelled_snapshot_is_not_installed() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &node.address).await;

    let begun = node.fake.clone();
    let cancel = async move {
        begun.sink_written.notified().await;
        ReplicationClosed::new("cancelled")
    };
    let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(endless()), cancel, rpc(200));
    let sent = timeout(SOON, sent).await.unwrap();

    assert!(matches!(sent, Err(StreamingError::Closed(_))), "{sent:?}");
    timeout(SOON, node.fake.sink_dropped.notified()).await.expect("the receiver gives up its half");
    assert!(node.fake.installed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_transfer_goes_on_where_the_connection_broke() {
    let node = Node::start(Me::new(2), Fake::default(), &impatient()).await;
    let wire = Wire::to(&node).await;
    let peers = Peers::new(World::real(), Arc::new(Me::new(1)), impatient());
    let mut client = client(&peers, 2, &wire.address).await;

    let length = 64 << 20;
    let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(length), std::future::pending(), rpc(200));
    let cut = async {
        node.fake.sink_written.notified().await;
        wire.cut();
    };
    let (sent, ()) = timeout(SOON, futures::future::join(sent, cut)).await.unwrap();
    assert!(matches!(sent, Err(StreamingError::Unreachable(_))), "{sent:?}");
    timeout(SOON, node.fake.sink_dropped.notified()).await.expect("the receiver notices as well");

    let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(length), std::future::pending(), rpc(200));
    timeout(SOON, sent).await.unwrap().unwrap();
    let (_, bytes) = node.fake.installed.lock().unwrap().pop().expect("installed");
    assert!(bytes == patterned(0, length as usize), "of {length} bytes, {} came or some have changed", bytes.len());
    let resumed = node.fake.resumed.lock().unwrap().clone();
    assert!(resumed[0] == 0 && 0 < resumed[1], "{resumed:?}");
}

#[tokio::test]
async fn an_installation_may_take_its_time_and_silence_may_not() {
    let fake = Fake { install_time: Duration::from_millis(1_500), ..Fake::default() };
    let node = Node::start(Me::new(2), fake, &impatient()).await;
    let peers = Peers::new(World::real(), Arc::new(Me::new(1)), impatient());
    let mut client = client(&peers, 2, &node.address).await;
    let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(9), std::future::pending(), rpc(200));
    timeout(SOON, sent).await.unwrap().expect("three times as long as silence is borne");

    // A peer that takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = self::client(&peers, 3, &silent.local_addr().unwrap().to_string()).await;
    let sent = client.full_snapshot(Vote::new_committed(3, 1), snapshot(9), std::future::pending(), rpc(200));
    let sent = timeout(SOON, sent).await.unwrap();
    assert!(matches!(sent, Err(StreamingError::Unreachable(_))), "{sent:?}");
}

#[tokio::test]
async fn a_snapshot_can_be_fetched_and_fetched_on() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let peers = peers(Me::new(1));
    let whole = patterned(0, FETCHED as usize);
    // From the beginning; after a part of the same; after a part of another.
    for (had, begun) in [(None, 0), (Some((FETCHED + 1, 1_000)), 1_000), (Some((3, 1_000)), 0)] {
        let place = |id, length| {
            assert_eq!((id, length), (FETCHED + 1, FETCHED));
            let bytes = patterned(0, begun);
            Ok(Box::new(Plain(bytes)) as Box<dyn SnapshotSink>)
        };
        let (covers, sink) = timeout(SOON, peers.fetch_snapshot(2, &node.address, had, place)).await.unwrap().unwrap();
        assert_eq!(covers, meta());
        let fetched = sink.into_any().downcast::<Plain>().expect("what was given");
        assert!(fetched.0 == whole, "{had:?}: {} bytes", fetched.0.len());
    }
    let refused = Peers::new(World::real(), Arc::new(Me { cluster: "other", ..Me::new(1) }), options());
    let refused = refused.fetch_snapshot(2, &node.address, None, |_, _| unreachable!()).await;
    assert!(matches!(refused, Err(PeerError::Identity(_))), "{:?}", refused.map(drop));
}

/// Bytes in memory, shared by the attempts, and a wire that breaks once there are so many of them.
struct Shared {
    bytes: Arc<Mutex<Vec<u8>>>,
    break_at: usize,
    wire: Arc<Wire>,
}

impl SnapshotSink for Shared {
    fn received(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn write(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        bytes.extend_from_slice(chunk);
        if self.break_at <= bytes.len() {
            self.wire.cut();
        }
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

#[tokio::test]
async fn fetching_goes_on_by_id_where_the_connection_broke() {
    const LENGTH: u64 = 24 << 20;
    let node = Node::start(Me::new(2), Fake { fetched: Some(LENGTH), ..Fake::default() }, &options()).await;
    let wire = Arc::new(Wire::to(&node).await);
    let peers = Peers::new(World::real(), Arc::new(Me::new(1)), impatient());
    let bytes = Arc::default();
    let shared = |break_at| Shared { bytes: Arc::clone(&bytes), break_at, wire: wire.clone() };

    let place = |_, _| Ok(Box::new(shared(1 << 20)) as Box<dyn SnapshotSink>);
    let broken = timeout(SOON, peers.fetch_snapshot(2, &wire.address, None, place)).await.unwrap();
    assert!(broken.is_err());
    let had = bytes.lock().unwrap().len() as u64;
    assert!((1 << 20..LENGTH).contains(&had), "{had} bytes came before it broke");

    let place = |id, _| {
        assert_eq!(id, LENGTH + 1, "the same snapshot");
        Ok(Box::new(shared(usize::MAX)) as Box<dyn SnapshotSink>)
    };
    let fetched = peers.fetch_snapshot(2, &wire.address, Some((LENGTH + 1, had)), place);
    // A chunk that comes a second time would be refused.
    timeout(SOON, fetched).await.unwrap().unwrap();
    assert!(*bytes.lock().unwrap() == patterned(0, LENGTH as usize));
    assert_eq!(*node.fake.wanted.lock().unwrap(), [0, LENGTH + 1]);
}

#[tokio::test]
async fn a_snapshot_in_the_making_is_waited_for_as_long_as_it_gets_further() {
    let patience = NetworkOptions { snapshot_stall_timeout: Duration::from_millis(800), ..impatient() };
    let steps = (8, Duration::from_millis(300));
    for stuck in [false, true] {
        let fake = Fake { copying: steps, stuck, ..Fake::default() };
        let node = Node::start(Me::new(2), fake, &patience).await;
        let peers = Peers::new(World::real(), Arc::new(Me::new(1)), patience.clone());
        let (begun, place) = (Instant::now(), |_, _| Ok(Box::new(Plain(Vec::new())) as Box<dyn SnapshotSink>));
        let fetched = timeout(SOON, peers.fetch_snapshot(2, &node.address, None, place)).await.unwrap();
        assert!(steps.1 * steps.0 <= begun.elapsed(), "it is not given up while it gets further");
        match fetched {
            Ok(_) => assert!(!stuck),
            Err(PeerError::Other(problem)) => {
                assert!(stuck, "{problem}");
                assert!(problem.contains("no further than 8000 bytes"), "{problem}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_not_installed() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let mut client = raw_client(&node).await;

    let header = || {
        Part::Header(pb::SnapshotHeader {
            envelope: Some(Me::new(1).to(2)),
            vote: Some(pb::Vote { leader_id: Some(pb::LeaderId { term: 3, node_id: 1 }), committed: true }),
            last_log_id: None,
            membership: Some(pb::StoredMembership { log_id: None, membership: Some(pb::Membership::default()) }),
            snapshot_id: 7,
            length: 2_000,
        })
    };
    let chunk = |offset: u64| {
        let data = patterned(offset, 1_000);
        Part::Chunk(pb::SnapshotChunk { offset, crc32c: crc32c::crc32c(&data), data: data.into() })
    };
    let flipped = |offset: u64| {
        let mut data = patterned(offset, 1_000);
        let crc32c = crc32c::crc32c(&data);
        data[500] ^= 1;
        Part::Chunk(pb::SnapshotChunk { offset, crc32c, data: data.into() })
    };
    let end = |length| Part::End(pb::SnapshotEnd { length });

    let cases: Vec<(&str, Vec<Part>, Result<(), Code>)> = vec![
        ("whole", vec![header(), chunk(0), chunk(1_000), end(2_000)], Ok(())),
        ("flipped", vec![header(), chunk(0), flipped(1_000), end(2_000)], Err(Code::DataLoss)),
        ("too long", vec![header(), chunk(0), chunk(1_000), chunk(2_000), end(3_000)], Err(Code::DataLoss)),
        ("a hole", vec![header(), chunk(0), chunk(2_000), end(3_000)], Err(Code::DataLoss)),
        ("repeated", vec![header(), chunk(0), chunk(0), end(2_000)], Err(Code::DataLoss)),
        ("short", vec![header(), chunk(0), end(2_000)], Err(Code::DataLoss)),
        ("cut off", vec![header(), chunk(0)], Err(Code::DataLoss)),
        ("without header", vec![chunk(0), end(1_000)], Err(Code::InvalidArgument)),
        ("two headers", vec![header(), header(), end(0)], Err(Code::InvalidArgument)),
        ("nothing", vec![], Err(Code::DataLoss)),
    ];
    for (name, parts, expected) in cases {
        let requests = parts.into_iter().map(|part| pb::InstallSnapshotRequest { part: Some(part) });
        // Each transfer starts anew.
        *node.fake.kept.lock().unwrap() = None;
        let answer = async {
            let mut answers = client.install_snapshot(stream::iter(requests)).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<(), tonic::Status>(())
        };
        let answer = timeout(SOON, answer).await.unwrap();
        assert_eq!(answer.map_err(|status| status.code()), expected, "{name}");
        assert_eq!(node.fake.installed.lock().unwrap().drain(..).count(), usize::from(expected.is_ok()), "{name}");
    }
}

#[tokio::test]
async fn a_dead_peer_is_unreachable_and_comes_back() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let address = node.address.clone();
    let peers = peers(Me::new(1));
    let mut client = client(&peers, 2, &address).await;
    assert!(client.vote(ballot(), rpc(2_000)).await.is_ok());

    node.stop().await;
    let begin = Instant::now();
    for _ in 0..3 {
        let answer = client.vote(ballot(), rpc(400)).await;
        assert!(is_unreachable(&answer), "{answer:?}");
        assert!(is_unreachable(&client.pre_vote(ballot(), rpc(400)).await));
        let mut answers = client.stream_append(stream::iter([append(0)]), rpc(150)).await.unwrap();
        assert!(is_unreachable(&answers.next().await.unwrap()));
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "took {:?}", begin.elapsed());

    let node = Node::start_at(address, Me::new(2), Fake::default(), &options()).await;
    assert!(client.vote(ballot(), rpc(2_000)).await.is_ok());
    let answers = client.stream_append(stream::iter([append(0)]), rpc(150)).await.unwrap();
    let answers: Vec<_> = timeout(SOON, answers.collect()).await.unwrap();
    assert_eq!(answers, [Ok(Ok(Some(log_id(3, 0))))]);
    node.stop().await;
}

#[tokio::test]
async fn a_peer_that_hangs_costs_no_more_than_the_deadline() {
    // Accepts connections and says nothing, as behind a broken switch.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hangs = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await);
        }
    });
    let peers = peers(Me::new(1));
    let mut network = client(&peers, 2, &address).await;

    let begin = Instant::now();
    let answer = network.vote(ballot(), rpc(400)).await;
    assert!(is_unreachable(&answer), "{answer:?}");
    assert!(begin.elapsed() < Duration::from_millis(400), "openraft's own deadline is later");

    let mut heart = heartbeat_client(&peers, 2, &address).await;
    let begin = Instant::now();
    while begin.elapsed() < options().silence_max * 2 {
        let mut answers = heart.stream_append(stream::iter([heartbeat(None)]), rpc(100)).await.unwrap();
        assert!(is_unreachable(&answers.next().await.unwrap()));
    }

    // The channel that never spoke has been given up, so a healthy peer at the same address is found.
    hangs.abort();
    let _ = hangs.await;
    let node = Node::start_at(address, Me::new(2), Fake::default(), &options()).await;
    let recovered = async {
        while network.vote(ballot(), rpc(400)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(3), recovered).await.expect("the peer is back");
    node.stop().await;
}

#[tokio::test]
async fn connections_that_died_in_silence_are_replaced() {
    let node = Node::start(Me::new(2), Fake::default(), &options()).await;
    let wire = Wire::to(&node).await;
    let peers = peers(Me::new(1));
    let mut network = client(&peers, 2, &wire.address).await;
    let mut heart = heartbeat_client(&peers, 2, &wire.address).await;
    let (send, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = network.stream_append(requests, rpc(150)).await.unwrap();
    send.send(append(0)).await.unwrap();
    assert_eq!(timeout(SOON, answers.next()).await.unwrap(), Some(Ok(Ok(Some(log_id(3, 0))))));
    let mut beat = async || {
        let mut answers = heart.stream_append(stream::iter([heartbeat(None)]), rpc(150)).await.unwrap();
        answers.next().await.unwrap()
    };
    assert_eq!(beat().await, Ok(Ok(None)));

    wire.cut();
    let begin = Instant::now();
    while beat().await.is_err() {
        assert!(begin.elapsed() < options().silence_max * 2, "heartbeats should pass again");
    }
    assert!(options().silence_max <= begin.elapsed(), "one late heartbeat is no reason to dial");

    send.send(append(1)).await.unwrap();
    let answer = timeout(options().answer_timeout * 2, answers.next()).await.expect("given up").unwrap();
    assert!(is_unreachable(&answer), "{answer:?}");
    drop(answers);
    let answers = network.stream_append(stream::iter([append(1)]), rpc(150)).await.unwrap();
    let answers: Vec<_> = timeout(options().answer_timeout, answers.collect()).await.expect("dialled anew");
    assert_eq!(answers, [Ok(Ok(Some(log_id(3, 1))))]);
}

#[tokio::test]
async fn a_peer_that_moved_is_found() {
    let peers = peers(Me::new(1));
    for _ in 0..2 {
        let node = Node::start(Me::new(2), Fake::default(), &options()).await;
        let mut client = client(&peers, 2, &node.address).await;
        assert!(client.vote(ballot(), rpc(2_000)).await.is_ok());
        node.stop().await;
    }
    let nonsense = client(&peers, 2, "not an address").await.vote(ballot(), rpc(400)).await;
    assert!(is_unreachable(&nonsense), "{nonsense:?}");
}
