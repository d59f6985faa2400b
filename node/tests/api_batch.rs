//! Batches: several operations as one entry of the log.

mod api_support;

use api_support::{Clients, Node, append_to, check_refused, field, id, new_entries, op};
use millstream_proto::v1 as pb;
use pb::batch_operation::Operation;
use pb::batch_result::Result as Kind;

const ALL_OR_NOTHING: i32 = pb::BatchMode::AllOrNothing as i32;
const CONTINUE_ON_ERROR: i32 = pb::BatchMode::ContinueOnError as i32;

fn batch(mode: i32, operations: impl IntoIterator<Item = Operation>) -> pb::BatchRequest {
    pb::BatchRequest { operations: operations.into_iter().map(op).collect(), mode, ..Default::default() }
}

fn append(stream: &str, value: &str) -> Operation {
    Operation::Append(pb::AppendRequest { fields: vec![field("value", value)], ..append_to(stream) })
}

/// An append that is refused wherever there is no such stream.
fn append_to_existing(stream: &str) -> Operation {
    let fields = vec![field("value", "x")];
    Operation::Append(pb::AppendRequest { fields, no_create: true, ..append_to(stream) })
}

fn range(stream: &str) -> Operation {
    Operation::Range(pb::RangeRequest { stream: stream.into(), ..Default::default() })
}

fn delete_stream(stream: &str) -> Operation {
    Operation::DeleteStream(pb::DeleteStreamRequest { stream: stream.into(), request: None })
}

fn get_stream(stream: &str) -> Operation {
    Operation::GetStream(pb::GetStreamRequest { stream: stream.into(), options: None })
}

async fn done(c: &Clients, request: pb::BatchRequest) -> Vec<Kind> {
    let answer = c.batches.clone().batch(request).await.expect("done").into_inner();
    assert!(answer.header.is_some() && answer.receipt.is_some());
    answer.results.into_iter().map(|result| result.result.expect("a result")).collect()
}

fn values(entries: &[pb::Entry]) -> Vec<&[u8]> {
    entries.iter().flat_map(|entry| &entry.fields).map(|field| &field.value[..]).collect()
}

#[tokio::test]
async fn operations_see_those_before_them_and_answer_as_calls_do() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    let create = pb::CreateGroupRequest {
        stream: "orders".into(),
        group: "billing".into(),
        position: Some(pb::GroupPosition { position: Some(pb::group_position::Position::After(id(0, 0))) }),
        ..Default::default()
    };
    let ack = pb::AckRequest { stream: "orders".into(), group: "billing".into(), ids: vec![id(1, 1)], request: None };
    let before = node.trace().0;
    let results = done(
        c,
        batch(
            ALL_OR_NOTHING,
            [
                append("orders", "a"),
                append("orders", "b"),
                Operation::CreateGroup(create),
                Operation::ReadGroup(new_entries("billing", "ada", "orders")),
                Operation::GetPending(pb::GetPendingRequest {
                    stream: "orders".into(),
                    group: "billing".into(),
                    options: None,
                }),
                Operation::Ack(ack),
                range("orders"),
                get_stream("orders"),
            ],
        ),
    )
    .await;
    assert_eq!(node.trace().0, before + 1, "one entry of the log");
    let [
        Kind::Append(first),
        Kind::Append(second),
        Kind::CreateGroup(_),
        Kind::ReadGroup(delivery),
        Kind::GetPending(pending),
        Kind::Ack(acked),
        Kind::Range(page),
        Kind::GetStream(info),
    ] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert!(first.header.is_none() && first.receipt.is_none());
    let delivered: Vec<_> = delivery.streams[0].entries.iter().filter_map(|e| e.entry.clone()).collect();
    assert_eq!(values(&delivered), [b"a", b"b"]);
    assert_eq!(delivered.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert_eq!((pending.count, pending.min_id), (2, first.id));
    assert_eq!(acked.acknowledged, 0);
    assert_eq!((values(&page.entries), page.more), (vec![&b"a"[..], b"b"], false));
    assert_eq!((info.stream.as_str(), info.length, info.groups), ("orders", 2, 1));
    let ends = [&info.first_entry, &info.last_entry].map(|entry| entry.as_ref().and_then(|entry| entry.id));
    assert_eq!(ends, [first.id, second.id]);
}

#[tokio::test]
async fn what_is_read_and_then_removed_comes_with_its_fields() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.append("orders", "a").await;
    c.append("orders", "b").await;
    let after = pb::read_position::Position::After(id(0, 0));
    let read = Operation::Read(pb::ReadRequest {
        streams: vec![
            pb::ReadPosition { stream: "none".into(), position: Some(after) },
            pb::ReadPosition { stream: "orders".into(), position: Some(after) },
        ],
        count: 1,
        ..Default::default()
    });
    let session = c.session().await;
    let request = pb::BatchRequest {
        request: Some(pb::RequestIdentity { session_id: session, sequence: 1, completed_below: 0 }),
        ..batch(ALL_OR_NOTHING, [range("orders"), read, delete_stream("orders"), range("orders")])
    };
    let results = done(c, request.clone()).await;
    let [Kind::Range(page), Kind::Read(read), Kind::DeleteStream(deleted), Kind::Range(empty)] = &results[..] else {
        panic!("{results:?}")
    };
    assert_eq!(values(&page.entries), [b"a", b"b"]);
    assert_eq!(read.streams.iter().map(|stream| values(&stream.entries)).collect::<Vec<_>>(), [vec![], vec![b"a"]]);
    assert_eq!(read.streams[1].next_after, page.entries[0].id);
    assert!(deleted.deleted && empty.entries.is_empty());

    // A repeat is answered from the record. The entries are gone by now, their ids are not.
    let repeated = done(c, request).await;
    let [Kind::Range(again), _, Kind::DeleteStream(deleted), _] = &repeated[..] else { panic!("{repeated:?}") };
    assert!(deleted.deleted);
    assert_eq!(
        again.entries.iter().map(|e| (e.id, e.fields.len())).collect::<Vec<_>>(),
        [(page.entries[0].id, 0), (page.entries[1].id, 0)]
    );
}

#[tokio::test]
async fn an_error_in_the_middle_stops_all_or_nothing_and_leaves_no_trace() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    let kept = c.append("orders", "kept").await;
    let info = c.info("orders").await;
    let operations = [
        append("orders", "x"),
        append("new", "x"),
        Operation::ReadGroup(new_entries("billing", "ada", "orders")),
        delete_stream("orders"),
        append_to_existing("orders"),
        append("orders", "y"),
    ];
    let answer = c.batches.clone().batch(batch(ALL_OR_NOTHING, operations.clone())).await;
    check_refused(answer, "STREAM_NOT_FOUND", &[("operation", "4"), ("stream", "orders")]);
    assert_eq!(c.ids("orders").await, [kept]);
    assert_eq!(c.ids("new").await, []);
    let now = c.info("orders").await;
    assert_eq!((now.last_change_index, now.groups, now.entries_added), (info.last_change_index, 1, 1));
    assert_eq!(c.deliver("billing", "ada", "orders").await, [kept], "nothing was delivered");

    // The same, as by EXEC.
    let results = done(c, batch(CONTINUE_ON_ERROR, operations)).await;
    let Kind::Error(error) = &results[4] else { panic!("{results:?}") };
    assert_eq!(error.reason(), pb::ErrorReason::StreamNotFound);
    assert_eq!(error.metadata, [("stream".to_owned(), "orders".to_owned())].into());
    assert!(!error.message.is_empty());
    assert!(matches!(results[5], Kind::Append(_)));
    assert_eq!((c.ids("orders").await.len(), c.ids("new").await.len()), (1, 1));
}

#[tokio::test]
async fn a_batch_depends_on_its_guards() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    c.append("orders", "a").await;
    let guard = |stream: &str, condition| pb::Guard { stream: stream.into(), condition: Some(condition) };
    let unchanged = pb::guard::Condition::LastChangeIndex;
    let absent = pb::guard::Condition::Absent(true);
    let guarded = |guards| pb::BatchRequest { guards, ..batch(ALL_OR_NOTHING, [append("orders", "b")]) };

    // Watched, and nothing came in between.
    let index = c.info("orders").await.last_change_index;
    let watched = guarded(vec![guard("orders", unchanged(index)), guard("none", absent)]);
    done(c, watched.clone()).await;
    // Now something has.
    let index = c.info("orders").await.last_change_index.to_string();
    let answer = c.batches.clone().batch(watched).await;
    check_refused(answer, "GUARD_FAILED", &[("guard", "0"), ("last_change_index", &index)]);
    let index = c.info("orders").await.last_change_index;
    c.deliver("billing", "ada", "orders").await;
    let answer = c.batches.clone().batch(guarded(vec![guard("none", absent), guard("orders", unchanged(index))])).await;
    check_refused(answer, "GUARD_FAILED", &[("guard", "1")]);

    for (condition, stream) in [(absent, "orders"), (unchanged(1), "none")] {
        let answer = c.batches.clone().batch(guarded(vec![guard(stream, condition)])).await;
        let status = answer.expect_err("does not hold");
        let (reason, metadata) = api_support::facts(&status);
        assert_eq!(reason, "GUARD_FAILED");
        assert_eq!(metadata.contains_key("last_change_index"), stream == "orders", "{metadata:?}");
    }
    assert_eq!(c.ids("orders").await.len(), 2);
}

#[tokio::test]
async fn the_answer_to_a_batch_is_bounded_in_bytes() {
    let node = Node::start(|config| config.limits.response_bytes_max = 1_000).await;
    let c = &node.clients;
    c.create_group("orders", "billing").await;
    for _ in 0..3 {
        c.append("orders", &"v".repeat(400)).await;
    }
    let read = || Operation::ReadGroup(new_entries("billing", "ada", "orders"));
    let results = done(c, batch(ALL_OR_NOTHING, [range("orders"), range("orders"), read()])).await;
    let [Kind::Range(first), Kind::Range(second), Kind::ReadGroup(delivery)] = &results[..] else {
        panic!("{results:?}")
    };
    assert_eq!((first.entries.len(), first.more), (2, true));
    assert_eq!((second.entries.len(), second.more), (0, true));
    assert_eq!(api_support::delivered_ids(delivery), [], "what did not fit was not delivered");
    assert_eq!(c.deliver("billing", "ada", "orders").await.len(), 2);
}

#[tokio::test]
async fn every_operation_has_its_result() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    let (stream, group, consumer) = ("s".to_owned(), "g".to_owned(), "c".to_owned());
    let explicit = |ms| Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Explicit(id(ms, 0))) });
    let entry = |ms| {
        let fields = vec![field("value", "x")];
        Operation::Append(pb::AppendRequest { fields, id: explicit(ms), ..append_to("s") })
    };
    let ids = || vec![id(1, 0)];
    let position = Some(pb::GroupPosition { position: Some(pb::group_position::Position::After(id(0, 0))) });
    let policy = pb::TrimPolicy { threshold: Some(pb::trim_policy::Threshold::MaxLength(100)), ..Default::default() };
    macro_rules! of {
        ($kind:ident $request:ident { $($field:ident $(: $value:expr)?),* }) => {
            Operation::$kind(pb::$request { $($field $(: $value)?,)* ..Default::default() })
        };
    }
    macro_rules! on {
        ($kind:ident $request:ident { $($field:ident : $value:expr),* }) => {
            of!($kind $request { stream: stream.clone() $(, $field: $value)* })
        };
    }
    macro_rules! in_group {
        ($kind:ident $request:ident { $($field:ident : $value:expr),* }) => {
            on!($kind $request { group: group.clone() $(, $field: $value)* })
        };
    }
    let operations = [
        entry(1),
        entry(2),
        in_group!(CreateGroup CreateGroupRequest { position: position }),
        in_group!(CreateConsumer CreateConsumerRequest { consumer: consumer.clone() }),
        Operation::ReadGroup(new_entries("g", "c", "s")),
        in_group!(Nack NackRequest { ids: ids() }),
        in_group!(ListPending ListPendingRequest {}),
        in_group!(Claim ClaimRequest { consumer: consumer.clone(), ids: ids() }),
        in_group!(AutoClaim AutoClaimRequest { consumer: consumer.clone() }),
        in_group!(GetPending GetPendingRequest {}),
        on!(InspectStream InspectStreamRequest {}),
        in_group!(Ack AckRequest { ids: ids() }),
        in_group!(AckAndDelete AckAndDeleteRequest { ids: vec![id(2, 0)] }),
        on!(ListGroups ListGroupsRequest { page_size: 1 }),
        in_group!(ListConsumers ListConsumersRequest {}),
        on!(DeleteEntries DeleteEntriesRequest { ids: ids() }),
        entry(3),
        on!(Trim TrimRequest { policy: Some(policy) }),
        on!(ConfigureStream ConfigureStreamRequest { idempotency_keys_max: Some(7) }),
        on!(RecordIdempotency RecordIdempotencyRequest {
            producer_id: "p".into(),
            key: "k".into(),
            id: Some(id(3, 0))
        }),
        on!(SetLastId SetLastIdRequest { last_id: Some(id(9, 0)) }),
        on!(GetStream GetStreamRequest {}),
        range("s"),
        of!(Read ReadRequest {
            streams: vec![pb::ReadPosition {
                stream: "s".into(),
                position: Some(pb::read_position::Position::LastEntry(true)),
            }]
        }),
        in_group!(SetGroupPosition SetGroupPositionRequest { position: position }),
        in_group!(DeleteConsumer DeleteConsumerRequest { consumer: consumer.clone() }),
        in_group!(DeleteGroup DeleteGroupRequest {}),
        delete_stream("s"),
        Operation::DeleteAll(pb::DeleteAllRequest { request: None }),
    ];
    let results = done(c, batch(ALL_OR_NOTHING, operations.clone())).await;
    assert_eq!(results.len(), operations.len());
    let kind = |debug: String| debug.split('(').next().map(str::to_owned);
    for (operation, result) in operations.iter().zip(&results) {
        assert_eq!(kind(format!("{operation:?}")), kind(format!("{result:?}")));
    }

    let [_, _, _, Kind::CreateConsumer(created), _, Kind::Nack(nacked), Kind::ListPending(pending), ..] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert!(created.created && nacked.released == 1);
    let owners: Vec<_> = pending.entries.iter().map(|row| (row.consumer.as_deref(), row.idle_ms)).collect();
    assert_eq!(owners, [(None, None), (Some("c"), Some(0))]);
    let [Kind::Claim(claimed), Kind::AutoClaim(auto), _, Kind::InspectStream(full), ..] = &results[7..] else {
        panic!("{results:?}")
    };
    assert_eq!((claimed.entries.len(), auto.entries.len(), full.entries.len()), (1, 2, 2));
    let stream = full.stream.as_ref().expect("described");
    assert!(stream.header.is_none() && stream.length == 2);
    assert_eq!((full.groups[0].pending.len(), full.groups[0].consumers[0].pending.len()), (2, 2));
    let [Kind::Ack(acked), Kind::AckAndDelete(gone), Kind::ListGroups(groups), ..] = &results[11..] else {
        panic!("{results:?}")
    };
    assert_eq!((acked.acknowledged, &gone.results[..]), (1, &[pb::Removal::Deleted as i32][..]));
    assert_eq!(groups.groups.len(), 1);
    assert!(!groups.next_page_token.is_empty(), "a full page may have another behind it");
    let Kind::DeleteAll(all) = &results[28] else { panic!("{results:?}") };
    assert_eq!(all.streams, 0, "the only one went just before");
}
