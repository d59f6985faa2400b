//! What one command may cost is bounded where the work is done, whatever it asks for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is a failure")]

use millstream_streams::limits::{APPEND_SCAN_MAX, LOOKS_MAX, RETENTION_ENTRIES_MAX};
use millstream_streams::*;

struct Log {
    state: State,
    index: u64,
}

impl Log {
    /// A stream of so many small entries.
    fn with(entries: u64) -> Log {
        let mut log = Log { state: State::new(), index: 0 };
        (0..entries).for_each(|_| drop(log.run(append(None))));
        log
    }

    fn run(&mut self, command: impl Into<Command>) -> Reply {
        self.index += 1;
        let proposal = Proposal { at_ms: self.index, request: None, command: command.into(), bytes_max: 0 };
        self.state.apply(self.index, &proposal.encode(), &NoBlocks, false).unwrap().outcome.unwrap()
    }

    /// All but the last entry are pending, and the group has been given all.
    fn leave_all_but_one_pending(&mut self) {
        let (stream, group) = (orders(), billing());
        let position = GroupPosition::After(EntryId::MIN);
        self.run(CreateGroup { stream, group, position, create_stream: false, entries_read: None });
        let left = self.state.stream_info(&orders()).unwrap().length - 1;
        self.run(ReadGroup {
            group: billing(),
            consumer: ConsumerName::new("alice").unwrap(),
            streams: vec![GroupRead { stream: orders(), from: GroupReadFrom::New }],
            count: left as u32,
            no_ack: false,
            bytes_max: 0,
            total_max: 0,
            claim_min_idle_ms: None,
        });
        let (stream, group) = (orders(), billing());
        self.run(SetGroupPosition { stream, group, position: GroupPosition::End, entries_read: None });
    }
}

fn orders() -> StreamName {
    StreamName::new("orders").unwrap()
}

fn billing() -> GroupName {
    GroupName::new("billing").unwrap()
}

fn append(trim: Option<TrimPolicy>) -> Append {
    let fields = Fields::from_pairs([("n", "1")]).unwrap();
    Append { stream: orders(), id: NewId::Auto, fields, no_create: false, trim, idempotency: None }
}

fn range(count: u32) -> Command {
    let (start, end) = (EntryId::MIN, EntryId::MAX);
    Query::Range(RangeQuery { stream: orders(), start, end, reverse: false, count }).into()
}

fn found(result: &Outcome) -> (usize, bool) {
    match result {
        Ok(Reply::Answer(Answer::Entries { ids, more })) => (ids.len(), *more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_looks_at_so_much_and_says_what_it_left_out() {
    let mut log = Log::with(10_000);
    let mut operations = vec![range(10_000); 12];
    operations.push(append(None).into());
    let batch = Batch { operations, guards: Vec::new(), mode: BatchMode::AllOrNothing };
    let Reply::Batched(Batched { results }) = log.run(batch) else { panic!("not a batch") };
    let looked_at: usize = results[..12].iter().map(|result| found(result).0).sum();
    assert_eq!(looked_at as u64, LOOKS_MAX);
    assert_eq!((found(&results[9]), found(&results[10]), found(&results[11])), ((10_000, false), (0, true), (0, true)));
    assert!(matches!(results[12], Ok(Reply::Appended(_))), "what is no look is done");
    // Counts are not charged for what is not there.
    let nowhere = StreamName::new("nowhere").unwrap();
    let (start, end) = (EntryId::MIN, EntryId::MAX);
    let empty = Query::Range(RangeQuery { stream: nowhere, start, end, reverse: false, count: 10_000 });
    let mut operations = vec![Command::from(empty); 50];
    operations.push(range(10));
    let batch = Batch { operations, guards: Vec::new(), mode: BatchMode::AllOrNothing };
    let Reply::Batched(Batched { results }) = log.run(batch) else { panic!("not a batch") };
    assert_eq!(found(&results[50]), (10, true));
}

#[test]
fn an_append_passes_over_so_many_referenced_entries() {
    let policy = TrimPolicy {
        threshold: TrimThreshold::MaxLength(0),
        approximate: false,
        limit: None,
        references: References::Acked,
    };
    for (pending, trimmed) in [(APPEND_SCAN_MAX - 1, 1), (APPEND_SCAN_MAX, 0)] {
        let mut log = Log::with(pending + 1);
        log.leave_all_but_one_pending();
        let Reply::Appended(appended) = log.run(append(Some(policy))) else { panic!("not appended") };
        assert_eq!(appended.trimmed, trimmed);
    }
}

#[test]
fn retention_goes_on_where_one_command_ended() {
    let mut log = Log::with(RETENTION_ENTRIES_MAX + 500);
    log.run(ConfigureStream {
        stream: orders(),
        create_stream: false,
        idempotency_duration_s: None,
        idempotency_keys_max: None,
        retention: Some(Retention { max_length: Some(10), ..Retention::default() }),
    });
    for expected in [RETENTION_ENTRIES_MAX, 490, 0] {
        let Reply::RetentionEnforced(enforced) = log.run(EnforceRetention { streams: vec![orders()] }) else {
            panic!("not enforced")
        };
        assert_eq!(enforced.trimmed, expected);
    }
}
