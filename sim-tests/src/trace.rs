//! The trace: every event of a simulation as one canonical line, folded into one hash.
//!
//! Two runs of a seed must give the same hash. Where they do not, both are run again with the lines written to files,
//! and the first line that differs names the culprit.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt};
use xxhash_rust::xxh3::Xxh3Default;

use crate::entropy::Time;

/// Collects the lines. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    time: Time,
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    hash: Xxh3Default,
    count: u64,
    by_kind: BTreeMap<&'static str, u64>,
    line: String,
    file: Option<BufWriter<File>>,
}

/// What a trace amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Of all lines.
    pub hash: u128,
    /// Number of lines.
    pub events: u64,
    /// Number of lines of each kind.
    pub by_kind: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// A trace whose lines are stamped with `time`, and written to `file` if there is one.
    pub fn new(time: Time, file: Option<&Path>) -> io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let lines = Lines { hash: Xxh3Default::new(), count: 0, by_kind: BTreeMap::new(), line: String::new(), file };
        Ok(Self { time, lines: Arc::new(Mutex::new(lines)) })
    }

    /// The time with which lines are stamped now.
    pub fn elapsed(&self) -> std::time::Duration {
        self.time.elapsed()
    }

    /// Adds the line `time kind event`. Nothing that depends on addresses, real time or the process may be in it.
    pub fn line(&self, kind: &'static str, event: fmt::Arguments<'_>) {
        let mut lines = self.lock();
        let lines = &mut *lines;
        let elapsed = self.time.elapsed();
        lines.line.clear();
        // Writing to a string does not fail.
        let _ = writeln!(lines.line, "{:>6}.{:03} {kind} {event}", elapsed.as_secs(), elapsed.subsec_millis());
        lines.hash.update(lines.line.as_bytes());
        lines.count += 1;
        *lines.by_kind.entry(kind).or_default() += 1;
        if let Some(file) = &mut lines.file {
            // A dump cut short is found when it is compared.
            let _ = file.write_all(lines.line.as_bytes());
        }
    }

    /// What has been traced so far.
    pub fn digest(&self) -> Digest {
        let mut lines = self.lock();
        if let Some(file) = &mut lines.file {
            let _ = file.flush();
        }
        Digest { hash: lines.hash.digest128(), events: lines.count, by_kind: lines.by_kind.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A short fingerprint of bytes, for lines.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Where a simulation's tracing events go: turmoil's packets into `trace`, and what `log` selects to standard error,
/// stamped with simulated time.
pub fn subscriber(trace: &Trace, log: Option<&str>, time: Time) -> impl Subscriber + Send + Sync + use<> {
    let packets = PacketLayer(trace.clone()).with_filter(Targets::new().with_target("turmoil", tracing::Level::TRACE));
    let log = log.map(|filter| {
        let lines = tracing_subscriber::fmt::layer().with_timer(time).with_writer(io::stderr).with_ansi(false);
        lines.with_filter(EnvFilter::new(filter))
    });
    tracing_subscriber::registry().with(packets).with(log)
}

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let elapsed = self.elapsed();
        write!(writer, "{:>6}.{:03}", elapsed.as_secs(), elapsed.subsec_millis())
    }
}

/// Traces what turmoil tells of its packets: Send, Delivered, Recv, Drop, Hold, with their bytes.
///
/// turmoil tells it at level TRACE. A release build of `tracing` with a static maximum level drops these events before
/// they get here; see [`packets_are_traced`].
struct PacketLayer(Trace);

impl<S: Subscriber> Layer<S> for PacketLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = EventText::default();
        event.record(&mut text);
        // turmoil's step counter is not an event of the cluster.
        if !text.message.starts_with("step ") {
            self.0.line("packet", format_args!("{}{}", text.message, text.fields));
        }
    }
}

#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // The segment's bytes in hexadecimal, six characters a byte: too long for a line, and nobody reads them.
            "protocol" => {
                let mut segment = String::new();
                write!(segment, "{value:?}").and_then(|()| match segment.split_once('[') {
                    Some((kind, bytes)) => write!(self.fields, " {kind}[{:016x}]", fingerprint(bytes.as_bytes())),
                    None => write!(self.fields, " {segment}"),
                })
            }
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Whether this build lets turmoil's packet events through. The bytes that nodes read and write are traced in any
/// build.
pub fn packets_are_traced() -> bool {
    tracing::level_filters::STATIC_MAX_LEVEL >= tracing::level_filters::LevelFilter::TRACE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn digest(events: &[(u64, &str)]) -> Digest {
        let time = Time::default();
        let trace = Trace::new(time.clone(), None).expect("no file is involved");
        for (ms, event) in events {
            time.set(Duration::from_millis(*ms));
            trace.line("test", format_args!("{event}"));
        }
        trace.digest()
    }

    #[test]
    fn hash_depends_on_content_order_and_time() {
        let base = digest(&[(1, "a"), (2, "b")]);
        assert_eq!(base, digest(&[(1, "a"), (2, "b")]));
        assert_eq!(base.events, 2);
        assert_ne!(base.hash, digest(&[(1, "b"), (2, "a")]).hash);
        assert_ne!(base.hash, digest(&[(1, "a"), (3, "b")]).hash);
        assert_ne!(base.hash, digest(&[(1, "a"), (2, "c")]).hash);
    }
}
