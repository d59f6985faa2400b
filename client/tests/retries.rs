//! What the client does when things go wrong, against nodes that do as they are told. Time is paused: every wait is
//! skipped as soon as nothing else can happen.

mod support;

use std::time::Duration;

use futures::TryStreamExt;
use millstream_client::{Append, EntryId, Error, ErrorReason, Range, Read, ReadGroup};
use support::{Cluster, Step};
use tokio::time::Instant;
use tonic::Code;

fn entry() -> Append {
    Append::to("orders").field("item", "tea")
}

fn refuse(reason: ErrorReason) -> Step {
    Step::Refuse(reason, &[])
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_at_once_and_remembered() {
    let cluster = Cluster::new(&["a:1", "b:1", "c:1"]);
    cluster.script("a:1", "open_session", [Step::Refuse(ErrorReason::NotLeader, &[("leader_address", "c:1")])]);
    let client = cluster.client(&["a:1", "b:1"]);
    let started = Instant::now();
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(cluster.told("append"), ["c:1:100/1<1", "c:1:100/2<2"]);
    assert_eq!(client.leader().as_deref(), Some("c:1"));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_point_at_each_other_are_asked_less_and_less_often() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    let to_b = Step::Refuse(ErrorReason::NotLeader, &[("leader_address", "b:1")]);
    let to_a = Step::Refuse(ErrorReason::NotLeader, &[("leader_address", "a:1")]);
    cluster.script("a:1", "append", vec![to_b; 10_000]);
    cluster.script("b:1", "append", vec![to_a; 10_000]);
    let error = cluster.client(&["a:1"]).append(entry()).await.expect_err("nobody leads");
    assert_eq!(error.reason(), Some(ErrorReason::NotLeader));
    assert!(matches!(error, Error::Unavailable { .. }) && error.has_no_side_effects());
    let asked = cluster.seen("append").len();
    assert!(20 < asked && asked < 80, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_forwarding_follower_names_the_leader() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    cluster.script("a:1", "append", [Step::AnswerAndName("b:1")]);
    let client = cluster.client(&["a:1"]);
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "b:1:100/2<2"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_be_reached_is_tried_once_when_forwarding_works() {
    let cluster = Cluster::new(&["a:1"]);
    cluster.script("a:1", "append", vec![Step::AnswerAndName("hidden:1"); 5]);
    let client = cluster.client(&["a:1"]);
    for _ in 0..5 {
        client.append(entry()).await.expect("appended");
    }
    assert_eq!(cluster.connects(), ["a:1", "hidden:1"]);
}

#[tokio::test(start_paused = true)]
async fn dead_endpoints_are_passed_over() {
    let cluster = Cluster::new(&["c:1"]);
    let client = cluster.client(&["a:1", "b:1", "c:1"]);
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.connects(), ["a:1", "b:1", "c:1"]);
}

#[tokio::test(start_paused = true)]
async fn calls_share_one_connection_attempt() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let appends = (0..100).map(|_| client.append(entry()));
    futures::future::try_join_all(appends).await.expect("appended");
    assert_eq!(cluster.connects(), ["a:1"]);
    assert_eq!(cluster.seen("open_session").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_a_session_a_lost_answer_is_asked_for_again_under_the_same_number() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    cluster.script("a:1", "append", [Step::Answer, Step::Cut]);
    let client = cluster.client(&["a:1", "b:1"]);
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "a:1:100/2<2", "b:1:100/2<2", "b:1:100/3<3"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_lost_answer_is_an_unknown_outcome() {
    let cluster = Cluster::new(&["a:1"]);
    cluster.script("a:1", "append", [Step::Cut, refuse(ErrorReason::CommitUnknown), Step::Foreign(Code::Internal)]);
    let client = cluster.client_without_sessions(&["a:1"]);
    for _ in 0..3 {
        let error = client.append(entry()).await.expect_err("no answer");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert!(!error.has_no_side_effects());
    }
    assert_eq!(cluster.told("append"), ["a:1:-"; 3], "each was sent once");
}

#[tokio::test(start_paused = true)]
async fn without_a_session_what_has_not_left_is_repeated() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    let client = cluster.client_without_sessions(&["a:1", "b:1"]);
    client.append(entry()).await.expect("appended");
    cluster.cut("a:1");
    tokio::task::yield_now().await;
    cluster.script("a:1", "append", [refuse(ErrorReason::NoLeader), refuse(ErrorReason::NotReady)]);
    cluster.script("b:1", "append", [refuse(ErrorReason::Overloaded)]);
    client.append(entry()).await.expect("appended");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_is_repeated_under_the_same_number() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    cluster.script("a:1", "append", [refuse(ErrorReason::CommitUnknown)]);
    cluster.script("b:1", "append", [refuse(ErrorReason::NodeStopped)]);
    cluster.client(&["a:1", "b:1"]).append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "b:1:100/1<1", "a:1:100/1<1"]);
}

#[tokio::test(start_paused = true)]
async fn reads_are_repeated_whatever_happened() {
    let cluster = Cluster::new(&["a:1"]);
    let steps = [Step::Cut, refuse(ErrorReason::CommitUnknown), Step::Foreign(Code::Unavailable)];
    cluster.script("a:1", "get_stream", steps);
    cluster.client(&["a:1"]).get_stream("orders").await.expect("answered");
    assert_eq!(cluster.seen("get_stream").len(), 4);
    assert_eq!(cluster.seen("open_session").len(), 0, "reads need no session");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_answers() {
    let cluster = Cluster::new(&["a:1"]);
    cluster.script("a:1", "append", [Step::Refuse(ErrorReason::IdNotGreater, &[("last_id", "7-0")])]);
    let client = cluster.client(&["a:1"]);
    let error = client.append(entry().id(EntryId::new(5, 0))).await.expect_err("refused");
    let Error::Refused { reason: ErrorReason::IdNotGreater, metadata, .. } = &error else { panic!("{error}") };
    assert_eq!(metadata["last_id"], "7-0");
    assert!(error.has_no_side_effects() && !error.is_retryable());
    assert_eq!(error.to_string(), "refused: because of ID_NOT_GREATER (ID_NOT_GREATER)");

    let error = client.trim("orders", millstream_client::Trim::max_length(1)).await.expect_err("not faked");
    assert_eq!(error.reason(), Some(ErrorReason::Unspecified));
}

#[tokio::test(start_paused = true)]
async fn a_session_the_store_has_forgotten_is_replaced() {
    let cluster = Cluster::new(&["a:1"]);
    cluster.script("a:1", "append", [Step::Answer, refuse(ErrorReason::SessionNotFound)]);
    let client = cluster.client(&["a:1"]);
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "a:1:100/2<2", "a:1:200/1<1", "a:1:200/2<2"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_forgotten_after_an_unknown_attempt_leaves_the_outcome_unknown() {
    let cluster = Cluster::new(&["a:1"]);
    for first in [Step::Cut, refuse(ErrorReason::CommitUnknown)] {
        cluster.script("a:1", "append", [first, refuse(ErrorReason::SessionNotFound)]);
        let error = cluster.client(&["a:1"]).append(entry()).await.expect_err("unknown");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_every_session_is_not_asked_for_ever() {
    let cluster = Cluster::new(&["a:1"]);
    cluster.script("a:1", "append", vec![refuse(ErrorReason::SessionNotFound); 100]);
    let error = cluster.client(&["a:1"]).append(entry()).await.expect_err("refused");
    assert_eq!(error.reason(), Some(ErrorReason::SessionNotFound));
    assert_eq!(cluster.seen("append").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn completed_below_is_the_lowest_call_in_flight() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    client.append(entry()).await.expect("appended");
    cluster.script("a:1", "append", [Step::Hang]);
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.append(entry()).await }
    });
    while cluster.seen("append").len() < 2 {
        tokio::task::yield_now().await;
    }
    client.append(entry()).await.expect("appended");
    client.append(entry()).await.expect("appended");
    // Abandoned, so it counts as completed and will not be repeated.
    hanging.abort();
    assert!(hanging.await.expect_err("aborted").is_cancelled());
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "a:1:100/2<2", "a:1:100/3<2", "a:1:100/4<2", "a:1:100/5<5"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_do_not_hold_back_the_others_session() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    cluster.script("a:1", "read_group", [Step::Hang]);
    let reading = tokio::spawn({
        let client = client.clone();
        let read = ReadGroup::new("g", "alice").new_entries("orders").wait(Duration::from_secs(60));
        async move { client.read_group(read).await }
    });
    while cluster.seen("read_group").is_empty() {
        tokio::task::yield_now().await;
    }
    client.ack("orders", "g", [EntryId::new(1, 1)]).await.expect("acknowledged");
    client.ack("orders", "g", [EntryId::new(1, 1)]).await.expect("acknowledged");
    assert_eq!(cluster.told("read_group"), ["a:1:100/1<1"]);
    assert_eq!(cluster.told("ack"), ["a:1:200/1<1", "a:1:200/2<2"]);
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_everything() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]).with_deadline(Duration::from_secs(2));
    client.append(entry()).await.expect("appended");
    let started = Instant::now();

    cluster.script("a:1", "get_stream", [Step::Hang]);
    assert_eq!(client.get_stream("orders").await, Err(Error::Deadline));
    assert_eq!(started.elapsed().as_secs(), 2);

    cluster.script("a:1", "append", [Step::Hang]);
    let error = client.append(entry()).await.expect_err("no answer");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "it may have been applied: {error}");
    assert_eq!(started.elapsed().as_secs(), 4);

    let nowhere = cluster.client(&["x:1"]).with_deadline(Duration::from_secs(2));
    let error = nowhere.append(entry()).await.expect_err("nobody there");
    assert!(matches!(&error, Error::Unavailable { reason: None, message } if message.contains("x:1")), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5, "the next repeat would have been too late");
}

#[tokio::test(start_paused = true)]
async fn whoever_keeps_a_call_waiting_does_not_get_the_next() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    let client = cluster.client(&["a:1", "b:1"]).with_deadline(Duration::from_secs(2));
    cluster.script("a:1", "get_stream", [Step::Hang, Step::Hang]);
    assert_eq!(client.get_stream("orders").await, Err(Error::Deadline));
    client.get_stream("orders").await.expect("the other answers");
}

#[tokio::test(start_paused = true)]
async fn a_wait_extends_the_deadline_and_is_not_waited_twice() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]).with_deadline(Duration::from_secs(2));
    cluster.script("a:1", "read", [Step::Hang]);
    let started = Instant::now();
    let read = || Read::new().new_entries("orders").wait(Duration::from_secs(30));
    assert_eq!(client.read(read()).await, Err(Error::Deadline));
    assert_eq!(started.elapsed().as_secs(), 32);

    cluster.script("a:1", "read", [Step::Hang]);
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        cluster.cut("a:1");
    };
    let (answer, ()) = tokio::join!(client.read(read()), cutting);
    answer.expect("answered by the second attempt");
    let waits: Vec<u64> = cluster.seen("read").iter().filter_map(|seen| seen.wait).map(|wait| wait.as_secs()).collect();
    assert_eq!(waits, [30, 30, 19]);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_paged_in_both_directions() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let seqs = async |range| {
        let entries: Vec<_> = client.range_all(range).try_collect().await.expect("read");
        entries.into_iter().map(|entry| entry.id.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(Range::of("orders")).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(Range::of("orders").reverse()).await, [5, 4, 3, 2, 1]);
    assert_eq!(seqs(Range::of("orders").start(std::ops::Bound::Excluded(EntryId::new(1, 4)))).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn status_asks_one_node_only() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    assert_eq!(client.status("a:1").await.expect("answered").applied_index, 42);
    let error = client.status("b:1").await.expect_err("nobody there");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(matches!(client.status("b").await, Err(Error::InvalidEndpoint { .. })));
}

#[tokio::test(start_paused = true)]
async fn closing_closes_what_was_opened() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    client.close().await.expect("nothing to close");
    client.append(entry()).await.expect("appended");
    client.close().await.expect("closed");
    assert_eq!(cluster.seen("close_session").len(), 1);
    client.append(entry()).await.expect("appended");
    assert_eq!(cluster.told("append"), ["a:1:100/1<1", "a:1:200/1<1"]);
}
