//! Section 4.2: idempotent production.

use millstream_streams::*;

use crate::state::{Corners, Key, Producers, Remembered, Stream};

/// The key of an append.
pub(crate) fn key_of(idempotency: &Idempotency, fields: &Fields) -> Key {
    match &idempotency.key {
        Some(key) => Key::Given(key.clone()),
        None => {
            let mut pairs: Vec<_> = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            pairs.sort();
            Key::Content(pairs)
        }
    }
}

/// "An iid dies when `id.ms <= now_ms - duration * 1000`."
pub(crate) fn is_expired(stream: &Stream, id: EntryId, now_ms: u64) -> bool {
    let duration_ms = u64::from(stream.config.idempotency_duration_s) * 1000;
    now_ms.checked_sub(duration_ms).is_some_and(|limit| id.ms <= limit)
}

/// Forgets the stream's keys that have expired. Says how many those were.
pub fn expire(stream: &mut Stream, now_ms: u64) -> u64 {
    let keys = std::mem::take(&mut stream.producers.keys);
    let before = keys.len();
    stream.producers.keys = keys.into_iter().filter(|key| !is_expired(stream, key.id, now_ms)).collect();
    (before - stream.producers.keys.len()) as u64
}

impl Producers {
    /// The entry that the producer appended under the key.
    pub(crate) fn find(&self, producer: &ProducerId, key: &Key) -> Option<EntryId> {
        let found = self.keys.iter().find(|remembered| remembered.producer == *producer && remembered.key == *key);
        found.map(|remembered| remembered.id)
    }

    /// Remembers a key, and forgets the producer's oldest if it has more than `keys_max`.
    pub(crate) fn add(&mut self, producer: &ProducerId, key: Key, id: EntryId, keys_max: u32, corners: &mut Corners) {
        self.keys.push(Remembered { producer: producer.clone(), key, id });
        self.added += 1;
        let of_producer = |remembered: &Remembered| remembered.producer == *producer;
        while self.keys.iter().filter(|remembered| of_producer(remembered)).count() > keys_max as usize {
            let oldest = self.keys.iter().position(of_producer).unwrap();
            self.keys.remove(oldest);
            corners.reach("4.2 oldest key dropped");
        }
    }

    /// How many producers have a key that is remembered.
    pub(crate) fn count(&self) -> u64 {
        let mut producers: Vec<_> = self.keys.iter().map(|remembered| &remembered.producer).collect();
        producers.sort();
        producers.dedup();
        producers.len() as u64
    }
}
