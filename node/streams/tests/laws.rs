//! Laws that hold for every log, checked on random ones.

#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use bytes::Bytes;
use millstream_streams::rows::{META_PREFIX, REPLIES_PREFIX, SESSION_PREFIX};
use millstream_streams::*;
use proptest::prelude::*;
use proptest::sample::select;
use support::Store;

// Small domains, so that commands meet: two streams, two groups, three consumers, and ids near each other.

fn stream() -> impl Strategy<Value = StreamName> {
    select(vec!["orders", "returns"]).prop_map(|name| StreamName::new(name).unwrap())
}

fn group() -> impl Strategy<Value = GroupName> {
    select(vec!["billing", ""]).prop_map(|name| GroupName::new(name).unwrap())
}

fn consumer() -> impl Strategy<Value = ConsumerName> {
    select(vec!["alice", "bob", ""]).prop_map(|name| ConsumerName::new(name).unwrap())
}

fn id() -> impl Strategy<Value = EntryId> {
    prop_oneof![
        20 => (0u64..60, 0u64..3).prop_map(|(ms, seq)| EntryId::new(ms, seq)),
        1 => Just(EntryId::MAX),
    ]
}

fn ids() -> impl Strategy<Value = Vec<EntryId>> {
    prop::collection::vec(id(), 0..12)
}

/// Sizes such that a block holds three entries, or many.
fn fields() -> impl Strategy<Value = Fields> {
    select(vec![1, 10, 4000, 4000, 20_000]).prop_map(|size| Fields::from_pairs([("n", vec![b'x'; size])]).unwrap())
}

fn references() -> impl Strategy<Value = References> {
    select(vec![References::Keep, References::Keep, References::Delete, References::Acked])
}

fn policy() -> impl Strategy<Value = TrimPolicy> {
    let threshold = prop_oneof![(0u64..30).prop_map(TrimThreshold::MaxLength), id().prop_map(TrimThreshold::MinId)];
    let limit = prop_oneof![4 => Just(None), 1 => (0u64..20).prop_map(Some)];
    (threshold, any::<bool>(), limit, references()).prop_map(|(threshold, approximate, limit, references)| TrimPolicy {
        threshold,
        approximate,
        limit,
        references,
    })
}

fn position() -> impl Strategy<Value = GroupPosition> {
    prop_oneof![id().prop_map(GroupPosition::After), Just(GroupPosition::End)]
}

fn idempotency_key() -> impl Strategy<Value = IdempotencyKey> {
    (0u8..6).prop_map(|n| IdempotencyKey::new(vec![n]).unwrap())
}

fn producer() -> impl Strategy<Value = ProducerId> {
    select(vec!["p", "q"]).prop_map(|name| ProducerId::new(name).unwrap())
}

fn retention() -> impl Strategy<Value = Retention> {
    let bounds = (
        prop::option::of(0u64..20),
        prop::option::of(id()),
        prop::option::of(1u64..60),
        prop::option::of(0u64..30_000),
    );
    (bounds, references()).prop_map(|((max_length, min_id, max_age_ms, max_bytes), references)| Retention {
        max_length,
        min_id,
        max_age_ms,
        max_bytes,
        references,
    })
}

fn append() -> impl Strategy<Value = Command> {
    let new_id = prop_oneof![
        8 => Just(NewId::Auto),
        1 => (0u64..60).prop_map(NewId::Ms),
        1 => (0u64..60, 0u64..3).prop_map(|(ms, seq)| NewId::Explicit(EntryId::new(ms, seq))),
    ];
    let trim = prop_oneof![4 => Just(None), 1 => policy().prop_map(Some)];
    let key =
        (producer(), prop::option::of(idempotency_key())).prop_map(|(producer, key)| Idempotency { producer, key });
    let idempotency = prop_oneof![4 => Just(None), 1 => key.prop_map(Some)];
    (stream(), new_id, fields(), any::<bool>(), trim, idempotency).prop_map(
        |(stream, id, fields, no_create, trim, idempotency)| {
            Append { stream, id, fields, no_create, trim, idempotency }.into()
        },
    )
}

fn read_group() -> impl Strategy<Value = Command> {
    let from = prop_oneof![3 => Just(GroupReadFrom::New), 1 => id().prop_map(GroupReadFrom::PendingAfter)];
    let reads = prop::collection::vec((stream(), from).prop_map(|(stream, from)| GroupRead { stream, from }), 0..3);
    let bounds = (0u32..20, select(vec![0u64, 0, 9000]), select(vec![0u32, 0, 25]), prop::option::of(0u64..40));
    (group(), consumer(), reads, any::<bool>(), bounds).prop_map(
        |(group, consumer, streams, no_ack, (count, bytes_max, total_max, claim_min_idle_ms))| {
            ReadGroup { group, consumer, streams, count, no_ack, bytes_max, total_max, claim_min_idle_ms }.into()
        },
    )
}

fn claim() -> impl Strategy<Value = Command> {
    let delivery_time = prop_oneof![
        Just(DeliveryTime::Now),
        (0u64..50).prop_map(DeliveryTime::IdleMs),
        (0u64..90).prop_map(DeliveryTime::UnixMs)
    ];
    let counts = (0u64..30, prop::option::of(0u64..9), prop::option::of(id()));
    (stream(), group(), consumer(), ids(), delivery_time, any::<(bool, bool)>(), counts).prop_map(
        |(stream, group, consumer, ids, delivery_time, (force, ids_only), counts)| {
            let (min_idle_ms, delivery_count, last_id) = counts;
            Claim { stream, group, consumer, min_idle_ms, ids, delivery_time, delivery_count, force, ids_only, last_id }
                .into()
        },
    )
}

fn auto_claim() -> impl Strategy<Value = Command> {
    (stream(), group(), consumer(), 0u64..30, id(), 0u32..9, any::<bool>()).prop_map(
        |(stream, group, consumer, min_idle_ms, start, count, ids_only)| {
            AutoClaim { stream, group, consumer, min_idle_ms, start, count, ids_only }.into()
        },
    )
}

fn nack() -> impl Strategy<Value = Command> {
    let mode = select(vec![NackMode::Silent, NackMode::Fail, NackMode::Fatal]);
    (stream(), group(), ids(), mode, prop::option::of(0u64..9), any::<bool>()).prop_map(
        |(stream, group, ids, mode, delivery_count, force)| {
            Nack { stream, group, ids, mode, delivery_count, force }.into()
        },
    )
}

fn query() -> impl Strategy<Value = Command> {
    let range = (stream(), id(), id(), any::<bool>(), 0u32..20).prop_map(|(stream, start, end, reverse, count)| {
        Query::Range(RangeQuery { stream, start, end, reverse, count })
    });
    let from = prop_oneof![id().prop_map(ReadFrom::After), Just(ReadFrom::New), Just(ReadFrom::Last)];
    let reads = prop::collection::vec((stream(), from).prop_map(|(stream, from)| StreamRead { stream, from }), 0..3);
    let read = (reads, 0u32..20, select(vec![0u32, 0, 25]), select(vec![0u64, 0, 9000])).prop_map(
        |(streams, count, total_max, bytes_max)| Query::Read(ReadStreams { streams, count, total_max, bytes_max }),
    );
    let pending = (stream(), group(), id(), id(), prop::option::of(consumer()), 0u64..40).prop_map(
        |(stream, group, start, end, consumer, min_idle_ms)| {
            Query::Pending(PendingQuery { stream, group, start, end, count: 9, consumer, min_idle_ms })
        },
    );
    prop_oneof![
        3 => range,
        2 => read,
        1 => pending,
        1 => stream().prop_map(Query::Stream),
        1 => (stream(), 0u32..9).prop_map(|(stream, count)| Query::Details { stream, count }),
        1 => (stream(), group()).prop_map(|(stream, group)| Query::PendingSummary { stream, group }),
        1 => (stream(), prop::option::of(group()), 0u32..3)
            .prop_map(|(stream, after, count)| Query::Groups { stream, after, count }),
        1 => (stream(), group(), prop::option::of(consumer()), 0u32..3)
            .prop_map(|(stream, group, after, count)| Query::Consumers { stream, group, after, count }),
    ]
    .prop_map(Command::from)
}

fn batch() -> impl Strategy<Value = Command> {
    let guard = prop_oneof![
        (stream(), 0u64..150).prop_map(|(stream, last_change_index)| Guard::Unchanged { stream, last_change_index }),
        stream().prop_map(|stream| Guard::Absent { stream }),
    ];
    let guards = prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec(guard, 1..3)];
    let mode = select(vec![BatchMode::AllOrNothing, BatchMode::ContinueOnError]);
    let operations = prop::collection::vec(prop_oneof![9 => operation(), 1 => query()], 0..8);
    (operations, guards, mode).prop_map(|(operations, guards, mode)| Batch { operations, guards, mode }.into())
}

/// What may stand in a batch, but queries.
fn operation() -> impl Strategy<Value = Command> {
    let entries_read = || prop::option::of(0u64..40);
    prop_oneof![
        30 => append(),
        4 => (stream(), ids(), references())
            .prop_map(|(stream, ids, references)| DeleteEntries { stream, ids, references }.into()),
        3 => (stream(), policy()).prop_map(|(stream, policy)| Trim { stream, policy }.into()),
        1 => stream().prop_map(|stream| DeleteStream { stream }.into()),
        6 => (stream(), group(), position(), any::<bool>(), entries_read()).prop_map(
            |(stream, group, position, create_stream, entries_read)| {
                CreateGroup { stream, group, position, create_stream, entries_read }.into()
            }
        ),
        2 => (stream(), group(), position(), entries_read()).prop_map(|(stream, group, position, entries_read)| {
            SetGroupPosition { stream, group, position, entries_read }.into()
        }),
        1 => (stream(), group()).prop_map(|(stream, group)| DeleteGroup { stream, group }.into()),
        1 => (stream(), group(), consumer())
            .prop_map(|(stream, group, consumer)| CreateConsumer { stream, group, consumer }.into()),
        1 => (stream(), group(), consumer())
            .prop_map(|(stream, group, consumer)| DeleteConsumer { stream, group, consumer }.into()),
        15 => read_group(),
        6 => (stream(), group(), ids()).prop_map(|(stream, group, ids)| Ack { stream, group, ids }.into()),
        3 => (stream(), group(), ids(), references())
            .prop_map(|(stream, group, ids, references)| AckAndDelete { stream, group, ids, references }.into()),
        4 => nack(),
        6 => claim(),
        4 => auto_claim(),
        2 => (stream(), id(), prop::option::of(0u64..50), prop::option::of(id())).prop_map(
            |(stream, last_id, entries_added, max_deleted_id)| {
                SetLastId { stream, last_id, entries_added, max_deleted_id }.into()
            }
        ),
        2 => (stream(), any::<bool>(), prop::option::of(1u32..3), prop::option::of(1u32..4), prop::option::of(retention()))
            .prop_map(|(stream, create_stream, idempotency_duration_s, idempotency_keys_max, retention)| {
                ConfigureStream { stream, create_stream, idempotency_duration_s, idempotency_keys_max, retention }.into()
            }),
        1 => (stream(), producer(), idempotency_key(), id())
            .prop_map(|(stream, producer, key, id)| RecordIdempotency { stream, producer, key, id }.into()),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        60 => operation(),
        12 => batch(),
        2 => query(),
        2 => prop::collection::vec(stream(), 0..3).prop_map(|streams| EnforceRetention { streams }.into()),
        1 => Just(OpenSession {}.into()),
        1 => (1u64..20).prop_map(|session| CloseSession { session }.into()),
        1 => select(vec!["blue", "green"])
            .prop_map(|id| CreateCluster { cluster_id: id.to_owned() }.into()),
        1 => (1u64..3, 1u64..3).prop_map(|(node_id, incarnation)| {
            RegisterNode { node_id, incarnation, peer_address: "a:1".to_owned(), client_address: "a:2".to_owned() }.into()
        }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let request = (1u64..8, 0u64..300, prop_oneof![3 => Just(0u64), 1 => 0u64..200])
        .prop_map(|(session, sequence, completed_below)| RequestId { session, sequence, completed_below });
    let bytes_max = select(vec![0u64, 0, 9000]);
    (0u64..80, prop_oneof![2 => Just(None), 1 => request.prop_map(Some)], command(), bytes_max)
        .prop_map(|(at_ms, request, command, bytes_max)| Proposal { at_ms, request, command, bytes_max })
}

/// A log that begins with some sessions.
fn log() -> impl Strategy<Value = Vec<Proposal>> {
    prop::collection::vec(proposal(), 1..150).prop_map(|mut proposals| {
        let open = Proposal { at_ms: 0, request: None, command: OpenSession {}.into(), bytes_max: 0 };
        proposals.splice(0..0, vec![open; 4]);
        proposals
    })
}

fn apply(state: &mut State, index: u64, proposal: &Proposal, blocks: &dyn Blocks) -> Applied {
    state.apply(index, &proposal.encode(), blocks, true).unwrap()
}

/// All rows but those whose keys begin with one of `prefixes`.
fn rows_without(state: &State, prefixes: &[u8]) -> Vec<(RowKey, Bytes)> {
    let rows = state.all_rows(&NoBlocks).unwrap();
    rows.into_iter().filter(|(key, _)| !prefixes.contains(&key.as_bytes()[0])).collect()
}

/// What the queries say must fit together.
fn check_queries(state: &State, blocks: &dyn Blocks) {
    for StreamSummary { stream, length, .. } in state.list_streams("", None, 10) {
        let all =
            RangeQuery { stream: stream.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse: false, count: 9999 };
        let entries = state.range(&all).run(blocks, usize::MAX).unwrap().entries;
        assert!(entries.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(entries.len() as u64, length);
        let mut backwards =
            state.range(&RangeQuery { reverse: true, ..all.clone() }).run(blocks, usize::MAX).unwrap().entries;
        backwards.reverse();
        assert_eq!(entries, backwards);
        let info = state.stream_info(&stream).unwrap();
        assert_eq!((info.first, info.last), (entries.first().map(|e| e.id), entries.last().map(|e| e.id)));
        assert!(info.last <= Some(info.last_id));
        let bytes: usize = entries.iter().map(|entry| entry.fields.packed_len() + 16).sum();
        assert_eq!(info.bytes, bytes as u64);

        // Page by page it is the same.
        let (mut paged, mut after) = (Vec::new(), EntryId::MIN);
        loop {
            let page = state.read(&ReadQuery { stream: stream.clone(), after, count: 3 }).run(blocks, 5000).unwrap();
            let Some(last) = page.entries.last() else { break };
            after = last.id;
            paged.extend(page.entries);
            assert_eq!(page.more, state.has_entries_after(&stream, after));
        }
        assert_eq!(entries, paged);

        for GroupInfo { group, consumers, pending, released, .. } in state.groups(&stream, None, 100).unwrap() {
            let list = |consumer| {
                let (stream, group) = (stream.clone(), group.clone());
                let (start, end) = (EntryId::MIN, EntryId::MAX);
                let query = PendingQuery { stream, group, start, end, count: 9999, consumer, min_idle_ms: 0 };
                state.pending_list(&query, state.clock_ms()).unwrap().entries
            };
            let all = list(None);
            assert!(all.is_sorted_by(|a, b| a.id < b.id));
            assert_eq!(all.len() as u64, pending);
            let summary = state.pending_summary(&stream, &group).unwrap();
            assert_eq!((summary.min_id, summary.max_id), (all.first().map(|p| p.id), all.last().map(|p| p.id)));
            assert_eq!(summary.count, pending);
            assert_eq!(all.iter().filter(|p| p.consumer.is_none()).count() as u64, released);
            let infos = state.consumers(&stream, &group, None, 100, state.clock_ms()).unwrap();
            assert_eq!(infos.len() as u64, consumers);
            for ConsumerInfo { consumer, pending, .. } in infos {
                let own: Vec<_> = all.iter().filter(|p| p.consumer.as_ref() == Some(&consumer)).cloned().collect();
                assert_eq!(own.len() as u64, pending);
                assert_eq!(own, list(Some(consumer)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_log_makes_the_same_state(log in log()) {
        let (mut one, mut other) = (State::new(), State::new());
        for (proposal, index) in log.iter().zip(1..) {
            let applied = apply(&mut one, index, proposal, &NoBlocks);
            // The other does not serve: payloads must not matter.
            let unserved = other.apply(index, &proposal.encode(), &NoBlocks, false).unwrap();
            prop_assert_eq!(applied.outcome, unserved.outcome);
            prop_assert!(unserved.entries.is_empty());
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(one.all_rows(&NoBlocks).unwrap(), other.all_rows(&NoBlocks).unwrap());
        prop_assert_eq!(one.logical_hash(&NoBlocks).unwrap(), other.logical_hash(&NoBlocks).unwrap());
        check_queries(&one, &NoBlocks);
    }

    /// One replica keeps all in memory. The other writes checkpoints, lets blocks leave memory, and restarts. After a
    /// checkpoint its store holds just the rows of its state: nothing is missing, and nothing is left behind.
    #[test]
    fn a_restart_changes_nothing(log in log(), events in prop::collection::vec(0u8..8, 155)) {
        let (mut one, mut other, mut store) = (State::new(), State::new(), Store::default());
        for ((proposal, index), event) in log.iter().zip(1..).zip(events) {
            if event < 2 {
                store.checkpoint(&mut other);
                if index > 1 {
                    store.check(&other);
                }
            }
            if event == 0 {
                other = store.restore();
            }
            let applied = apply(&mut one, index, proposal, &NoBlocks);
            let restarted = apply(&mut other, index, proposal, &store);
            prop_assert_eq!(applied.outcome, restarted.outcome);
            prop_assert_eq!(applied.entries, restarted.entries);
            prop_assert_eq!(applied.changes, restarted.changes);
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(one.all_rows(&NoBlocks).unwrap(), other.all_rows(&store).unwrap());
        check_queries(&other, &store);
    }

    /// A freeze takes the state as it was when it began, however much is applied before it ends. And so does a restart from
    /// it, in the middle of whatever sweep.
    #[test]
    fn a_freeze_is_of_its_beginning(log in log(), events in prop::collection::vec((0u8..4, 0usize..3, 0usize..30), 155)) {
        let (mut one, mut other, mut store) = (State::new(), State::new(), Store::default());
        let mut frozen_at = None;
        for ((proposal, index), (event, streams, swept)) in log.iter().zip(1..).zip(events) {
            if event == 0 && frozen_at.is_none() && index > 1 {
                other.begin_freeze();
                frozen_at = Some(other.all_rows(&store).unwrap());
            } else if let Some(rows) = frozen_at.take() {
                match other.continue_freeze(streams) {
                    None => frozen_at = Some(rows),
                    Some(frozen) => {
                        let (_, _, bodies) = store.write_frozen(frozen);
                        let restored = store.restore();
                        prop_assert_eq!(&rows, &restored.all_rows(&store).unwrap());
                        store.sweep(swept);
                        prop_assert_eq!(&rows, &store.restore().all_rows(&store).unwrap());
                        // Only some leave memory: the others are asked for again, which is no harm.
                        drop(other.thaw(&bodies[..bodies.len() / 2]));
                    }
                }
            }
            let applied = apply(&mut one, index, proposal, &NoBlocks);
            let stepped = apply(&mut other, index, proposal, &store);
            prop_assert_eq!(applied.outcome, stepped.outcome);
            prop_assert_eq!(applied.entries, stepped.entries);
        }
        if frozen_at.is_some() {
            store.write_frozen(other.continue_freeze(usize::MAX).unwrap());
        }
        store.checkpoint(&mut other);
        store.check(&other);
        prop_assert_eq!(one.all_rows(&NoBlocks).unwrap(), other.all_rows(&store).unwrap());
        prop_assert_eq!(store.restore().logical_hash(&store).unwrap(), one.logical_hash(&NoBlocks).unwrap());
    }

    #[test]
    fn a_refusal_changes_nothing(log in log()) {
        let mut state = State::new();
        for (proposal, index) in log.iter().zip(1..) {
            let but = [META_PREFIX, SESSION_PREFIX, REPLIES_PREFIX];
            let before = rows_without(&state, &but);
            let applied = apply(&mut state, index, proposal, &NoBlocks);
            if applied.outcome.is_err() {
                prop_assert_eq!(before, rows_without(&state, &but));
                prop_assert!(applied.changes.is_empty() && applied.entries.is_empty());
            }
        }
    }

    #[test]
    fn a_retry_changes_nothing_and_gets_the_same_outcome(log in log()) {
        let mut state = State::new();
        for (mut proposal, index) in log.into_iter().zip(1..) {
            if index <= 4 {
                // The sessions open, the first of them under log index 2.
                apply(&mut state, index * 2, &proposal, &NoBlocks);
                continue;
            }
            if proposal.command == (CloseSession { session: 2 }).into() {
                continue;
            }
            // Every command has its own number in that session, and nothing is declared complete.
            proposal.request = Some(RequestId { session: 2, sequence: index, completed_below: 0 });
            let first = apply(&mut state, index * 2, &proposal, &NoBlocks);
            // A delivery of nothing is not on record: its repeat is a new look.
            if matches!(&first.outcome, Ok(Reply::Delivered(delivered)) if delivered.is_empty()) {
                prop_assert!(!state.request_recorded(&proposal.request.unwrap()));
                continue;
            }
            let but = [META_PREFIX, SESSION_PREFIX];
            let before = rows_without(&state, &but);
            proposal.at_ms += 7;
            let again = apply(&mut state, index * 2 + 1, &proposal, &NoBlocks);
            prop_assert_eq!(before, rows_without(&state, &but));
            prop_assert!(again.repeated && !first.repeated);
            prop_assert_eq!(first.outcome, again.outcome);
            // A batch may have removed what it returned.
            match proposal.command {
                Command::Batch(_) => prop_assert_eq!(first.entries.len(), again.entries.len()),
                _ => prop_assert_eq!(first.entries, again.entries),
            }
            prop_assert!(again.changes.is_empty());
        }
    }

    #[test]
    fn proposals_and_outcomes_survive_encoding(log in log()) {
        let mut state = State::new();
        for (proposal, index) in log.iter().zip(1..) {
            prop_assert_eq!(&Proposal::decode(&proposal.encode()).unwrap(), proposal);
            let outcome = apply(&mut state, index, proposal, &NoBlocks).outcome;
            prop_assert_eq!(decode_outcome(&encode_outcome(&outcome)).unwrap(), outcome);
        }
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let mut versioned = vec![1];
        versioned.extend_from_slice(&bytes);
        for bytes in [bytes, versioned.into()] {
            let _ = Proposal::decode(&bytes);
            let _ = decode_outcome(&bytes);
            let _ = Reply::from_bytes(&bytes);
            let _ = Block::decode(bytes.clone());
            let _ = State::new().apply(1, &bytes, &NoBlocks, true);
            let _ = State::restore([Ok::<_, ()>((RowKey::from_bytes(bytes.to_vec()), bytes))]);
        }
    }

    /// Bytes of real proposals, blocks and rows with some of them changed. What still decodes can be worked with.
    #[test]
    fn damage_never_panics(log in log(), hits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<u8>()), 1..4)) {
        let mut state = State::new();
        for (proposal, index) in log.iter().zip(1..) {
            apply(&mut state, index, proposal, &NoBlocks);
        }
        let mut store = Store::default();
        store.checkpoint(&mut state);
        let keys: Vec<_> = store.rows.keys().cloned().collect();
        for (row, at, byte) in &hits {
            let value = store.rows.get_mut(&keys[row % keys.len()]).unwrap();
            let mut damaged = value.to_vec();
            let at = at % damaged.len();
            damaged[at] = *byte;
            *value = damaged.into();
        }
        let mut bytes = log[0].encode().to_vec();
        for (_, at, byte) in &hits {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        let _ = State::new().apply(1, &bytes.into(), &NoBlocks, true);

        let heads = store.rows.iter().filter(|(key, _)| !key.is_body());
        let Ok(mut state) = State::restore(heads.map(|(k, v)| Ok::<_, ()>((k.clone(), v.clone())))) else { return Ok(()) };
        let from = state.applied_index().min(u64::MAX - 1000) + 1;
        for (proposal, index) in log.iter().zip(from..) {
            if state.apply(index, &proposal.encode(), &store, true).is_err() {
                return Ok(());
            }
        }
        let _ = state.all_rows(&store);
        state.freeze().into_rows();
    }
}
