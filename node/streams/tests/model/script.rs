//! A run as text: as a story that a person reads, in the language of `tests/scripts`, and as lines that are replayed.

use std::fmt::Write as _;

use bytes::Bytes;
use millstream_streams::*;

use super::run::Event;

/// The steps as a script in the language of `tests/scripts`.
pub(crate) fn story(events: &[Event]) -> String {
    let mut text = String::new();
    let (mut at_ms, mut bytes_max) = (0, 0);
    for event in events {
        match event {
            Event::Checkpoint => writeln!(text, "checkpoint").unwrap(),
            Event::Restart => writeln!(text, "restart").unwrap(),
            Event::Propose(proposal) => {
                if proposal.at_ms != at_ms {
                    at_ms = proposal.at_ms;
                    writeln!(text, "at {at_ms}").unwrap();
                }
                if proposal.bytes_max != bytes_max {
                    bytes_max = proposal.bytes_max;
                    writeln!(text, "answer_bytes {bytes_max}").unwrap();
                }
                tell(&mut text, &proposal.command);
            }
        }
    }
    text
}

/// The steps as lines for [`parse`].
pub(crate) fn lines(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Checkpoint => text.push_str("checkpoint"),
            Event::Restart => text.push_str("restart"),
            Event::Propose(proposal) => {
                for byte in proposal.encode() {
                    write!(text, "{byte:02x}").unwrap();
                }
            }
        }
        text.push('\n');
    }
    text
}

/// The steps of lines. Those that start with `#` are for people.
pub(crate) fn parse(text: &str) -> Vec<Event> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let event = |line: &str| match line {
        "checkpoint" => Event::Checkpoint,
        "restart" => Event::Restart,
        hex => {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a line is a word or hexadecimal");
            let bytes: Bytes = (0..hex.len()).step_by(2).map(byte).collect();
            Event::Propose(Proposal::decode(&bytes).expect("proposals are readable for ever"))
        }
    };
    lines.map(event).collect()
}

/// Words of one line of a script: arguments, then tags.
#[derive(Default)]
struct Line {
    words: Vec<String>,
    tags: Vec<&'static str>,
}

impl Line {
    fn new(name: &str) -> Line {
        Line { words: vec![name.to_owned()], tags: Vec::new() }
    }

    fn word(mut self, word: impl ToString) -> Line {
        self.words.push(quoted(&word.to_string()));
        self
    }

    fn key(mut self, key: &str, value: impl ToString) -> Line {
        self.words.push(format!("{key}={}", quoted(&value.to_string())));
        self
    }

    fn maybe(self, key: &str, value: Option<impl ToString>) -> Line {
        match value {
            Some(value) => self.key(key, value),
            None => self,
        }
    }

    fn unless_zero(self, key: &str, value: u64) -> Line {
        self.maybe(key, (value != 0).then_some(value))
    }

    fn tag(mut self, is_set: bool, tag: &'static str) -> Line {
        if is_set {
            self.tags.push(tag);
        }
        self
    }

    fn ids(self, ids: &[EntryId]) -> Line {
        ids.iter().fold(self, |line, id| line.word(id))
    }

    fn references(self, references: References) -> Line {
        self.tag(references == References::Delete, "delete_references").tag(references == References::Acked, "acked")
    }

    fn policy(self, prefix: &str, policy: &TrimPolicy) -> Line {
        let line = match policy.threshold {
            TrimThreshold::MaxLength(length) => self.key(&format!("{prefix}maxlen"), length),
            TrimThreshold::MinId(id) => self.key(&format!("{prefix}minid"), id),
        };
        line.maybe(&format!("{prefix}limit"), policy.limit)
            .tag(policy.approximate, "approximate")
            .references(policy.references)
    }

    fn position(self, position: GroupPosition) -> Line {
        match position {
            GroupPosition::After(id) => self.word(id),
            GroupPosition::End => self.word("end"),
        }
    }

    fn show(&self) -> String {
        let mut text = self.words.join(" ");
        if !self.tags.is_empty() {
            write!(text, " [{}]", self.tags.join(",")).unwrap();
        }
        text
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("{word:?}") }
}

fn tell(text: &mut String, command: &Command) {
    let mut who = None;
    let line = match command {
        Command::Append(Append { stream, id, fields, no_create, trim, idempotency }) => {
            let mut line = Line::new("append").word(stream);
            line = match id {
                NewId::Auto => line,
                NewId::Ms(ms) => line.word(format!("{ms}-@")),
                NewId::Explicit(id) => line.word(id),
            };
            if let Some(Idempotency { producer, key }) = idempotency {
                line = line.key("_producer", producer.as_bytes().escape_ascii());
                line = line.maybe("_key", key.as_ref().map(|key| key.as_bytes().escape_ascii().to_string()));
            }
            for (name, value) in fields.iter() {
                let value =
                    if value.len() > 100 { format!("{} bytes", value.len()) } else { value.escape_ascii().to_string() };
                line = line.key(&name.escape_ascii().to_string(), value);
            }
            line = line.tag(*no_create, "no_create");
            match trim {
                Some(policy) => line.policy("_", policy),
                None => line,
            }
        }
        Command::DeleteEntries(DeleteEntries { stream, ids, references }) => {
            Line::new("delete").word(stream).ids(ids).references(*references)
        }
        Command::Trim(Trim { stream, policy }) => Line::new("trim").word(stream).policy("", policy),
        Command::DeleteStream(DeleteStream { stream }) => Line::new("delete_stream").word(stream),
        Command::DeleteAll(DeleteAll {}) => Line::new("delete_all"),
        Command::CreateGroup(CreateGroup { stream, group, position, create_stream, entries_read }) => {
            Line::new("create_group")
                .word(stream)
                .word(group)
                .position(*position)
                .maybe("entries_read", *entries_read)
                .tag(*create_stream, "create_stream")
        }
        Command::SetGroupPosition(SetGroupPosition { stream, group, position, entries_read }) => {
            Line::new("set_position").word(stream).word(group).position(*position).maybe("entries_read", *entries_read)
        }
        Command::DeleteGroup(DeleteGroup { stream, group }) => Line::new("delete_group").word(stream).word(group),
        Command::CreateConsumer(CreateConsumer { stream, group, consumer }) => {
            who = Some(consumer);
            Line::new("create_consumer").word(stream).word(group)
        }
        Command::DeleteConsumer(DeleteConsumer { stream, group, consumer }) => {
            who = Some(consumer);
            Line::new("delete_consumer").word(stream).word(group)
        }
        Command::ReadGroup(ReadGroup {
            group,
            consumer,
            streams,
            count,
            no_ack,
            bytes_max,
            total_max,
            claim_min_idle_ms,
        }) => {
            who = Some(consumer);
            let mut line = Line::new("read").word(group);
            for GroupRead { stream, from } in streams {
                line = match from {
                    GroupReadFrom::New => line.key(stream.as_str(), "new"),
                    GroupReadFrom::PendingAfter(id) => line.key(stream.as_str(), id),
                };
            }
            line.unless_zero("_count", (*count).into())
                .unless_zero("_bytes_max", *bytes_max)
                .unless_zero("_total", (*total_max).into())
                .maybe("_claim", *claim_min_idle_ms)
                .tag(*no_ack, "no_ack")
        }
        Command::Ack(Ack { stream, group, ids }) => Line::new("ack").word(stream).word(group).ids(ids),
        Command::AckAndDelete(AckAndDelete { stream, group, ids, references }) => {
            Line::new("ack_and_delete").word(stream).word(group).ids(ids).references(*references)
        }
        Command::Nack(Nack { stream, group, ids, mode, delivery_count, force }) => Line::new("nack")
            .word(stream)
            .word(group)
            .ids(ids)
            .maybe("retry_count", *delivery_count)
            .tag(*mode == NackMode::Silent, "silent")
            .tag(*mode == NackMode::Fatal, "fatal")
            .tag(*force, "force"),
        Command::Claim(Claim {
            stream,
            group,
            consumer,
            min_idle_ms,
            ids,
            delivery_time,
            delivery_count,
            force,
            ids_only,
            last_id,
        }) => {
            who = Some(consumer);
            let line = Line::new("claim").word(stream).word(group).ids(ids).unless_zero("min_idle", *min_idle_ms);
            let line = match delivery_time {
                DeliveryTime::Now => line,
                DeliveryTime::IdleMs(idle_ms) => line.key("idle", idle_ms),
                DeliveryTime::UnixMs(unix_ms) => line.key("time", unix_ms),
            };
            line.maybe("retry_count", *delivery_count)
                .maybe("last_id", *last_id)
                .tag(*force, "force")
                .tag(*ids_only, "ids_only")
        }
        Command::AutoClaim(AutoClaim { stream, group, consumer, min_idle_ms, start, count, ids_only }) => {
            who = Some(consumer);
            Line::new("auto_claim")
                .word(stream)
                .word(group)
                .unless_zero("min_idle", *min_idle_ms)
                .key("start", start)
                .key("count", count)
                .tag(*ids_only, "ids_only")
        }
        Command::SetLastId(SetLastId { stream, last_id, entries_added, max_deleted_id }) => Line::new("set_last_id")
            .word(stream)
            .word(last_id)
            .maybe("entries_added", *entries_added)
            .maybe("max_deleted", *max_deleted_id),
        Command::ConfigureStream(ConfigureStream {
            stream,
            create_stream,
            idempotency_duration_s,
            idempotency_keys_max,
            retention,
        }) => {
            let mut line = Line::new("configure")
                .word(stream)
                .maybe("duration", *idempotency_duration_s)
                .maybe("keys_max", *idempotency_keys_max);
            if let Some(Retention { max_length, min_id, max_age_ms, max_bytes, references }) = retention {
                line = line
                    .maybe("max_length", *max_length)
                    .maybe("min_id", *min_id)
                    .maybe("max_age", *max_age_ms)
                    .maybe("max_bytes", *max_bytes)
                    .references(*references)
                    .tag(retention == &Some(Retention::default()), "no_retention");
            }
            line.tag(*create_stream, "create_stream")
        }
        Command::RecordIdempotency(RecordIdempotency { stream, producer, key, id }) => Line::new("record_key")
            .word(stream)
            .word(producer.as_bytes().escape_ascii())
            .word(key.as_bytes().escape_ascii())
            .word(id),
        Command::EnforceRetention(EnforceRetention { streams }) => {
            streams.iter().fold(Line::new("enforce_retention"), Line::word)
        }
        Command::Batch(Batch { operations, guards, mode }) => {
            writeln!(text, "multi").unwrap();
            for operation in operations {
                tell(text, operation);
            }
            let mut line = Line::new("exec");
            for guard in guards {
                line = match guard {
                    Guard::Unchanged { stream, last_change_index } => line.key(stream.as_str(), last_change_index),
                    Guard::Absent { stream } => line.key(stream.as_str(), "absent"),
                };
            }
            line.tag(*mode == BatchMode::ContinueOnError, "continue")
        }
        Command::Query(query) => ask(query),
        // No commands of the model.
        other => Line::new(other.name()),
    };
    match who {
        Some(who) if !who.as_str().is_empty() => writeln!(text, "{who}: {}", line.show()).unwrap(),
        _ => writeln!(text, "{}", line.show()).unwrap(),
    }
}

fn ask(query: &Query) -> Line {
    let line = Line::new("ask");
    match query {
        Query::Range(RangeQuery { stream, start, end, reverse, count }) => {
            line.word("range").word(stream).word(start).word(end).key("count", count).tag(*reverse, "reverse")
        }
        Query::Read(ReadStreams { streams, count, total_max, bytes_max }) => {
            let mut line = line.word("read");
            for StreamRead { stream, from } in streams {
                line = match from {
                    ReadFrom::New => line.key(stream.as_str(), "new"),
                    ReadFrom::Last => line.key(stream.as_str(), "last"),
                    ReadFrom::After(id) => line.key(stream.as_str(), id),
                };
            }
            line.key("_count", count).unless_zero("_total", (*total_max).into()).unless_zero("_bytes_max", *bytes_max)
        }
        Query::Stream(stream) => line.word("info").word(stream),
        Query::Details { stream, count } => line.word("details").word(stream).key("count", count),
        Query::PendingSummary { stream, group } => line.word("pending_summary").word(stream).word(group),
        Query::Pending(PendingQuery { stream, group, start, end, count, consumer, min_idle_ms }) => line
            .word("pending")
            .word(stream)
            .word(group)
            .word(start)
            .word(end)
            .key("count", count)
            .maybe("consumer", consumer.as_ref())
            .unless_zero("min_idle", *min_idle_ms),
        Query::Groups { stream, after, count } => {
            line.word("groups").word(stream).maybe("after", after.as_ref()).key("count", count)
        }
        Query::Consumers { stream, group, after, count } => {
            line.word("consumers").word(stream).word(group).maybe("after", after.as_ref()).key("count", count)
        }
    }
}
