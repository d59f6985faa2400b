//! The calls that read entries.

use std::ops::Bound;
use std::time::Duration;

use futures::Stream;
use millstream_proto::v1 as pb;

use crate::types::{Answer, bound, entries, id, to_id};
use crate::{Client, Entry, EntryId, Error, pages};

/// Which entries to return (XRANGE, XREVRANGE).
#[derive(Debug, Clone, PartialEq)]
pub struct Range(pub(crate) pb::RangeRequest);

impl Range {
    /// All entries of `stream`, oldest first.
    pub fn of(stream: impl Into<String>) -> Self {
        Self(pb::RangeRequest { stream: stream.into(), ..Default::default() })
    }

    /// The low end. Default: the first entry.
    pub fn start(mut self, start: Bound<EntryId>) -> Self {
        self.0.start = bound(start);
        self
    }

    /// The high end. Default: the last entry.
    pub fn end(mut self, end: Bound<EntryId>) -> Self {
        self.0.end = bound(end);
        self
    }

    /// From the high end to the low one.
    pub fn reverse(mut self) -> Self {
        self.0.reverse = true;
        self
    }

    /// At most this many entries in a page, 1 to 10,000. Default: 1,000.
    pub fn page_size(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }
}

/// Some entries of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangePage {
    /// In the order asked for.
    pub entries: Vec<Entry>,
    /// There may be more: ask again beyond the last of these.
    pub more: bool,
}

impl Answer for pb::RangeResponse {
    type Value = RangePage;

    fn value(self) -> RangePage {
        RangePage { entries: entries(self.entries), more: self.more }
    }
}

/// What to read (XREAD). Streams are answered in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read(pub(crate) pb::ReadRequest);

impl Read {
    /// Nothing yet: add 1 to 1,024 streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entries of `stream` with ids greater than `after`.
    pub fn after(self, stream: impl Into<String>, after: EntryId) -> Self {
        self.position(stream, pb::read_position::Position::After(to_id(after)))
    }

    /// The entries of `stream` appended after the call has arrived (`$`). When a wait ends without any, go on from
    /// [`StreamEntries::next_after`] rather than from here again, or those in between are missed.
    pub fn new_entries(self, stream: impl Into<String>) -> Self {
        self.position(stream, pb::read_position::Position::NewEntries(true))
    }

    /// The last entry of `stream`, then those after it (`+`).
    pub fn last_entry(self, stream: impl Into<String>) -> Self {
        self.position(stream, pb::read_position::Position::LastEntry(true))
    }

    /// At most this many entries of each stream, 1 to 10,000. Default: 1,000.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }

    /// At most this many entries of all streams together, in the order of the streams: 1 to 640,000, and not fewer than
    /// [`count`](Self::count) if that is set. Default: no limit of its own (MAXCOUNT).
    pub fn total_count(mut self, entries: u32) -> Self {
        self.0.total_count = entries;
        self
    }

    /// At most this many bytes of fields of all streams together, but at least one entry. Default: the server's limit
    /// of an answer (MAXSIZE).
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.0.max_bytes = bytes;
        self
    }

    /// If nothing is there, waits up to this long for the first entry; at most an hour. Default: does not wait.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.0.wait = prost_types::Duration::try_from(wait).ok();
        self
    }

    fn position(mut self, stream: impl Into<String>, position: pb::read_position::Position) -> Self {
        self.0.streams.push(pb::ReadPosition { stream: stream.into(), position: Some(position) });
        self
    }
}

/// What was read of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntries {
    /// The stream's name.
    pub stream: String,
    /// Oldest first; may be empty.
    pub entries: Vec<Entry>,
    /// Where to go on, for [`Read::after`].
    pub next_after: EntryId,
    /// There may be more after it.
    pub more: bool,
}

impl Answer for pb::ReadResponse {
    type Value = Vec<StreamEntries>;

    fn value(self) -> Vec<StreamEntries> {
        let streams = self.streams.into_iter().map(|read| StreamEntries {
            stream: read.stream,
            entries: entries(read.entries),
            next_after: id(read.next_after),
            more: read.more,
        });
        streams.collect()
    }
}

impl Client {
    /// Returns the first page of a range. A missing stream is empty.
    pub async fn range(&self, range: Range) -> Result<RangePage, Error> {
        self.ask(range.0).await
    }

    /// Returns all entries of a range, page by page as they are consumed. Ends after the first error. The pages are
    /// read at different times: entries appended or removed meanwhile may or may not be seen.
    pub fn range_all(&self, range: Range) -> impl Stream<Item = Result<Entry, Error>> + Send + use<> {
        let client = self.clone();
        pages::items(range, move |range| {
            let client = client.clone();
            async move {
                let page = client.range(range.clone()).await?;
                let next = page.entries.last().filter(|_| page.more).map(|last| {
                    let beyond = Bound::Excluded(last.id);
                    if range.0.reverse { range.end(beyond) } else { range.start(beyond) }
                });
                Ok((page.entries, next))
            }
        })
    }

    /// Returns entries after given ids of several streams, one list for each in the order asked for. After a wait
    /// without result every list is empty.
    pub async fn read(&self, read: Read) -> Result<Vec<StreamEntries>, Error> {
        self.ask(read.0).await
    }
}
