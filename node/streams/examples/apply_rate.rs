//! How fast one thread applies commands: `cargo run --release -p millstream-streams --example apply_rate`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this measures time; the core does not")]

use std::time::Instant;

use bytes::Bytes;
use millstream_streams::*;

const ROUNDS: u64 = 400_000;

/// A state with a log index that counts up.
struct Bench {
    state: State,
    index: u64,
}

impl Bench {
    /// Applies proposals that were encoded beforehand, and prints what each took.
    fn run(&mut self, what: &str, proposals: &[Bytes], ids: u64) {
        let started = Instant::now();
        for proposal in proposals {
            self.index += 1;
            let applied = self.state.apply(self.index, proposal, &NoBlocks, false).expect("every block is in memory");
            assert!(applied.outcome.is_ok(), "{:?}", applied.outcome);
        }
        let nanos = started.elapsed().as_nanos() as u64;
        println!("{what:<44} {:>7} ns/command {:>7} ns/id", nanos / proposals.len() as u64, nanos / ids);
    }

    fn freeze(&mut self) {
        let dirty = self.state.dirty_bytes();
        let started = Instant::now();
        let frozen = self.state.freeze();
        let frozen_in = started.elapsed();
        let frozen = frozen.into_rows();
        let bytes: usize = frozen.rows.iter().map(|(_, value)| value.as_ref().map_or(0, Bytes::len)).sum();
        println!(
            "freeze in {frozen_in:?}; {} rows, {} KiB ({} KiB estimated) in {:?}",
            frozen.rows.len(),
            bytes / 1024,
            dirty / 1024,
            started.elapsed()
        );
    }
}

fn propose(at_ms: u64, request: Option<RequestId>, command: impl Into<Command>) -> Bytes {
    Proposal { at_ms, request, command: command.into(), bytes_max: 0 }.encode()
}

fn main() {
    let stream = |n: u64| StreamName::new(format!("orders-{n}")).expect("a good name");
    let group = GroupName::new("billing").expect("a good name");
    let consumer = ConsumerName::new("worker").expect("a good name");
    let fields = Fields::from_pairs([("payload", [b'x'; 100])]).expect("good fields");
    let append = |n: u64, trim| Append {
        stream: stream(n),
        id: NewId::Auto,
        fields: fields.clone(),
        no_create: false,
        trim,
        idempotency: None,
    };
    let mut bench = Bench { state: State::new(), index: 0 };

    let plain: Vec<_> = (0..ROUNDS).map(|n| propose(n, None, append(0, None))).collect();
    bench.run("append, 100 bytes, one stream", &plain, ROUNDS);
    let spread: Vec<_> = (0..ROUNDS).map(|n| propose(n, None, append(n % 1000, None))).collect();
    bench.run("append, 1,000 streams", &spread, ROUNDS);
    let policy = TrimPolicy {
        threshold: TrimThreshold::MaxLength(1000),
        approximate: false,
        limit: None,
        references: References::Keep,
    };
    let trimmed: Vec<_> = (0..ROUNDS).map(|n| propose(n, None, append(5000, Some(policy)))).collect();
    bench.run("append, MAXLEN = 1,000", &trimmed, ROUNDS);
    // The clock moves one millisecond with each, so that keys come and go.
    let keyed: Vec<_> = (0..ROUNDS)
        .map(|n| {
            let producer = ProducerId::new("till").expect("a good id");
            let key = Some(IdempotencyKey::new(n.to_be_bytes().to_vec()).expect("a good key"));
            propose(ROUNDS + n, None, Append { idempotency: Some(Idempotency { producer, key }), ..append(6000, None) })
        })
        .collect();
    bench.run("append, under a key, 100 remembered", &keyed, ROUNDS);
    for (what, mode) in [
        ("batch of 10 appends, as by EXEC", BatchMode::ContinueOnError),
        ("batch of 10 appends, all or nothing", BatchMode::AllOrNothing),
    ] {
        let batches: Vec<_> = (0..ROUNDS / 10)
            .map(|_| {
                let operations = vec![append(7000, None).into(); 10];
                propose(2 * ROUNDS, None, Batch { operations, guards: Vec::new(), mode })
            })
            .collect();
        // In a state of their own: what the commands before have left in memory slows down what follows.
        Bench { state: State::new(), index: 0 }.run(what, &batches, ROUNDS);
    }

    let open = propose(ROUNDS, None, OpenSession {});
    bench.run("open session", &[open], 1);
    let session = bench.index;
    let in_session: Vec<_> = (1..=ROUNDS)
        .map(|sequence| {
            let request = RequestId { session, sequence, completed_below: sequence.saturating_sub(64) };
            propose(ROUNDS, Some(request), append(0, None))
        })
        .collect();
    bench.run("append, in a session, 64 in flight", &in_session, ROUNDS);
    bench.freeze();

    let create = CreateGroup {
        stream: stream(0),
        group: group.clone(),
        position: GroupPosition::After(EntryId::MIN),
        create_stream: false,
        entries_read: None,
    };
    bench.run("create group", &[propose(ROUNDS, None, create)], 1);
    let reads: Vec<_> = (0..ROUNDS / 10)
        .map(|_| {
            let read = ReadGroup {
                group: group.clone(),
                consumer: consumer.clone(),
                streams: vec![GroupRead { stream: stream(0), from: GroupReadFrom::New }],
                count: 10,
                no_ack: false,
                bytes_max: 0,
                total_max: 0,
                claim_min_idle_ms: None,
            };
            propose(ROUNDS, None, read)
        })
        .collect();
    bench.run("read group, 10 entries", &reads, ROUNDS);

    let plan = bench.state.range(&RangeQuery {
        stream: stream(0),
        start: EntryId::MIN,
        end: EntryId::MAX,
        reverse: false,
        count: 10_000,
    });
    let started = Instant::now();
    let page = plan.run(&NoBlocks, usize::MAX).expect("every block is in memory");
    println!("range of {} entries in {:?}", page.entries.len(), started.elapsed());

    // One by one: what a worker does with each entry.
    let nacks: Vec<_> = (0..ROUNDS / 10)
        .map(|n| {
            let ids = vec![EntryId::new(n + 1, 0)];
            let (stream, group) = (stream(0), group.clone());
            let nack = Nack { stream, group, ids, mode: NackMode::Fail, delivery_count: None, force: false };
            propose(2 * ROUNDS, None, nack)
        })
        .collect();
    bench.run("nack, 1 id", &nacks, ROUNDS / 10);
    let claims: Vec<_> = (0..ROUNDS / 10)
        .map(|_| {
            let read = ReadGroup {
                group: group.clone(),
                consumer: consumer.clone(),
                streams: vec![GroupRead { stream: stream(0), from: GroupReadFrom::New }],
                count: 1,
                no_ack: false,
                bytes_max: 0,
                total_max: 0,
                claim_min_idle_ms: Some(0),
            };
            propose(2 * ROUNDS, None, read)
        })
        .collect();
    bench.run("read group with CLAIM, 1 entry", &claims, ROUNDS / 10);
    let ids: Vec<EntryId> = (0..ROUNDS).map(|n| if n == 0 { EntryId::new(0, 1) } else { EntryId::new(n, 0) }).collect();
    let acks: Vec<_> = ids
        .chunks(10)
        .map(|ids| propose(ROUNDS, None, Ack { stream: stream(0), group: group.clone(), ids: ids.to_vec() }))
        .collect();
    bench.run("ack, 10 ids", &acks, ROUNDS);
    bench.freeze();
}
