//! Consumer groups: what was delivered to whom.
//!
//! The pending entries stand in one list; each consumer keeps the ids that are its own, so that its history and its count
//! cost nothing to find. Only the list is stored: what follows from it is rebuilt at a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use minicbor::{Decode, Encode};

use crate::codec;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::freeze::Piece;
use crate::names::{ConsumerName, GroupName};
use crate::pending::{Pending, PendingList};

/// A consumer group of a stream.
#[derive(Debug)]
pub(crate) struct Group {
    head: GroupHead,
    /// Their numbers, by name.
    numbers: BTreeMap<ConsumerName, u64>,
    /// By number.
    consumers: BTreeMap<u64, Consumer>,
    pending: PendingList,
    dirty_head: bool,
    /// A freeze has handed out rows of it.
    stored: bool,
    /// Consumers that changed, or that are gone, since the last freeze.
    dirty_consumers: BTreeSet<u64>,
    /// How to undo what was done since [`Group::begin`].
    journal: Option<Box<Journal>>,
}

/// What a group was when its journal began, beside its pending entries.
#[derive(Debug)]
struct Journal {
    head: GroupHead,
    /// The consumers that changed since; `None`: there was none of this number.
    consumers: BTreeMap<u64, Option<ConsumerRow>>,
}

/// The head row of a group.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct GroupHead {
    /// The number of its creation: keys of its rows.
    #[n(0)]
    incarnation: u64,
    /// The last delivered id.
    #[n(1)]
    last_id: EntryId,
    /// How many entries it has read; `None` if that cannot be known.
    #[n(2)]
    entries_read: Option<u64>,
    /// The number of its next consumer.
    #[n(3)]
    next_consumer: u64,
    /// The number of the next put of a pending entry.
    #[n(4)]
    next_put: u64,
}

/// A consumer of a group.
#[derive(Debug)]
pub(crate) struct Consumer {
    row: ConsumerRow,
    /// The ids of the pending entries that it owns.
    pending: BTreeSet<EntryId>,
}

/// The row of a consumer.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct ConsumerRow {
    #[n(0)]
    name: ConsumerName,
    /// When it last tried to read or claim, in milliseconds since the Unix epoch.
    #[n(1)]
    seen_ms: u64,
    /// When an entry last became its own; `None`: never.
    #[n(2)]
    active_ms: Option<u64>,
}

impl Consumer {
    /// Its name.
    pub(crate) fn name(&self) -> &ConsumerName {
        &self.row.name
    }

    /// When it last tried to read or claim.
    pub(crate) fn seen_ms(&self) -> u64 {
        self.row.seen_ms
    }

    /// When an entry last became its own.
    pub(crate) fn active_ms(&self) -> Option<u64> {
        self.row.active_ms
    }

    /// The ids of its pending entries.
    pub(crate) fn pending(&self) -> &BTreeSet<EntryId> {
        &self.pending
    }
}

impl Group {
    pub(crate) fn new(incarnation: u64, last_id: EntryId, entries_read: Option<u64>) -> Group {
        Group {
            head: GroupHead { incarnation, last_id, entries_read, next_consumer: 0, next_put: 0 },
            numbers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            pending: PendingList::default(),
            dirty_head: true,
            stored: false,
            dirty_consumers: BTreeSet::new(),
            journal: None,
        }
    }

    /// The number of its creation.
    pub(crate) fn incarnation(&self) -> u64 {
        self.head.incarnation
    }

    /// The last delivered id.
    pub(crate) fn last_id(&self) -> EntryId {
        self.head.last_id
    }

    /// How many entries it has read; `None` if that cannot be known.
    pub(crate) fn entries_read(&self) -> Option<u64> {
        self.head.entries_read
    }

    /// Moves it.
    pub(crate) fn set_position(&mut self, last_id: EntryId, entries_read: Option<u64>) {
        self.head.last_id = last_id;
        self.head.entries_read = entries_read;
        self.dirty_head = true;
    }

    /// Its pending entries.
    pub(crate) fn pending(&self) -> &PendingList {
        &self.pending
    }

    /// Its consumers, by name.
    pub(crate) fn consumers(&self) -> impl ExactSizeIterator<Item = (&ConsumerName, u64)> {
        self.numbers.iter().map(|(name, number)| (name, *number))
    }

    /// Its consumers whose names come after `after`, by name.
    pub(crate) fn consumers_after(&self, after: Option<&ConsumerName>) -> impl Iterator<Item = (&ConsumerName, u64)> {
        let from = after.map_or(Unbounded, Excluded);
        self.numbers.range::<ConsumerName, _>((from, Unbounded)).map(|(name, number)| (name, *number))
    }

    /// The consumer of this number.
    pub(crate) fn consumer(&self, number: u64) -> Option<&Consumer> {
        self.consumers.get(&number)
    }

    /// The name of the consumer that owns the pending entry; `None`: nobody does.
    pub(crate) fn owner_name(&self, pending: &Pending) -> Option<&ConsumerName> {
        self.consumer(pending.consumer?).map(Consumer::name)
    }

    /// The number of the consumer of this name.
    pub(crate) fn number(&self, name: &ConsumerName) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    /// A consumer is about to change, to come or to go.
    fn change_consumer(&mut self, number: u64) {
        self.dirty_consumers.insert(number);
        if let Some(journal) = &mut self.journal {
            let before = || self.consumers.get(&number).map(|consumer| consumer.row.clone());
            journal.consumers.entry(number).or_insert_with(before);
        }
    }

    /// Creates the consumer if it is missing: its number, and whether it was.
    pub(crate) fn create_consumer(&mut self, name: &ConsumerName, now_ms: u64) -> (u64, bool) {
        if let Some(number) = self.number(name) {
            return (number, false);
        }
        let number = self.head.next_consumer;
        self.head.next_consumer = number.saturating_add(1);
        self.dirty_head = true;
        self.change_consumer(number);
        self.numbers.insert(name.clone(), number);
        let row = ConsumerRow { name: name.clone(), seen_ms: now_ms, active_ms: None };
        self.consumers.insert(number, Consumer { row, pending: BTreeSet::new() });
        (number, true)
    }

    /// The consumer tries something: creates it if it is missing, and notes the time.
    pub(crate) fn seen(&mut self, name: &ConsumerName, now_ms: u64) -> u64 {
        let (number, _) = self.create_consumer(name, now_ms);
        self.change_consumer(number);
        if let Some(consumer) = self.consumers.get_mut(&number) {
            consumer.row.seen_ms = now_ms;
        }
        number
    }

    /// An entry became the consumer's own.
    pub(crate) fn active(&mut self, number: u64, now_ms: u64) {
        self.change_consumer(number);
        if let Some(consumer) = self.consumers.get_mut(&number) {
            consumer.row.active_ms = Some(now_ms);
        }
    }

    /// Deletes the consumer and the pending entries that it owns; says how many those were. `None`: there is none.
    pub(crate) fn delete_consumer(&mut self, name: &ConsumerName) -> Option<u64> {
        let number = self.number(name)?;
        self.change_consumer(number);
        self.numbers.remove(name);
        let consumer = self.consumers.remove(&number)?;
        for id in &consumer.pending {
            self.pending.remove(*id);
        }
        Some(consumer.pending.len() as u64)
    }

    /// Makes an entry pending for a consumer, whoever had it until now, or changes how it is. It comes last among those
    /// delivered at the same time.
    pub(crate) fn give(&mut self, id: EntryId, consumer: u64, delivered_ms: u64, delivery_count: u64) {
        self.put(Pending {
            id,
            consumer: Some(consumer),
            delivered_ms,
            delivery_count,
            put_number: self.head.next_put,
        });
    }

    /// Makes an entry pending for nobody. It comes last among those that were given back.
    pub(crate) fn release(&mut self, id: EntryId, delivery_count: u64) {
        self.put(Pending { id, consumer: None, delivered_ms: 0, delivery_count, put_number: self.head.next_put });
    }

    fn put(&mut self, pending: Pending) {
        self.head.next_put = pending.put_number.saturating_add(1);
        self.dirty_head = true;
        let old = self.pending.put(pending);
        if let Some(old) = old {
            if old.consumer == pending.consumer {
                return;
            }
            if !crate::mutant!(ClaimKeepsOwner) {
                self.disown(&old);
            }
        }
        self.own(&pending);
    }

    /// Makes an entry pending no more; false if it was not.
    pub(crate) fn remove_pending(&mut self, id: EntryId) -> bool {
        let Some(old) = self.pending.remove(id) else { return false };
        self.disown(&old);
        true
    }

    fn owner(&mut self, pending: &Pending) -> Option<&mut Consumer> {
        self.consumers.get_mut(&pending.consumer?)
    }

    fn own(&mut self, pending: &Pending) {
        if let Some(owner) = self.owner(pending) {
            owner.pending.insert(pending.id);
        }
    }

    fn disown(&mut self, pending: &Pending) {
        if let Some(owner) = self.owner(pending) {
            owner.pending.remove(&pending.id);
        }
    }
}

/// Taking back what was done.
impl Group {
    /// From now on, remembers how to undo what is done. False if it does already.
    pub(crate) fn begin(&mut self) -> bool {
        if self.journal.is_some() {
            return false;
        }
        self.journal = Some(Box::new(Journal { head: self.head, consumers: BTreeMap::new() }));
        self.pending.begin();
        true
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        self.journal = None;
        self.pending.commit();
    }

    /// Undoes what was done since [`Group::begin`]. What it restores stays marked as changed.
    pub(crate) fn rollback(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        let Journal { head, consumers } = *journal;
        self.head = head;
        let (gone, back) = self.pending.rollback();
        for pending in &gone {
            self.disown(pending);
        }
        // Those that came since go before those that were there return: they may have the same name.
        for (number, _) in consumers.iter().filter(|(_, before)| before.is_none()) {
            if let Some(consumer) = self.consumers.remove(number) {
                self.numbers.remove(consumer.name());
            }
        }
        for (number, row) in consumers.into_iter().filter_map(|(number, before)| Some((number, before?))) {
            self.numbers.insert(row.name.clone(), number);
            let pending = self.consumers.remove(&number).map(|consumer| consumer.pending).unwrap_or_default();
            self.consumers.insert(number, Consumer { row, pending });
        }
        for pending in &back {
            self.own(pending);
        }
    }
}

/// Rows: a head, consumers by number, pages of pending entries.
impl Group {
    /// Takes what changed since the last freeze.
    pub(crate) fn freeze(&mut self, stream: u64, name: &GroupName, frozen: &mut Piece) {
        let group = self.head.incarnation;
        self.stored = true;
        if std::mem::take(&mut self.dirty_head) {
            let mut head = self.head;
            if crate::mutant!(GroupPositionNotStored) {
                head.last_id = EntryId::MIN;
            }
            frozen.groups.push((stream, name.clone(), head));
        }
        for number in std::mem::take(&mut self.dirty_consumers) {
            let row = self.consumers.get(&number).map(|consumer| consumer.row.clone());
            frozen.consumers.push((group, number, row));
        }
        self.pending.freeze(group, frozen);
    }

    /// All of it.
    pub(crate) fn all_rows(&self, stream: u64, name: &GroupName, frozen: &mut Piece) {
        let group = self.head.incarnation;
        frozen.groups.push((stream, name.clone(), self.head));
        let consumers = self.consumers.iter().map(|(number, consumer)| (group, *number, Some(consumer.row.clone())));
        frozen.consumers.extend(consumers);
        self.pending.all_rows(group, frozen);
    }

    /// Whether a freeze has handed out rows of it.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }

    /// What became dirty since this was asked or since the last freeze, in bytes.
    pub(crate) fn take_dirty_bytes(&mut self) -> u64 {
        self.pending.take_dirty_bytes()
    }

    /// Begins with the head row; consumers and then pages follow.
    pub(crate) fn restore(head: &[u8]) -> Result<Group, DecodeError> {
        let head: GroupHead = codec::decode(head)?;
        let mut group = Group::new(head.incarnation, head.last_id, head.entries_read);
        group.head = head;
        group.dirty_head = false;
        group.stored = true;
        Ok(group)
    }

    /// Adds a consumer from its row.
    pub(crate) fn restore_consumer(&mut self, number: u64, row: &[u8]) -> Result<(), DecodeError> {
        let row: ConsumerRow = codec::decode(row)?;
        let is_new = self.numbers.insert(row.name.clone(), number).is_none();
        if !is_new || number >= self.head.next_consumer {
            return Err(DecodeError::Malformed { problem: "consumer twice, or of a number not yet given".to_owned() });
        }
        self.consumers.insert(number, Consumer { row, pending: BTreeSet::new() });
        Ok(())
    }

    /// Adds a page of pending entries from its row, after all consumers.
    pub(crate) fn restore_page(&mut self, from: EntryId, row: &[u8]) -> Result<(), DecodeError> {
        for pending in self.pending.restore_page(from, row)? {
            let problem = if pending.put_number >= self.head.next_put {
                "of a number not yet given"
            } else if pending.consumer.is_some() && self.owner(&pending).is_none() {
                "for a consumer that is not there"
            } else {
                self.own(&pending);
                continue;
            };
            return Err(DecodeError::Malformed { problem: format!("{} is pending {problem}", pending.id) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::freeze::Frozen;
    use crate::rows::{Row, RowKey};

    const STREAM: u64 = 7;

    #[derive(Debug, Clone)]
    enum Step {
        Give { n: u64, consumer: usize, delivered_ms: u64, count: u64 },
        Release { n: u64, count: u64 },
        Remove { n: u64 },
        Seen { consumer: usize },
        DeleteConsumer { consumer: usize },
        Move { n: u64 },
    }

    fn names() -> Vec<ConsumerName> {
        ["alice", "bob", ""].into_iter().filter_map(|name| ConsumerName::new(name).ok()).collect()
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = || 0u64..300;
        let consumer = || 0usize..3;
        prop_oneof![
            20 => (n(), consumer(), 0u64..8, 0u64..9)
                .prop_map(|(n, consumer, delivered_ms, count)| Step::Give { n, consumer, delivered_ms, count }),
            6 => (n(), 0u64..9).prop_map(|(n, count)| Step::Release { n, count }),
            10 => n().prop_map(|n| Step::Remove { n }),
            2 => consumer().prop_map(|consumer| Step::Seen { consumer }),
            1 => consumer().prop_map(|consumer| Step::DeleteConsumer { consumer }),
            1 => n().prop_map(|n| Step::Move { n }),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(step(), 0..400)
    }

    /// A group with pages that are full.
    fn filled() -> Group {
        let mut group = Group::new(3, EntryId::MIN, None);
        let consumer = names().first().map_or(0, |name| group.seen(name, 0));
        (0..300).for_each(|n| group.give(EntryId::new(n, 0), consumer, 4, 1));
        group
    }

    fn apply(group: &mut Group, step: &Step, now_ms: u64) {
        let id = |n: &u64| EntryId::new(*n, 0);
        let names = names();
        match step {
            Step::Give { n, consumer, delivered_ms, count } => {
                let consumer = group.seen(&names[*consumer], now_ms);
                group.active(consumer, now_ms);
                group.give(id(n), consumer, *delivered_ms, *count);
            }
            Step::Release { n, count } => group.release(id(n), *count),
            Step::Remove { n } => _ = group.remove_pending(id(n)),
            Step::Seen { consumer } => _ = group.seen(&names[*consumer], now_ms),
            Step::DeleteConsumer { consumer } => _ = group.delete_consumer(&names[*consumer]),
            Step::Move { n } => group.set_position(id(n), Some(*n)),
        }
    }

    fn name() -> GroupName {
        GroupName::new("billing").unwrap()
    }

    fn all_rows(group: &Group) -> Vec<(RowKey, Bytes)> {
        let mut rows = Piece::default();
        group.all_rows(STREAM, &name(), &mut rows);
        Frozen::from(rows).into_rows().rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn frozen(group: &mut Group, stored: &mut BTreeMap<RowKey, Bytes>) {
        let mut rows = Piece::default();
        group.freeze(STREAM, &name(), &mut rows);
        for (key, value) in Frozen::from(rows).into_rows().rows {
            match value {
                Some(value) => stored.insert(key, value),
                None => stored.remove(&key),
            };
        }
    }

    fn restore(rows: &[(RowKey, Bytes)]) -> Result<Group, DecodeError> {
        let mut restored = None;
        for (key, value) in rows {
            match (key.parse(), &mut restored) {
                (Some(Row::Group { .. }), None) => restored = Some(Group::restore(value)?),
                (Some(Row::Consumer { consumer, .. }), Some(group)) => group.restore_consumer(consumer, value)?,
                (Some(Row::Pending { from, .. }), Some(group)) => group.restore_page(from, value)?,
                other => panic!("{other:?}"),
            }
        }
        restored.ok_or(DecodeError::Empty)
    }

    /// All that follows from the rows, and is kept beside them.
    fn derived(group: &Group) -> impl PartialEq + std::fmt::Debug + use<> {
        let order: Vec<Pending> = group.pending.in_order().copied().collect();
        let own: Vec<(u64, BTreeSet<EntryId>)> =
            group.consumers.iter().map(|(number, consumer)| (*number, consumer.pending.clone())).collect();
        (order, group.pending.len(), group.pending.released(), own, group.numbers.clone())
    }

    /// The same, worked out from the list by id.
    fn check_derived(group: &Group) {
        let all: Vec<Pending> = group.pending.iter_from(EntryId::MIN).copied().collect();
        assert_eq!(group.pending.len(), all.len() as u64);
        assert_eq!(group.pending.released(), all.iter().filter(|pending| pending.consumer.is_none()).count() as u64);
        assert_eq!(group.pending.in_order().count(), all.len());
        for (number, consumer) in &group.consumers {
            assert_eq!(group.number(consumer.name()), Some(*number));
            let own = all.iter().filter(|pending| pending.consumer == Some(*number)).map(|pending| pending.id);
            assert!(consumer.pending.iter().copied().eq(own));
        }
        assert_eq!(group.numbers.len(), group.consumers.len());
    }

    /// The order by its definition: a list in which each put finds its place from the end.
    #[derive(Default)]
    struct NaiveOrder(Vec<(EntryId, Option<u64>)>);

    impl NaiveOrder {
        fn remove(&mut self, id: EntryId) {
            self.0.retain(|(other, _)| *other != id);
        }

        fn put(&mut self, id: EntryId, delivered_ms: Option<u64>) {
            self.remove(id);
            let stays_before = |(_, other): &&(EntryId, Option<u64>)| match (other, delivered_ms) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(other), Some(own)) => *other <= own,
            };
            let at = self.0.iter().filter(stays_before).count();
            self.0.insert(at, (id, delivered_ms));
        }
    }

    proptest! {
        /// Released ones first, in the order of their release; then by time of delivery; ties as they came.
        #[test]
        fn keeps_the_order(steps in steps()) {
            let mut group = Group::new(3, EntryId::MIN, None);
            let mut model = NaiveOrder::default();
            for (step, now_ms) in steps.iter().zip(0..) {
                match step {
                    Step::Give { n, delivered_ms, .. } => model.put(EntryId::new(*n, 0), Some(*delivered_ms)),
                    Step::Release { n, .. } => model.put(EntryId::new(*n, 0), None),
                    Step::Remove { n } => model.remove(EntryId::new(*n, 0)),
                    Step::DeleteConsumer { consumer } => {
                        let own = group.number(&names()[*consumer]).and_then(|number| group.consumer(number));
                        own.into_iter().flat_map(Consumer::pending).for_each(|id| model.remove(*id));
                    }
                    Step::Seen { .. } | Step::Move { .. } => {}
                }
                apply(&mut group, step, now_ms);
                let order = group.pending.in_order().map(|p| (p.id, p.consumer.map(|_| p.delivered_ms)));
                prop_assert!(order.eq(model.0.iter().copied()));
                check_derived(&group);
            }
        }

        /// Rows written bit by bit are the rows of the whole, and bring back what follows from them, order included.
        #[test]
        fn restores_from_rows(steps in steps(), freeze_every in select(vec![1usize, 7, 1000])) {
            let mut group = filled();
            let mut stored = BTreeMap::new();
            for (step, n) in steps.iter().zip(1..) {
                apply(&mut group, step, n as u64);
                if n % freeze_every == 0 {
                    frozen(&mut group, &mut stored);
                }
            }
            frozen(&mut group, &mut stored);
            let rows = all_rows(&group);
            prop_assert_eq!(&stored.into_iter().collect::<Vec<_>>(), &rows);
            let restored = restore(&rows).unwrap();
            prop_assert_eq!(derived(&restored), derived(&group));
            prop_assert_eq!(all_rows(&restored), rows);
        }

        /// A rollback leaves no trace, in the rows and beside them; a commit leaves what a run without a journal does.
        #[test]
        fn rolls_back(before in steps(), since in steps()) {
            let mut group = filled();
            let mut stored = BTreeMap::new();
            before.iter().for_each(|step| apply(&mut group, step, 1));
            frozen(&mut group, &mut stored);
            let (rows, beside) = (all_rows(&group), derived(&group));

            prop_assert!(group.begin());
            prop_assert!(!group.begin());
            since.iter().for_each(|step| apply(&mut group, step, 2));
            group.rollback();
            prop_assert_eq!(all_rows(&group), rows.clone());
            prop_assert_eq!(derived(&group), beside);
            frozen(&mut group, &mut stored);
            prop_assert_eq!(stored.clone().into_iter().collect::<Vec<_>>(), rows.clone());

            let mut plain = restore(&rows).unwrap();
            prop_assert!(group.begin());
            since.iter().for_each(|step| {
                apply(&mut group, step, 3);
                apply(&mut plain, step, 3);
            });
            group.commit();
            group.rollback();
            prop_assert_eq!(all_rows(&group), all_rows(&plain));
            prop_assert_eq!(derived(&group), derived(&plain));
            frozen(&mut group, &mut stored);
            prop_assert_eq!(stored.into_iter().collect::<Vec<_>>(), all_rows(&group));
        }
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused() {
        let row = |pending: Pending| codec::encode(&vec![pending]);
        let good =
            Pending { id: EntryId::new(1, 0), consumer: Some(0), delivered_ms: 5, delivery_count: 1, put_number: 0 };
        let cases = [
            ("good", good, true),
            ("released", Pending { consumer: None, delivered_ms: 0, ..good }, true),
            ("released, and yet delivered", Pending { consumer: None, ..good }, false),
            ("of nobody known", Pending { consumer: Some(9), ..good }, false),
            ("of the future", Pending { put_number: 300, ..good }, false),
        ];
        let rows = all_rows(&filled());
        let without_pages: Vec<_> =
            rows.into_iter().filter(|(key, _)| !matches!(key.parse(), Some(Row::Pending { .. }))).collect();
        for (case, pending, is_good) in cases {
            let mut group = restore(&without_pages).unwrap();
            assert_eq!(group.restore_page(EntryId::MIN, &row(pending)).is_ok(), is_good, "{case}");
        }
        let twice = vec![good, Pending { id: EntryId::new(2, 0), ..good }];
        let mut group = restore(&without_pages).unwrap();
        assert!(group.restore_page(EntryId::MIN, &codec::encode(&twice)).is_err(), "two in one place of the order");
    }
}
