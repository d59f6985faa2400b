//! Every default, bound and absence, field by field.

#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

use std::time::Duration;

use millstream_proto::v1 as pb;
use millstream_proto::v1::ErrorReason::{InvalidArgument, LimitExceeded};
use millstream_streams::{DeliveryTime, EntryId, NackMode, NewId, References};
use prost::Message;

use super::groups::{delivery_time, group_reads, list_groups, nack};
use super::streams::{append, configure_stream, inspect_stream, record_idempotency, set_last_id, stream_reads};
use super::values::*;
use super::{Result, freshness, request, wait};
use crate::api::errors::Failure;
use crate::config::Limits;
use crate::replica::Freshness;

type Case = (&'static str, Option<Failure>, Option<(pb::ErrorReason, &'static str)>);

fn failed<T>(result: Result<T>) -> Option<Failure> {
    result.err()
}

fn field(name: usize, value: usize) -> pb::Field {
    pb::Field { name: vec![b'n'; name].into(), value: vec![b'v'; value].into() }
}

fn bound(bound: pb::id_bound::Bound) -> Option<pb::IdBound> {
    Some(pb::IdBound { bound: Some(bound) })
}

const ZERO: pb::EntryId = pb::EntryId { ms: 0, seq: 0 };
const GREATEST: pb::EntryId = pb::EntryId { ms: u64::MAX, seq: u64::MAX };

#[test]
fn what_the_protocol_forbids_is_refused_by_the_path_of_the_field() {
    use pb::group_position::Position as Group;
    use pb::group_read_position::Position as GroupRead;
    use pb::id_bound::Bound;
    use pb::idempotency::KeyChoice;
    use pb::read_position::Position as Read;
    use pb::trim_policy::Threshold;

    let read = |position| vec![pb::ReadPosition { stream: "s".into(), position }];
    let group_read = |position| vec![pb::GroupReadPosition { stream: "s".into(), position }];
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let policy = |threshold, precision, limit| pb::TrimPolicy { threshold, precision, limit, references: 0 };
    let (exact, approximate) = (pb::TrimPrecision::Exact as i32, pb::TrimPrecision::Approximate as i32);
    let identity = |sequence| Some(pb::RequestIdentity { session_id: 1, sequence, completed_below: 0 });
    let options = |consistency| Some(pb::ReadOptions { consistency, min_applied_index: 0 });
    let long = "n".repeat(1025);
    let nack_in =
        |mode| pb::NackRequest { stream: "s".into(), group: "g".into(), ids: vec![ZERO], mode, ..Default::default() };
    let retention =
        |retention| pb::ConfigureStreamRequest { stream: "s".into(), retention: Some(retention), ..Default::default() };
    let key_of = |producer: &str, key: &str| pb::Idempotency {
        producer_id: producer.to_owned().into(),
        key_choice: Some(KeyChoice::Key(key.to_owned().into())),
    };
    let producer_invalid = Some((InvalidArgument, "idempotency.producer_id"));
    let append_at = |ms| pb::AppendRequest {
        stream: "s".into(),
        fields: vec![field(1, 1)],
        id: Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Ms(ms)) }),
        ..Default::default()
    };
    let record = |producer: &str, key: &str| pb::RecordIdempotencyRequest {
        stream: "s".into(),
        producer_id: producer.to_owned().into(),
        key: key.to_owned().into(),
        id: Some(ZERO),
        request: None,
    };
    let groups_after = |token: &[u8]| pb::ListGroupsRequest {
        stream: "s".into(),
        page_token: token.to_vec().into(),
        ..Default::default()
    };

    let cases: Vec<Case> = vec![
        ("stream: empty", failed(stream("")), Some((InvalidArgument, "stream"))),
        ("stream: one byte", failed(stream("s")), None),
        ("stream: 1,024 bytes", failed(stream(&long[1..])), None),
        ("stream: 1,025 bytes", failed(stream(&long)), Some((LimitExceeded, "stream"))),
        ("group: empty", failed(group("")), None),
        ("group: 1,025 bytes", failed(group(&long)), Some((LimitExceeded, "group"))),
        ("consumer: empty", failed(consumer("")), None),
        ("consumer: 1,025 bytes", failed(consumer(&long)), Some((LimitExceeded, "consumer"))),
        ("fields: none", failed(fields(&[], 9)), Some((InvalidArgument, "fields"))),
        ("fields: an empty one", failed(fields(&[field(0, 0)], 0)), None),
        ("fields: as large as allowed", failed(fields(&[field(4, 5)], 9)), None),
        ("fields: one byte more", failed(fields(&[field(4, 3), field(2, 1)], 9)), Some((LimitExceeded, "fields"))),
        ("fields: 16,384", failed(fields(&vec![field(0, 0); 16_384], 9)), None),
        ("fields: 16,385", failed(fields(&vec![field(0, 0); 16_385], 9)), Some((LimitExceeded, "fields"))),
        ("fields: a name of 64 KiB", failed(fields(&[field(65_536, 0)], 1 << 20)), None),
        (
            "fields: a longer name",
            failed(fields(&[field(0, 0), field(65_537, 0)], 1 << 20)),
            Some((LimitExceeded, "fields[1].name")),
        ),
        ("id: unset", failed(new_id(Some(pb::NewEntryId { choice: None }))), Some((InvalidArgument, "id.choice"))),
        ("trim: unset", failed(trim_policy("trim", policy(None, 0, None))), Some((InvalidArgument, "trim.threshold"))),
        (
            "trim: unknown precision",
            failed(trim_policy("trim", policy(Some(Threshold::MaxLength(1)), 9, None))),
            Some((InvalidArgument, "trim.precision")),
        ),
        (
            "trim: a limit with exact precision",
            failed(trim_policy("policy", policy(Some(Threshold::MaxLength(1)), exact, Some(0)))),
            Some((InvalidArgument, "policy.limit")),
        ),
        (
            "trim: a limit with unspecified precision",
            failed(trim_policy("policy", policy(Some(Threshold::MinId(ZERO)), 0, Some(0)))),
            Some((InvalidArgument, "policy.limit")),
        ),
        (
            "trim: a limit with approximate precision",
            failed(trim_policy("policy", policy(Some(Threshold::MinId(ZERO)), approximate, Some(0)))),
            None,
        ),
        ("ids: none", failed(ids(&[], 1)), Some((InvalidArgument, "ids"))),
        ("ids: none, where none is fine", failed(ids(&[], 0)), None),
        ("ids: 10,000", failed(ids(&vec![ZERO; 10_000], 1)), None),
        ("ids: 10,001", failed(ids(&vec![ZERO; 10_001], 0)), Some((LimitExceeded, "ids"))),
        ("count: 10,000", failed(count("count", 10_000, 1)), None),
        ("count: 10,001", failed(count("page_size", 10_001, 1)), Some((LimitExceeded, "page_size"))),
        (
            "start: unset",
            failed(range_start(Some(pb::IdBound { bound: None }))),
            Some((InvalidArgument, "start.bound")),
        ),
        ("end: unset", failed(range_end(Some(pb::IdBound { bound: None }))), Some((InvalidArgument, "end.bound"))),
        (
            "start: behind the greatest id",
            failed(range_start(bound(Bound::Exclusive(GREATEST)))),
            Some((InvalidArgument, "start.exclusive")),
        ),
        (
            "end: before the smallest id",
            failed(range_end(bound(Bound::Exclusive(ZERO)))),
            Some((InvalidArgument, "end.exclusive")),
        ),
        ("wait: an hour", failed(wait(seconds(3_600, 0))), None),
        ("wait: longer", failed(wait(seconds(3_600, 1))), Some((LimitExceeded, "wait"))),
        ("wait: negative", failed(wait(seconds(-1, 0))), Some((InvalidArgument, "wait"))),
        ("wait: negative nanos", failed(wait(seconds(0, -1))), Some((InvalidArgument, "wait"))),
        ("wait: the smallest number", failed(wait(seconds(i64::MIN, i32::MIN))), Some((InvalidArgument, "wait"))),
        ("wait: too many nanos", failed(wait(seconds(0, 1_000_000_000))), Some((InvalidArgument, "wait"))),
        ("wait: the greatest number", failed(wait(seconds(i64::MAX, 999_999_999))), Some((LimitExceeded, "wait"))),
        ("consistency: unknown", failed(freshness(options(9))), Some((InvalidArgument, "options.consistency"))),
        ("request: sequence 0", failed(request(identity(0))), Some((InvalidArgument, "request.sequence"))),
        ("request: sequence 1", failed(request(identity(1))), None),
        ("group position: absent", failed(group_position(None)), Some((InvalidArgument, "position"))),
        (
            "group position: unset",
            failed(group_position(Some(pb::GroupPosition { position: None }))),
            Some((InvalidArgument, "position.position")),
        ),
        (
            "group position: false",
            failed(group_position(Some(pb::GroupPosition { position: Some(Group::End(false)) }))),
            Some((InvalidArgument, "position.end")),
        ),
        ("read: no stream", failed(stream_reads(&[])), Some((InvalidArgument, "streams"))),
        (
            "read: 1,025 streams",
            failed(stream_reads(&vec![pb::ReadPosition::default(); 1_025])),
            Some((LimitExceeded, "streams")),
        ),
        ("read: unset", failed(stream_reads(&read(None))), Some((InvalidArgument, "streams[0].position"))),
        (
            "read: false",
            failed(stream_reads(&read(Some(Read::NewEntries(false))))),
            Some((InvalidArgument, "streams[0].new_entries")),
        ),
        (
            "read: false",
            failed(stream_reads(&read(Some(Read::LastEntry(false))))),
            Some((InvalidArgument, "streams[0].last_entry")),
        ),
        (
            "read: the second has no name",
            failed(stream_reads(&[
                pb::ReadPosition { stream: "s".into(), position: Some(Read::After(ZERO)) },
                pb::ReadPosition { stream: String::new(), position: Some(Read::After(ZERO)) },
            ])),
            Some((InvalidArgument, "streams[1].stream")),
        ),
        ("group read: no stream", failed(group_reads(&[])), Some((InvalidArgument, "streams"))),
        (
            "group read: 65 streams",
            failed(group_reads(&vec![pb::GroupReadPosition::default(); 65])),
            Some((LimitExceeded, "streams")),
        ),
        ("group read: unset", failed(group_reads(&group_read(None))), Some((InvalidArgument, "streams[0].position"))),
        (
            "group read: false",
            failed(group_reads(&group_read(Some(GroupRead::NewEntries(false))))),
            Some((InvalidArgument, "streams[0].new_entries")),
        ),
        ("total: 640,000", failed(counts(10_000, 640_000, 9)), None),
        ("total: 640,001", failed(counts(0, 640_001, 9)), Some((LimitExceeded, "total_count"))),
        ("total: as many as of each", failed(counts(5, 5, 9)), None),
        ("total: fewer than of each", failed(counts(5, 4, 9)), Some((InvalidArgument, "total_count"))),
        (
            "references: unknown",
            failed(references("policy.references", 9)),
            Some((InvalidArgument, "policy.references")),
        ),
        ("nack: unknown mode", failed(nack(nack_in(9))), Some((InvalidArgument, "mode"))),
        (
            "retention: unknown references",
            failed(configure_stream(retention(pb::Retention { references: 9, ..Default::default() }))),
            Some((InvalidArgument, "retention.references")),
        ),
        (
            "set last id: none",
            failed(set_last_id(pb::SetLastIdRequest { stream: "s".into(), ..Default::default() })),
            Some((InvalidArgument, "last_id")),
        ),
        ("idempotency: no producer", failed(idempotency(key_of("", "k"))), producer_invalid),
        ("idempotency: 1,024 bytes", failed(idempotency(key_of(&long[1..], &long[1..]))), None),
        (
            "idempotency: a long producer",
            failed(idempotency(key_of(&long, "k"))),
            Some((LimitExceeded, "idempotency.producer_id")),
        ),
        ("idempotency: no key", failed(idempotency(key_of("p", ""))), Some((InvalidArgument, "idempotency.key"))),
        ("idempotency: a long key", failed(idempotency(key_of("p", &long))), Some((LimitExceeded, "idempotency.key"))),
        (
            "idempotency: unset",
            failed(idempotency(pb::Idempotency { key_choice: None, ..key_of("p", "k") })),
            Some((InvalidArgument, "idempotency.key_choice")),
        ),
        (
            "idempotency: false",
            failed(idempotency(pb::Idempotency { key_choice: Some(KeyChoice::FromFields(false)), ..key_of("p", "k") })),
            Some((InvalidArgument, "idempotency.from_fields")),
        ),
        (
            "idempotency: beside an id",
            failed(append(
                pb::AppendRequest { idempotency: Some(key_of("p", "k")), ..append_at(1) },
                &Limits::default(),
            )),
            Some((InvalidArgument, "idempotency")),
        ),
        ("record: no producer", failed(record_idempotency(record("", "k"))), Some((InvalidArgument, "producer_id"))),
        ("record: no key", failed(record_idempotency(record("p", ""))), Some((InvalidArgument, "key"))),
        ("record: a long key", failed(record_idempotency(record("p", &long))), Some((LimitExceeded, "key"))),
        (
            "record: no id",
            failed(record_idempotency(pb::RecordIdempotencyRequest { id: None, ..record("p", "k") })),
            Some((InvalidArgument, "id")),
        ),
        ("groups: no token", failed(list_groups(groups_after(b""))), None),
        ("groups: after a name that is empty", failed(list_groups(groups_after(b"\x01"))), None),
        ("groups: another version", failed(list_groups(groups_after(b"\x02g"))), Some((InvalidArgument, "page_token"))),
        ("groups: no text", failed(list_groups(groups_after(b"\x01\xff"))), Some((InvalidArgument, "page_token"))),
        (
            "groups: a long name",
            failed(list_groups(groups_after(&token_after(&long)))),
            Some((InvalidArgument, "page_token")),
        ),
        ("page token: empty", failed(page_token("", "or")), None),
        ("page token: another prefix", failed(page_token("mail", "or")), Some((InvalidArgument, "page_token"))),
        ("page token: too long", failed(page_token(&long, "n")), Some((InvalidArgument, "page_token"))),
    ];
    for (case, failure, expected) in cases {
        let expected = expected.map(|(reason, field)| (reason, Some(field)));
        assert_eq!(failure.as_ref().map(Failure::facts), expected, "{case}");
    }
}

#[test]
fn absence_means_what_the_protocol_says() {
    let id = EntryId::new;
    assert_eq!(new_id(None).unwrap(), NewId::Auto);
    assert_eq!(count("count", 0, PAGE_DEFAULT).unwrap(), 1_000);
    assert_eq!((range_start(None).unwrap(), range_end(None).unwrap()), (EntryId::MIN, EntryId::MAX));
    assert_eq!(wait(None).unwrap(), Duration::ZERO);
    assert_eq!(freshness(None).unwrap(), Freshness::Linearizable);
    assert_eq!(request(None).unwrap(), None);
    assert_eq!(delivery_time(None), DeliveryTime::Now);
    assert_eq!(page_token("", "").unwrap(), None);
    assert_eq!(references("references", 0).unwrap(), References::Keep);
    assert_eq!(
        (counts(0, 0, 9).unwrap(), counts(0, 4, 9).unwrap(), counts(0, 40, 9).unwrap()),
        ((9, 0), (4, 4), (9, 40))
    );
    assert_eq!((max_bytes(0, 100), max_bytes(7, 100), max_bytes(101, 100)), (100, 7, 100));
    let nack_of = |ids| pb::NackRequest { stream: "s".into(), ids, ..Default::default() };
    assert_eq!(nack(nack_of(vec![ZERO])).unwrap().mode, NackMode::Fail);
    let inspect = pb::InspectStreamRequest { stream: "s".into(), ..Default::default() };
    assert_eq!(inspect_stream(inspect).unwrap().count, 10);

    let exclusive = |ms, seq| bound(pb::id_bound::Bound::Exclusive(pb::EntryId { ms, seq }));
    assert_eq!(range_start(exclusive(1, u64::MAX)).unwrap(), id(2, 0));
    assert_eq!(range_end(exclusive(2, 0)).unwrap(), id(1, u64::MAX));
}

#[test]
fn tokens_hold_names_that_may_be_empty() {
    for name in ["", "billing", "\u{10FFFF}"] {
        assert_eq!(name_in_token(&token_after(name)).unwrap(), Some(name));
    }
    assert_eq!(name_in_token(b"").unwrap(), None);
}

#[test]
fn operations_are_called_as_the_protocol_calls_them() {
    let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).unwrap().file;
    let messages = files.iter().filter(|file| file.package() == "millstream.v1").flat_map(|file| &file.message_type);
    let fields_of = |name: &str| messages.clone().find(|message| message.name() == name).unwrap().field.clone();
    let fields = fields_of("BatchOperation");
    assert!(20 < fields.len());
    for field in &fields {
        // An empty message under the field's number: a tag of two bytes at most, and no bytes.
        let mut bytes = Vec::new();
        prost::encoding::encode_key(field.number() as u32, prost::encoding::WireType::LengthDelimited, &mut bytes);
        bytes.push(0);
        let operation = pb::BatchOperation::decode(&bytes[..]).unwrap().operation.unwrap();
        assert_eq!(super::batch::operation(operation, &Limits::default()).0, field.name());
    }
    // And each has its result, under the same name and number.
    let results = fields_of("BatchResult");
    for field in &fields {
        assert!(results.iter().any(|other| (other.name(), other.number()) == (field.name(), field.number())));
    }
}

#[test]
fn what_a_batch_may_not_hold_is_refused_by_the_path_of_the_field() {
    use pb::batch_operation::Operation;
    use pb::guard::Condition;

    let identity = Some(pb::RequestIdentity { session_id: 1, sequence: 1, completed_below: 0 });
    let second = prost_types::Duration { seconds: 1, nanos: 0 };
    let options = Some(pb::ReadOptions::default());
    let position = Some(pb::group_read_position::Position::NewEntries(true));
    let read_group = |wait| pb::ReadGroupRequest {
        streams: vec![pb::GroupReadPosition { stream: "s".into(), position }],
        wait,
        ..Default::default()
    };
    let get = |stream: &str, options| Operation::GetStream(pb::GetStreamRequest { stream: stream.into(), options });
    let some = |operation| pb::BatchOperation { operation: Some(operation) };
    let of = |operations: Vec<pb::BatchOperation>| pb::BatchRequest { operations, ..Default::default() };
    let second_of_two = |operation| of(vec![some(get("s", None)), some(operation)]);
    let guarded = |stream: &str, condition| pb::BatchRequest {
        guards: vec![pb::Guard { stream: stream.into(), condition }],
        ..of(vec![some(get("s", None))])
    };

    type BatchCase = (&'static str, pb::BatchRequest, Option<(pb::ErrorReason, &'static str)>);
    let cases: Vec<BatchCase> = vec![
        ("one query", of(vec![some(get("s", None))]), None),
        ("nothing", of(vec![]), Some((InvalidArgument, "operations"))),
        ("10,000 operations", of(vec![some(get("s", None)); 10_000]), None),
        ("10,001 operations", of(vec![some(get("s", None)); 10_001]), Some((LimitExceeded, "operations"))),
        ("unset", of(vec![pb::BatchOperation::default()]), Some((InvalidArgument, "operations[0].operation"))),
        ("malformed", second_of_two(get("", None)), Some((InvalidArgument, "operations[1].get_stream.stream"))),
        ("with options", second_of_two(get("s", options)), Some((InvalidArgument, "operations[1].get_stream.options"))),
        (
            "with an identity of its own",
            second_of_two(Operation::DeleteAll(pb::DeleteAllRequest { request: identity })),
            Some((InvalidArgument, "operations[1].delete_all.request")),
        ),
        ("a group read", second_of_two(Operation::ReadGroup(read_group(None))), None),
        (
            "a group read that waits",
            second_of_two(Operation::ReadGroup(read_group(Some(second)))),
            Some((InvalidArgument, "operations[1].read_group.wait")),
        ),
        (
            "an unknown mode",
            pb::BatchRequest { mode: 9, ..second_of_two(get("s", None)) },
            Some((InvalidArgument, "mode")),
        ),
        ("a guard", guarded("s", Some(Condition::Absent(true))), None),
        ("a guard of nothing", guarded("", Some(Condition::Absent(true))), Some((InvalidArgument, "guards[0].stream"))),
        ("a guard without condition", guarded("s", None), Some((InvalidArgument, "guards[0].condition"))),
        ("a guard, but no", guarded("s", Some(Condition::Absent(false))), Some((InvalidArgument, "guards[0].absent"))),
        (
            "1,001 guards",
            pb::BatchRequest { guards: vec![pb::Guard::default(); 1_001], ..of(vec![some(get("s", None))]) },
            Some((LimitExceeded, "guards")),
        ),
    ];
    for (case, request, expected) in cases {
        let failure = failed(super::batch(request, &Limits::default()));
        let expected = expected.map(|(reason, field)| (reason, Some(field)));
        assert_eq!(failure.as_ref().map(Failure::facts), expected, "{case}");
    }
}

#[test]
fn fields_keep_order_duplicates_and_bytes() {
    let field = |name: &'static [u8], value: &'static [u8]| pb::Field { name: name.into(), value: value.into() };
    let packed = fields(&[field(b"a", b"1"), field(b"", b"\xff"), field(b"a", b"")], 100).unwrap();
    let pairs: Vec<_> = packed.iter().collect();
    assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"", b"\xff"), (b"a", b"")]);
}
