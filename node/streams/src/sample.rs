//! A small part of the state, chosen by a log index alone, to be compared between replicas.
//!
//! The digest of the history says whether replicas have *decided* alike. It does not see that an entry or a pending
//! entry has changed since, by a fault of memory or of what stored it. A sample does, if it happens to look there: over
//! time it looks everywhere. What is hashed is what a client would be told, and not how it is stored: which entries are
//! in memory, how bodies lie in the store, and optional parts that a later version adds to a row do not show.
//!
//! Sessions and idempotency keys are not sampled: what they decide is in the digest as soon as they do.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::block::{BlockError, Blocks};
use crate::entry_id::EntryId;
use crate::group::Group;
use crate::queries::{EntryPlan, RangeQuery};
use crate::state::State;
use crate::stream::Stream;

/// The version of what a sample covers. To be raised with every change to this file that gives the same state another
/// hash: samples of different versions are not compared.
pub const SAMPLE_VERSION: u32 = 1;

/// Streams in a sample, with one range of entries and one group each. Some may be the same.
const STREAMS: u64 = 4;
/// Entries of a range.
const ENTRIES: u32 = 100;
/// Packed bytes of a range.
const BYTES: usize = 256 << 10;
/// Pending entries of a group.
const PENDING: usize = 100;

/// A sample that is taken: what is in memory is hashed, what is stored is named.
pub struct SamplePlan {
    hash: Hash,
    ranges: Vec<EntryPlan>,
}

impl SamplePlan {
    /// The hash. Reads some blocks, so not under the lock on the state. [`BlockError::Missing`] means that the plan is
    /// stale; then there is no sample at this index.
    pub fn finish(mut self, blocks: &dyn Blocks) -> Result<u128, BlockError> {
        for range in &self.ranges {
            let page = range.run(blocks, BYTES)?;
            self.hash.number(page.entries.len() as u64);
            for entry in &page.entries {
                self.hash.id(entry.id);
                self.hash.bytes(entry.fields.packed());
            }
        }
        Ok(self.hash.0.digest128())
    }
}

impl State {
    /// Takes the sample of a log index. Two states that have applied the log up to there have the same.
    pub fn sample(&self, index: u64) -> SamplePlan {
        let mut plan = SamplePlan { hash: Hash(Xxh3Default::new()), ranges: Vec::new() };
        plan.hash.number(self.clock_ms());
        for nth in 0..STREAMS {
            let mut dice = Dice { index, nth, throws: 0 };
            let incarnation = dice.throw(self.streams.incarnations());
            if let Some(stream) = self.streams.nearest(incarnation) {
                self.sample_stream(stream, &mut dice, &mut plan);
            }
        }
        plan
    }

    fn sample_stream(&self, stream: &Stream, dice: &mut Dice, plan: &mut SamplePlan) {
        let hash = &mut plan.hash;
        let counters = stream.entries.counters();
        hash.bytes(stream.name().as_str().as_bytes());
        for number in [counters.length, counters.entries_added, counters.bytes, stream.last_change_index()] {
            hash.number(number);
        }
        hash.id(counters.last_id);
        hash.id(counters.max_deleted_id);

        // In both directions: forwards alone, the oldest entries would hardly ever be looked at.
        let place = dice.between(counters.first_id, counters.last_id);
        let reverse = dice.throw(2) == 1;
        let (start, end) = if reverse { (EntryId::MIN, place) } else { (place, EntryId::MAX) };
        let query = RangeQuery { stream: stream.name().clone(), start, end, reverse, count: ENTRIES };
        plan.ranges.push(self.range(&query));

        let groups = stream.groups.len() as u64;
        let nth = usize::try_from(dice.throw(groups)).unwrap_or_default();
        if let Some((name, group)) = stream.groups.iter().nth(nth) {
            plan.hash.bytes(name.as_str().as_bytes());
            let from = dice.between(counters.first_id, group.last_id());
            sample_group(group, from, &mut plan.hash);
        }
    }
}

fn sample_group(group: &Group, from: EntryId, hash: &mut Hash) {
    hash.id(group.last_id());
    hash.option(group.entries_read());
    hash.number(group.consumers().len() as u64);
    for pending in group.pending().iter_from(from).take(PENDING) {
        hash.id(pending.id);
        let owner = group.owner_name(pending).map_or("", |name| name.as_str());
        hash.bytes(owner.as_bytes());
        hash.option(pending.consumer);
        hash.number(pending.delivered_ms);
        hash.number(pending.delivery_count);
    }
}

/// Numbers that look random, and are the same everywhere.
struct Dice {
    index: u64,
    nth: u64,
    throws: u64,
}

impl Dice {
    /// A number below `end`; 0 if that is 0.
    fn throw(&mut self, end: u64) -> u64 {
        self.throws += 1;
        let seed = [self.index, self.nth, self.throws].map(u64::to_le_bytes);
        xxh3_64(seed.as_flattened()).checked_rem(end).unwrap_or_default()
    }

    /// An id from `first` to `last`.
    fn between(&mut self, first: EntryId, last: EntryId) -> EntryId {
        let ms = first.ms + self.throw(last.ms.saturating_sub(first.ms).saturating_add(1));
        let seq = if first.ms == last.ms { first.seq + self.throw(last.seq.saturating_sub(first.seq)) } else { 0 };
        EntryId::new(ms, seq)
    }
}

/// A hash of parts of which each can be told from the next.
struct Hash(Xxh3Default);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn option(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        self.number(number.unwrap_or_default());
    }

    fn id(&mut self, id: EntryId) {
        self.number(id.ms);
        self.number(id.seq);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
