//! What a large state costs: how long a freeze holds the state, how long a deletion takes, and how much memory an index of
//! blocks and pending entries take.
//!
//! ```text
//! cargo run --release -p millstream-streams --example footprint -- freeze
//! cargo run --release -p millstream-streams --example footprint -- delete [entries]
//! cargo run --release -p millstream-streams --example footprint -- memory [entries] [pending]
//! ```
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this measures time; the core does not")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use millstream_streams::*;

/// A state with a log index that counts up, and a store that forgets what it is told.
#[derive(Default)]
struct Bench {
    state: State,
    index: u64,
    /// Of entries that are pending.
    ids: Vec<EntryId>,
}

/// What the parts of a checkpoint took.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct Checkpoint {
    dirty_mib: u64,
    begin: Duration,
    /// The longest step but one in twenty, as others work on the machine, too; then the longest.
    step_p95: Duration,
    step_max: Duration,
    freeze: Duration,
    encode: Duration,
    rows: usize,
    mib: usize,
    thaw: Duration,
    longest_thaw: Duration,
}

impl Bench {
    fn run(&mut self, command: impl Into<Command>) -> Applied {
        self.index += 1;
        let proposal = Proposal { at_ms: self.index / 100, request: None, command: command.into(), bytes_max: 0 };
        self.state.apply(self.index, &proposal.encode(), &NoBlocks, false).expect("every block is in memory")
    }

    fn checkpoint(&mut self) -> Checkpoint {
        let dirty_mib = self.state.dirty_bytes() >> 20;
        let started = worked();
        self.state.begin_freeze();
        let begin = worked() - started;
        let mut steps = vec![begin];
        let frozen = loop {
            let started = worked();
            let frozen = self.state.continue_freeze(128);
            steps.push(worked() - started);
            if let Some(frozen) = frozen {
                break frozen;
            }
        };
        let freeze = steps.iter().sum();
        steps.sort();
        let (step_p95, step_max) = (steps[steps.len() * 19 / 20], steps[steps.len() - 1]);
        let started = worked();
        let FrozenRows { rows, bodies } = frozen.into_rows();
        let encode = worked() - started;
        let bytes: usize =
            rows.iter().map(|(key, row)| key.as_bytes().len() + row.as_ref().map_or(0, |r| r.len())).sum();
        let (mut thaw, mut longest_thaw, mut freed) = (Duration::ZERO, Duration::ZERO, Vec::new());
        for chunk in bodies.chunks(128) {
            let started = worked();
            freed.append(&mut self.state.thaw(chunk));
            let took = worked() - started;
            thaw += took;
            longest_thaw = longest_thaw.max(took);
        }
        Checkpoint {
            dirty_mib,
            begin,
            step_p95,
            step_max,
            freeze,
            encode,
            rows: rows.len(),
            mib: bytes >> 20,
            thaw,
            longest_thaw,
        }
    }

    /// Appends entries of 100 bytes to so many streams, until so much has changed.
    fn fill(&mut self, streams: u64, dirty: u64) {
        let mut n = 0;
        while self.state.dirty_bytes() < dirty {
            self.run(append(n % streams));
            n += 1;
        }
    }

    /// Appends so many entries to one stream, with a checkpoint now and then.
    fn grow(&mut self, entries: u64) {
        for n in 0..entries {
            self.run(append(0));
            if n % 200_000 == 199_999 {
                self.checkpoint();
            }
        }
        self.checkpoint();
    }

    /// Appends so many entries to the first stream and gives them to a consumer.
    fn pend(&mut self, pending: u64) {
        let position = GroupPosition::End;
        self.run(CreateGroup { stream: stream(0), group: group(), position, create_stream: true, entries_read: None });
        let read = ReadGroup {
            group: group(),
            consumer: ConsumerName::new("worker").expect("a good name"),
            streams: vec![GroupRead { stream: stream(0), from: GroupReadFrom::New }],
            count: 1000,
            no_ack: false,
            bytes_max: 0,
            total_max: 0,
            claim_min_idle_ms: None,
        };
        for n in 0..pending / 1000 {
            for _ in 0..1000 {
                let Ok(Reply::Appended(appended)) = self.run(append(0)).outcome else { panic!("not appended") };
                self.ids.push(appended.id);
            }
            self.run(read.clone());
            if n % 200 == 199 {
                self.checkpoint();
            }
        }
        self.checkpoint();
    }
}

fn stream(n: u64) -> StreamName {
    StreamName::new(format!("orders-{n}")).expect("a good name")
}

fn group() -> GroupName {
    GroupName::new("billing").expect("a good name")
}

fn append(n: u64) -> Append {
    let fields = Fields::from_pairs([("payload", [b'x'; 100])]).expect("good fields");
    Append { stream: stream(n), id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None }
}

fn freeze() {
    for dirty in [32 << 20, 128 << 20] {
        for streams in [1, 100_000] {
            let mut bench = Bench::default();
            (0..streams).for_each(|n| drop(bench.run(append(n))));
            bench.checkpoint();
            bench.fill(streams, dirty);
            println!("appends to {streams} streams: {:?}", bench.checkpoint());
        }
        let mut bench = Bench::default();
        bench.pend(1_000_000);
        let mut n = 0u64;
        while bench.state.dirty_bytes() < dirty && n < 900_000 {
            n += 1;
            // All over the pages.
            let ids = vec![bench.ids[(n * 7919 % 1_000_000) as usize]];
            bench.run(Ack { stream: stream(0), group: group(), ids });
        }
        println!("{n} acks among 1,000,000 pending: {:?}", bench.checkpoint());
    }
}

fn delete(entries: u64) {
    for what in ["delete", "trim"] {
        let mut bench = Bench::default();
        bench.grow(entries);
        let started = worked();
        match what {
            "delete" => drop(bench.run(DeleteStream { stream: stream(0) })),
            _ => {
                let threshold = TrimThreshold::MaxLength(0);
                let policy = TrimPolicy { threshold, approximate: true, limit: Some(0), references: References::Keep };
                drop(bench.run(Trim { stream: stream(0), policy }));
            }
        }
        println!("{what} {entries} entries: applied in {:?}", worked() - started);
        println!("  {:?}", bench.checkpoint());
    }
}

fn memory(entries: u64, pending: u64) {
    let before = resident();
    let mut bench = Bench::default();
    bench.grow(entries);
    let index = resident();
    println!(
        "{entries} entries of 100 bytes, stored: {} MiB, {} bytes/block",
        (index - before) >> 20,
        (index - before) / (entries / 100).max(1)
    );
    bench.pend(pending);
    bench.ids = Vec::new();
    let all = resident();
    println!("{pending} pending: {} MiB, {} bytes each", (all - index) >> 20, (all - index) / pending.max(1));
}

/// Time that has passed. On a busy machine the smallest of several runs is nearest to the truth.
fn worked() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

static START: OnceLock<Instant> = OnceLock::new();

/// Bytes in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default| arguments.get(n).map_or(default, |text| text.parse().expect("a number"));
    match arguments.first().map(String::as_str) {
        Some("delete") => delete(number(1, 10_000_000)),
        Some("memory") => memory(number(1, 50_000_000), number(2, 1_000_000)),
        _ => freeze(),
    }
}
