//! Text for people, JSON lines for programs.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use base64::Engine;
use millstream_client::{DeliveredEntry, Entry, EntryId, Redelivery, Removal};
use serde_json::{Value, json};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Lines and tables for people
    Text,
    /// One JSON object a line
    Json,
}

/// Stdout, or a part of one result. Errors, a closed pipe among them, are returned: Rust ignores SIGPIPE, and
/// `println!` would panic.
pub(crate) struct Output {
    format: Format,
    out: BufWriter<Stdout>,
    /// Where JSON goes while a part is printed.
    part: Option<Vec<Value>>,
}

impl Output {
    pub(crate) fn new(format: Option<Format>) -> Self {
        let stdout = io::stdout();
        let format = format.unwrap_or(if stdout.is_terminal() { Format::Text } else { Format::Json });
        Self { format, out: BufWriter::new(stdout), part: None }
    }

    /// A result that consists of what `print` prints: in JSON as the list `result` of `json`, in text below `heading`.
    pub(crate) fn part<E: From<io::Error>>(
        &mut self,
        heading: &str,
        mut json: Value,
        print: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.format == Format::Text {
            writeln!(self.out, "{heading}")?;
            return print(self);
        }
        self.part = Some(Vec::new());
        let outcome = print(self);
        json["result"] = self.part.take().unwrap_or_default().into();
        outcome?;
        Ok(self.json(json)?)
    }

    fn json(&mut self, json: Value) -> io::Result<()> {
        match &mut self.part {
            Some(part) => part.push(json),
            None => writeln!(self.out, "{json}")?,
        }
        Ok(())
    }

    /// One result, in either form.
    pub(crate) fn result(&mut self, text: impl AsRef<str>, json: Value) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.out, "{}", text.as_ref()),
            Format::Json => self.json(json),
        }
    }

    /// One entry, of `stream` if there may be several.
    pub(crate) fn entry(&mut self, stream: Option<&str>, entry: &Entry) -> io::Result<()> {
        match self.format {
            Format::Text => {
                let stream = stream.map(|stream| format!("{stream} ")).unwrap_or_default();
                writeln!(self.out, "{stream}{}{}", entry.id, fields_as_text(entry))
            }
            Format::Json => {
                let mut object = entry_as_json(entry);
                if let (Some(stream), Value::Object(object)) = (stream, &mut object) {
                    object.shift_insert(0, "stream".to_owned(), stream.into());
                }
                self.json(object)
            }
        }
    }

    /// One entry as a consumer gets it, of `stream` if there may be several.
    pub(crate) fn delivered(&mut self, stream: Option<&str>, delivered: &DeliveredEntry) -> io::Result<()> {
        let DeliveredEntry { entry, deleted, redelivery } = delivered;
        let again = redelivery.filter(|redelivery| 0 < redelivery.delivery_count || 0 < redelivery.idle_ms);
        if !deleted && again.is_none() {
            return self.entry(stream, entry);
        }
        let mut json = if *deleted { json!({ "id": entry.id.to_string() }) } else { entry_as_json(entry) };
        let mut text = stream.map(|stream| format!("{stream} ")).unwrap_or_default();
        text.push_str(&format!("{}{}", entry.id, fields_as_text(entry)));
        if let (Some(stream), Value::Object(object)) = (stream, &mut json) {
            object.shift_insert(0, "stream".to_owned(), stream.into());
        }
        if *deleted {
            json["deleted"] = true.into();
            text.push_str(" (deleted)");
        }
        if let Some(Redelivery { idle_ms, delivery_count }) = again {
            json["redelivery"] = json!({ "idle_ms": idle_ms, "delivery_count": delivery_count });
            text.push_str(&format!(" (delivered {delivery_count} times before, idle {idle_ms} ms)"));
        }
        self.result(text, json)
    }

    /// There is more than was printed.
    pub(crate) fn more(&mut self) -> io::Result<()> {
        self.more_of(None)
    }

    /// There is more than was printed, of `stream` if there may be several.
    pub(crate) fn more_of(&mut self, stream: Option<&str>) -> io::Result<()> {
        match stream {
            Some(stream) => self.result(format!("{stream} (more)"), json!({ "stream": stream, "more": true })),
            None => self.result("(more)", json!({ "more": true })),
        }
    }

    /// What became of each id.
    pub(crate) fn removals(&mut self, ids: &[EntryId], results: &[Removal], json: Value) -> io::Result<()> {
        let name = |removal: &Removal| match removal {
            Removal::Deleted => "deleted",
            Removal::NotFound => "not found",
            Removal::Referenced => "referenced",
            Removal::Unknown => "unknown",
        };
        let rows = || ids.iter().zip(results).map(|(id, removal)| (id.to_string(), name(removal)));
        let mut object = json;
        object["results"] =
            rows().map(|(id, name)| json!({ "id": id, "result": name.replace(' ', "_") })).collect::<Vec<_>>().into();
        let text: Vec<String> = rows().map(|(id, name)| format!("{id} {name}")).collect();
        self.result(text.join("\n"), object)
    }

    /// Rows as a table, or as one object each whose keys are the header.
    pub(crate) fn table<const N: usize>(&mut self, header: [&str; N], rows: Vec<[Value; N]>) -> io::Result<()> {
        if self.format == Format::Json {
            for row in rows {
                let keys = header.iter().map(|key| (*key).to_owned());
                let object: serde_json::Map<_, _> = keys.zip(row).filter(|(_, value)| !value.is_null()).collect();
                self.json(Value::Object(object))?;
            }
            return Ok(());
        }
        let is_number: [bool; N] = std::array::from_fn(|column| rows.iter().all(|row| !row[column].is_string()));
        let mut lines = vec![header.map(|key| key.replace('_', " "))];
        lines.extend(rows.into_iter().map(|row| row.map(cell)));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for line in &lines {
            let mut text = String::new();
            for ((cell, width), is_number) in line.iter().zip(widths).zip(is_number) {
                // Writing to a string does not fail.
                let _ = if is_number { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
            }
            writeln!(self.out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn cell(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    }
}

pub(crate) fn entry_as_json(entry: &Entry) -> Value {
    let fields = entry.fields.iter().map(|(name, value)| json!([bytes_as_json(name), bytes_as_json(value)]));
    json!({ "id": entry.id.to_string(), "fields": fields.collect::<Vec<_>>() })
}

/// ` name=value` for each field.
pub(crate) fn fields_as_text(entry: &Entry) -> String {
    entry.fields.iter().map(|(name, value)| format!(" {}={}", bytes_as_text(name), bytes_as_text(value))).collect()
}

/// A string if the bytes are UTF-8, else `{"$base64": "…"}`.
fn bytes_as_json(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "$base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// As they are if that is plain, else quoted and escaped: a terminal must not obey what a stream holds.
fn bytes_as_text(bytes: &[u8]) -> String {
    let Ok(text) = str::from_utf8(bytes) else { return format!("\"{}\"", bytes.escape_ascii()) };
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_in_both_forms() {
        for (bytes, text, json) in [
            (&b"tea"[..], "tea", json!("tea")),
            ("grün".as_bytes(), "grün", json!("grün")),
            (b"", "\"\"", json!("")),
            (b"two words", "\"two words\"", json!("two words")),
            (b"\x1b[2J", "\"\\u{1b}[2J\"", json!("\u{1b}[2J")),
            (b"\xff\x00", "\"\\xff\\x00\"", json!({ "$base64": "/wA=" })),
        ] {
            assert_eq!(bytes_as_text(bytes), text);
            assert_eq!(bytes_as_json(bytes), json);
        }
    }
}
