//! Calls that wait: who is woken, in which order, and that waiting costs the log nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod api_support;

use std::time::Duration;

use api_support::{Clients, Node, check_refused, delivered_ids, eventually, facts, id, millis, new_entries, seconds};
use millstream_proto::v1 as pb;
use pb::read_position::Position;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic_types::StatusExt;

fn read(stream: &str, position: Position, wait: Option<prost_types::Duration>) -> pb::ReadRequest {
    let streams = vec![pb::ReadPosition { stream: stream.into(), position: Some(position) }];
    pb::ReadRequest { streams, wait, ..Default::default() }
}

fn spawn_read(clients: &Clients, request: pb::ReadRequest) -> JoinHandle<Result<pb::ReadResponse, Status>> {
    let mut streams = clients.streams.clone();
    tokio::spawn(async move { Ok(streams.read(request).await?.into_inner()) })
}

fn spawn_read_group(
    clients: &Clients,
    request: pb::ReadGroupRequest,
) -> JoinHandle<Result<pb::ReadGroupResponse, Status>> {
    let mut groups = clients.groups.clone();
    tokio::spawn(async move { Ok(groups.read_group(request).await?.into_inner()) })
}

/// A wait so long that a test that runs into it has failed.
fn waiting(group: &str, consumer: &str, stream: &str) -> pb::ReadGroupRequest {
    pb::ReadGroupRequest { wait: seconds(60), count: 1, ..new_entries(group, consumer, stream) }
}

#[tokio::test]
async fn a_read_waits_for_what_comes_after_the_call() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    let old = c.append("orders", "old").await;
    // Without a wait, `$` only says where to go on.
    let answer = spawn_read(c, read("orders", Position::NewEntries(true), None)).await.unwrap().unwrap();
    assert!(answer.streams[0].entries.is_empty());
    assert_eq!(answer.streams[0].next_after, Some(old));

    let waiters = [Position::NewEntries(true), Position::NewEntries(true), Position::After(old)]
        .map(|position| spawn_read(c, read("orders", position, seconds(60))));
    node.waiting(3).await;
    c.append("mail", "elsewhere").await;
    let new = c.append("orders", "new").await;
    for waiter in waiters {
        let answer = waiter.await.unwrap().unwrap();
        assert_eq!(answer.streams[0].entries[0].id, Some(new), "every reader is served");
        assert_eq!(answer.streams[0].next_after, Some(new));
    }
    node.waiting(0).await;
}

#[tokio::test]
async fn the_last_entry_is_read_as_it_is_then() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    // Of an empty stream it is the one to come.
    let waiter = spawn_read(c, read("orders", Position::LastEntry(true), seconds(60)));
    node.waiting(1).await;
    let first = c.append("orders", "1").await;
    assert_eq!(waiter.await.unwrap().unwrap().streams[0].entries[0].id, Some(first));
    let second = c.append("orders", "2").await;
    let answer = spawn_read(c, read("orders", Position::LastEntry(true), seconds(60))).await.unwrap().unwrap();
    let seen: Vec<_> = answer.streams[0].entries.iter().map(|entry| entry.id).collect();
    assert_eq!(seen, [Some(second)]);
}

#[tokio::test]
async fn a_wait_without_result_ends_in_time_and_leaves_nothing() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let last = c.append("orders", "1").await;
    spawn_read_group(c, new_entries("billing", "ada", "orders")).await.unwrap().unwrap();
    let before = node.trace();

    let started = tokio::time::Instant::now();
    let answer = spawn_read(c, read("orders", Position::NewEntries(true), millis(100))).await.unwrap().unwrap();
    assert!(answer.streams[0].entries.is_empty());
    assert_eq!(answer.streams[0].next_after, Some(last), "made concrete");
    for wait in [None, millis(100)] {
        let request = pb::ReadGroupRequest { wait, ..new_entries("billing", "ada", "orders") };
        let answer = spawn_read_group(c, request).await.unwrap().unwrap();
        assert_eq!((answer.streams.len(), delivered_ids(&answer).len(), answer.receipt), (1, 0, None));
    }
    assert!(Duration::from_millis(200) <= started.elapsed());
    assert_eq!(node.trace(), before, "the log holds no polls");
    assert_eq!(node.server.replica().watch().places_taken(), 0);
}

#[tokio::test]
async fn a_waiting_consumer_exists() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let session = c.sessions.clone().open_session(pb::OpenSessionRequest {}).await.unwrap().into_inner().session_id;
    let identity = pb::RequestIdentity { session_id: session, sequence: 1, completed_below: 0 };
    let waiters = [("ada", None), ("bob", Some(identity))].map(|(consumer, request)| {
        spawn_read_group(c, pb::ReadGroupRequest { request, ..waiting("billing", consumer, "orders") })
    });
    let applied = node.trace().0;
    eventually("two consumers", || node.trace().0 == applied + 2).await;
    let list = pb::ListConsumersRequest { stream: "orders".into(), group: "billing".into(), ..Default::default() };
    let consumers = c.groups.clone().list_consumers(list).await.unwrap().into_inner().consumers;
    assert_eq!(consumers.iter().map(|info| info.consumer.as_str()).collect::<Vec<_>>(), ["ada", "bob"]);
    // Creating the consumer did not use up the request: it still waits.
    let appended = [c.append("orders", "1").await, c.append("orders", "2").await];
    let mut delivered = Vec::new();
    for waiter in waiters {
        delivered.extend(delivered_ids(&waiter.await.unwrap().unwrap()));
    }
    delivered.sort_by_key(|id| (id.ms, id.seq));
    assert_eq!(delivered, appended);
}

#[tokio::test]
async fn consumers_are_served_in_the_order_they_came() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let mut waiters = Vec::new();
    for (place, consumer) in ["ada", "bob", "eve"].into_iter().enumerate() {
        waiters.push(spawn_read_group(c, waiting("billing", consumer, "orders")));
        node.waiting(place + 1).await;
    }
    for waiter in waiters {
        let entry = c.append("orders", "x").await;
        assert_eq!(delivered_ids(&waiter.await.unwrap().unwrap()), [entry]);
    }
    node.waiting(0).await;
}

#[tokio::test]
async fn many_waiting_consumers_share_the_work_without_loss_or_repeat() {
    const CONSUMERS: usize = 8;
    const ENTRIES: usize = 100;
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let session = c.sessions.clone().open_session(pb::OpenSessionRequest {}).await.unwrap().into_inner().session_id;
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|number| {
            let mut groups = c.groups.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for round in 1.. {
                    // Every other one can be repeated, with sequences of its own.
                    let sequence = (number * ENTRIES + round) as u64;
                    let request = (number % 2 == 0).then_some(pb::RequestIdentity {
                        session_id: session,
                        sequence,
                        completed_below: 0,
                    });
                    let read = pb::ReadGroupRequest { request, ..waiting("billing", &number.to_string(), "orders") };
                    let delivery = groups.read_group(read).await.unwrap().into_inner();
                    for delivered in &delivery.streams[0].entries {
                        let entry = delivered.entry.as_ref().unwrap();
                        if entry.fields[0].value == "end" {
                            return seen;
                        }
                        seen.push(entry.id.unwrap());
                    }
                }
                unreachable!("rounds do not run out")
            })
        })
        .collect();
    let mut appended = Vec::new();
    for number in 0..ENTRIES {
        appended.push(c.append("orders", &number.to_string()).await);
    }
    for _ in 0..CONSUMERS {
        c.append("orders", "end").await;
    }
    let mut seen = Vec::new();
    for consumer in consumers {
        seen.extend(consumer.await.unwrap());
    }
    seen.sort_by_key(|id| (id.ms, id.seq));
    assert_eq!(seen, appended);
    node.waiting(0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_entry_with_it() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let ada = spawn_read_group(c, waiting("billing", "ada", "orders"));
    node.waiting(1).await;
    let bob = spawn_read_group(c, waiting("billing", "bob", "orders"));
    let reader = spawn_read(c, read("orders", Position::NewEntries(true), seconds(60)));
    node.waiting(3).await;
    ada.abort();
    reader.abort();
    node.waiting(1).await;
    let entry = c.append("orders", "x").await;
    assert_eq!(delivered_ids(&bob.await.unwrap().unwrap()), [entry]);
    node.waiting(0).await;
}

#[tokio::test]
async fn who_waits_for_a_group_that_goes_is_told() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    for (stream, group) in [("orders", "billing"), ("orders", "audit"), ("mail", "billing")] {
        c.create_group(stream, group).await;
    }
    let group_goes = spawn_read_group(c, waiting("billing", "ada", "orders"));
    let stream_goes = spawn_read_group(c, waiting("audit", "ada", "orders"));
    let elsewhere = spawn_read_group(c, waiting("billing", "ada", "mail"));
    let reader = spawn_read(c, read("orders", Position::NewEntries(true), seconds(60)));
    node.waiting(4).await;
    let delete = pb::DeleteGroupRequest { stream: "orders".into(), group: "billing".into(), request: None };
    c.groups.clone().delete_group(delete).await.unwrap();
    check_refused(group_goes.await.unwrap(), "GROUP_NOT_FOUND", &[("stream", "orders"), ("group", "billing")]);
    let delete = pb::DeleteStreamRequest { stream: "orders".into(), request: None };
    c.streams.clone().delete_stream(delete).await.unwrap();
    check_refused(stream_goes.await.unwrap(), "GROUP_NOT_FOUND", &[("stream", "orders"), ("group", "audit")]);
    // The reader waits on: the stream may come back, and it does.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let entry = c.append("orders", "x").await;
    assert_eq!(reader.await.unwrap().unwrap().streams[0].entries[0].id, Some(entry));
    let entry = c.append("mail", "x").await;
    assert_eq!(delivered_ids(&elsewhere.await.unwrap().unwrap()), [entry]);
}

#[tokio::test]
async fn only_so_many_may_wait() {
    let node = Node::start(|config| config.limits.waiters_max = 1).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let first = spawn_read(c, read("orders", Position::NewEntries(true), seconds(60)));
    node.waiting(1).await;
    let second = spawn_read_group(c, waiting("billing", "ada", "orders")).await.unwrap().unwrap_err();
    let (reason, metadata) = facts(&second);
    assert_eq!((reason.as_str(), metadata["limit"].as_str()), ("OVERLOADED", "1"));
    assert!(second.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    // Who does not wait needs no place.
    spawn_read_group(c, new_entries("billing", "ada", "orders")).await.unwrap().unwrap();
    first.abort();
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_delivery() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let session = c.sessions.clone().open_session(pb::OpenSessionRequest {}).await.unwrap().into_inner().session_id;
    let numbered = |sequence| pb::ReadGroupRequest {
        request: Some(pb::RequestIdentity { session_id: session, sequence, completed_below: 0 }),
        ..waiting("billing", "ada", "orders")
    };
    let first = spawn_read_group(c, numbered(1));
    node.waiting(1).await;
    let entry = c.append("orders", "x").await;
    let first = first.await.unwrap().unwrap();
    assert_eq!(delivered_ids(&first), [entry]);
    // Nothing is new, yet the repeat does not wait. Neither does it take what is new.
    for _ in 0..2 {
        let repeat = spawn_read_group(c, numbered(1)).await.unwrap().unwrap();
        assert_eq!(repeat.streams, first.streams);
        c.append("orders", "y").await;
    }
    assert_eq!(delivered_ids(&spawn_read_group(c, numbered(2)).await.unwrap().unwrap()).len(), 1);
}

#[tokio::test]
async fn history_never_waits() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let mut request = waiting("billing", "ada", "orders");
    let history = pb::group_read_position::Position::PendingAfter(id(0, 0));
    request.streams.push(pb::GroupReadPosition { stream: "orders".into(), position: Some(history) });
    let answer = spawn_read_group(c, request).await.unwrap().unwrap();
    assert_eq!((answer.streams.len(), delivered_ids(&answer).len()), (2, 0));
}

#[tokio::test]
async fn a_node_that_stops_sends_its_waiters_away() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let reader = spawn_read(c, read("orders", Position::NewEntries(true), seconds(60)));
    // Known already, so that the call waits and proposes nothing.
    spawn_read_group(c, new_entries("billing", "ada", "orders")).await.unwrap().unwrap();
    let consumer = spawn_read_group(c, waiting("billing", "ada", "orders"));
    node.waiting(2).await;
    let Node { server, .. } = node;
    server.shutdown().await.expect("in good order");
    check_refused(reader.await.unwrap(), "NOT_READY", &[]);
    check_refused(consumer.await.unwrap(), "NOT_READY", &[]);
}
