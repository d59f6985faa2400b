//! `range`, `read`, `tail`.

use std::ops::Bound;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use millstream_client::{Client, EntryId, Operation, OperationResult};

use crate::Failure;
use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, From, ReadFrom};

/// How long one call of `tail` waits. Shorter than what balancers and firewalls forget.
const TAIL_WAIT: Duration = Duration::from_secs(30);
/// The default page of the store.
const PAGE: u64 = 1000;
/// The greatest page of the store.
const PAGE_MAX: u64 = 10_000;

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
    fn range(&self) -> millstream_client::Range {
        let range = millstream_client::Range::of(&self.stream).start(self.start).end(self.end);
        let page = self.count.map_or(PAGE, |count| count.min(PAGE));
        let range = range.page_size(u32::try_from(page).unwrap_or(0));
        if self.rev { range.reverse() } else { range }
    }

    /// All pages.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let count = self.count.unwrap_or(u64::MAX);
        if count == 0 {
            return Ok(());
        }
        let entries = client.range_all(self.range());
        let mut entries = std::pin::pin!(entries.take(usize::try_from(count).unwrap_or(usize::MAX)));
        while let Some(entry) = entries.try_next().await? {
            out.entry(None, &entry)?;
        }
        Ok(())
    }
}

impl Verb for Range {
    fn operation(&self) -> Result<Operation, Failure> {
        if self.count.is_some_and(|count| !(1..=PAGE_MAX).contains(&count)) {
            return Err(Failure::Usage(format!("a range in a batch is one page: --count 1 to {PAGE_MAX}")));
        }
        let page = self.count.and_then(|count| u32::try_from(count).ok());
        Ok(self.range().page_size(page.unwrap_or(0)).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Range(page) = result else { return Err(mismatch()) };
        for entry in &page.entries {
            out.entry(None, entry)?;
        }
        let asked_for_less = self.count.is_some_and(|count| count <= page.entries.len() as u64);
        if page.more && !asked_for_less {
            out.more()?;
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
    /// At most N entries of each stream [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// At most N entries of all streams together; not fewer than --count [default: no limit of its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=640_000))]
    total_count: Option<u32>,
    /// At most this many bytes of fields of all streams together, but at least one entry [default: the server's limit]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes: Option<u64>,
    /// If nothing is there, wait up to MS milliseconds; 0 is an hour
    #[arg(long, value_name = "MS", value_parser = parse::block)]
    block: Option<Duration>,
}

impl Verb for Read {
    fn operation(&self) -> Result<Operation, Failure> {
        let mut read = millstream_client::Read::new().count(self.count.unwrap_or(0));
        for ReadFrom { stream, from } in &self.streams {
            read = match from {
                From::After(id) => read.after(stream, *id),
                From::New => read.new_entries(stream),
                From::Last => read.last_entry(stream),
            };
        }
        if let Some(block) = self.block {
            read = read.wait(block);
        }
        Ok(read.total_count(self.total_count.unwrap_or(0)).max_bytes(self.max_bytes.unwrap_or(0)).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::Read(answers) = result else { return Err(mismatch()) };
        let several = 1 < self.streams.len();
        for answer in &answers {
            for entry in &answer.entries {
                out.entry(several.then_some(&answer.stream), entry)?;
            }
            let asked_for_less = self.count.is_some_and(|count| count as usize <= answer.entries.len());
            if answer.more && !asked_for_less {
                out.more_of(several.then_some(&answer.stream))?;
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
