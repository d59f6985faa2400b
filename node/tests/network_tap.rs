//! What a simulation may let befall the calls between nodes, over real connections: each fault does what it says.

// A test may panic, and its helpers are as much its own as its functions.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod network {
    // Shared with another test, which uses more of it.
    #[allow(dead_code)]
    pub mod fakes;
}

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use millstream_node::network::{NetworkFactory, NetworkOptions, PeerNetwork, Peers};
use millstream_node::types::{PeerNode, TypeConfig, Vote};
use millstream_node::world::{OnAnswer, OnRequest, RpcKind, RpcTap, World};
use network::fakes::{Fake, Me, Node, entry, log_id};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_millis(300);

/// Befalls the next call of a kind; those after it pass.
struct Once(Mutex<Option<(RpcKind, OnRequest, OnAnswer)>>, AtomicUsize);

impl Once {
    fn strike<T>(&self, kind: RpcKind, of: impl Fn(&(RpcKind, OnRequest, OnAnswer)) -> Option<T>) -> Option<T> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let mut fate = self.0.lock().unwrap();
        let struck = fate.as_ref().filter(|fate| fate.0 == kind).and_then(of);
        if struck.is_some() {
            *fate = None;
        }
        struck
    }
}

impl RpcTap for Once {
    fn request(&self, kind: RpcKind, to: u64) -> OnRequest {
        assert_eq!(to, 2);
        self.strike(kind, |fate| (fate.1 != OnRequest::Pass).then_some(fate.1)).unwrap_or(OnRequest::Pass)
    }

    fn answer(&self, kind: RpcKind, _: u64) -> OnAnswer {
        self.strike(kind, |fate| (fate.2 != OnAnswer::Pass).then_some(fate.2)).unwrap_or(OnAnswer::Pass)
    }
}

/// A node, and node 1's client for it, whose first call of this kind meets this fate.
async fn tapped(kind: RpcKind, request: OnRequest, answer: OnAnswer) -> (Node, PeerNetwork) {
    let options = NetworkOptions { answer_timeout: Duration::from_millis(600), ..NetworkOptions::default() };
    let node = Node::start(Me::new(2), Fake::default(), &options).await;
    let tap = Arc::new(Once(Mutex::new(Some((kind, request, answer))), AtomicUsize::new(0)));
    let peers = Peers::new(World { rpc: tap, ..World::real() }, Arc::new(Me::new(1)), options);
    let client = NetworkFactory(peers).new_client(2, &PeerNode { peer_address: node.address.clone() }).await;
    (node, client)
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect(what);
}

fn votes(node: &Node) -> usize {
    node.fake.small_calls.load(Ordering::SeqCst)
}

async fn vote(client: &mut PeerNetwork, ms: u64) -> bool {
    let ballot = VoteRequest::new(Vote::new(3, 1), Some(log_id(2, 40)));
    client.vote(ballot, RPCOption::new(Duration::from_millis(ms))).await.is_ok()
}

#[tokio::test]
async fn a_call_is_lost_on_its_way_there_or_back() {
    for (request, answer, arrived) in [(OnRequest::Drop, OnAnswer::Pass, 0), (OnRequest::Pass, OnAnswer::Drop, 1)] {
        let (node, mut client) = tapped(RpcKind::Vote, request, answer).await;
        assert!(!vote(&mut client, 400).await);
        assert_eq!(votes(&node), arrived);
        assert!(vote(&mut client, 5_000).await, "only the first is lost");
    }
}

#[tokio::test]
async fn a_late_call_arrives_after_its_caller_has_given_up() {
    let (node, mut client) = tapped(RpcKind::Vote, OnRequest::Delay(LATE), OnAnswer::Pass).await;
    assert!(!vote(&mut client, 50).await);
    assert_eq!(votes(&node), 0);
    eventually("it arrives", || votes(&node) == 1).await;
}

#[tokio::test]
async fn a_late_answer_comes_in_time_or_not() {
    for (ms, in_time) in [(5_000, true), (150, false)] {
        let (node, mut client) = tapped(RpcKind::Vote, OnRequest::Pass, OnAnswer::Delay(LATE)).await;
        let begin = Instant::now();
        assert_eq!(vote(&mut client, ms).await, in_time);
        // openraft gives a call three quarters of its time.
        assert!(begin.elapsed() >= (Duration::from_millis(ms) * 3 / 4).min(LATE));
        assert_eq!(votes(&node), 1);
    }
}

#[tokio::test]
async fn a_call_is_replayed() {
    let (node, mut client) = tapped(RpcKind::Vote, OnRequest::Duplicate(LATE), OnAnswer::Pass).await;
    assert!(vote(&mut client, 5_000).await);
    assert!(vote(&mut client, 5_000).await);
    assert_eq!(votes(&node), 2);
    eventually("the first arrives again", || votes(&node) == 3).await;
}

/// Streams three requests; how many answers came before the stream failed or ended, and how long it took.
async fn stream_three(client: &mut PeerNetwork) -> (usize, Duration) {
    let begin = Instant::now();
    let request = |index: u64| AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(3, 1),
        prev_log_id: index.checked_sub(1).map(|before| log_id(3, before)),
        entries: vec![entry(3, index, Bytes::from(format!("proposal {index}")))],
        leader_commit: None,
    };
    let option = RPCOption::new(Duration::from_millis(150));
    let answers = client.stream_append(stream::iter((0..3).map(request)), option).await.unwrap();
    let answers: Vec<_> = timeout(SOON, answers.collect()).await.expect("the stream ends");
    (answers.iter().filter(|answer| answer.is_ok()).count(), begin.elapsed())
}

#[tokio::test]
async fn what_follows_a_lost_item_of_a_stream_is_lost_too() {
    let (node, mut client) = tapped(RpcKind::Append, OnRequest::Drop, OnAnswer::Pass).await;
    assert_eq!(stream_three(&mut client).await.0, 0);
    assert_eq!(node.fake.received.lock().unwrap().len(), 0);
    assert_eq!(stream_three(&mut client).await.0, 3, "the next stream is whole");

    let (node, mut client) = tapped(RpcKind::Append, OnRequest::Pass, OnAnswer::Drop).await;
    assert_eq!(stream_three(&mut client).await.0, 0);
    assert_ne!(node.fake.received.lock().unwrap().len(), 0, "what was asked has been done");
}

#[tokio::test]
async fn a_late_item_or_answer_holds_up_the_stream() {
    for (request, answer) in [(OnRequest::Delay(LATE), OnAnswer::Pass), (OnRequest::Pass, OnAnswer::Delay(LATE))] {
        let (_node, mut client) = tapped(RpcKind::Append, request, answer).await;
        let (answered, time) = stream_three(&mut client).await;
        assert_eq!(answered, 3);
        assert!(LATE <= time);
    }
}

#[tokio::test]
async fn an_item_of_a_stream_is_replayed_by_a_call_of_its_own() {
    let (node, mut client) = tapped(RpcKind::Append, OnRequest::Duplicate(LATE), OnAnswer::Pass).await;
    assert_eq!(stream_three(&mut client).await.0, 3);
    assert_eq!(node.fake.appends.load(Ordering::SeqCst), 0);
    eventually("it arrives again", || node.fake.appends.load(Ordering::SeqCst) == 1).await;
}
