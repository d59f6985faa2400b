//! Idempotent production (IDMP): which producer appended which entry under which key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use xxhash_rust::xxh3::Xxh3Default;

use crate::codec;
use crate::entry::Fields;
use crate::entry_id::EntryId;
use crate::error::DecodeError;
use crate::freeze::Piece;
use crate::limits::{IDEMPOTENCY_PAGE_KEYS, PRODUCER_BYTES_MAX};
use crate::names::NameError;

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// Accepts 1 to [`PRODUCER_BYTES_MAX`] bytes.
            pub fn new(bytes: impl Into<Bytes>) -> Result<Self, NameError> {
                let bytes = bytes.into();
                if bytes.is_empty() {
                    return Err(NameError::Empty);
                }
                if bytes.len() > PRODUCER_BYTES_MAX {
                    return Err(NameError::TooLong { bytes: bytes.len() });
                }
                Ok(Self(bytes))
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Self::new(Bytes::copy_from_slice(d.bytes()?)).map_err(decode::Error::message)
            }
        }
    };
}

opaque! {
    /// Who appends, in the producer's own words: 1 to [`PRODUCER_BYTES_MAX`] bytes.
    ProducerId
}

opaque! {
    /// What a producer calls one of its appends: 1 to [`PRODUCER_BYTES_MAX`] bytes.
    IdempotencyKey
}

/// Makes an append safe to repeat for a while, whoever repeats it (IDMP, IDMPAUTO).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// The producer. Its keys are its own, and those of the stream.
    #[n(0)]
    pub producer: ProducerId,
    /// The key of the append. `None`: it follows from the fields, whatever their order (IDMPAUTO).
    #[n(1)]
    pub key: Option<IdempotencyKey>,
}

impl Idempotency {
    /// The key of an append of these fields: the one that was given, or the one that follows from them.
    pub(crate) fn key_for(&self, fields: &Fields) -> IdempotencyKey {
        self.key.clone().unwrap_or_else(|| IdempotencyKey::of_fields(fields))
    }
}

impl IdempotencyKey {
    /// The key that follows from the fields, whatever their order: as Redis 8.6 derives it for IDMPAUTO, so that its
    /// producers can be moved here. It stands in the state, and so this is for ever.
    ///
    /// ```text
    /// hash of a pair:  XXH3-128 of  name | length of the name: 8, little-endian | value
    /// low:             wrapping sum of the hashes' low halves    ^ (xor of their high halves, rotated left by 1)
    /// high:            wrapping sum of the hashes' high halves   ^ (xor of their low halves, rotated left by 1)
    /// key:             low: 8, little-endian | high: 8, little-endian
    /// ```
    fn of_fields(fields: &Fields) -> IdempotencyKey {
        let (mut sum_low, mut sum_high, mut xor_low, mut xor_high) = (0u64, 0u64, 0u64, 0u64);
        for (name, value) in fields.iter() {
            let mut hasher = Xxh3Default::new();
            hasher.update(name);
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(value);
            let hash = hasher.digest128();
            let (low, high) = (hash as u64, (hash >> 64) as u64);
            sum_low = sum_low.wrapping_add(low);
            sum_high = sum_high.wrapping_add(high);
            xor_low ^= low;
            xor_high ^= high;
        }
        let (low, high) = (sum_low ^ xor_high.rotate_left(1), sum_high ^ xor_low.rotate_left(1));
        IdempotencyKey(Bytes::copy_from_slice(&[low.to_le_bytes(), high.to_le_bytes()].concat()))
    }
}

/// The lifetime counters of a stream's producers. They stand in the stream's head row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ProducerCounters {
    /// Appends ever made under a key.
    #[n(0)]
    pub(crate) added: u64,
    /// Appends ever found to be made already.
    #[n(1)]
    pub(crate) duplicates: u64,
}

/// What the producers of one stream have appended under which keys.
///
/// Each key that is remembered has a number: the lifetime count of keys as it was remembered. The order of numbers is the
/// order in which keys are forgotten when a producer has too many.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    counters: ProducerCounters,
    /// By number.
    records: BTreeMap<u64, Record>,
    /// The producers of which a key is remembered.
    by_producer: BTreeMap<ProducerId, Keys>,
    /// Numbers by entry: the order in which they expire.
    by_id: BTreeSet<(EntryId, u64)>,
    /// Pages that changed, or that are gone, since the last freeze.
    dirty: BTreeSet<u64>,
    /// How to undo what was done since [`Producers::begin`].
    journal: Option<Box<Journal>>,
}

/// The keys of one producer, at least one.
#[derive(Debug, Default)]
struct Keys {
    numbers: BTreeMap<IdempotencyKey, u64>,
    /// The same numbers, in their order.
    oldest_first: BTreeSet<u64>,
}

/// A key that is remembered. Part of a page.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record {
    #[n(0)]
    number: u64,
    #[n(1)]
    producer: ProducerId,
    #[n(2)]
    key: IdempotencyKey,
    /// The entry. It may be in the stream no longer.
    #[n(3)]
    id: EntryId,
}

#[derive(Debug)]
struct Journal {
    counters: ProducerCounters,
    /// In the order in which it was done.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// The key of this number was remembered.
    Added(u64),
    /// This was forgotten.
    Removed(Record),
}

fn page_of(number: u64) -> u64 {
    number / IDEMPOTENCY_PAGE_KEYS
}

impl Producers {
    /// Producers of which a key is remembered.
    pub(crate) fn len(&self) -> usize {
        self.by_producer.len()
    }

    /// Keys that are remembered.
    pub(crate) fn keys(&self) -> usize {
        self.records.len()
    }

    /// The lifetime counters.
    pub(crate) fn counters(&self) -> ProducerCounters {
        self.counters
    }

    /// The entry that the producer appended under this key; `None` if that is not remembered.
    pub(crate) fn find(&self, producer: &ProducerId, key: &IdempotencyKey) -> Option<EntryId> {
        let number = self.by_producer.get(producer)?.numbers.get(key)?;
        Some(self.records.get(number)?.id)
    }

    /// Remembers a key for this entry from now on, and forgets the oldest of its producer beyond `keys_max`.
    pub(crate) fn record(&mut self, producer: &ProducerId, key: &IdempotencyKey, id: EntryId, keys_max: u32) {
        // It has expired and was not yet its turn to be forgotten.
        if let Some(&stale) = self.by_producer.get(producer).and_then(|keys| keys.numbers.get(key)) {
            self.forget(stale);
        }
        self.counters.added += 1;
        let number = self.counters.added;
        self.add(Record { number, producer: producer.clone(), key: key.clone(), id });
        if let Some(journal) = &mut self.journal {
            journal.undo.push(Undo::Added(number));
        }
        while let Some(Keys { oldest_first, .. }) = self.by_producer.get(producer)
            && oldest_first.len() > keys_max as usize
            && let Some(&oldest) = oldest_first.first()
        {
            self.forget(oldest);
        }
    }

    /// Counts an append that was made already.
    pub(crate) fn count_duplicate(&mut self) {
        self.counters.duplicates += 1;
    }

    /// Whether any key belongs to an entry whose id is of the millisecond `ms` or before.
    pub(crate) fn any_expired(&self, ms: u64) -> bool {
        self.by_id.first().is_some_and(|(id, _)| id.ms <= ms)
    }

    /// Forgets at most `limit` keys of entries whose ids are of the millisecond `ms` or before; says how many.
    pub(crate) fn expire(&mut self, ms: u64, limit: u64) -> u64 {
        let mut expired = 0;
        while let Some(&(id, number)) = self.by_id.first()
            && id.ms <= ms
            && expired < limit
        {
            self.forget(number);
            expired += 1;
        }
        expired
    }

    /// Forgets all keys. The lifetime counters stay.
    pub(crate) fn wipe(&mut self) {
        while let Some((&number, _)) = self.records.first_key_value() {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(record) = self.remove(number) else { return };
        if let Some(journal) = &mut self.journal {
            journal.undo.push(Undo::Removed(record));
        }
    }

    /// False if the producer has the key already.
    fn add(&mut self, mut record: Record) -> bool {
        let number = record.number;
        // Many keys of one producer: its name is in memory once.
        if let Some((known, _)) = self.by_producer.get_key_value(&record.producer) {
            record.producer = known.clone();
        }
        let keys = self.by_producer.entry(record.producer.clone()).or_default();
        let is_new = keys.numbers.insert(record.key.clone(), number).is_none();
        keys.oldest_first.insert(number);
        self.by_id.insert((record.id, number));
        self.dirty.insert(page_of(number));
        self.records.insert(number, record);
        is_new
    }

    fn remove(&mut self, number: u64) -> Option<Record> {
        let record = self.records.remove(&number)?;
        if let Some(keys) = self.by_producer.get_mut(&record.producer) {
            keys.numbers.remove(&record.key);
            keys.oldest_first.remove(&number);
            if keys.oldest_first.is_empty() {
                self.by_producer.remove(&record.producer);
            }
        }
        self.by_id.remove(&(record.id, number));
        self.dirty.insert(page_of(number));
        Some(record)
    }
}

/// Taking back what was done.
impl Producers {
    /// From now on, remembers how to undo what is done.
    pub(crate) fn begin(&mut self) {
        self.journal = Some(Box::new(Journal { counters: self.counters, undo: Vec::new() }));
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        self.journal = None;
    }

    /// Undoes what was done since [`Producers::begin`]. What was marked as changed stays marked.
    pub(crate) fn rollback(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        let Journal { counters, undo } = *journal;
        self.counters = counters;
        for undo in undo.into_iter().rev() {
            match undo {
                Undo::Added(number) => {
                    self.remove(number);
                }
                Undo::Removed(record) => {
                    self.add(record);
                }
            }
        }
    }
}

/// Rows: pages of keys by number. The counters stand in the stream's head row.
impl Producers {
    /// From the head row and the pages by number.
    pub(crate) fn restore(counters: ProducerCounters, pages: BTreeMap<u64, Bytes>) -> Result<Producers, DecodeError> {
        let malformed = |problem: &str| DecodeError::Malformed { problem: problem.to_owned() };
        let mut producers = Producers { counters, ..Producers::default() };
        for (page, row) in pages {
            let records: Vec<Record> = codec::decode(&row)?;
            let is_ascending = records.is_sorted_by(|a, b| a.number < b.number);
            let is_given = |record: &Record| (1..=counters.added).contains(&record.number);
            let is_in_place = records.iter().all(|record| page_of(record.number) == page && is_given(record));
            if records.is_empty() || !is_ascending || !is_in_place {
                return Err(malformed("page of idempotency keys out of order"));
            }
            for record in records {
                if !producers.add(record) {
                    return Err(malformed("idempotency key twice"));
                }
            }
        }
        producers.dirty.clear();
        Ok(producers)
    }

    fn page(&self, page: u64) -> Vec<Record> {
        let from = page.saturating_mul(IDEMPOTENCY_PAGE_KEYS);
        let numbers = from..from.saturating_add(IDEMPOTENCY_PAGE_KEYS);
        self.records.range(numbers).map(|(_, record)| record.clone()).collect()
    }

    /// Takes the pages that changed since the last freeze. `stream` is the stream's incarnation.
    pub(crate) fn freeze(&mut self, stream: u64, frozen: &mut Piece) {
        for page in std::mem::take(&mut self.dirty) {
            frozen.producers.push((stream, page, self.page(page)));
        }
    }

    /// All of them.
    pub(crate) fn all_rows(&self, stream: u64, frozen: &mut Piece) {
        let mut next = self.records.first_key_value().map(|(number, _)| page_of(*number));
        while let Some(page) = next {
            frozen.producers.push((stream, page, self.page(page)));
            let behind = (page + 1).saturating_mul(IDEMPOTENCY_PAGE_KEYS);
            next = self.records.range(behind..).next().map(|(number, _)| page_of(*number));
        }
    }
}

/// The row of a page; `None` if it is empty.
pub(crate) fn encode_page(records: &Vec<Record>) -> Option<Vec<u8>> {
    (!records.is_empty()).then(|| codec::encode(records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::freeze::Frozen;
    use crate::rows::RowKey;

    fn producer(name: &str) -> ProducerId {
        ProducerId::new(name.to_owned()).unwrap()
    }

    fn key(name: &str) -> IdempotencyKey {
        IdempotencyKey::new(name.to_owned()).unwrap()
    }

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// These bytes stand in states: they must never change. They were computed by another implementation of XXH3.
    #[test]
    fn keys_that_follow_from_fields_are_for_ever() {
        let long = "x".repeat(300);
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("a", "1")], "034b44ffc743320ce2cb07999104fc02"),
            (&[("a", "1"), ("a", "1")], "7cd8847868842eaf3c2706c3f301a55b"),
            (&[("item", "book"), ("price", "12")], "d90ed88e3b820910879a94247eb498cb"),
            (&[("price", "12"), ("item", "book")], "d90ed88e3b820910879a94247eb498cb"),
            (&[("", "")], "1a9f7ebbaea1d61d30b6b8daa3e38da7"),
            (&[("payload", &long)], "7fef78ac9da88ba9ef913cdedafbdbc0"),
        ];
        for (pairs, expected) in cases {
            let fields = Fields::from_pairs(pairs.iter().copied()).unwrap();
            let key = IdempotencyKey::of_fields(&fields);
            let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, *expected, "{pairs:?}");
        }
    }

    #[test]
    fn forgets_the_oldest_of_its_producer() {
        let mut producers = Producers::default();
        // The ids run backwards: age is the order of recording, and that of another producer does not matter.
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            producers.record(&producer("p"), &key(name), id(9 - n as u64), 2);
        }
        producers.record(&producer("q"), &key("a"), id(1), 2);
        let found = |name| producers.find(&producer("p"), &key(name));
        assert_eq!([found("a"), found("b"), found("c")], [None, Some(id(8)), Some(id(7))]);
        assert_eq!((producers.len(), producers.keys(), producers.counters().added), (2, 3, 4));
    }

    #[test]
    fn expires_by_entry() {
        let mut producers = Producers::default();
        for (name, ms) in [("a", 5), ("b", 3), ("c", 4)] {
            producers.record(&producer(name), &key("k"), id(ms), 10);
        }
        assert!(!producers.any_expired(2));
        assert!(producers.any_expired(3));
        assert_eq!((producers.expire(2, 9), producers.expire(4, 1), producers.expire(4, 9)), (0, 1, 1));
        assert_eq!((producers.len(), producers.find(&producer("a"), &key("k"))), (1, Some(id(5))));
        producers.wipe();
        assert_eq!((producers.len(), producers.keys(), producers.counters().added), (0, 0, 3));
        assert!(!producers.any_expired(u64::MAX));
    }

    #[test]
    fn restores_only_what_fits_together() {
        let record = |number, name: &str| Record { number, producer: producer("p"), key: key(name), id: id(1) };
        let counters = ProducerCounters { added: 200, duplicates: 0 };
        let cases = [
            (vec![(0, vec![record(1, "a"), record(2, "b")]), (1, vec![record(200, "c")])], true),
            (vec![(0, vec![])], false),
            (vec![(0, vec![record(0, "a")])], false),
            (vec![(0, vec![record(128, "a")])], false),
            (vec![(1, vec![record(201, "a")])], false),
            (vec![(0, vec![record(2, "a"), record(1, "b")])], false),
            (vec![(0, vec![record(1, "a"), record(2, "a")])], false),
        ];
        for (pages, fits) in cases {
            let rows = pages.iter().map(|(page, records)| (*page, codec::encode(records).into())).collect();
            assert_eq!(Producers::restore(counters, rows).is_ok(), fits, "{pages:?}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Record(u8, u8, u64),
        Expire(u64),
        Wipe,
        Freeze,
        Begin,
        Rollback,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            40 => (0u8..3, any::<u8>(), 0u64..1000).prop_map(|(p, k, ms)| Step::Record(p, k, ms)),
            2 => (0u64..1000).prop_map(Step::Expire),
            1 => Just(Step::Wipe),
            2 => Just(Step::Freeze),
            2 => Just(Step::Begin),
            2 => Just(Step::Rollback),
        ]
    }

    fn all_rows(producers: &Producers) -> BTreeMap<RowKey, Bytes> {
        let mut rows = Piece::default();
        producers.all_rows(1, &mut rows);
        Frozen::from(rows).into_rows().rows.into_iter().map(|(key, value)| (key, value.unwrap())).collect()
    }

    proptest! {
        /// Piece rows add up to all rows, from which the same producers are restored; rollback goes back to the begin.
        #[test]
        fn rows_are_the_keys(steps in prop::collection::vec(step(), 0..600)) {
            let (mut producers, mut stored, mut begun) = (Producers::default(), BTreeMap::new(), None);
            for step in steps {
                match step {
                    Step::Record(p, k, ms) => {
                        let (p, k) = (producer(&p.to_string()), key(&k.to_string()));
                        if producers.find(&p, &k).is_none() {
                            producers.record(&p, &k, id(ms), 100);
                        }
                    }
                    Step::Expire(ms) => {
                        let expired = producers.expire(ms, u64::MAX);
                        prop_assert!(!producers.any_expired(ms));
                        prop_assert!(expired as usize + producers.keys() <= 300);
                    }
                    Step::Wipe => producers.wipe(),
                    Step::Freeze if begun.is_some() => {
                        producers.commit();
                        begun = None;
                    }
                    Step::Freeze => {
                        let mut rows = Piece::default();
                        producers.freeze(1, &mut rows);
                        for (key, value) in Frozen::from(rows).into_rows().rows {
                            match value {
                                Some(value) => stored.insert(key, value),
                                None => stored.remove(&key),
                            };
                        }
                        prop_assert_eq!(&stored, &all_rows(&producers));
                    }
                    Step::Begin if begun.is_none() => {
                        producers.begin();
                        begun = Some((producers.counters(), all_rows(&producers)));
                    }
                    Step::Begin => {}
                    Step::Rollback => {
                        if let Some(before) = begun.take() {
                            producers.rollback();
                            prop_assert_eq!(before, (producers.counters(), all_rows(&producers)));
                        }
                    }
                }
            }
            let pages = all_rows(&producers).into_iter().map(|(key, row)| match key.parse() {
                Some(crate::rows::Row::Producers { stream: 1, page }) => (page, row),
                other => panic!("row of another kind: {other:?}"),
            });
            let restored = Producers::restore(producers.counters(), pages.collect()).unwrap();
            prop_assert_eq!(&restored.records, &producers.records);
            prop_assert_eq!(&restored.by_id, &producers.by_id);
            prop_assert_eq!(restored.len(), producers.len());
        }
    }
}
