//! Calls on streams beyond appending and reading: counters, settings, idempotent production, retention, inspection.

mod api_support;

use std::time::Duration;

use api_support::{Clients, Node, append_to, check_refused, field, id, new_entries};
use millstream_proto::v1 as pb;
use pb::new_entry_id::Choice;

/// Appends an entry of 5 packed bytes or so under an explicit id.
async fn append_at(c: &Clients, stream: &str, ms: u64) {
    let id = Some(pb::NewEntryId { choice: Some(Choice::Explicit(id(ms, 0))) });
    let append = pb::AppendRequest { fields: vec![field("f", "v")], id, ..append_to(stream) };
    c.streams.clone().append(append).await.expect("appended");
}

fn removals(results: &[i32]) -> Vec<pb::Removal> {
    results.iter().map(|result| pb::Removal::try_from(*result).expect("known")).collect()
}

async fn configure(c: &Clients, stream: &str, retention: pb::Retention) {
    let configure = pb::ConfigureStreamRequest {
        stream: stream.into(),
        create_stream: true,
        retention: Some(retention),
        ..Default::default()
    };
    c.streams.clone().configure_stream(configure).await.expect("configured");
}

/// Waits for the node to have enforced retention.
async fn eventually_ids(c: &Clients, stream: &str, expected: &[pb::EntryId]) {
    let start = tokio::time::Instant::now();
    loop {
        let found = c.ids(stream).await;
        if found == expected {
            return;
        }
        assert!(start.elapsed() < api_support::PATIENCE, "{stream}: still {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_last_id_and_the_counters_can_be_set() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    append_at(&c, "s", 5).await;
    let set = pb::SetLastIdRequest {
        stream: "s".into(),
        last_id: Some(id(9, 1)),
        entries_added: Some(7),
        max_deleted_id: Some(id(4, 0)),
        request: None,
    };
    let answer = c.streams.set_last_id(set.clone()).await.expect("set").into_inner();
    assert!(answer.header.is_some() && answer.receipt.is_some());
    let info = c.info("s").await;
    assert_eq!((info.last_id, info.entries_added, info.max_deleted_id), (Some(id(9, 1)), 7, Some(id(4, 0))));
    let only = pb::SetLastIdRequest { last_id: Some(id(5, 0)), entries_added: None, max_deleted_id: None, ..set };
    c.streams.set_last_id(only.clone()).await.expect("lowered");
    let info = c.info("s").await;
    assert_eq!((info.last_id, info.entries_added, info.max_deleted_id), (Some(id(5, 0)), 7, Some(id(4, 0))));
    let none = pb::SetLastIdRequest { stream: "none".into(), ..only };
    check_refused(c.streams.set_last_id(none).await, "STREAM_NOT_FOUND", &[("stream", "none")]);
}

#[tokio::test]
async fn an_append_under_a_key_is_made_once() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    let append = |key_choice, value: &str| pb::AppendRequest {
        fields: vec![field("a", value), field("b", "2")],
        idempotency: Some(pb::Idempotency { producer_id: "p".into(), key_choice: Some(key_choice) }),
        ..append_to("s")
    };
    let key = |key: &str| pb::idempotency::KeyChoice::Key(key.to_owned().into());
    let from_fields = pb::idempotency::KeyChoice::FromFields(true);
    let first = c.streams.append(append(key("k"), "1")).await.expect("appended").into_inner();
    assert!(!first.duplicate);
    let again = c.streams.append(append(key("k"), "other")).await.expect("known").into_inner();
    assert_eq!((again.id, again.duplicate), (first.id, true));
    let by_content = c.streams.append(append(from_fields.clone(), "1")).await.expect("appended").into_inner();
    let mut turned = append(from_fields, "1");
    turned.fields.reverse();
    let again = c.streams.append(turned).await.expect("known").into_inner();
    assert_eq!((again.id, again.duplicate), (by_content.id, true), "whatever the order of the fields");
    assert_eq!(c.ids("s").await.len(), 2);

    let record = |key: &str, id| pb::RecordIdempotencyRequest {
        stream: "s".into(),
        producer_id: "q".into(),
        key: key.to_owned().into(),
        id,
        request: None,
    };
    for added in [true, false] {
        let answer = c.streams.record_idempotency(record("k", first.id)).await.expect("recorded").into_inner();
        assert_eq!((answer.added, answer.receipt.is_some()), (added, true));
    }
    let producers = c.info("s").await.producers.expect("always there");
    let expected = pb::ProducerInfo { producers: 2, keys: 3, keys_added: 3, duplicates: 2 };
    assert_eq!(producers, expected);
}

#[tokio::test]
async fn settings_change_one_by_one() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    let nothing = pb::ConfigureStreamRequest { stream: "s".into(), ..Default::default() };
    let keys = pb::ConfigureStreamRequest { idempotency_keys_max: Some(7), ..nothing.clone() };
    check_refused(c.streams.configure_stream(keys.clone()).await, "STREAM_NOT_FOUND", &[("stream", "s")]);
    let create = |request| pb::ConfigureStreamRequest { create_stream: true, ..request };
    check_refused(c.streams.configure_stream(create(nothing)).await, "INVALID_ARGUMENT", &[]);
    let configured = c.streams.configure_stream(create(keys.clone())).await.expect("configured").into_inner();
    let no_retention = pb::Retention { references: pb::References::Keep.into(), ..Default::default() };
    let expected =
        pb::StreamConfig { idempotency_duration_s: 100, idempotency_keys_max: 7, retention: Some(no_retention) };
    assert_eq!(configured.config, Some(expected));
    let retention = pb::Retention {
        max_length: Some(1),
        min_id: Some(id(2, 3)),
        max_age_ms: Some(4),
        max_bytes: Some(5),
        references: pb::References::Acked.into(),
    };
    let retain = pb::ConfigureStreamRequest {
        stream: "s".into(),
        idempotency_duration_s: Some(3_600),
        retention: Some(retention),
        ..Default::default()
    };
    c.streams.configure_stream(retain.clone()).await.expect("configured");
    let expected = pb::StreamConfig { idempotency_duration_s: 3_600, retention: Some(retention), ..expected };
    assert_eq!(c.info("s").await.config, Some(expected));
    let none = pb::ConfigureStreamRequest { retention: Some(pb::Retention::default()), ..retain };
    let configured = c.streams.configure_stream(none).await.expect("configured").into_inner();
    assert_eq!(configured.config.and_then(|config| config.retention), Some(no_retention));
}

#[tokio::test]
async fn retention_is_enforced_without_being_asked_for() {
    let node = Node::start(|_| ()).await;
    let c = &node.clients;
    for stream in ["length", "id", "bytes", "age", "acked"] {
        c.create_group(stream, "g").await;
        for ms in 1..=4 {
            append_at(c, stream, ms).await;
        }
    }
    let young = c.append("age", "young").await;
    let entry_bytes = c.info("bytes").await.bytes / 4;
    c.deliver("g", "ada", "acked").await;
    let ack = pb::AckRequest { stream: "acked".into(), group: "g".into(), ids: vec![id(1, 0)], request: None };
    c.groups.clone().ack(ack).await.expect("acknowledged");

    let none = pb::Retention::default;
    configure(c, "length", pb::Retention { max_length: Some(1), ..none() }).await;
    configure(c, "id", pb::Retention { min_id: Some(id(3, 0)), ..none() }).await;
    configure(c, "bytes", pb::Retention { max_bytes: Some(3 * entry_bytes), ..none() }).await;
    configure(c, "age", pb::Retention { max_age_ms: Some(3_600_000), ..none() }).await;
    let acked = pb::Retention { max_length: Some(0), references: pb::References::Acked.into(), ..none() };
    configure(c, "acked", acked).await;
    eventually_ids(c, "length", &[id(4, 0)]).await;
    eventually_ids(c, "id", &[id(3, 0), id(4, 0)]).await;
    eventually_ids(c, "bytes", &[id(2, 0), id(3, 0), id(4, 0)]).await;
    eventually_ids(c, "age", &[young]).await;
    eventually_ids(c, "acked", &[id(2, 0), id(3, 0), id(4, 0)]).await;

    // What has its way keeps still. The one that a group holds back is tried now and then.
    let settled = node.trace().0;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(node.trace().0 <= settled + 2, "{} attempts", node.trace().0 - settled);
    let delete = pb::DeleteStreamRequest { stream: "acked".into(), request: None };
    c.streams.clone().delete_stream(delete).await.expect("deleted");
    let settled = node.trace();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(node.trace(), settled);
    append_at(c, "length", 5).await;
    eventually_ids(c, "length", &[id(5, 0)]).await;
}

#[tokio::test]
async fn removals_say_what_became_of_each_id() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    for ms in 1..=4 {
        append_at(&c, "s", ms).await;
    }
    let mut read = new_entries("g", "ada", "s");
    read.count = 2;
    c.groups.read_group(read).await.expect("delivered");
    let delete = |references: pb::References, ids| pb::DeleteEntriesRequest {
        stream: "s".into(),
        ids,
        references: references.into(),
        request: None,
    };
    use pb::Removal::{Deleted, NotFound, Referenced};
    let acked = delete(pb::References::Acked, vec![id(1, 0), id(4, 0), id(0, 9)]);
    let answer = c.streams.delete_entries(acked).await.expect("answered").into_inner();
    assert_eq!((answer.deleted, removals(&answer.results)), (0, vec![Referenced, Referenced, NotFound]));
    let keep = delete(pb::References::Keep, vec![id(1, 0), id(1, 0)]);
    let answer = c.streams.delete_entries(keep).await.expect("answered").into_inner();
    assert_eq!((answer.deleted, removals(&answer.results)), (1, vec![Deleted, NotFound]));
    let pending = pb::GetPendingRequest { stream: "s".into(), group: "g".into(), options: None };
    assert_eq!(c.groups.get_pending(pending.clone()).await.expect("counted").into_inner().count, 2);
    let drop = delete(pb::References::Delete, vec![id(1, 0), id(2, 0)]);
    let answer = c.streams.delete_entries(drop).await.expect("answered").into_inner();
    assert_eq!(removals(&answer.results), [NotFound, Deleted]);
    assert_eq!(c.groups.get_pending(pending).await.expect("counted").into_inner().count, 0);

    // The group has yet to read what is left.
    let policy = |references: pb::References| pb::TrimPolicy {
        threshold: Some(pb::trim_policy::Threshold::MaxLength(0)),
        references: references.into(),
        ..Default::default()
    };
    for (references, trimmed) in [(pb::References::Acked, 0), (pb::References::Delete, 2)] {
        let trim = pb::TrimRequest { stream: "s".into(), policy: Some(policy(references)), request: None };
        assert_eq!(c.streams.trim(trim).await.expect("trimmed").into_inner().trimmed, trimmed);
    }
}

#[tokio::test]
async fn a_read_of_several_streams_is_bounded_as_a_whole() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    for stream in ["a", "b", "c"] {
        c.create_group(stream, "g").await;
        for ms in 1..=3 {
            append_at(&c, stream, ms).await;
        }
    }
    let position = Some(pb::read_position::Position::After(id(0, 0)));
    let streams: Vec<_> =
        ["a", "b", "c"].iter().map(|stream| pb::ReadPosition { stream: (*stream).into(), position }).collect();
    let mut groups = new_entries("g", "ada", "a");
    groups.streams = ["a", "b", "c"].iter().flat_map(|stream| new_entries("g", "ada", stream).streams).collect();
    let counts = |response: pb::ReadResponse| response.streams.iter().map(|s| s.entries.len()).collect::<Vec<_>>();
    let delivered =
        |response: pb::ReadGroupResponse| response.streams.iter().map(|s| s.entries.len()).collect::<Vec<_>>();

    let total = pb::ReadRequest { streams: streams.clone(), count: 2, total_count: 3, ..Default::default() };
    assert_eq!(counts(c.streams.read(total).await.expect("read").into_inner()), [2, 1, 0]);
    let total = pb::ReadRequest { streams: streams.clone(), total_count: 4, ..Default::default() };
    assert_eq!(counts(c.streams.read(total).await.expect("read").into_inner()), [3, 1, 0]);
    let bytes = pb::ReadRequest { streams, max_bytes: 1, ..Default::default() };
    assert_eq!(counts(c.streams.read(bytes).await.expect("read").into_inner()), [1, 0, 0]);

    let total = pb::ReadGroupRequest { total_count: 4, ..groups.clone() };
    assert_eq!(delivered(c.groups.read_group(total).await.expect("delivered").into_inner()), [3, 1, 0]);
    let bytes = pb::ReadGroupRequest { max_bytes: 1, ..groups };
    assert_eq!(delivered(c.groups.read_group(bytes).await.expect("delivered").into_inner()), [0, 1, 0]);
}

#[tokio::test]
async fn a_stream_is_shown_in_full() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    for group in ["audit", "billing"] {
        c.create_group("s", group).await;
    }
    for ms in 1..=3 {
        append_at(&c, "s", ms).await;
    }
    c.deliver("billing", "ada", "s").await;
    let nack =
        pb::NackRequest { stream: "s".into(), group: "billing".into(), ids: vec![id(2, 0)], ..Default::default() };
    c.groups.nack(nack).await.expect("given back");
    let inspect = |count| pb::InspectStreamRequest { stream: "s".into(), count, options: None };
    let full = c.streams.inspect_stream(inspect(0)).await.expect("shown").into_inner();
    let stream = full.stream.expect("described");
    assert!(stream.header.is_some() && stream.first_entry.is_none());
    assert_eq!((stream.length, full.entries.len(), full.truncated), (3, 3, false));
    assert_eq!(full.entries[0].fields, [field("f", "v")]);
    let [audit, billing] = &full.groups[..] else { panic!("{:?}", full.groups) };
    assert_eq!((audit.group.as_str(), audit.pending_count, audit.lag), ("audit", 0, Some(3)));
    assert_eq!((billing.pending_count, billing.released_count), (3, 1));
    let released = &billing.pending[1];
    assert_eq!((released.id, released.consumer.as_deref(), released.delivered_ms), (Some(id(2, 0)), None, 0));
    let ada = &billing.consumers[0];
    assert_eq!((ada.consumer.as_str(), ada.pending_count, ada.pending.len()), ("ada", 2, 2));
    assert!(ada.active_ms.is_some());
    let few = c.streams.inspect_stream(inspect(1)).await.expect("shown").into_inner();
    assert_eq!((few.entries.len(), few.groups[1].pending.len(), few.groups[1].consumers[0].pending.len()), (1, 1, 1));
    let none = pb::InspectStreamRequest { stream: "none".into(), ..inspect(0) };
    check_refused(c.streams.inspect_stream(none).await, "STREAM_NOT_FOUND", &[("stream", "none")]);
}

#[tokio::test]
async fn everything_can_be_deleted_at_once() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    for stream in ["a", "b", "c"] {
        append_at(&c, stream, 1).await;
    }
    let session_id = c.session().await;
    let identity = Some(pb::RequestIdentity { session_id, sequence: 1, completed_below: 0 });
    // A repeat is answered from the record: sessions stay.
    for _ in 0..2 {
        let all = pb::DeleteAllRequest { request: identity };
        assert_eq!(c.streams.delete_all(all).await.expect("deleted").into_inner().streams, 3);
    }
    let list = c.streams.list_streams(pb::ListStreamsRequest::default()).await.expect("listed").into_inner();
    assert!(list.streams.is_empty());
    assert_eq!(c.streams.delete_all(pb::DeleteAllRequest::default()).await.expect("deleted").into_inner().streams, 0);
}
