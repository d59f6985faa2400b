//! `append`: one entry from the command line, or many from a file.

use std::path::PathBuf;

use clap::Args;
use millstream_client::{Client, EntryId, Operation, OperationResult, Trim};
use serde_json::json;

use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, NewId, References, Threshold};
use crate::{Failure, jsonl};

/// Appends one entry, or one for each line of a file of JSON objects (XADD)
#[derive(Args)]
pub(crate) struct Append {
    /// The stream; created if missing
    stream: String,
    /// The entry's fields, in this order
    #[arg(value_name = "FIELD=VALUE", value_parser = parse::field, required_unless_present = "jsonl")]
    fields: Vec<(String, String)>,
    /// The entry's id: ms-seq, ms-* or * (the store chooses)
    #[arg(long, default_value = "*", value_parser = parse::new_id)]
    id: NewId,
    /// Refuse rather than create the stream
    #[arg(long)]
    no_create: bool,
    /// Append only if this producer has not appended the same before (IDMP, IDMPAUTO): remembered for 100 seconds and
    /// for 100 appends of each producer, unless the stream is configured otherwise. Without --key, the same is what has
    /// equal fields in any order
    #[arg(long, conflicts_with = "id")]
    producer: Option<String>,
    /// With --producer: what the producer calls this append
    #[arg(long, requires = "producer", conflicts_with = "jsonl")]
    key: Option<String>,
    #[command(flatten)]
    trim: TrimArgs,
    /// Append each line of FILE (- is stdin), a JSON object: each key is a field; a string is its value as it is, any
    /// other JSON is its compact text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fields", "id"])]
    jsonl: Option<PathBuf>,
    /// With --jsonl: appends under way at once. 1 keeps the lines in order in the stream; more is faster, and lines
    /// under way together may change places
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "fields",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
}

/// What to trim.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("threshold").args(["maxlen", "minid"]))]
pub(crate) struct TrimArgs {
    /// Keep at most N entries; ~N removes whole blocks only, which is cheaper
    #[arg(long, value_name = "N|~N", value_parser = parse::max_length)]
    maxlen: Option<Threshold<u64>>,
    /// Remove entries with smaller ids; ~ID removes whole blocks only, which is cheaper
    #[arg(long, value_name = "ID|~ID", value_parser = parse::min_id)]
    minid: Option<Threshold<EntryId>>,
    /// With ~N or ~ID: remove at most N entries; 0 is no limit [default: 10000]
    #[arg(long, value_name = "N", requires = "threshold")]
    limit: Option<u64>,
    /// What becomes of the groups' references to what is trimmed; unless they are kept, ~ goes by entries, too
    /// [default: keep]
    #[arg(long, value_enum, requires = "threshold")]
    references: Option<References>,
}

impl TrimArgs {
    pub(crate) fn trim(&self) -> Option<Trim> {
        let (trim, approximate) = match (self.maxlen, self.minid) {
            (Some(threshold), _) => (Trim::max_length(threshold.value), threshold.approximate),
            (None, Some(threshold)) => (Trim::min_id(threshold.value), threshold.approximate),
            (None, None) => return None,
        };
        let trim = if approximate { trim.approximate() } else { trim };
        let trim = self.limit.map_or(trim, |limit| trim.limit(limit));
        Some(trim.references(self.references.unwrap_or_default().into()))
    }
}

impl Append {
    /// What all entries of the command have in common.
    fn template(&self) -> millstream_client::Append {
        let mut append = millstream_client::Append::to(&self.stream);
        if self.no_create {
            append = append.no_create();
        }
        if let Some(trim) = self.trim.trim() {
            append = append.trim(trim);
        }
        match (self.producer.clone(), self.key.clone()) {
            (Some(producer), Some(key)) => append.idempotency(producer, key),
            (Some(producer), None) => append.idempotent_by_content(producer),
            (None, _) => append,
        }
    }

    /// Whether there is a file to append.
    pub(crate) fn is_of_lines(&self) -> bool {
        self.jsonl.is_some()
    }

    pub(crate) async fn append_lines(&self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let file = self.jsonl.clone().unwrap_or_default();
        jsonl::append_lines(client, out, &file, self.template(), self.in_flight.into()).await
    }
}

impl Verb for Append {
    fn operation(&self) -> Result<Operation, Failure> {
        if self.is_of_lines() {
            return Err(Failure::Usage("--jsonl is many appends: not possible here".to_owned()));
        }
        let append = match self.id {
            NewId::Auto => self.template(),
            NewId::Ms(ms) => self.template().ms(ms),
            NewId::Explicit(id) => self.template().id(id),
        };
        let fields = self.fields.iter().cloned();
        Ok(fields.fold(append, |append, (name, value)| append.field(name, value)).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Append(appended) = result else { return Err(mismatch()) };
        let json = json!({
            "stream": self.stream,
            "id": appended.id.to_string(),
            "trimmed": appended.trimmed,
            "duplicate": appended.duplicate,
            "log_index": appended.receipt.log_index,
            "term": appended.receipt.term,
        });
        let note = if appended.duplicate { " (duplicate)" } else { "" };
        out.result(format!("{}{note}", appended.id), json)?;
        Ok(())
    }
}
