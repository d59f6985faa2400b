//! The formats of the log, of outcomes and of rows are frozen: what `tests/fixtures` holds is read for ever.
//!
//! A fixture is a log with every kind of command, what came of it, and the rows of the state after it, as a version of
//! this crate wrote them. Bytes must decode to what they meant, applying them must come to the same outcomes and rows, and
//! the rows must restore. A fixture is never written anew: with `WRITE_FIXTURE=1` a missing one is written, and a new
//! command gets a new story and a new fixture beside the old ones.
#![allow(clippy::disallowed_methods, reason = "a test may look for its own files")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is a failure")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use millstream_streams::rows::Garbage;
use millstream_streams::*;
use minicbor::Decoder;
use support::Store;

/// What a fixture holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fixture {
    proposals: Vec<Vec<u8>>,
    outcomes: Vec<Vec<u8>>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Fixture {
    fn of(story: &[Proposal]) -> Fixture {
        let (mut state, mut store, mut fixture) = (State::new(), Store::default(), Fixture::default());
        for (proposal, index) in story.iter().zip(1..) {
            let bytes = proposal.encode();
            let applied = state.apply(index, &bytes, &store, true).unwrap();
            fixture.proposals.push(bytes.to_vec());
            fixture.outcomes.push(encode_outcome(&applied.outcome).to_vec());
        }
        store.checkpoint(&mut state);
        fixture.rows = bytes_of(state.all_rows(&store).unwrap());
        fixture
    }

    /// The same with the rows as a store has them after many checkpoints: bodies in parts, garbage, all.
    fn stored(story: &[Proposal], checkpoint_every: u64) -> Fixture {
        let (mut state, mut store) = (State::new(), Store::default());
        for (proposal, index) in story.iter().zip(1..) {
            state.apply(index, &proposal.encode(), &store, true).unwrap();
            if index % checkpoint_every == 0 {
                store.checkpoint(&mut state);
            }
        }
        store.checkpoint(&mut state);
        // What the node writes in place of deletions while somebody still copies the bodies.
        let dead = BlockKey { stream: 1, first: id(1, 1), version: 1 };
        let (key, value) = Garbage::bodies(7, &[dead.row_key(), dead.parts_from(40).0]);
        store.rows.insert(key, value);
        Fixture { rows: bytes_of(store.rows), ..Fixture::of(story) }
    }

    fn store(&self) -> Store {
        let rows = self.rows.iter().map(|(key, value)| (RowKey::from_bytes(key.clone()), Bytes::from(value.clone())));
        Store { rows: rows.collect() }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (proposal, outcome) in self.proposals.iter().zip(&self.outcomes) {
            writeln!(text, "log {}\noutcome {}", hex(proposal), hex(outcome)).unwrap();
        }
        for (key, value) in &self.rows {
            writeln!(text, "row {} {}", hex(key), hex(value)).unwrap();
        }
        text
    }

    fn from_text(text: &str) -> Fixture {
        let mut fixture = Fixture::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            match words.next().unwrap() {
                "log" => fixture.proposals.push(unhex(words.next().unwrap())),
                "outcome" => fixture.outcomes.push(unhex(words.next().unwrap())),
                "row" => fixture.rows.push((unhex(words.next().unwrap()), unhex(words.next().unwrap()))),
                other => panic!("{other:?} in a fixture"),
            }
        }
        fixture
    }
}

fn bytes_of(rows: impl IntoIterator<Item = (RowKey, Bytes)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The fixture of that name; if it is missing, and `WRITE_FIXTURE` is set, it is written first.
fn fixture(name: &str, now: impl FnOnce() -> Fixture) -> Fixture {
    let path = Path::new("tests/fixtures").join(name);
    if !path.exists() && std::env::var_os("WRITE_FIXTURE").is_some() {
        std::fs::create_dir_all("tests/fixtures").unwrap();
        std::fs::write(&path, now().to_text()).unwrap();
    }
    Fixture::from_text(&std::fs::read_to_string(path).unwrap())
}

/// Bytes mean what they meant and come to what they came to, and the rows restore to the same state.
fn check(fixture: &Fixture, story: &[Proposal]) {
    let decoded: Vec<_> =
        fixture.proposals.iter().map(|bytes| Proposal::decode(&bytes.clone().into()).unwrap()).collect();
    assert_eq!(decoded, story);
    for bytes in &fixture.outcomes {
        assert_eq!(encode_outcome(&decode_outcome(bytes).unwrap()).to_vec(), *bytes);
    }
    let now = Fixture::of(&decoded);
    for (n, (then, now)) in fixture.outcomes.iter().zip(&now.outcomes).enumerate() {
        let (then_outcome, now_outcome) = (decode_outcome(then).unwrap(), decode_outcome(now).unwrap());
        assert_eq!(then_outcome, now_outcome, "{n}: {:?}", story[n]);
    }
    assert_eq!((&fixture.proposals, &fixture.outcomes), (&now.proposals, &now.outcomes));
    let store = fixture.store();
    assert_eq!(bytes_of(store.restore().all_rows(&store).unwrap()), now.rows);
}

/// The open block's body stands in its index row.
#[test]
fn version_1_is_read_for_ever() {
    let fixture = fixture("version-1", || unreachable!("rows of the first version are no longer written"));
    check(&fixture, &story());
    // And is moved out of it when the block changes.
    let mut store = fixture.store();
    let mut state = store.restore();
    let index = state.applied_index() + 1;
    let proposal = Proposal { at_ms: 0, request: None, command: append("orders", NewId::Auto).into(), bytes_max: 0 };
    state.apply(index, &proposal.encode(), &store, false).unwrap();
    store.checkpoint(&mut state);
    assert_eq!(store.restore().all_rows(&store).unwrap(), state.all_rows(&store).unwrap());
}

/// Bodies in parts, and what deletions leave behind.
#[test]
fn version_2_is_read_for_ever() {
    let now = || Fixture::stored(&story(), 7);
    let fixture = fixture("version-2", now);
    check(&fixture, &story());
    assert_eq!(fixture, now());
    let mut store = fixture.store();
    assert!(store.sweep(usize::MAX));
    assert_eq!(store.restore().all_rows(&store).unwrap(), store.restore().all_rows(&fixture.store()).unwrap());
}

/// The story leaves nothing out: every command, reply, refusal and kind of row is in the fixture.
#[test]
fn the_story_is_complete() {
    let story = story();
    let commands: BTreeSet<_> = story.iter().map(|proposal| proposal.command.name()).collect();
    assert_eq!(commands, Command::NAMES.iter().copied().collect());

    let fixture = Fixture::of(&story);
    let (mut replies, mut refusals) = (BTreeSet::new(), BTreeSet::new());
    for bytes in &fixture.outcomes {
        // Behind the version byte: [0, [number, ..]] or [1, [number, ..]].
        let mut d = Decoder::new(&bytes[1..]);
        d.array().unwrap();
        let is_refusal = d.u32().unwrap() == 1;
        d.array().unwrap();
        let number = d.u32().unwrap();
        if is_refusal {
            refusals.insert(number)
        } else {
            replies.insert(number)
        };
    }
    assert_eq!(replies, (0..Command::NAMES.len() as u32).collect());
    assert_eq!(refusals, (0..=17).collect());
    let kinds = |fixture: &Fixture| fixture.rows.iter().map(|(key, _)| key[0]).collect::<BTreeSet<u8>>();
    assert_eq!(kinds(&fixture), (1..=10).chain([240]).collect());
    let stored = Fixture::stored(&story, 7);
    assert_eq!(kinds(&stored), (1..=12).chain([240]).collect());
    let parts = stored.rows.iter().filter_map(|(key, _)| RowKey::from_bytes(key.clone()).body_part());
    assert!(parts.filter(|(_, position)| *position > 0).count() > 10, "bodies in parts");
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn consumer(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

fn fields(pairs: &[(&str, &[u8])]) -> Fields {
    Fields::from_pairs(pairs.iter().copied()).unwrap()
}

fn id(ms: u64, seq: u64) -> EntryId {
    EntryId::new(ms, seq)
}

fn append(name: &str, id: NewId) -> Append {
    let fields = fields(&[("item", b"tea"), ("", b"\xff\x00")]);
    Append { stream: stream(name), id, fields, no_create: false, trim: None, idempotency: None }
}

/// Every command with every option, and every refusal.
fn story() -> Vec<Proposal> {
    let mut log = Vec::new();
    let mut at_ms = 1_000;
    let mut say = |request: Option<RequestId>, command: Command| {
        at_ms += 1;
        log.push(Proposal { at_ms, request, command, bytes_max: 4_000_000 });
    };
    let (orders, billing, alice, bob) = (stream("orders"), group("billing"), consumer("alice"), consumer("bob"));
    let idempotency = |key: Option<&'static str>| Idempotency {
        producer: ProducerId::new("till-7").unwrap(),
        key: key.map(|key| IdempotencyKey::new(key).unwrap()),
    };

    // The cluster, its nodes, sessions.
    say(None, CreateCluster { cluster_id: "mill".into() }.into());
    for incarnation in [7, 8] {
        let (peer_address, client_address) = ("a:1".into(), "a:2".into());
        say(None, RegisterNode { node_id: 1, incarnation, peer_address, client_address }.into());
    }
    say(None, OpenSession {}.into());
    say(None, OpenSession {}.into());
    say(None, CloseSession { session: 5 }.into());
    let request = |session, sequence| Some(RequestId { session, sequence, completed_below: 0 });

    // Appends of all kinds, in a session and out of it.
    say(request(4, 1), append("orders", NewId::Auto).into());
    say(request(4, 1), append("orders", NewId::Auto).into());
    say(request(4, 1), append("orders", NewId::Ms(9_000)).into());
    say(request(4, 5_000), append("orders", NewId::Auto).into());
    say(request(99, 1), append("orders", NewId::Auto).into());
    say(None, append("orders", NewId::Ms(2_000)).into());
    say(None, append("orders", NewId::Explicit(id(2_000, 7))).into());
    say(None, append("orders", NewId::Explicit(id(2_000, 7))).into());
    say(None, append("orders", NewId::Explicit(id(0, 0))).into());
    say(None, Append { no_create: true, ..append("nowhere", NewId::Auto) }.into());
    for key in [None, Some("a"), Some("a"), Some("b")] {
        say(None, Append { idempotency: Some(idempotency(key)), ..append("orders", NewId::Auto) }.into());
    }
    let (producer, key) = (ProducerId::new("till-8").unwrap(), IdempotencyKey::new("c").unwrap());
    for entry in [id(2_000, 0), id(2_000, 7), id(5, 5)] {
        let (stream, producer, key) = (orders.clone(), producer.clone(), key.clone());
        say(None, RecordIdempotency { stream, producer, key, id: entry }.into());
    }
    // More than a block, so that a body is stored.
    for _ in 0..120 {
        say(None, append("orders", NewId::Auto).into());
    }
    for (threshold, approximate, limit, references) in [
        (TrimThreshold::MaxLength(124), false, None, References::Keep),
        (TrimThreshold::MinId(id(2_000, 1)), true, Some(5), References::Delete),
        (TrimThreshold::MaxLength(123), true, Some(0), References::Acked),
    ] {
        let trim = Some(TrimPolicy { threshold, approximate, limit, references });
        say(None, Append { trim, ..append("orders", NewId::Auto) }.into());
    }
    let policy = TrimPolicy {
        threshold: TrimThreshold::MaxLength(123),
        approximate: false,
        limit: None,
        references: References::Keep,
    };
    say(None, Trim { stream: orders.clone(), policy }.into());
    say(None, Trim { stream: orders.clone(), policy: TrimPolicy { limit: Some(1), ..policy } }.into());

    // Groups.
    let create = |name: &str, position, create_stream| CreateGroup {
        stream: stream(name),
        group: group("billing"),
        position,
        create_stream,
        entries_read: Some(3),
    };
    say(None, create("orders", GroupPosition::After(id(0, 0)), false).into());
    say(None, create("orders", GroupPosition::End, false).into());
    say(None, create("empty", GroupPosition::End, true).into());
    say(None, CreateConsumer { stream: orders.clone(), group: billing.clone(), consumer: bob.clone() }.into());
    say(None, CreateConsumer { stream: orders.clone(), group: group("none"), consumer: bob.clone() }.into());
    let read = ReadGroup {
        group: billing.clone(),
        consumer: alice.clone(),
        streams: vec![
            GroupRead { stream: orders.clone(), from: GroupReadFrom::New },
            GroupRead { stream: stream("empty"), from: GroupReadFrom::PendingAfter(id(0, 0)) },
        ],
        count: 12,
        no_ack: false,
        bytes_max: 0,
        total_max: 0,
        claim_min_idle_ms: None,
    };
    say(request(4, 2), read.clone().into());
    let ids: Vec<EntryId> = (11..14).map(|seq| id(2_000, seq)).collect();
    let nack = |mode, delivery_count, ids: &[EntryId]| Nack {
        stream: stream("orders"),
        group: group("billing"),
        ids: ids.to_vec(),
        mode,
        delivery_count,
        force: true,
    };
    say(None, nack(NackMode::Silent, None, &ids[0..1]).into());
    say(None, nack(NackMode::Fail, Some(7), &ids[1..2]).into());
    say(None, nack(NackMode::Fatal, None, &ids[2..3]).into());
    let again = ReadGroup { count: 1, total_max: 9, bytes_max: 100, claim_min_idle_ms: Some(50), ..read.clone() };
    say(None, ReadGroup { consumer: bob.clone(), ..again }.into());
    say(None, ReadGroup { count: 1, no_ack: true, ..read }.into());
    for (delivery_time, last_id) in
        [(DeliveryTime::Now, None), (DeliveryTime::IdleMs(5), Some(id(2_000, 30))), (DeliveryTime::UnixMs(1_001), None)]
    {
        let claim = Claim {
            stream: orders.clone(),
            group: billing.clone(),
            consumer: bob.clone(),
            min_idle_ms: 0,
            ids: vec![id(2_000, 15), id(2_000, 90)],
            delivery_time,
            delivery_count: Some(3),
            force: true,
            ids_only: false,
            last_id,
        };
        say(None, claim.into());
    }
    let gone = DeleteEntries { stream: orders.clone(), ids: vec![id(2_000, 14)], references: References::Keep };
    say(None, gone.into());
    let auto_claim = AutoClaim {
        stream: orders.clone(),
        group: billing.clone(),
        consumer: alice.clone(),
        min_idle_ms: 1,
        start: id(1, 1),
        count: 4,
        ids_only: true,
    };
    say(None, auto_claim.into());
    say(None, Ack { stream: orders.clone(), group: billing.clone(), ids: vec![id(2_000, 15), id(1, 1)] }.into());
    for (references, n) in [References::Keep, References::Delete, References::Acked].into_iter().zip(0..) {
        let ids = vec![id(2_000, 16 + n), id(2_000, 2)];
        say(None, AckAndDelete { stream: orders.clone(), group: billing.clone(), ids, references }.into());
        let ids = vec![id(2_000, 30 + n), id(2_000, 20 + n), id(2_000, 95 + n)];
        say(None, DeleteEntries { stream: orders.clone(), ids, references }.into());
    }
    say(
        None,
        SetGroupPosition {
            stream: orders.clone(),
            group: billing.clone(),
            position: GroupPosition::After(id(2_000, 40)),
            entries_read: None,
        }
        .into(),
    );
    say(None, create("short", GroupPosition::End, true).into());
    say(None, CreateConsumer { stream: stream("short"), group: billing.clone(), consumer: bob.clone() }.into());
    say(None, DeleteConsumer { stream: stream("short"), group: billing.clone(), consumer: bob.clone() }.into());
    say(None, DeleteGroup { stream: stream("short"), group: billing.clone() }.into());
    say(None, DeleteStream { stream: stream("short") }.into());

    // Settings and counters.
    for (last_id, entries_added, max_deleted_id) in
        [(id(3_000, 0), Some(500), Some(id(2_500, 0))), (id(1, 0), None, None), (id(3_000, 0), Some(1), None)]
    {
        say(None, SetLastId { stream: orders.clone(), last_id, entries_added, max_deleted_id }.into());
    }
    let retention = Retention {
        max_length: Some(110),
        min_id: Some(id(1, 1)),
        max_age_ms: Some(1_000_000),
        max_bytes: Some(1_000_000),
        references: References::Acked,
    };
    let configure = ConfigureStream {
        stream: orders.clone(),
        create_stream: false,
        idempotency_duration_s: Some(100),
        idempotency_keys_max: Some(100),
        retention: Some(retention),
    };
    say(None, configure.clone().into());
    say(None, ConfigureStream { stream: stream("configured"), create_stream: true, ..configure }.into());
    say(None, EnforceRetention { streams: vec![orders.clone(), stream("nowhere")] }.into());
    say(None, EnforceRetention { streams: vec![orders.clone(); 1_001] }.into());

    // Questions, batches, and the end of a stream of ids.
    let last = SetLastId { stream: stream("empty"), last_id: EntryId::MAX, entries_added: None, max_deleted_id: None };
    say(None, last.into());
    say(None, append("empty", NewId::Auto).into());
    for query in queries(&orders, &billing) {
        say(None, query.into());
    }
    let batch = Batch {
        operations: vec![append("orders", NewId::Auto).into(), Query::Stream(orders.clone()).into()],
        guards: vec![Guard::Absent { stream: stream("nowhere") }],
        mode: BatchMode::AllOrNothing,
    };
    say(request(4, 3), batch.clone().into());
    let refused = vec![append("orders", NewId::Auto).into(), append("empty", NewId::Auto).into()];
    say(None, Batch { operations: refused.clone(), ..batch.clone() }.into());
    say(None, Batch { operations: refused, mode: BatchMode::ContinueOnError, ..batch.clone() }.into());
    let guards = vec![Guard::Unchanged { stream: orders.clone(), last_change_index: 1 }];
    say(None, Batch { guards, ..batch.clone() }.into());
    // All streams are deleted within a batch that is refused, so that rows are left to look at; then without one.
    let operations = vec![DeleteAll {}.into(), Query::Stream(orders.clone()).into()];
    say(None, Batch { operations, ..batch }.into());
    say(None, DeleteAll {}.into());
    rest(&mut say);
    log
}

/// Something of everything, to stay.
fn rest(say: &mut impl FnMut(Option<RequestId>, Command)) {
    let producer = ProducerId::new("till-9").unwrap();
    for _ in 0..105 {
        let idempotency = Some(Idempotency { producer: producer.clone(), key: None });
        say(None, append("orders", NewId::Auto).into());
        say(None, Append { idempotency, ..append("returns", NewId::Auto) }.into());
    }
    let create = CreateGroup {
        stream: stream("orders"),
        group: group(""),
        position: GroupPosition::After(id(0, 0)),
        create_stream: false,
        entries_read: None,
    };
    say(None, create.into());
    let read = ReadGroup {
        group: group(""),
        consumer: consumer(""),
        streams: vec![GroupRead { stream: stream("orders"), from: GroupReadFrom::New }],
        count: 5,
        no_ack: false,
        bytes_max: 0,
        total_max: 0,
        claim_min_idle_ms: None,
    };
    say(None, read.into());
    let ids = vec![id(1_204, 0), id(1_206, 0)];
    let nack = Nack {
        stream: stream("orders"),
        group: group(""),
        ids,
        mode: NackMode::Fail,
        delivery_count: None,
        force: false,
    };
    say(None, nack.into());
}

fn queries(orders: &StreamName, billing: &GroupName) -> Vec<Query> {
    let (start, end) = (EntryId::MIN, EntryId::MAX);
    vec![
        Query::Range(RangeQuery { stream: orders.clone(), start, end, reverse: true, count: 3 }),
        Query::Read(ReadStreams {
            streams: [ReadFrom::After(id(2_000, 9)), ReadFrom::New, ReadFrom::Last]
                .map(|from| StreamRead { stream: orders.clone(), from })
                .to_vec(),
            count: 2,
            total_max: 5,
            bytes_max: 100,
        }),
        Query::Stream(orders.clone()),
        Query::Stream(stream("nowhere")),
        Query::Details { stream: orders.clone(), count: 2 },
        Query::PendingSummary { stream: orders.clone(), group: billing.clone() },
        Query::Pending(PendingQuery {
            stream: orders.clone(),
            group: billing.clone(),
            start,
            end,
            count: 4,
            consumer: None,
            min_idle_ms: 1,
        }),
        Query::Groups { stream: orders.clone(), after: None, count: 5 },
        Query::Consumers { stream: orders.clone(), group: billing.clone(), after: Some(consumer("alice")), count: 5 },
    ]
}
