//! A stream's settings: retention and idempotent production.

use std::time::Duration;

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::types::{Answer, id, ms, receipt, to_id};
use crate::{Client, EntryId, Error, Receipt, References, requests};

/// What is trimmed from the old end of a stream without being asked for, within about a second. Every bound that is set
/// must hold; the default sets none. What stays because a group refers to it is tried again later, at first after a
/// second and at last every half minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Keep at most this many entries. `None`: any number.
    pub max_length: Option<u64>,
    /// Remove entries with smaller ids. `None`: none for that.
    pub min_id: Option<EntryId>,
    /// Remove entries whose id's millisecond part is older than this, at least 1 ms; in milliseconds. `None`: any age.
    pub max_age: Option<Duration>,
    /// Keep at most this many bytes, as [`StreamInfo::bytes`](crate::StreamInfo::bytes) counts them. `None`: any
    /// number.
    pub max_bytes: Option<u64>,
    /// What becomes of the groups' references. With [`References::Acked`], entries that are referred to stay.
    pub references: References,
}

impl From<Retention> for pb::Retention {
    fn from(retention: Retention) -> Self {
        let Retention { max_length, min_id, max_age, max_bytes, references } = retention;
        let (min_id, max_age_ms) = (min_id.map(to_id), max_age.map(ms));
        Self { max_length, min_id, max_age_ms, max_bytes, references: pb::References::from(references).into() }
    }
}

impl From<pb::Retention> for Retention {
    fn from(retention: pb::Retention) -> Self {
        Self {
            max_length: retention.max_length,
            min_id: retention.min_id.map(|min_id| id(Some(min_id))),
            max_age: retention.max_age_ms.map(Duration::from_millis),
            max_bytes: retention.max_bytes,
            references: retention.references().into(),
        }
    }
}

/// The settings of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// For how long idempotency keys are remembered, counted from the millisecond part of the entry's id: whole
    /// seconds, 1 to 86,400; 100 at first (IDMP-DURATION).
    pub idempotency_duration: Duration,
    /// How many idempotency keys are remembered of each producer: 1 to 10,000; 100 at first (IDMP-MAXSIZE).
    pub idempotency_keys_max: u32,
    /// What is trimmed without being asked for. Nothing at first.
    pub retention: Retention,
}

impl From<pb::StreamConfig> for StreamConfig {
    fn from(config: pb::StreamConfig) -> Self {
        let pb::StreamConfig { idempotency_duration_s, idempotency_keys_max, retention } = config;
        let idempotency_duration = Duration::from_secs(idempotency_duration_s.into());
        Self { idempotency_duration, idempotency_keys_max, retention: retention.unwrap_or_default().into() }
    }
}

/// Settings to change (XCFGSET). What is not named stays as it is; at least one must be.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigureStream(pub(crate) pb::ConfigureStreamRequest);

impl ConfigureStream {
    /// Settings of `stream`.
    pub fn of(stream: impl Into<String>) -> Self {
        Self(pb::ConfigureStreamRequest { stream: stream.into(), ..Default::default() })
    }

    /// Creates the stream if it is missing.
    pub fn create_stream(mut self) -> Self {
        self.0.create_stream = true;
        self
    }

    /// See [`StreamConfig`]; a part of a second counts as a whole one. Another value than before makes the stream
    /// forget all keys.
    pub fn idempotency_duration(mut self, duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_add((0 < duration.subsec_nanos()).into());
        self.0.idempotency_duration_s = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// See [`StreamConfig`]. Another value than before makes the stream forget all keys.
    pub fn idempotency_keys_max(mut self, keys: u32) -> Self {
        self.0.idempotency_keys_max = Some(keys);
        self
    }

    /// Replaces the retention as a whole. The default: no retention.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.0.retention = Some(retention.into());
        self
    }
}

/// The settings have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfigured {
    /// All settings, as they are now.
    pub config: StreamConfig,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::ConfigureStreamResponse {
    type Value = StreamConfigured;

    fn value(self) -> StreamConfigured {
        StreamConfigured { config: self.config.unwrap_or_default().into(), receipt: receipt(self.receipt) }
    }
}

/// An idempotency key is remembered (XIDMPRECORD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyRecorded {
    /// Whether it was not before.
    pub added: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::RecordIdempotencyResponse {
    type Value = IdempotencyRecorded;

    fn value(self) -> IdempotencyRecorded {
        IdempotencyRecorded { added: self.added, receipt: receipt(self.receipt) }
    }
}

impl Client {
    /// Changes a stream's settings: retention and idempotent production.
    pub async fn configure_stream(&self, configure: ConfigureStream) -> Result<StreamConfigured, Error> {
        self.ask(configure.0).await
    }

    /// Remembers that `producer` appended the entry `id`, which must be in the stream, under `key`: for migrations.
    /// Producer and key are 1 to 1,024 bytes (XIDMPRECORD).
    pub async fn record_idempotency(
        &self,
        stream: impl Into<String>,
        producer: impl Into<Bytes>,
        key: impl Into<Bytes>,
        id: EntryId,
    ) -> Result<IdempotencyRecorded, Error> {
        self.ask(requests::record_idempotency(stream, producer, key, id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_survives_the_wire() {
        let all = Retention {
            max_length: Some(1),
            min_id: Some(EntryId::new(2, 3)),
            max_age: Some(Duration::from_millis(4)),
            max_bytes: Some(0),
            references: References::Acked,
        };
        for retention in [Retention::default(), all] {
            assert_eq!(Retention::from(pb::Retention::from(retention)), retention);
        }
    }

    #[test]
    fn durations_are_whole_seconds() {
        for (ms, seconds) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (u64::MAX, u32::MAX)] {
            let configure = ConfigureStream::of("s").idempotency_duration(Duration::from_millis(ms));
            assert_eq!(configure.0.idempotency_duration_s, Some(seconds), "{ms}");
        }
    }
}
