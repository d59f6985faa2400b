//! `batch`: several operations as one.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use millstream_client::{BatchMode, Client, Error};
use serde_json::{Value, json};

use crate::Failure;
use crate::operation::OperationVerb;
use crate::output::Output;

/// Does several operations as one: nothing comes in between, and all are done or none (MULTI, EXEC, WATCH)
///
/// Each line of FILE is a verb of this command line with its arguments: words separated by spaces, or a JSON array of
/// strings if they hold spaces, quotes or backslashes. Empty lines and those that begin with # are passed over. At most
/// 10,000 operations.
#[derive(Args)]
pub(crate) struct Batch {
    /// The operations; - is stdin
    file: PathBuf,
    /// Do the others if one is refused
    #[arg(long)]
    continue_on_error: bool,
    /// Do nothing unless the last command that changed STREAM or one of its groups has this log index; `info` tells it
    #[arg(long, value_name = "STREAM=INDEX", value_parser = crate::parse::unchanged)]
    unchanged: Vec<(String, u64)>,
    /// Do nothing if there is such a stream
    #[arg(long, value_name = "STREAM")]
    absent: Vec<String>,
}

/// One line of the file.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    verb: OperationVerb,
}

impl Batch {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { file, continue_on_error, unchanged, absent } = self;
        let lines = read(&file)?;
        let mut batch = millstream_client::Batch::new();
        if continue_on_error {
            batch = batch.mode(BatchMode::ContinueOnError);
        }
        for (stream, index) in unchanged {
            batch = batch.unchanged(stream, index);
        }
        for stream in absent {
            batch = batch.absent(stream);
        }
        for (number, verb) in &lines {
            let operation = verb.verb().operation();
            batch = batch.add(operation.map_err(|problem| Failure::Usage(format!("line {number}: {problem}")))?);
        }
        let done = client.batch(batch).await.map_err(|error| at_line(error, &lines))?;
        let mut refused = 0;
        for ((operation, (number, verb)), result) in lines.iter().enumerate().zip(done.results) {
            let json = json!({ "operation": operation, "line": number });
            match result {
                Ok(result) => out.part(&format!("line {number}:"), json, |out| verb.verb().print(result, out))?,
                Err(error) => {
                    refused += 1;
                    print_refusal(*number, json, &error, out)?;
                }
            }
        }
        let json = json!({ "log_index": done.receipt.log_index, "term": done.receipt.term });
        out.result(format!("done, at log index {}", done.receipt.log_index), json)?;
        out.flush()?;
        if 0 < refused { Err(Failure::SomeRefused(refused)) } else { Ok(()) }
    }
}

fn print_refusal(number: u64, mut json: Value, error: &Error, out: &mut Output) -> io::Result<()> {
    json["error"] = match error {
        Error::Refused { reason, message, metadata } => {
            let reason = reason.as_str_name().trim_start_matches("ERROR_REASON_");
            json!({ "reason": reason, "message": message, "metadata": metadata })
        }
        other => json!({ "message": other.to_string() }),
    };
    out.result(format!("line {number}: {error}"), json)
}

/// The refusal of a batch, with the line that is to blame if it was one.
fn at_line(error: Error, lines: &[(u64, OperationVerb)]) -> Failure {
    let operation = error.metadata("operation").and_then(|operation| operation.parse::<usize>().ok());
    match operation.and_then(|operation| lines.get(operation)) {
        Some((line, _)) => Failure::Line { line: *line, error },
        None => Failure::Client(error),
    }
}

/// The operations of a file and the numbers of their lines, counted from 1.
fn read(path: &Path) -> Result<Vec<(u64, OperationVerb)>, Failure> {
    let cannot = |error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
    let input: Box<dyn BufRead> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(cannot)?)),
    };
    let mut verbs = Vec::new();
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.map_err(cannot)?;
        let wrong = |problem: String| Failure::Usage(format!("line {number}: {problem}"));
        let words = words(line.trim()).map_err(wrong)?;
        if words.is_empty() {
            continue;
        }
        let parsed = Line::try_parse_from(words).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        verbs.push((number, parsed.verb));
    }
    if verbs.is_empty() {
        return Err(Failure::Usage(format!("{}: no operations", path.display())));
    }
    Ok(verbs)
}

/// The words of a line; none if there is nothing to do.
fn words(line: &str) -> Result<Vec<String>, String> {
    if line.starts_with('#') {
        return Ok(Vec::new());
    }
    if line.starts_with('[') {
        return serde_json::from_str(line).map_err(|error| format!("not a JSON array of strings: {error}"));
    }
    if line.contains(['"', '\'', '\\']) {
        return Err("quotes and backslashes: write the line as a JSON array of strings".to_owned());
    }
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_of_a_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn lines_become_words() {
        for (line, expected) in [
            ("", &[][..]),
            ("# append orders a=b", &[]),
            ("append orders  a=b", &["append", "orders", "a=b"]),
            (r#"["append", "orders", "a=two words"]"#, &["append", "orders", "a=two words"]),
        ] {
            assert_eq!(words(line).expect(line), expected, "{line}");
        }
        for line in ["append orders a=\"b\"", "append orders 'a=b c'", "append orders a=\\n", "[\"append\"", "[1]"] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_verb_is_a_line() {
        for line in [
            "append orders item=tea --producer p --key k --maxlen ~10 --limit 5 --references acked",
            "append orders item=tea --id 5-* --minid 3",
            "range orders - + --count 5 --rev",
            "read orders=0 refunds=+ --count 5 --total-count 7 --max-bytes 100",
            "delete orders 1-1 1-2 --references delete",
            "trim orders --minid ~5 --limit 0 --references keep",
            "info orders",
            "info orders --full --count 3",
            "set-last-id orders 9-0 --entries-added 12 --max-deleted-id 8-0",
            "configure orders --create-stream --maxlen 5 --minid 1-1 --max-age 7d --max-bytes 9 --references acked",
            "configure orders --no-retention --idempotency-duration 100s --idempotency-keys 50",
            "record-idempotency orders p k 1-1",
            "delete-stream orders",
            "delete-all --yes",
            "group create orders g 0 --create-stream --entries-read 3",
            "group set-id orders g $",
            "group destroy orders g",
            "group create-consumer orders g ada",
            "group delete-consumer orders g ada",
            "group list orders",
            "group consumers orders g",
            "read-group g ada orders=> --count 5 --total-count 7 --max-bytes 100 --claim 1000 --no-ack",
            "ack orders g 1-1",
            "ack orders g 1-1 --delete --references acked",
            "nack orders g 1-1 --mode fatal --retry-count 3 --force",
            "pending orders g",
            "pending orders g - + 10 --consumer ada --min-idle 5",
            "claim orders g ada 1000 1-1 --force",
            "autoclaim orders g ada 1000 0 --count 5",
        ] {
            let parsed =
                Line::try_parse_from(words(line).expect(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(parsed.verb.verb().operation().is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_line() {
        for line in [
            "append orders",
            "append orders a=b --key k",
            "append orders a=b --producer p --id 5-1",
            "append orders a=b --limit 5",
            "append orders a=b --references acked",
            "append orders a=b --maxlen 1 --minid 1",
            "append orders a=b --maxlen 1 --references all",
            "trim orders",
            "trim orders --references acked",
            "info orders --count 3",
            "configure orders",
            "configure orders --create-stream",
            "configure orders --references acked",
            "configure orders --no-retention --maxlen 5",
            "configure orders --max-age 5",
            "delete-all",
            "ack orders g 1-1 --references acked",
            "nack orders g 1-1 --mode soft",
            "read orders=0 --total-count 0",
            "tail orders",
            "batch -",
            "bench append",
        ] {
            assert!(Line::try_parse_from(words(line).expect(line)).is_err(), "{line}");
        }
    }
}
