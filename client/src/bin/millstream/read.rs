//! `range`, `read`, `tail`.

use std::ops::Bound;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use millstream_client::{Client, EntryId};

use crate::Failure;
use crate::output::Output;
use crate::parse::{self, From, ReadFrom};

/// How long one call of `tail` waits. Shorter than what balancers and firewalls forget.
const TAIL_WAIT: Duration = Duration::from_secs(30);
/// The default page of the store.
const PAGE: u64 = 1000;

/// Prints entries between two ids (XRANGE, XREVRANGE)
#[derive(Args)]
pub(crate) struct Range {
    /// The stream; a missing one is empty
    stream: String,
    /// The low end: - or an id; (id leaves it out
    #[arg(default_value = "-", value_parser = parse::start, requires = "end")]
    start: Bound<EntryId>,
    /// The high end: + or an id; (id leaves it out
    #[arg(default_value = "+", value_parser = parse::end)]
    end: Bound<EntryId>,
    /// From the high end to the low one; START is the low end all the same
    #[arg(long)]
    rev: bool,
    /// At most N entries
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Range {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { stream, start, end, rev, count } = self;
        let count = count.unwrap_or(u64::MAX);
        if count == 0 {
            return Ok(());
        }
        let range = millstream_client::Range::of(stream).start(start).end(end);
        let range = range.page_size(u32::try_from(count.min(PAGE)).unwrap_or(0));
        let entries = client.range_all(if rev { range.reverse() } else { range });
        let mut entries = std::pin::pin!(entries.take(usize::try_from(count).unwrap_or(usize::MAX)));
        while let Some(entry) = entries.try_next().await? {
            out.entry(None, &entry)?;
        }
        Ok(())
    }
}

/// Prints entries after given ids (XREAD)
#[derive(Args)]
pub(crate) struct Read {
    /// Entries with greater ids; $ is what comes after this call, + is the last entry
    #[arg(value_name = "STREAM=ID", required = true, value_parser = parse::read_from)]
    streams: Vec<ReadFrom>,
    /// At most N entries of each stream
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// If nothing is there, wait up to MS milliseconds; 0 is an hour
    #[arg(long, value_name = "MS", value_parser = parse::block)]
    block: Option<Duration>,
}

impl Read {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { streams, count, block } = self;
        let several = 1 < streams.len();
        let mut read = millstream_client::Read::new().count(count.unwrap_or(0));
        for ReadFrom { stream, from } in streams {
            read = match from {
                From::After(id) => read.after(stream, id),
                From::New => read.new_entries(stream),
                From::Last => read.last_entry(stream),
            };
        }
        if let Some(block) = block {
            read = read.wait(block);
        }
        for answer in client.read(read).await? {
            for entry in &answer.entries {
                out.entry(several.then_some(&answer.stream), entry)?;
            }
        }
        Ok(())
    }
}

/// Prints entries as they are appended, until it is interrupted
#[derive(Args)]
pub(crate) struct Tail {
    /// The stream; it need not exist yet
    stream: String,
    /// Start with the entries after this id rather than with new ones
    #[arg(long, value_name = "ID", value_parser = parse::id)]
    after: Option<EntryId>,
}

impl Tail {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { stream, mut after } = self;
        loop {
            let read = match after {
                Some(id) => millstream_client::Read::new().after(&stream, id).wait(TAIL_WAIT),
                // Does not wait: what matters first is the id to go on from, so that nothing is missed between calls.
                None => millstream_client::Read::new().new_entries(&stream),
            };
            let answers = match client.read(read).await {
                Ok(answers) => answers,
                // An election, most likely. The place in the stream is kept.
                Err(error) if error.is_retryable() => {
                    eprintln!("millstream: {error}; still trying");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for answer in answers {
                for entry in &answer.entries {
                    out.entry(None, entry)?;
                }
                after = Some(answer.next_after);
            }
            out.flush()?;
        }
    }
}
