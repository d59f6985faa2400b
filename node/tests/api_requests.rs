//! The front door, rpc by rpc, over the wire: what is answered, what is refused, and that a refusal leaves no trace.

mod api_support;

use std::future::Future;
use std::pin::Pin;

use api_support::{Clients, Node, append_to, check_refused, field, id, new_entries, op, seconds};
use millstream_proto::v1 as pb;
use pb::id_bound::Bound;
use tonic::{Request, Status};

type Call = Pin<Box<dyn Future<Output = Result<(), Status>>>>;

/// One refused call: what is wrong, the call, the reason and the field.
type Case = (&'static str, Call, &'static str, &'static str);

macro_rules! call {
    ($clients:expr, $service:ident.$rpc:ident($request:expr)) => {{
        let (mut client, request) = ($clients.$service.clone(), $request);
        Box::pin(async move { client.$rpc(request).await.map(drop) }) as Call
    }};
}

fn malformed_streams(c: &Clients) -> Vec<Case> {
    let long = "n".repeat(1_025);
    let unset = Some(pb::IdBound { bound: None });
    let one = vec![field("f", "v")];
    let append = |stream: &str| pb::AppendRequest { fields: one.clone(), ..append_to(stream) };
    let range = || pb::RangeRequest { stream: "s".into(), ..Default::default() };
    let unknown = Some(pb::ReadOptions { consistency: 7, min_applied_index: 0 });
    let position = |position| vec![pb::ReadPosition { stream: "s".into(), position }];
    let after = position(Some(pb::read_position::Position::After(id(0, 0))));
    let no_threshold = Some(pb::TrimPolicy::default());
    let identity = Some(pb::RequestIdentity { session_id: 1, sequence: 0, completed_below: 0 });
    let list = pb::ListStreamsRequest::default;
    let ms = Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Ms(1)) });
    let idempotent = |producer: &str, key: &str| pb::AppendRequest {
        idempotency: Some(pb::Idempotency {
            producer_id: producer.to_owned().into(),
            key_choice: Some(pb::idempotency::KeyChoice::Key(key.to_owned().into())),
        }),
        ..append("s")
    };
    let threshold = Some(pb::trim_policy::Threshold::MaxLength(1));
    let unknown_references = Some(pb::TrimPolicy { threshold, references: 9, ..Default::default() });
    let read = || pb::ReadRequest { streams: after.clone(), ..Default::default() };
    let set_last_id = || pb::SetLastIdRequest { stream: "s".into(), ..Default::default() };
    let configure = || pb::ConfigureStreamRequest { stream: "s".into(), ..Default::default() };
    let retain = |retention| pb::ConfigureStreamRequest { retention: Some(retention), ..configure() };
    let record = |producer: &str, key: &str| pb::RecordIdempotencyRequest {
        stream: "s".into(),
        producer_id: producer.to_owned().into(),
        key: key.to_owned().into(),
        id: Some(id(1, 0)),
        request: None,
    };
    vec![
        ("append: no name", call!(c, streams.append(append(""))), "INVALID_ARGUMENT", "stream"),
        ("append: a long name", call!(c, streams.append(append(&long))), "LIMIT_EXCEEDED", "stream"),
        ("append: no fields", call!(c, streams.append(append_to("s"))), "INVALID_ARGUMENT", "fields"),
        (
            "append: too many fields",
            call!(c, streams.append(pb::AppendRequest { fields: vec![field("", ""); 16_385], ..append("s") })),
            "LIMIT_EXCEEDED",
            "fields",
        ),
        (
            "append: too many bytes",
            call!(
                c,
                streams.append(pb::AppendRequest { fields: vec![field("f", &"v".repeat(1 << 20))], ..append("s") })
            ),
            "LIMIT_EXCEEDED",
            "fields",
        ),
        (
            "append: a long field name",
            call!(c, streams.append(pb::AppendRequest { fields: vec![field(&"n".repeat(65_537), "")], ..append("s") })),
            "LIMIT_EXCEEDED",
            "fields[0].name",
        ),
        (
            "append: an id without a choice",
            call!(c, streams.append(pb::AppendRequest { id: Some(pb::NewEntryId::default()), ..append("s") })),
            "INVALID_ARGUMENT",
            "id.choice",
        ),
        (
            "append: a trim without a threshold",
            call!(c, streams.append(pb::AppendRequest { trim: no_threshold, ..append("s") })),
            "INVALID_ARGUMENT",
            "trim.threshold",
        ),
        (
            "append: sequence 0",
            call!(c, streams.append(pb::AppendRequest { request: identity, ..append("s") })),
            "INVALID_ARGUMENT",
            "request.sequence",
        ),
        (
            "range: no name",
            call!(c, streams.range(pb::RangeRequest { stream: String::new(), ..range() })),
            "INVALID_ARGUMENT",
            "stream",
        ),
        (
            "range: a start without a bound",
            call!(c, streams.range(pb::RangeRequest { start: unset, ..range() })),
            "INVALID_ARGUMENT",
            "start.bound",
        ),
        (
            "range: an end without a bound",
            call!(c, streams.range(pb::RangeRequest { end: unset, ..range() })),
            "INVALID_ARGUMENT",
            "end.bound",
        ),
        (
            "range: too many",
            call!(c, streams.range(pb::RangeRequest { count: 10_001, ..range() })),
            "LIMIT_EXCEEDED",
            "count",
        ),
        (
            "range: an unknown consistency",
            call!(c, streams.range(pb::RangeRequest { options: unknown, ..range() })),
            "INVALID_ARGUMENT",
            "options.consistency",
        ),
        ("read: no stream", call!(c, streams.read(pb::ReadRequest::default())), "INVALID_ARGUMENT", "streams"),
        (
            "read: no position",
            call!(c, streams.read(pb::ReadRequest { streams: position(None), ..Default::default() })),
            "INVALID_ARGUMENT",
            "streams[0].position",
        ),
        (
            "read: a wait of more than an hour",
            call!(
                c,
                streams.read(pb::ReadRequest { streams: after.clone(), wait: seconds(3_601), ..Default::default() })
            ),
            "LIMIT_EXCEEDED",
            "wait",
        ),
        (
            "read: a wait into the past",
            call!(
                c,
                streams.read(pb::ReadRequest {
                    streams: after.clone(),
                    wait: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                    ..Default::default()
                })
            ),
            "INVALID_ARGUMENT",
            "wait",
        ),
        (
            "delete: no ids",
            call!(c, streams.delete_entries(pb::DeleteEntriesRequest { stream: "s".into(), ..Default::default() })),
            "INVALID_ARGUMENT",
            "ids",
        ),
        (
            "delete: too many ids",
            call!(
                c,
                streams.delete_entries(pb::DeleteEntriesRequest {
                    stream: "s".into(),
                    ids: vec![id(1, 0); 10_001],
                    ..Default::default()
                })
            ),
            "LIMIT_EXCEEDED",
            "ids",
        ),
        (
            "trim: no policy",
            call!(c, streams.trim(pb::TrimRequest { stream: "s".into(), ..Default::default() })),
            "INVALID_ARGUMENT",
            "policy",
        ),
        (
            "trim: no threshold",
            call!(c, streams.trim(pb::TrimRequest { stream: "s".into(), policy: no_threshold, request: None })),
            "INVALID_ARGUMENT",
            "policy.threshold",
        ),
        ("get: no name", call!(c, streams.get_stream(pb::GetStreamRequest::default())), "INVALID_ARGUMENT", "stream"),
        (
            "list: a page too large",
            call!(c, streams.list_streams(pb::ListStreamsRequest { page_size: 10_001, ..list() })),
            "LIMIT_EXCEEDED",
            "page_size",
        ),
        (
            "list: a long prefix",
            call!(c, streams.list_streams(pb::ListStreamsRequest { prefix: long.clone(), ..list() })),
            "LIMIT_EXCEEDED",
            "prefix",
        ),
        (
            "list: a token of another list",
            call!(
                c,
                streams.list_streams(pb::ListStreamsRequest { prefix: "a".into(), page_token: "b".into(), ..list() })
            ),
            "INVALID_ARGUMENT",
            "page_token",
        ),
        (
            "append: idempotency beside an id",
            call!(c, streams.append(pb::AppendRequest { id: ms, ..idempotent("p", "k") })),
            "INVALID_ARGUMENT",
            "idempotency",
        ),
        (
            "append: no producer",
            call!(c, streams.append(idempotent("", "k"))),
            "INVALID_ARGUMENT",
            "idempotency.producer_id",
        ),
        ("append: a long key", call!(c, streams.append(idempotent("p", &long))), "LIMIT_EXCEEDED", "idempotency.key"),
        (
            "append: unknown references",
            call!(c, streams.append(pb::AppendRequest { trim: unknown_references, ..append("s") })),
            "INVALID_ARGUMENT",
            "trim.references",
        ),
        (
            "read: too many of all",
            call!(c, streams.read(pb::ReadRequest { total_count: 640_001, ..read() })),
            "LIMIT_EXCEEDED",
            "total_count",
        ),
        (
            "read: fewer of all than of each",
            call!(c, streams.read(pb::ReadRequest { count: 2, total_count: 1, ..read() })),
            "INVALID_ARGUMENT",
            "total_count",
        ),
        (
            "delete: unknown references",
            call!(
                c,
                streams.delete_entries(pb::DeleteEntriesRequest {
                    stream: "s".into(),
                    ids: vec![id(1, 0)],
                    references: 9,
                    request: None,
                })
            ),
            "INVALID_ARGUMENT",
            "references",
        ),
        (
            "trim: unknown references",
            call!(c, streams.trim(pb::TrimRequest { stream: "s".into(), policy: unknown_references, request: None })),
            "INVALID_ARGUMENT",
            "policy.references",
        ),
        (
            "inspect: no name",
            call!(c, streams.inspect_stream(pb::InspectStreamRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
        (
            "inspect: too many",
            call!(
                c,
                streams.inspect_stream(pb::InspectStreamRequest { stream: "s".into(), count: 10_001, options: None })
            ),
            "LIMIT_EXCEEDED",
            "count",
        ),
        ("set last id: none", call!(c, streams.set_last_id(set_last_id())), "INVALID_ARGUMENT", "last_id"),
        (
            "set last id: too many entries",
            call!(
                c,
                streams.set_last_id(pb::SetLastIdRequest {
                    last_id: Some(id(9, 9)),
                    entries_added: Some(1 << 63),
                    ..set_last_id()
                })
            ),
            "LIMIT_EXCEEDED",
            "entries_added",
        ),
        (
            "configure: a day and a second",
            call!(
                c,
                streams.configure_stream(pb::ConfigureStreamRequest {
                    idempotency_duration_s: Some(86_401),
                    ..configure()
                })
            ),
            "LIMIT_EXCEEDED",
            "idempotency_duration_s",
        ),
        (
            "configure: no time at all",
            call!(
                c,
                streams.configure_stream(pb::ConfigureStreamRequest { idempotency_duration_s: Some(0), ..configure() })
            ),
            "INVALID_ARGUMENT",
            "idempotency_duration_s",
        ),
        (
            "configure: too many keys",
            call!(
                c,
                streams
                    .configure_stream(pb::ConfigureStreamRequest { idempotency_keys_max: Some(10_001), ..configure() })
            ),
            "LIMIT_EXCEEDED",
            "idempotency_keys_max",
        ),
        (
            "configure: no keys",
            call!(
                c,
                streams.configure_stream(pb::ConfigureStreamRequest { idempotency_keys_max: Some(0), ..configure() })
            ),
            "INVALID_ARGUMENT",
            "idempotency_keys_max",
        ),
        (
            "configure: no age",
            call!(c, streams.configure_stream(retain(pb::Retention { max_age_ms: Some(0), ..Default::default() }))),
            "INVALID_ARGUMENT",
            "retention.max_age_ms",
        ),
        (
            "configure: unknown references",
            call!(c, streams.configure_stream(retain(pb::Retention { references: 9, ..Default::default() }))),
            "INVALID_ARGUMENT",
            "retention.references",
        ),
        (
            "record: no producer",
            call!(c, streams.record_idempotency(record("", "k"))),
            "INVALID_ARGUMENT",
            "producer_id",
        ),
        ("record: a long key", call!(c, streams.record_idempotency(record("p", &long))), "LIMIT_EXCEEDED", "key"),
        (
            "record: no id",
            call!(c, streams.record_idempotency(pb::RecordIdempotencyRequest { id: None, ..record("p", "k") })),
            "INVALID_ARGUMENT",
            "id",
        ),
        (
            "delete all: sequence 0",
            call!(c, streams.delete_all(pb::DeleteAllRequest { request: identity })),
            "INVALID_ARGUMENT",
            "request.sequence",
        ),
        (
            "delete a stream: no name",
            call!(c, streams.delete_stream(pb::DeleteStreamRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
    ]
}

fn malformed_groups(c: &Clients) -> Vec<Case> {
    let long = "n".repeat(1_025);
    let create = || pb::CreateGroupRequest { stream: "s".into(), group: "new".into(), ..Default::default() };
    let ack = || pb::AckRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let claim = || pb::ClaimRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let auto = || pb::AutoClaimRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let ack_and_delete = || pb::AckAndDeleteRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let nack = || pb::NackRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let pending = || pb::ListPendingRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let end_false = pb::GroupPosition { position: Some(pb::group_position::Position::End(false)) };
    let exclusive_max = Some(pb::IdBound { bound: Some(Bound::Exclusive(id(u64::MAX, u64::MAX))) });
    let read = |change: fn(&mut pb::ReadGroupRequest)| {
        let mut request = new_entries("g", "ada", "s");
        change(&mut request);
        request
    };
    vec![
        ("create: no position", call!(c, groups.create_group(create())), "INVALID_ARGUMENT", "position"),
        (
            "create: end, but no",
            call!(c, groups.create_group(pb::CreateGroupRequest { position: Some(end_false), ..create() })),
            "INVALID_ARGUMENT",
            "position.end",
        ),
        (
            "create: a long name",
            call!(c, groups.create_group(pb::CreateGroupRequest { group: long.clone(), ..create() })),
            "LIMIT_EXCEEDED",
            "group",
        ),
        (
            "move: a position without a choice",
            call!(
                c,
                groups.set_group_position(pb::SetGroupPositionRequest {
                    stream: "s".into(),
                    group: "g".into(),
                    position: Some(pb::GroupPosition::default()),
                    ..Default::default()
                })
            ),
            "INVALID_ARGUMENT",
            "position.position",
        ),
        (
            "delete: no stream",
            call!(c, groups.delete_group(pb::DeleteGroupRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
        (
            "consumer: a long name",
            call!(
                c,
                groups.create_consumer(pb::CreateConsumerRequest {
                    stream: "s".into(),
                    group: "g".into(),
                    consumer: long.clone(),
                    request: None,
                })
            ),
            "LIMIT_EXCEEDED",
            "consumer",
        ),
        ("read: no streams", call!(c, groups.read_group(read(|r| r.streams.clear()))), "INVALID_ARGUMENT", "streams"),
        (
            "read: 65 streams",
            call!(c, groups.read_group(read(|r| r.streams = vec![r.streams[0].clone(); 65]))),
            "LIMIT_EXCEEDED",
            "streams",
        ),
        (
            "read: no position",
            call!(c, groups.read_group(read(|r| r.streams[0].position = None))),
            "INVALID_ARGUMENT",
            "streams[0].position",
        ),
        ("read: too many", call!(c, groups.read_group(read(|r| r.count = 10_001))), "LIMIT_EXCEEDED", "count"),
        ("read: too long", call!(c, groups.read_group(read(|r| r.wait = seconds(3_601)))), "LIMIT_EXCEEDED", "wait"),
        ("ack: no ids", call!(c, groups.ack(ack())), "INVALID_ARGUMENT", "ids"),
        (
            "ack: too many ids",
            call!(c, groups.ack(pb::AckRequest { ids: vec![id(1, 0); 10_001], ..ack() })),
            "LIMIT_EXCEEDED",
            "ids",
        ),
        (
            "claim: too many ids",
            call!(c, groups.claim(pb::ClaimRequest { ids: vec![id(1, 0); 10_001], ..claim() })),
            "LIMIT_EXCEEDED",
            "ids",
        ),
        (
            "claim: no such count",
            call!(c, groups.claim(pb::ClaimRequest { delivery_count: Some(u64::MAX), ..claim() })),
            "LIMIT_EXCEEDED",
            "delivery_count",
        ),
        (
            "auto claim: too many",
            call!(c, groups.auto_claim(pb::AutoClaimRequest { count: 10_001, ..auto() })),
            "LIMIT_EXCEEDED",
            "count",
        ),
        (
            "auto claim: behind the last possible id",
            call!(c, groups.auto_claim(pb::AutoClaimRequest { start: exclusive_max, ..auto() })),
            "INVALID_ARGUMENT",
            "start.exclusive",
        ),
        (
            "read: fewer of all than of each",
            call!(c, groups.read_group(read(|r| (r.count, r.total_count) = (2, 1)))),
            "INVALID_ARGUMENT",
            "total_count",
        ),
        (
            "read: too many of all",
            call!(c, groups.read_group(read(|r| r.total_count = 640_001))),
            "LIMIT_EXCEEDED",
            "total_count",
        ),
        ("ack and delete: no ids", call!(c, groups.ack_and_delete(ack_and_delete())), "INVALID_ARGUMENT", "ids"),
        (
            "ack and delete: unknown references",
            call!(
                c,
                groups.ack_and_delete(pb::AckAndDeleteRequest {
                    ids: vec![id(1, 0)],
                    references: 9,
                    ..ack_and_delete()
                })
            ),
            "INVALID_ARGUMENT",
            "references",
        ),
        ("nack: no ids", call!(c, groups.nack(nack())), "INVALID_ARGUMENT", "ids"),
        (
            "nack: too many ids",
            call!(c, groups.nack(pb::NackRequest { ids: vec![id(1, 0); 10_001], ..nack() })),
            "LIMIT_EXCEEDED",
            "ids",
        ),
        (
            "nack: unknown mode",
            call!(c, groups.nack(pb::NackRequest { ids: vec![id(1, 0)], mode: 9, ..nack() })),
            "INVALID_ARGUMENT",
            "mode",
        ),
        (
            "nack: no such count",
            call!(c, groups.nack(pb::NackRequest { ids: vec![id(1, 0)], delivery_count: Some(u64::MAX), ..nack() })),
            "LIMIT_EXCEEDED",
            "delivery_count",
        ),
        (
            "groups: a page too large",
            call!(
                c,
                groups.list_groups(pb::ListGroupsRequest {
                    stream: "s".into(),
                    page_size: 10_001,
                    ..Default::default()
                })
            ),
            "LIMIT_EXCEEDED",
            "page_size",
        ),
        (
            "groups: a token of another kind",
            call!(
                c,
                groups.list_groups(pb::ListGroupsRequest {
                    stream: "s".into(),
                    page_token: "g".into(),
                    ..Default::default()
                })
            ),
            "INVALID_ARGUMENT",
            "page_token",
        ),
        (
            "consumers: a token of another kind",
            call!(
                c,
                groups.list_consumers(pb::ListConsumersRequest {
                    stream: "s".into(),
                    page_token: "c".into(),
                    ..Default::default()
                })
            ),
            "INVALID_ARGUMENT",
            "page_token",
        ),
        (
            "summary: no stream",
            call!(c, groups.get_pending(pb::GetPendingRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
        (
            "pending: too many",
            call!(c, groups.list_pending(pb::ListPendingRequest { count: 10_001, ..pending() })),
            "LIMIT_EXCEEDED",
            "count",
        ),
        (
            "pending: a long consumer",
            call!(c, groups.list_pending(pb::ListPendingRequest { consumer: Some(long), ..pending() })),
            "LIMIT_EXCEEDED",
            "consumer",
        ),
        (
            "groups: no stream",
            call!(c, groups.list_groups(pb::ListGroupsRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
        (
            "consumers: no stream",
            call!(c, groups.list_consumers(pb::ListConsumersRequest::default())),
            "INVALID_ARGUMENT",
            "stream",
        ),
    ]
}

fn malformed_batches(c: &Clients) -> Vec<Case> {
    use pb::batch_operation::Operation;
    let append = || pb::AppendRequest { fields: vec![field("f", "v")], ..append_to("s") };
    let good = || op(Operation::Append(append()));
    let batch = |operations| pb::BatchRequest { operations, ..Default::default() };
    let with = |operation| batch(vec![good(), op(operation)]);
    let identity = Some(pb::RequestIdentity { session_id: 1, sequence: 1, completed_below: 0 });
    let options = Some(pb::ReadOptions::default());
    let range = |count| pb::RangeRequest { stream: "s".into(), count, ..Default::default() };
    let waits = pb::ReadGroupRequest { wait: seconds(1), ..new_entries("g", "ada", "s") };
    let acks = pb::AckRequest { stream: "s".into(), ids: vec![id(1, 1); 10_000], ..Default::default() };
    let guard = |condition| vec![pb::Guard { stream: "s".into(), condition }];
    vec![
        ("batch: nothing", call!(c, batches.batch(batch(vec![]))), "INVALID_ARGUMENT", "operations"),
        (
            "batch: too many operations",
            call!(c, batches.batch(batch(vec![op(Operation::DeleteAll(Default::default())); 10_001]))),
            "LIMIT_EXCEEDED",
            "operations",
        ),
        (
            "batch: too many ids",
            call!(c, batches.batch(batch(vec![op(Operation::Ack(acks)); 11]))),
            "LIMIT_EXCEEDED",
            "operations.ids",
        ),
        (
            "batch: an operation without a choice",
            call!(c, batches.batch(batch(vec![good(), pb::BatchOperation::default()]))),
            "INVALID_ARGUMENT",
            "operations[1].operation",
        ),
        (
            "batch: an operation with an identity",
            call!(c, batches.batch(with(Operation::Append(pb::AppendRequest { request: identity, ..append() })))),
            "INVALID_ARGUMENT",
            "operations[1].append.request",
        ),
        (
            "batch: an operation with options",
            call!(c, batches.batch(with(Operation::Range(pb::RangeRequest { options, ..range(1) })))),
            "INVALID_ARGUMENT",
            "operations[1].range.options",
        ),
        (
            "batch: an operation that waits",
            call!(c, batches.batch(with(Operation::ReadGroup(waits)))),
            "INVALID_ARGUMENT",
            "operations[1].read_group.wait",
        ),
        (
            "batch: a malformed operation",
            call!(c, batches.batch(with(Operation::Append(append_to("s"))))),
            "INVALID_ARGUMENT",
            "operations[1].append.fields",
        ),
        (
            "batch: an operation that the core refuses at sight",
            call!(
                c,
                batches.batch(with(Operation::Claim(pb::ClaimRequest {
                    stream: "s".into(),
                    delivery_count: Some(u64::MAX),
                    ..Default::default()
                })))
            ),
            "LIMIT_EXCEEDED",
            "operations[1].claim.delivery_count",
        ),
        (
            "batch: an unknown mode",
            call!(c, batches.batch(pb::BatchRequest { mode: 9, ..batch(vec![good()]) })),
            "INVALID_ARGUMENT",
            "mode",
        ),
        (
            "batch: a guard without a condition",
            call!(c, batches.batch(pb::BatchRequest { guards: guard(None), ..batch(vec![good()]) })),
            "INVALID_ARGUMENT",
            "guards[0].condition",
        ),
        (
            "batch: a guard, but no",
            call!(
                c,
                batches.batch(pb::BatchRequest {
                    guards: guard(Some(pb::guard::Condition::Absent(false))),
                    ..batch(vec![good()])
                })
            ),
            "INVALID_ARGUMENT",
            "guards[0].absent",
        ),
        (
            "batch: sequence 0",
            call!(c, batches.batch(pb::BatchRequest { request: Some(Default::default()), ..batch(vec![good()]) })),
            "INVALID_ARGUMENT",
            "request.sequence",
        ),
    ]
}

#[tokio::test]
async fn what_the_protocol_forbids_is_refused_and_leaves_no_trace() {
    let node = Node::start(|_| ()).await;
    node.clients.create_group("s", "g").await;
    let before = node.trace();
    let c = &node.clients;
    for (what, call, reason, path) in
        [malformed_streams(c), malformed_groups(c), malformed_batches(c)].into_iter().flatten()
    {
        eprintln!("{what}");
        check_refused(call.await, reason, &[("field", path)]);
    }
    assert_eq!(node.trace(), before);
}

#[tokio::test]
async fn what_the_state_forbids_is_refused_with_the_facts() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    let append = |explicit: Option<pb::EntryId>| pb::AppendRequest {
        fields: vec![field("f", "v")],
        id: explicit.map(|id| pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Explicit(id)) }),
        ..append_to("s")
    };
    check_refused(c.streams.append(append(Some(id(0, 0)))).await, "ID_ZERO", &[]);
    c.streams.append(append(Some(id(5, 1)))).await.expect("appended");
    check_refused(c.streams.append(append(Some(id(5, 1)))).await, "ID_NOT_GREATER", &[("last_id", "5-1")]);
    let no_create = pb::AppendRequest { stream: "none".into(), no_create: true, ..append(None) };
    check_refused(c.streams.append(no_create).await, "STREAM_NOT_FOUND", &[("stream", "none")]);
    let get = pb::GetStreamRequest { stream: "none".into(), options: None };
    check_refused(c.streams.get_stream(get).await, "STREAM_NOT_FOUND", &[("stream", "none")]);
    let again = pb::CreateGroupRequest {
        stream: "s".into(),
        group: "g".into(),
        position: Some(pb::GroupPosition { position: Some(pb::group_position::Position::End(true)) }),
        ..Default::default()
    };
    check_refused(c.groups.create_group(again).await, "GROUP_EXISTS", &[("stream", "s"), ("group", "g")]);
    for wait in [None, seconds(30)] {
        let read = pb::ReadGroupRequest { wait, ..new_entries("none", "ada", "s") };
        check_refused(c.groups.read_group(read).await, "GROUP_NOT_FOUND", &[("stream", "s"), ("group", "none")]);
    }

    // Sessions.
    let identified = |session_id, sequence, completed_below, value: &str| pb::AppendRequest {
        fields: vec![field("f", value)],
        request: Some(pb::RequestIdentity { session_id, sequence, completed_below }),
        ..append_to("s")
    };
    check_refused(c.streams.append(identified(999, 1, 0, "a")).await, "SESSION_NOT_FOUND", &[("session", "999")]);
    let session = c.sessions.open_session(pb::OpenSessionRequest {}).await.expect("opened").into_inner();
    assert!(0 < session.idle_ms_max);
    let session = session.session_id;
    let first = c.streams.append(identified(session, 1, 0, "a")).await.expect("appended").into_inner();
    let repeat = c.streams.append(identified(session, 1, 0, "a")).await.expect("answered again").into_inner();
    assert_eq!(first.id, repeat.id);
    check_refused(c.streams.append(identified(session, 1, 0, "b")).await, "SEQUENCE_REUSED", &[("sequence", "1")]);
    c.streams.append(identified(session, 2, 2, "b")).await.expect("appended");
    check_refused(
        c.streams.append(identified(session, 1, 0, "a")).await,
        "SEQUENCE_OUT_OF_WINDOW",
        &[("sequence", "1"), ("floor", "2")],
    );
    for closed in [true, false] {
        let close = pb::CloseSessionRequest { session_id: session };
        assert_eq!(c.sessions.close_session(close).await.expect("answered").into_inner().closed, closed);
    }
}

#[tokio::test]
async fn a_stream_from_its_first_entry_to_its_end() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(c.append("orders", &number.to_string()).await);
    }
    // Pages, forwards and backwards.
    let mut seen = Vec::new();
    let mut start = None;
    loop {
        let request = pb::RangeRequest { stream: "orders".into(), start, count: 2, ..Default::default() };
        let page = c.streams.range(request).await.expect("a page").into_inner();
        seen.extend(page.entries.iter().filter_map(|entry| entry.id));
        if !page.more {
            break;
        }
        start = Some(pb::IdBound { bound: seen.last().map(|last| Bound::Exclusive(*last)) });
    }
    assert_eq!(seen, ids);
    let request = pb::RangeRequest { stream: "orders".into(), reverse: true, count: 1, ..Default::default() };
    let newest = c.streams.range(request).await.expect("a page").into_inner();
    assert_eq!((newest.entries[0].id, newest.more), (Some(ids[4]), true));
    assert_eq!(newest.entries[0].fields, [field("value", "4")]);

    let delete =
        pb::DeleteEntriesRequest { stream: "orders".into(), ids: vec![ids[4], id(1, 1)], ..Default::default() };
    assert_eq!(c.streams.delete_entries(delete).await.expect("deleted").into_inner().deleted, 1);
    let policy = pb::TrimPolicy {
        threshold: Some(pb::trim_policy::Threshold::MaxLength(2)),
        precision: pb::TrimPrecision::Exact.into(),
        ..Default::default()
    };
    let trim = pb::TrimRequest { stream: "orders".into(), policy: Some(policy), request: None };
    let trimmed = c.streams.trim(trim).await.expect("trimmed").into_inner();
    assert_eq!(trimmed.trimmed, 2);

    let receipt = trimmed.receipt.expect("a receipt");
    let local = pb::ReadOptions { consistency: pb::Consistency::Local.into(), min_applied_index: receipt.log_index };
    let get = pb::GetStreamRequest { stream: "orders".into(), options: Some(local) };
    let info = c.streams.get_stream(get.clone()).await.expect("described").into_inner();
    let header = info.header.expect("a header");
    assert!(receipt.log_index <= header.applied_index && header.node_id == 1 && !header.cluster_id.is_empty());
    assert_eq!((info.length, info.entries_added, info.groups), (2, 5, 0));
    assert_eq!((info.last_id, info.max_deleted_id), (Some(ids[4]), Some(ids[4])));
    let ends = [info.first_entry, info.last_entry].map(|entry| entry.and_then(|entry| entry.id));
    assert_eq!(ends, [Some(ids[2]), Some(ids[3])]);

    for existed in [true, false] {
        let delete = pb::DeleteStreamRequest { stream: "orders".into(), request: None };
        assert_eq!(c.streams.delete_stream(delete).await.expect("answered").into_inner().deleted, existed);
    }
    check_refused(c.streams.get_stream(get).await, "STREAM_NOT_FOUND", &[("stream", "orders")]);
    let range = pb::RangeRequest { stream: "orders".into(), ..Default::default() };
    assert!(c.streams.range(range).await.expect("empty").into_inner().entries.is_empty());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let node = Node::start(|config| config.limits.response_bytes_max = 200).await;
    let mut c = node.clients.clone();
    for name in ["mail", "order-a", "order-b", "order-c", "order-d", "orders"] {
        c.append(name, "x").await;
    }
    for page_size in [0, 2] {
        let mut names = Vec::new();
        let mut page_token = String::new();
        let mut pages = 0;
        loop {
            let request =
                pb::ListStreamsRequest { prefix: "order-".into(), page_size, page_token, ..Default::default() };
            let page = c.streams.list_streams(request).await.expect("a page").into_inner();
            names.extend(page.streams.into_iter().map(|stream| stream.stream));
            pages += 1;
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        assert_eq!(names, ["order-a", "order-b", "order-c", "order-d"]);
        assert_eq!(pages, 2, "bounded in bytes as well as in number");
    }
}

#[tokio::test]
async fn answers_are_bounded_in_bytes_but_hold_at_least_one_entry() {
    let node = Node::start(|config| config.limits.response_bytes_max = 1_000).await;
    let mut c = node.clients.clone();
    c.create_group("large", "g").await;
    for value in ["a", "b", "c"] {
        c.append("large", &value.repeat(600)).await;
    }
    c.append("small", "x").await;
    let range = pb::RangeRequest { stream: "large".into(), ..Default::default() };
    let page = c.streams.range(range).await.expect("a page").into_inner();
    assert_eq!((page.entries.len(), page.more), (1, true));

    let after = |stream: &str| pb::ReadPosition {
        stream: stream.into(),
        position: Some(pb::read_position::Position::After(id(0, 0))),
    };
    let read = pb::ReadRequest { streams: vec![after("large"), after("small")], ..Default::default() };
    let read = c.streams.read(read).await.expect("entries").into_inner();
    // Nothing is served out of turn: the second entry of the first stream comes before the second stream.
    let found: Vec<_> = read.streams.iter().map(|stream| (stream.entries.len(), stream.more)).collect();
    assert_eq!(found, [(1, true), (0, true)]);
    assert_eq!(read.streams[0].next_after, read.streams[0].entries[0].id);
    assert_eq!(read.streams[1].next_after, Some(id(0, 0)));

    for _ in 0..3 {
        let delivery = c.groups.read_group(new_entries("g", "ada", "large")).await.expect("delivered").into_inner();
        assert_eq!(delivery.streams[0].entries.len(), 1);
    }
    // The pending ones, too, come bit by bit.
    let mut history = new_entries("g", "ada", "large");
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or_default();
        history.streams[0].position = Some(pb::group_read_position::Position::PendingAfter(after));
        let delivery = c.groups.read_group(history.clone()).await.expect("repeated").into_inner();
        let ids: Vec<_> = delivery.streams[0].entries.iter().filter_map(|e| e.entry.as_ref()?.id).collect();
        if ids.is_empty() {
            assert_eq!(delivery.receipt, None);
            break;
        }
        assert_eq!(ids.len(), 1);
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_group_from_delivery_to_acknowledgement() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("orders", "").await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(c.append("orders", &number.to_string()).await);
    }
    // Ada gets all, and one of them is deleted meanwhile.
    let delivery = c.groups.read_group(new_entries("", "ada", "orders")).await.expect("delivered").into_inner();
    let delivered: Vec<_> = delivery.streams[0].entries.iter().filter_map(|e| e.entry.clone()?.id).collect();
    assert_eq!(delivered, ids);
    assert!(delivery.receipt.is_some());
    let delete = pb::DeleteEntriesRequest { stream: "orders".into(), ids: vec![ids[1]], ..Default::default() };
    c.streams.delete_entries(delete).await.expect("deleted");
    let mut history = new_entries("", "ada", "orders");
    history.streams[0].position = Some(pb::group_read_position::Position::PendingAfter(ids[0]));
    let again = c.groups.read_group(history).await.expect("repeated").into_inner();
    let again: Vec<_> =
        again.streams[0].entries.iter().map(|e| (e.entry.clone().unwrap_or_default(), e.deleted)).collect();
    assert_eq!((again[0].0.id, again[0].0.fields.len(), again[0].1), (Some(ids[1]), 0, true));
    assert_eq!((again[1].0.id, again[1].0.fields.len(), again[1].1), (Some(ids[2]), 1, false));

    let pending = pb::GetPendingRequest { stream: "orders".into(), group: String::new(), options: None };
    let summary = c.groups.get_pending(pending).await.expect("summarised").into_inner();
    assert_eq!((summary.count, summary.min_id, summary.max_id), (3, Some(ids[0]), Some(ids[2])));
    assert_eq!(summary.consumers, [pb::ConsumerPending { consumer: "ada".into(), count: 3 }]);

    // Bob takes over.
    let claim = pb::ClaimRequest {
        stream: "orders".into(),
        consumer: "bob".into(),
        ids: vec![ids[0]],
        delivery_count: Some(9),
        ..Default::default()
    };
    let claimed = c.groups.claim(claim).await.expect("claimed").into_inner();
    assert_eq!(claimed.entries.iter().map(|e| (e.id, e.fields.len())).collect::<Vec<_>>(), [(Some(ids[0]), 1)]);
    let auto = pb::AutoClaimRequest {
        stream: "orders".into(),
        consumer: "bob".into(),
        start: Some(pb::IdBound { bound: Some(Bound::Exclusive(ids[0])) }),
        ids_only: true,
        ..Default::default()
    };
    let claimed = c.groups.auto_claim(auto).await.expect("claimed").into_inner();
    assert_eq!(claimed.entries.iter().map(|e| (e.id, e.fields.len())).collect::<Vec<_>>(), [(Some(ids[2]), 0)]);
    assert_eq!((claimed.cursor, claimed.deleted_ids), (Some(id(0, 0)), vec![ids[1]]));
    let list = pb::ListPendingRequest { stream: "orders".into(), consumer: Some("bob".into()), ..Default::default() };
    let listed = c.groups.list_pending(list).await.expect("listed").into_inner();
    let rows: Vec<_> = listed.entries.iter().map(|e| (e.id, e.consumer.as_deref(), e.delivery_count)).collect();
    assert_eq!(rows, [(Some(ids[0]), Some("bob"), 9), (Some(ids[2]), Some("bob"), 2)]);

    let ack = pb::AckRequest { stream: "orders".into(), ids: vec![ids[0], ids[1]], ..Default::default() };
    assert_eq!(c.groups.ack(ack).await.expect("acknowledged").into_inner().acknowledged, 1);
    let list = pb::ListGroupsRequest { stream: "orders".into(), ..Default::default() };
    let groups = c.groups.list_groups(list).await.expect("listed").into_inner().groups;
    assert_eq!((groups.len(), groups[0].consumers, groups[0].pending), (1, 2, 1));
    let list = pb::ListConsumersRequest { stream: "orders".into(), ..Default::default() };
    let consumers = c.groups.list_consumers(list).await.expect("listed").into_inner().consumers;
    let rows: Vec<_> = consumers.iter().map(|info| (info.consumer.as_str(), info.pending)).collect();
    assert_eq!(rows, [("ada", 0), ("bob", 1)]);

    let bob = pb::DeleteConsumerRequest { stream: "orders".into(), consumer: "bob".into(), ..Default::default() };
    assert_eq!(c.groups.delete_consumer(bob).await.expect("deleted").into_inner().pending, 1);
    for existed in [true, false] {
        let delete = pb::DeleteGroupRequest { stream: "orders".into(), ..Default::default() };
        assert_eq!(c.groups.delete_group(delete).await.expect("answered").into_inner().deleted, existed);
    }
}

/// An AppendRequest whose name need not be UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
struct Garbled {
    #[prost(bytes = "vec", tag = "1")]
    stream: Vec<u8>,
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_refused_with_a_reason() {
    let node = Node::start(|_| ()).await;
    let path = http::uri::PathAndQuery::from_static("/millstream.v1.StreamService/Append");
    let cases: [(Vec<u8>, &str); 2] = [(vec![0xff], "INVALID_ARGUMENT"), (vec![b'n'; 5 << 20], "LIMIT_EXCEEDED")];
    for (stream, reason) in cases {
        let mut grpc = tonic::client::Grpc::new(node.clients.channel.clone());
        grpc.ready().await.expect("connected");
        let codec = tonic_prost::ProstCodec::<Garbled, pb::AppendResponse>::default();
        let answer = grpc.unary(Request::new(Garbled { stream }), path.clone(), codec).await;
        check_refused(answer, reason, &[("field", "message")]);
    }
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let node = Node::start(|_| ()).await;
    let mut health = HealthClient::new(node.clients.channel.clone());
    for service in
        ["", "millstream.v1.StreamService", "millstream.v1.ConsumerGroupService", "millstream.v1.BatchService"]
    {
        let check = HealthCheckRequest { service: service.into() };
        // Watched, not asked once: the report follows the leader's election.
        let mut watched = health.watch(check).await.expect("known").into_inner();
        while watched.message().await.expect("a report").expect("not over").status != 1 {}
    }

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(node.clients.channel.clone());
    let asked = tokio_stream::once(request);
    let mut answers = reflection.server_reflection_info(asked).await.expect("answered").into_inner();
    let answer = answers.message().await.expect("an answer").expect("not over").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "millstream.admin.v1.ClusterService",
        "millstream.v1.BatchService",
        "millstream.v1.ConsumerGroupService",
        "millstream.v1.SessionService",
        "millstream.v1.StreamService",
    ];
    assert_eq!(names, expected);
}
