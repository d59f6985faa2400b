//! What pending entries go through: given back, claimed, delivered again. All at the level of commands.

use crate::*;

/// A stream `orders` with a group `billing`, and the time.
struct Shop {
    state: State,
    now_ms: u64,
    bytes_max: u64,
}

fn orders() -> StreamName {
    StreamName::new("orders").unwrap()
}

fn billing() -> GroupName {
    GroupName::new("billing").unwrap()
}

fn name(consumer: &str) -> ConsumerName {
    ConsumerName::new(consumer).unwrap()
}

fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

fn ids(ms: &[u64]) -> Vec<EntryId> {
    ms.iter().copied().map(id).collect()
}

impl Shop {
    /// With entries 1-0, 2-0 and so on, none of them delivered, at 100 ms.
    fn with(entries: u64) -> Shop {
        let mut shop = Shop { state: State::new(), now_ms: 100, bytes_max: 0 };
        (1..=entries).for_each(|ms| shop.append(ms));
        let (stream, group, position) = (orders(), billing(), GroupPosition::After(EntryId::MIN));
        shop.run(CreateGroup { stream, group, position, create_stream: true, entries_read: None }).unwrap();
        shop
    }

    fn run(&mut self, command: impl Into<Command>) -> Outcome {
        self.run_at(command).outcome
    }

    fn run_at(&mut self, command: impl Into<Command>) -> Applied {
        let proposal =
            Proposal { at_ms: self.now_ms, request: None, command: command.into(), bytes_max: self.bytes_max };
        self.state.apply(self.state.applied_index() + 1, &proposal.encode(), &NoBlocks, true).unwrap()
    }

    fn append(&mut self, ms: u64) {
        // Eight packed bytes.
        let fields = Fields::from_pairs([("n", b"12345".to_vec())]).unwrap();
        let id = NewId::Explicit(id(ms));
        self.run(Append { stream: orders(), id, fields, no_create: false, trim: None, idempotency: None }).unwrap();
    }

    fn delete(&mut self, ms: &[u64]) {
        self.run(DeleteEntries { stream: orders(), ids: ids(ms), references: References::Keep }).unwrap();
    }

    fn read(&mut self, consumer: &str, change: impl FnOnce(&mut ReadGroup)) -> Delivery {
        let streams = vec![GroupRead { stream: orders(), from: GroupReadFrom::New }];
        let mut read = ReadGroup {
            group: billing(),
            consumer: name(consumer),
            streams,
            count: 0,
            no_ack: false,
            bytes_max: 0,
            total_max: 0,
            claim_min_idle_ms: None,
        };
        change(&mut read);
        let Ok(Reply::Delivered(mut delivered)) = self.run(read) else { panic!("not delivered") };
        delivered.streams.remove(0)
    }

    fn nack(&mut self, ms: &[u64], mode: NackMode, delivery_count: Option<u64>, force: bool) -> u64 {
        let nack = Nack { stream: orders(), group: billing(), ids: ids(ms), mode, delivery_count, force };
        let applied = self.run_at(nack);
        let Ok(Reply::Nacked(Nacked { released })) = applied.outcome else { panic!("{applied:?}") };
        let (stream, group) = (orders(), billing());
        let expected = (released > 0).then_some(Change::Released { stream, group, entries: released });
        assert!(applied.changes.iter().eq(&expected));
        released
    }

    fn claim(&mut self, consumer: &str, ms: &[u64], change: impl FnOnce(&mut Claim)) -> Vec<EntryId> {
        let mut claim = Claim {
            stream: orders(),
            group: billing(),
            consumer: name(consumer),
            min_idle_ms: 1_000_000,
            ids: ids(ms),
            delivery_time: DeliveryTime::Now,
            delivery_count: None,
            force: false,
            ids_only: false,
            last_id: None,
        };
        change(&mut claim);
        let Ok(Reply::Claimed(Claimed { ids, .. })) = self.run(claim) else { panic!("not claimed") };
        ids
    }

    fn auto_claim(&mut self, consumer: &str, change: impl FnOnce(&mut AutoClaim)) -> AutoClaimed {
        let mut claim = AutoClaim {
            stream: orders(),
            group: billing(),
            consumer: name(consumer),
            min_idle_ms: 0,
            start: EntryId::MIN,
            count: 100,
            ids_only: false,
        };
        change(&mut claim);
        let Ok(Reply::AutoClaimed(claimed)) = self.run(claim) else { panic!("not claimed") };
        claimed
    }

    /// All pending entries as `ms owner idle count`, by id.
    fn pending(&self) -> Vec<String> {
        let (start, end) = (EntryId::MIN, EntryId::MAX);
        let (stream, group) = (orders(), billing());
        let query = PendingQuery { stream, group, start, end, count: 1000, consumer: None, min_idle_ms: 0 };
        let list = self.state.pending_list(&query, self.now_ms).unwrap();
        let show = |PendingEntry { id, consumer, idle_ms, delivery_count }| match (consumer, idle_ms) {
            (Some(consumer), Some(idle_ms)) => format!("{} {consumer} {idle_ms} {delivery_count}", id.ms),
            (None, None) => format!("{} - - {delivery_count}", id.ms),
            other => panic!("{other:?}"),
        };
        list.entries.into_iter().map(show).collect()
    }

    fn next_claimable_ms(&self, min_idle_ms: u64) -> Option<u64> {
        self.state.next_claimable_ms(&orders(), &billing(), min_idle_ms, None).unwrap()
    }

    fn last_change(&self) -> u64 {
        self.state.last_change_index(&orders()).unwrap()
    }
}

fn redelivered(before: &[(u64, u64)]) -> Vec<Redelivery> {
    before.iter().map(|&(idle_ms, delivery_count)| Redelivery { idle_ms, delivery_count }).collect()
}

#[test]
fn a_read_claims_what_was_given_back_and_what_is_idle_and_then_goes_on() {
    let mut shop = Shop::with(6);
    shop.read("alice", |read| read.count = 2);
    shop.now_ms = 130;
    shop.read("bob", |read| read.count = 2);
    assert_eq!(shop.nack(&[4], NackMode::Fail, None, false), 1);
    assert_eq!(shop.next_claimable_ms(50), Some(0));
    shop.now_ms = 160;
    // Bob's 3-0 is too young.
    let delivery = shop.read("carol", |read| read.claim_min_idle_ms = Some(50));
    assert_eq!(delivery.ids, ids(&[4, 1, 2, 5, 6]));
    assert_eq!(delivery.claimed, redelivered(&[(160, 1), (60, 1), (60, 1)]));
    assert_eq!(
        shop.pending(),
        ["1 carol 0 2", "2 carol 0 2", "3 bob 30 1", "4 carol 0 2", "5 carol 0 1", "6 carol 0 1"]
    );
    assert_eq!(shop.next_claimable_ms(50), Some(180));
    assert_eq!(shop.next_claimable_ms(u64::MAX), Some(u64::MAX));
}

#[test]
fn claimed_and_new_entries_share_the_count_and_no_ack_concerns_the_new() {
    let mut shop = Shop::with(6);
    shop.read("alice", |read| read.count = 2);
    let delivery = shop.read("bob", |read| (read.count, read.no_ack, read.claim_min_idle_ms) = (3, true, Some(0)));
    assert_eq!((delivery.ids, delivery.claimed.len()), (ids(&[1, 2, 3]), 2));
    assert_eq!(shop.pending(), ["1 bob 0 2", "2 bob 0 2"]);
    let delivery = shop.read("bob", |read| (read.count, read.claim_min_idle_ms) = (2, Some(0)));
    assert_eq!((delivery.ids, delivery.claimed.len()), (ids(&[1, 2]), 2));
    // The walk ends where it began, so nothing is claimed twice.
    let delivery = shop.read("bob", |read| read.claim_min_idle_ms = Some(0));
    assert_eq!((delivery.ids, delivery.claimed.len()), (ids(&[1, 2, 4, 5, 6]), 2));
}

#[test]
fn a_read_passes_over_what_is_gone_and_leaves_it_pending() {
    let mut shop = Shop::with(3);
    shop.read("alice", |_| ());
    shop.delete(&[1, 2]);
    assert_eq!(shop.read("bob", |read| read.claim_min_idle_ms = Some(0)).ids, ids(&[3]));
    assert_eq!(shop.pending(), ["1 alice 0 1", "2 alice 0 1", "3 bob 0 2"]);
    assert_eq!(shop.next_claimable_ms(7), Some(107));
    shop.delete(&[3]);
    assert_eq!(shop.next_claimable_ms(7), None);
}

#[test]
fn bytes_and_total_bound_claimed_new_and_repeated_entries_alike() {
    let mut shop = Shop::with(6);
    shop.read("alice", |read| read.count = 2);
    let size = 9;
    let mut read = |change: &dyn Fn(&mut ReadGroup)| {
        let Delivery { ids, claimed } = shop.read("alice", |read| {
            read.claim_min_idle_ms = Some(0);
            change(read);
        });
        (ids.iter().map(|id| id.ms).collect::<Vec<_>>(), claimed.len())
    };
    assert_eq!(read(&|read| read.bytes_max = 1), (vec![1], 1));
    assert_eq!(read(&|read| read.bytes_max = size * 2), (vec![2, 1], 2));
    assert_eq!(read(&|read| read.total_max = 3), (vec![2, 1, 3], 2));
    let history = |read: &mut ReadGroup| read.streams[0].from = GroupReadFrom::PendingAfter(id(1));
    assert_eq!(read(&|read| (history(read), read.bytes_max = size).1), (vec![2], 0));
    assert_eq!(read(&|read| (history(read), read.total_max = 1).1), (vec![2], 0));
    // What was not delivered was not counted.
    assert_eq!(shop.pending(), ["1 alice 0 4", "2 alice 0 5", "3 alice 0 1"]);
    // An entry that is gone has no bytes.
    shop.delete(&[2, 3]);
    let delivery = shop.read("alice", |read| (history(read), read.bytes_max = 1).1);
    assert_eq!(delivery.ids, ids(&[2, 3]));
    assert_eq!(shop.pending(), ["1 alice 0 4", "2 alice 0 5", "3 alice 0 1"]);
}

#[test]
fn a_total_below_the_count_is_refused() {
    let mut shop = Shop::with(1);
    let streams = vec![GroupRead { stream: orders(), from: GroupReadFrom::New }];
    let (bytes_max, claim_min_idle_ms) = (0, None);
    let read = |count, total_max| {
        let (group, consumer, streams) = (billing(), name("alice"), streams.clone());
        ReadGroup { group, consumer, streams, count, no_ack: false, bytes_max, total_max, claim_min_idle_ms }
    };
    assert!(matches!(shop.run(read(3, 2)), Err(Refusal::InvalidArgument { field, .. }) if field == "total_max"));
    for (count, total_max) in [(3, 3), (0, 2), (3, 0), (3, u32::MAX)] {
        assert!(Command::from(read(count, total_max)).check().is_ok());
    }
}

#[test]
fn giving_back_counts_as_the_mode_says_and_queues_anew() {
    let mut shop = Shop::with(4);
    shop.read("alice", |read| read.count = 3);
    let before = shop.last_change();
    assert_eq!(shop.nack(&[9], NackMode::Fail, None, false), 0);
    assert_eq!(shop.last_change(), before, "nothing was changed");
    assert_eq!(shop.nack(&[3, 1, 2], NackMode::Silent, None, false), 3);
    assert_eq!(shop.last_change(), shop.state.applied_index());
    assert_eq!(shop.pending(), ["1 - - 0", "2 - - 0", "3 - - 0"]);
    // Again: the mode applies again, and 3-0 goes to the end of the line.
    assert_eq!(shop.nack(&[3], NackMode::Fatal, None, false), 1);
    assert_eq!(shop.nack(&[1], NackMode::Fatal, Some(7), false), 1);
    assert_eq!(shop.pending(), ["1 - - 7", "2 - - 0", &format!("3 - - {}", i64::MAX)]);
    // Forced: only what is in the stream.
    assert_eq!(shop.nack(&[4, 5], NackMode::Fail, None, false), 0);
    assert_eq!(shop.nack(&[4, 5], NackMode::Silent, None, true), 1);
    assert_eq!(shop.read("bob", |read| read.claim_min_idle_ms = Some(1_000_000)).ids, ids(&[2, 3, 1, 4, 4]));
    assert_eq!(shop.pending(), ["1 bob 0 8", "2 bob 0 1", &format!("3 bob 0 {}", i64::MAX), "4 bob 0 1"]);
    assert_eq!(shop.nack(&[3, 3], NackMode::Silent, None, false), 2);
    assert_eq!(shop.pending()[2], format!("3 - - {}", i64::MAX - 2));
    let too_many = Some(limits::DELIVERY_COUNT_MAX + 1);
    let (stream, group, mode) = (orders(), billing(), NackMode::Fail);
    let nack = Nack { stream, group, ids: ids(&[1]), mode, delivery_count: too_many, force: false };
    assert!(matches!(shop.run(nack), Err(Refusal::LimitExceeded { .. })));
}

#[test]
fn what_was_given_back_is_claimed_whatever_its_idle_time() {
    let mut shop = Shop::with(4);
    shop.read("alice", |_| ());
    shop.nack(&[2, 3], NackMode::Fail, None, false);
    assert_eq!(shop.claim("bob", &[1, 2], |_| ()), ids(&[2]));
    let claimed = shop.auto_claim("bob", |claim| claim.min_idle_ms = 1_000_000);
    assert_eq!((claimed.ids, claimed.cursor), (ids(&[3]), EntryId::MIN));
    assert_eq!(shop.pending(), ["1 alice 0 1", "2 bob 0 2", "3 bob 0 2", "4 alice 0 1"]);
    // Nobody's entry goes with no consumer.
    shop.nack(&[2], NackMode::Fail, None, false);
    let (stream, group, consumer) = (orders(), billing(), name("bob"));
    let deleted = shop.run(DeleteConsumer { stream, group, consumer });
    assert_eq!(deleted, Ok(ConsumerDeleted { pending: 1 }.into()));
    assert_eq!(shop.pending(), ["1 alice 0 1", "2 - - 2", "4 alice 0 1"]);
    let info = &shop.state.groups(&orders(), None, 10).unwrap()[0];
    assert_eq!((info.pending, info.released), (3, 1));
    let summary = shop.state.pending_summary(&orders(), &billing()).unwrap();
    assert_eq!((summary.count, summary.consumers), (3, vec![ConsumerPending { consumer: name("alice"), count: 2 }]));
}

#[test]
fn claims_are_bounded_in_bytes() {
    let mut shop = Shop::with(4);
    shop.read("alice", |_| ());
    let idle = |claim: &mut Claim| claim.min_idle_ms = 0;
    shop.bytes_max = 20;
    assert_eq!(shop.claim("bob", &[1, 2, 3], idle), ids(&[1, 2]));
    assert_eq!(shop.pending(), ["1 bob 0 2", "2 bob 0 2", "3 alice 0 1", "4 alice 0 1"]);
    let claimed = shop.auto_claim("carol", |_| ());
    assert_eq!((claimed.ids, claimed.cursor), (ids(&[1, 2]), id(3)));
    shop.bytes_max = 1;
    assert_eq!(shop.claim("bob", &[3, 4], idle), ids(&[3]));
    let claimed = shop.auto_claim("carol", |claim| claim.start = id(3));
    assert_eq!((claimed.ids, claimed.cursor), (ids(&[3]), id(4)));
    // Ids alone have no bytes.
    let claimed = shop.auto_claim("dave", |claim| claim.ids_only = true);
    assert_eq!((claimed.ids, claimed.cursor), (ids(&[1, 2, 3, 4]), EntryId::MIN));
}

#[test]
fn what_was_given_back_passes_the_idle_filter_and_belongs_to_no_consumer() {
    let mut shop = Shop::with(3);
    shop.read("alice", |_| ());
    shop.nack(&[2], NackMode::Fail, None, false);
    let mut query = PendingQuery {
        stream: orders(),
        group: billing(),
        start: EntryId::MIN,
        end: EntryId::MAX,
        count: 10,
        consumer: None,
        min_idle_ms: 1_000_000,
    };
    let found = |shop: &Shop, query: &PendingQuery| {
        let list = shop.state.pending_list(query, shop.now_ms).unwrap();
        list.entries.into_iter().map(|pending| pending.id.ms).collect::<Vec<_>>()
    };
    assert_eq!(found(&shop, &query), [2]);
    (query.consumer, query.min_idle_ms) = (Some(name("alice")), 0);
    assert_eq!(found(&shop, &query), [1, 3]);
}

#[test]
fn nothing_done_is_no_change() {
    let mut shop = Shop::with(2);
    let (stream, group) = (orders(), billing());
    let before = shop.last_change();
    let nothing: Vec<Command> = vec![
        Ack { stream: stream.clone(), group: group.clone(), ids: ids(&[1]) }.into(),
        DeleteConsumer { stream: stream.clone(), group: group.clone(), consumer: name("alice") }.into(),
        SetGroupPosition {
            stream: stream.clone(),
            group: group.clone(),
            position: GroupPosition::After(EntryId::MIN),
            entries_read: None,
        }
        .into(),
        AckAndDelete { stream: stream.clone(), group: group.clone(), ids: ids(&[1]), references: References::Keep }
            .into(),
    ];
    for command in nothing {
        shop.run(command).unwrap();
        assert_eq!(shop.last_change(), before);
    }
    // Also if nothing is delivered or claimed: the time is noted.
    shop.claim("alice", &[], |_| ());
    assert_eq!(shop.last_change(), shop.state.applied_index());
    shop.auto_claim("alice", |_| ());
    assert_eq!(shop.last_change(), shop.state.applied_index());
    shop.read("alice", |_| ());
    shop.read("alice", |_| ());
    assert_eq!(shop.last_change(), shop.state.applied_index());
    shop.run(Ack { stream, group, ids: ids(&[1]) }).unwrap();
    assert_eq!(shop.last_change(), shop.state.applied_index());
}
