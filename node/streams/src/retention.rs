//! What time removes from a stream: entries beyond its retention, and idempotency keys that have expired.

use crate::block::{BlockError, Blocks};
use crate::config::{Retention, StreamConfig};
use crate::entry_id::EntryId;
use crate::lag::Counters;
use crate::producers::{IdempotencyKey, ProducerId};
use crate::removal::References;
use crate::stream::Stream;
use crate::trim::Bound;

impl StreamConfig {
    /// Idempotency keys of entries up to this millisecond have expired at `now_ms`; `None`: none has.
    pub(crate) fn expired_ms(&self, now_ms: u64) -> Option<u64> {
        now_ms.checked_sub(u64::from(self.idempotency_duration_s) * 1000)
    }
}

impl Retention {
    /// The bounds that are set, as of `now_ms`.
    fn bounds(&self, now_ms: u64) -> impl Iterator<Item = Bound> + use<> {
        let Retention { max_length, min_id, max_age_ms, max_bytes, references: _ } = *self;
        let young = max_age_ms.and_then(|age_ms| now_ms.checked_sub(age_ms)).map(|ms| EntryId::new(ms, 0));
        [
            // `None` is less than any id.
            min_id.max(young).map(Bound::MinId),
            max_length.map(Bound::Length),
            max_bytes.map(Bound::Bytes),
        ]
        .into_iter()
        .flatten()
    }
}

impl Stream {
    /// Whether [`Stream::enforce_retention`] has something to do at `now_ms`. It may come to nothing if entries that are
    /// still referred to are kept: which those are takes a look at the entries.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        let is_expired = self.config().expired_ms(now_ms).is_some_and(|ms| self.producers.any_expired(ms));
        is_expired || self.has_excess(now_ms)
    }

    fn has_excess(&self, now_ms: u64) -> bool {
        let &Counters { length, bytes, first_id, .. } = self.entries.counters();
        let retention = &self.config().retention;
        // A group that has not come to the first entry holds them all.
        let is_held = || {
            retention.references == References::Acked
                && self.smallest_position().is_some_and(|position| position < first_id)
        };
        length > 0 && retention.bounds(now_ms).any(|bound| !bound.holds(length, bytes, first_id)) && !is_held()
    }

    /// Trims at most `limit` entries by the stream's retention, and forgets as many expired keys at most: how many entries,
    /// how many keys. `passes`: see [`Stream::trim_to`].
    pub(crate) fn enforce_retention(
        &mut self,
        now_ms: u64,
        limit: u64,
        passes: &mut u64,
        blocks: &dyn Blocks,
    ) -> Result<(u64, u64), BlockError> {
        let retention = self.config().retention;
        let mut trimmed = 0;
        for bound in retention.bounds(now_ms) {
            trimmed += self.trim_to(bound, Some(limit - trimmed), retention.references, passes, blocks)?;
        }
        Ok((trimmed, self.expire_keys(now_ms, limit - trimmed)))
    }

    /// The entry that the producer appended under this key; `None` if there is none, or if it has expired at `now_ms`.
    pub(crate) fn appended_under(&self, producer: &ProducerId, key: &IdempotencyKey, now_ms: u64) -> Option<EntryId> {
        let expired_ms = self.config().expired_ms(now_ms);
        self.producers.find(producer, key).filter(|id| expired_ms.is_none_or(|expired_ms| expired_ms < id.ms))
    }

    /// Forgets at most `limit` idempotency keys that have expired, the oldest first; says how many.
    pub(crate) fn expire_keys(&mut self, now_ms: u64, limit: u64) -> u64 {
        self.config().expired_ms(now_ms).map_or(0, |ms| self.producers.expire(ms, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;

    fn stream() -> StreamName {
        StreamName::new("s").unwrap()
    }

    /// Applies the command at a time.
    fn apply(state: &mut State, at_ms: u64, command: impl Into<Command>) -> Outcome {
        let proposal = Proposal { at_ms, request: None, command: command.into(), bytes_max: 0 }.encode();
        state.apply(state.applied_index() + 1, &proposal, &NoBlocks, false).unwrap().outcome
    }

    fn append(key: Option<&str>) -> Append {
        let idempotency = key.map(|key| Idempotency {
            producer: ProducerId::new("p").unwrap(),
            key: Some(IdempotencyKey::new(key.to_owned()).unwrap()),
        });
        let fields = Fields::from_pairs([("f", [b'x'; 80])]).unwrap();
        Append { stream: stream(), id: NewId::Auto, fields, no_create: false, trim: None, idempotency }
    }

    fn configure(duration_s: Option<u32>, keys_max: Option<u32>, retention: Option<Retention>) -> ConfigureStream {
        ConfigureStream {
            stream: stream(),
            create_stream: true,
            idempotency_duration_s: duration_s,
            idempotency_keys_max: keys_max,
            retention,
        }
    }

    fn enforce(state: &mut State, at_ms: u64) -> (u64, u64) {
        match apply(state, at_ms, EnforceRetention { streams: vec![stream()] }) {
            Ok(Reply::RetentionEnforced(RetentionEnforced { trimmed, expired })) => (trimmed, expired),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_bound_holds_afterwards() {
        let none = Retention::default();
        let min_id = |ms| Some(EntryId::new(ms, 0));
        // Of 250 entries of 100 bytes, appended at 1,001 to 1,250; enforced at 1,300.
        let cases = [
            (none, 0),
            (Retention { max_length: Some(250), ..none }, 0),
            (Retention { max_length: Some(120), ..none }, 130),
            (Retention { max_length: Some(0), ..none }, 250),
            (Retention { min_id: min_id(1001), ..none }, 0),
            (Retention { min_id: min_id(1003), ..none }, 2),
            (Retention { max_age_ms: Some(5_000), ..none }, 0),
            // That of 1,200 is no older than 100.
            (Retention { max_age_ms: Some(100), ..none }, 199),
            (Retention { max_age_ms: Some(100), min_id: min_id(1003), ..none }, 199),
            (Retention { max_bytes: Some(25_000), ..none }, 0),
            (Retention { max_bytes: Some(24_999), ..none }, 1),
            (Retention { max_bytes: Some(12_050), ..none }, 130),
            (Retention { max_bytes: Some(99), ..none }, 250),
            (Retention { max_bytes: Some(12_050), max_length: Some(110), ..none }, 140),
        ];
        for (retention, trimmed) in cases {
            let mut state = State::new();
            for n in 1..=250 {
                apply(&mut state, 1000 + n, append(None)).unwrap();
            }
            assert_eq!(state.streams.get(&stream()).unwrap().entries.counters().bytes, 25_000);
            apply(&mut state, 1300, configure(None, None, Some(retention))).unwrap();
            let found = state.streams.get(&stream()).unwrap();
            let before = found.last_change_index();
            assert_eq!(found.is_due(1300), trimmed > 0, "{retention:?}");
            assert_eq!(enforce(&mut state, 1300), (trimmed, 0), "{retention:?}");
            let found = state.streams.get(&stream()).unwrap();
            assert!(!found.is_due(1300), "{retention:?}");
            assert_eq!(before < found.last_change_index(), trimmed > 0, "{retention:?}");
            assert_eq!(state.streams.retained_after(None).count(), usize::from(retention != none), "{retention:?}");
            assert_eq!(enforce(&mut state, 1300), (0, 0), "{retention:?}");
        }
    }

    #[test]
    fn keys_expire_to_the_millisecond() {
        let mut state = State::new();
        let appended = |outcome: Outcome| match outcome {
            Ok(Reply::Appended(Appended { id, duplicate, .. })) => (id.ms, duplicate),
            other => panic!("{other:?}"),
        };
        apply(&mut state, 0, configure(Some(1), None, None)).unwrap();
        assert_eq!(appended(apply(&mut state, 500, append(Some("k")))), (500, false));
        assert_eq!(state.streams.retained_after(None).count(), 1);
        assert_eq!(appended(apply(&mut state, 1499, append(Some("k")))), (500, true));
        assert_eq!(appended(apply(&mut state, 1500, append(Some("k")))), (1500, false));
        // Nothing is left to expire but the new one.
        assert_eq!(enforce(&mut state, 2499), (0, 0));
        assert_eq!(enforce(&mut state, 2500), (0, 1));
        assert_eq!(state.streams.retained_after(None).count(), 0);
        let counters = state.streams.get(&stream()).unwrap().producers.counters();
        assert_eq!((counters.added, counters.duplicates), (2, 1));
    }

    #[test]
    fn only_other_settings_make_it_forget() {
        let mut state = State::new();
        let keys = |state: &State| state.streams.get(&stream()).map_or(0, |stream| stream.producers.keys());
        let cases = [(Some(100), None, 1), (None, Some(100), 1), (Some(99), None, 0), (Some(99), Some(9), 0)];
        for (duration_s, keys_max, left) in cases {
            apply(&mut state, 0, append(Some("k"))).unwrap();
            assert_eq!(keys(&state), 1);
            let before = state.streams.get(&stream()).unwrap().last_change_index();
            apply(&mut state, 0, configure(duration_s, keys_max, None)).unwrap();
            assert_eq!(keys(&state), left, "{duration_s:?} {keys_max:?}");
            let after = state.streams.get(&stream()).unwrap().last_change_index();
            assert_eq!(before < after, left == 0, "{duration_s:?} {keys_max:?}");
        }
    }
}
