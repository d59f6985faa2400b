//! `configure`: a stream's settings.

use std::time::Duration;

use clap::Args;
use millstream_client::{ConfigureStream, EntryId, Operation, OperationResult, Retention, StreamConfig};
use serde_json::{Value, json};

use crate::Failure;
use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, References};

/// Changes a stream's settings: retention and idempotent production (XCFGSET)
///
/// What is not named stays as it is, but retention is replaced as a whole: name all the bounds that shall hold. What
/// they exclude goes within about a second.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("bound").args(["maxlen", "minid", "max_age", "max_bytes"]).multiple(true))]
#[command(group = clap::ArgGroup::new("setting").multiple(true).required(true).args([
    "maxlen", "minid", "max_age", "max_bytes", "no_retention", "idempotency_duration", "idempotency_keys",
]))]
pub(crate) struct Configure {
    /// The stream
    stream: String,
    /// Create the stream if it is missing
    #[arg(long)]
    create_stream: bool,
    /// Retention: keep at most N entries
    #[arg(long, value_name = "N")]
    maxlen: Option<u64>,
    /// Retention: remove entries with smaller ids
    #[arg(long, value_name = "ID", value_parser = parse::id)]
    minid: Option<EntryId>,
    /// Retention: remove entries whose id's millisecond part is older: 500ms, 100s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = parse::age)]
    max_age: Option<Duration>,
    /// Retention: keep at most this many bytes; each entry counts its fields, packed, and 16
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// Retention: what becomes of the groups' references to what is removed [default: keep]
    #[arg(long, value_enum, requires = "bound")]
    references: Option<References>,
    /// Remove nothing without being asked to
    #[arg(long, conflicts_with = "bound")]
    no_retention: bool,
    /// For how long idempotency keys are remembered, in whole seconds: 1s to 1d; 100s at first. Another value than
    /// before makes the stream forget all keys
    #[arg(long, value_name = "TIME", value_parser = parse::age)]
    idempotency_duration: Option<Duration>,
    /// How many idempotency keys are remembered of each producer, 1 to 10,000; 100 at first. Another value than before
    /// makes the stream forget all keys
    #[arg(long, value_name = "N")]
    idempotency_keys: Option<u32>,
}

impl Verb for Configure {
    fn operation(&self) -> Result<Operation, Failure> {
        let mut configure = ConfigureStream::of(&self.stream);
        if self.create_stream {
            configure = configure.create_stream();
        }
        let Self { maxlen: max_length, minid: min_id, max_age, max_bytes, .. } = *self;
        let references = self.references.unwrap_or_default().into();
        let retention = Retention { max_length, min_id, max_age, max_bytes, references };
        if self.no_retention || retention != Retention::default() {
            configure = configure.retention(retention);
        }
        if let Some(duration) = self.idempotency_duration {
            configure = configure.idempotency_duration(duration);
        }
        if let Some(keys) = self.idempotency_keys {
            configure = configure.idempotency_keys_max(keys);
        }
        Ok(configure.into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::ConfigureStream(done) = result else { return Err(mismatch()) };
        let (retention, idempotency) = (retention_as_text(&done.config.retention), idempotency_as_text(&done.config));
        let text = format!("retention       {retention}\nidempotency     {idempotency}");
        let json = json!({ "config": config_as_json(&done.config), "log_index": done.receipt.log_index });
        out.result(text, json)?;
        Ok(())
    }
}

pub(crate) fn config_as_json(config: &StreamConfig) -> Value {
    let retention = &config.retention;
    json!({
        "idempotency_duration_s": config.idempotency_duration.as_secs(),
        "idempotency_keys_max": config.idempotency_keys_max,
        "retention": {
            "max_length": retention.max_length,
            "min_id": retention.min_id.map(|id| id.to_string()),
            "max_age_ms": retention.max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            "max_bytes": retention.max_bytes,
            "references": references_as_text(retention.references),
        },
    })
}

pub(crate) fn retention_as_text(retention: &Retention) -> String {
    let Retention { max_length, min_id, max_age, max_bytes, references } = retention;
    let bounds = [
        max_length.map(|entries| format!("{entries} entries")),
        min_id.map(|id| format!("from {id}")),
        max_age.map(|age| format!("{age:?}")),
        max_bytes.map(|bytes| format!("{bytes} bytes")),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() {
        return "none".to_owned();
    }
    format!("{}; references: {}", bounds.join(", "), references_as_text(*references))
}

pub(crate) fn idempotency_as_text(config: &StreamConfig) -> String {
    format!("{:?}, {} keys of each producer", config.idempotency_duration, config.idempotency_keys_max)
}

fn references_as_text(references: millstream_client::References) -> &'static str {
    match references {
        millstream_client::References::Keep => "keep",
        millstream_client::References::Delete => "delete",
        millstream_client::References::Acked => "acked",
    }
}
