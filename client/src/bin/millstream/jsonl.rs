//! `append --jsonl`: a file of JSON objects, one entry a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use millstream_client::{Append, Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Failure;
use crate::output::Output;

/// Lines read ahead.
const LINES_AHEAD: usize = 64;

/// Why a line was not appended.
enum Problem {
    NotAnObject(String),
    Client(Error),
}

/// Appends the fields of each line to a copy of `template`. Refused lines are reported and passed over; whatever leaves
/// doubt ends the work, because the lines after it would stand in the wrong place.
pub(crate) async fn append_lines(
    client: &Client,
    out: &mut Output,
    path: &Path,
    template: Append,
    in_flight: usize,
) -> Result<(), Failure> {
    let (input, bytes) = open(path)?;
    let progress = progress_bar(bytes);
    let mut lines = lines_of(input);
    let started = Instant::now();

    let stopped = AtomicBool::new(false);
    let numbered = futures::stream::poll_fn(|cx| {
        if stopped.load(Ordering::Relaxed) {
            return std::task::Poll::Ready(None);
        }
        lines.poll_recv(cx)
    });
    let appends = numbered.map(|(number, line)| {
        let template = template.clone();
        async move {
            let length = line.as_ref().map_or(0, Vec::len) as u64;
            (number, length, append_line(client, template, line).await)
        }
    });
    let mut outcomes = std::pin::pin!(appends.buffered(in_flight));

    let (mut appended, mut duplicates, mut refused, mut failure) = (0_u64, 0_u64, 0_u64, None);
    let mut last_id = None;
    while let Some((number, length, outcome)) = outcomes.next().await {
        progress.inc(length);
        let problem = match outcome {
            Ok(None) => continue,
            Ok(Some(done)) if done.duplicate => {
                duplicates += 1;
                continue;
            }
            Ok(Some(done)) => {
                appended += 1;
                last_id = Some(done.id);
                progress.set_message(format!("{appended} appended"));
                continue;
            }
            Err(problem) => problem,
        };
        let report = |problem: &dyn std::fmt::Display| progress.suspend(|| eprintln!("line {number}: {problem}"));
        match problem {
            Problem::NotAnObject(problem) => {
                report(&problem);
                refused += 1;
            }
            Problem::Client(error @ Error::Refused { .. }) => {
                report(&error);
                refused += 1;
            }
            // Those under way are still awaited; no others are begun.
            Problem::Client(error) => {
                report(&error);
                stopped.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        }
    }
    progress.finish_and_clear();

    let seconds = started.elapsed().as_secs_f64();
    let per_second = appended as f64 / seconds.max(f64::EPSILON);
    let json = json!({
        "appended": appended,
        "duplicates": duplicates,
        "refused": refused,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "per_second": per_second.round(),
        "last_id": last_id.map(|id| id.to_string()),
    });
    let text = format!(
        "appended {appended} entries in {seconds:.2} s ({per_second:.0}/s), duplicates {duplicates}, refused {refused}"
    );
    out.result(text, json)?;
    out.flush()?;
    match failure {
        Some(error) => Err(Failure::Stopped(error)),
        None if 0 < refused => Err(Failure::SomeRefused(refused)),
        None => Ok(()),
    }
}

/// `None`: the line was empty.
async fn append_line(
    client: &Client,
    template: Append,
    line: io::Result<Vec<u8>>,
) -> Result<Option<millstream_client::Appended>, Problem> {
    let line = line.map_err(|error| Problem::NotAnObject(format!("cannot read: {error}")))?;
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let append = fields_of(&line)?.into_iter().fold(template, |append, (name, value)| append.field(name, value));
    client.append(append).await.map(Some).map_err(Problem::Client)
}

fn fields_of(line: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| Problem::NotAnObject(format!("not a JSON object: {error}")))?;
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(object.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// The input and, if it is a file, its size in bytes.
fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let cannot = |error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let bytes = file.metadata().map_err(cannot)?.len();
    Ok((Box::new(file), Some(bytes)))
}

/// The numbered lines of `input`, read by a thread of its own: stdin may have nothing to say for long. The thread ends
/// with the input or with the process.
fn lines_of(input: Box<dyn Read + Send>) -> mpsc::Receiver<(u64, io::Result<Vec<u8>>)> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let lines = BufReader::new(input).split(b'\n');
        for (line, number) in lines.zip(1..) {
            let is_last = line.is_err();
            if sender.blocking_send((number, line)).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// On stderr, and only if that is a terminal.
fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {bytes}/{total_bytes} {msg} ({eta} left)"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields() {
        let line = br#"{"b":"as is","a":1.50,"list":[1, "x"],"null":null,"o":{"k" : true},"empty":""}"#;
        let Ok(fields) = fields_of(line) else { panic!("an object") };
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("b", "as is"),
            ("a", "1.5"),
            ("list", r#"[1,"x"]"#),
            ("null", "null"),
            ("o", r#"{"k":true}"#),
            ("empty", ""),
        ];
        assert_eq!(fields, expected);
        assert!(fields_of(b"[1]").is_err() && fields_of(b"{").is_err());
    }

    #[test]
    fn lines_are_numbered_from_one() {
        let mut lines = lines_of(Box::new(&b"a\n\nb"[..]));
        let read: Vec<_> = std::iter::from_fn(|| lines.blocking_recv()).collect();
        let read: Vec<_> = read.into_iter().map(|(number, line)| (number, line.expect("memory"))).collect();
        assert_eq!(read, [(1, b"a".to_vec()), (2, b"".to_vec()), (3, b"b".to_vec())]);
    }
}
