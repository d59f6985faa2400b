//! XCFGSET, and more: change a stream's settings.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::config::{Retention, StreamConfig};
use crate::error::Refusal;
use crate::limits::{IDEMPOTENCY_DURATION_S_MAX, IDEMPOTENCY_KEYS_MAX};
use crate::names::StreamName;

/// Changes a stream's settings (XCFGSET). What is `None` stays as it is; at least one setting must be given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConfigureStream {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// Create the stream if it is missing.
    #[n(1)]
    pub create_stream: bool,
    /// See [`StreamConfig::idempotency_duration_s`]. Another value than before makes the stream forget all keys.
    #[n(2)]
    pub idempotency_duration_s: Option<u32>,
    /// See [`StreamConfig::idempotency_keys_max`]. Another value than before makes the stream forget all keys.
    #[n(3)]
    pub idempotency_keys_max: Option<u32>,
    /// See [`StreamConfig::retention`]; replaces it as a whole.
    #[n(4)]
    pub retention: Option<Retention>,
}

/// The settings have changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamConfigured {
    /// All settings, as they are now.
    #[n(0)]
    pub config: StreamConfig,
}

impl Apply for ConfigureStream {
    type Reply = StreamConfigured;

    fn check(&self) -> Result<(), Refusal> {
        let &ConfigureStream { idempotency_duration_s, idempotency_keys_max, retention, .. } = self;
        if idempotency_duration_s.is_none() && idempotency_keys_max.is_none() && retention.is_none() {
            return Err(Refusal::invalid("settings", "at least one setting is needed"));
        }
        check_range("idempotency_duration_s", idempotency_duration_s, IDEMPOTENCY_DURATION_S_MAX)?;
        check_range("idempotency_keys_max", idempotency_keys_max, IDEMPOTENCY_KEYS_MAX)?;
        if retention.is_some_and(|retention| retention.max_age_ms == Some(0)) {
            return Err(Refusal::invalid("retention.max_age_ms", "must be at least 1"));
        }
        Ok(())
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<StreamConfigured, Stop> {
        let streams = &mut context.state.streams;
        let is_missing = streams.get(&self.stream).is_none();
        let stream = match is_missing && self.create_stream {
            true => streams.get_or_create(&self.stream),
            false => streams.find_mut(&self.stream)?,
        };
        let old = *stream.config();
        let config = StreamConfig {
            idempotency_duration_s: self.idempotency_duration_s.unwrap_or(old.idempotency_duration_s),
            idempotency_keys_max: self.idempotency_keys_max.unwrap_or(old.idempotency_keys_max),
            retention: self.retention.unwrap_or(old.retention),
        };
        let idempotency_of = |config: &StreamConfig| (config.idempotency_duration_s, config.idempotency_keys_max);
        if idempotency_of(&config) != idempotency_of(&old) {
            stream.producers.wipe();
        }
        if config != old {
            stream.set_config(config);
        }
        if is_missing || config != old {
            stream.touch(context.index);
            streams.refresh_retained(&self.stream);
        }
        Ok(StreamConfigured { config })
    }
}

/// Refuses a value that is given and is not between 1 and `max`.
fn check_range(field: &str, value: Option<u32>, max: u32) -> Result<(), Refusal> {
    match value {
        Some(0) => Err(Refusal::invalid(field, "must be at least 1")),
        Some(value) => Refusal::check_limit(field, value.into(), max.into()),
        None => Ok(()),
    }
}
