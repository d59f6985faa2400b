//! The calls on streams.

use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use millstream_proto::v1 as pb;

use crate::types::{bound, entries, entry, id, receipt, to_id};
use crate::{Client, Entry, EntryId, Error, Receipt, Trim};

/// An entry to append (XADD).
#[derive(Debug, Clone, PartialEq)]
pub struct Append(pb::AppendRequest);

impl Append {
    /// An entry for `stream`, as yet without fields. It needs at least one.
    pub fn to(stream: impl Into<String>) -> Self {
        Self(pb::AppendRequest { stream: stream.into(), ..Default::default() })
    }

    /// Adds a field. Order and duplicates are kept; both parts are arbitrary bytes.
    pub fn field(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.0.fields.push(pb::Field { name: name.into(), value: value.into() });
        self
    }

    /// Takes exactly this id; it must be greater than the stream's last. Default: the store chooses.
    pub fn id(mut self, id: EntryId) -> Self {
        self.0.id = Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Explicit(to_id(id))) });
        self
    }

    /// Takes this millisecond part; the store chooses the sequence part (`ms-*`).
    pub fn ms(mut self, ms: u64) -> Self {
        self.0.id = Some(pb::NewEntryId { choice: Some(pb::new_entry_id::Choice::Ms(ms)) });
        self
    }

    /// Refuses with STREAM_NOT_FOUND rather than create the stream (NOMKSTREAM).
    pub fn no_create(mut self) -> Self {
        self.0.no_create = true;
        self
    }

    /// Trims the stream afterwards, in the same command.
    pub fn trim(mut self, trim: Trim) -> Self {
        self.0.trim = Some(trim.into());
        self
    }
}

/// An acknowledged append: it is on stable storage at a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The entry's id.
    pub id: EntryId,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// Which entries to return (XRANGE, XREVRANGE).
#[derive(Debug, Clone, PartialEq)]
pub struct Range(pb::RangeRequest);

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

/// What to read (XREAD). Streams are answered in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read(pb::ReadRequest);

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
}

/// What became of a deletion (XDEL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntriesDeleted {
    /// How many entries were removed.
    pub deleted: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// What became of a trim (XTRIM).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// How many entries were removed.
    pub trimmed: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// What became of a stream's deletion (DEL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDeleted {
    /// Whether it existed.
    pub existed: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// The description of a stream (XINFO STREAM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream's name.
    pub stream: String,
    /// Number of entries.
    pub length: u64,
    /// The last id generated or set; deletion does not lower it.
    pub last_id: EntryId,
    /// The greatest id removed one by one; 0-0 if none.
    pub max_deleted_id: EntryId,
    /// Entries ever appended.
    pub entries_added: u64,
    /// Number of consumer groups.
    pub groups: u64,
    /// The oldest entry; `None` when the stream is empty.
    pub first_entry: Option<Entry>,
    /// The newest entry; `None` when the stream is empty.
    pub last_entry: Option<Entry>,
}

/// One stream of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream's name.
    pub stream: String,
    /// Number of entries.
    pub length: u64,
    /// The last id generated or set.
    pub last_id: EntryId,
    /// Number of consumer groups.
    pub groups: u64,
}

/// Some streams, by name in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPage {
    /// The streams.
    pub streams: Vec<StreamSummary>,
    /// For the next page; `None` after the last.
    pub next: Option<String>,
}

impl Client {
    /// Appends an entry, and returns when a majority has it on stable storage.
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        let answer = self.call(append.0).await?;
        Ok(Appended { id: id(answer.id), receipt: receipt(answer.receipt) })
    }

    /// Returns the first page of a range. A missing stream is empty.
    pub async fn range(&self, range: Range) -> Result<RangePage, Error> {
        let answer = self.call(range.0).await?;
        Ok(RangePage { entries: entries(answer.entries), more: answer.more })
    }

    /// Returns all entries of a range, page by page as they are consumed. Ends after the first error. The pages are
    /// read at different times: entries appended or removed meanwhile may or may not be seen.
    pub fn range_all(&self, range: Range) -> impl Stream<Item = Result<Entry, Error>> + Send + use<> {
        struct Pages {
            client: Client,
            /// `None` after the last page.
            next: Option<Range>,
            page: VecDeque<Entry>,
        }
        let pages = Pages { client: self.clone(), next: Some(range), page: VecDeque::new() };
        futures::stream::try_unfold(pages, |mut pages| async move {
            loop {
                if let Some(entry) = pages.page.pop_front() {
                    return Ok(Some((entry, pages)));
                }
                let Some(range) = pages.next.take() else { return Ok(None) };
                let page = pages.client.range(range.clone()).await?;
                if let Some(last) = page.entries.last().filter(|_| page.more) {
                    let beyond = Bound::Excluded(last.id);
                    pages.next = Some(if range.0.reverse { range.end(beyond) } else { range.start(beyond) });
                }
                pages.page = page.entries.into();
            }
        })
    }

    /// Returns entries after given ids of several streams, one list for each in the order asked for. After a wait
    /// without result every list is empty.
    pub async fn read(&self, read: Read) -> Result<Vec<StreamEntries>, Error> {
        let answer = self.call(read.0).await?;
        let streams = answer.streams.into_iter().map(|read| StreamEntries {
            stream: read.stream,
            entries: entries(read.entries),
            next_after: id(read.next_after),
        });
        Ok(streams.collect())
    }

    /// Removes 1 to 10,000 entries by id. Unknown ones do not count.
    pub async fn delete_entries(
        &self,
        stream: impl Into<String>,
        ids: impl IntoIterator<Item = EntryId>,
    ) -> Result<EntriesDeleted, Error> {
        let ids = ids.into_iter().map(to_id).collect();
        let answer = self.call(pb::DeleteEntriesRequest { stream: stream.into(), ids, request: None }).await?;
        Ok(EntriesDeleted { deleted: answer.deleted, receipt: receipt(answer.receipt) })
    }

    /// Removes old entries. A missing stream is empty.
    pub async fn trim(&self, stream: impl Into<String>, trim: Trim) -> Result<Trimmed, Error> {
        let request = pb::TrimRequest { stream: stream.into(), policy: Some(trim.into()), request: None };
        let answer = self.call(request).await?;
        Ok(Trimmed { trimmed: answer.trimmed, receipt: receipt(answer.receipt) })
    }

    /// Describes a stream.
    pub async fn get_stream(&self, stream: impl Into<String>) -> Result<StreamInfo, Error> {
        let answer = self.call(pb::GetStreamRequest { stream: stream.into(), options: None }).await?;
        Ok(StreamInfo {
            stream: answer.stream,
            length: answer.length,
            last_id: id(answer.last_id),
            max_deleted_id: id(answer.max_deleted_id),
            entries_added: answer.entries_added,
            groups: answer.groups,
            first_entry: answer.first_entry.map(entry),
            last_entry: answer.last_entry.map(entry),
        })
    }

    /// Lists the streams whose names start with `prefix`: the first page, or the one after a page whose
    /// [`StreamPage::next`] is `page`.
    pub async fn list_streams(&self, prefix: impl Into<String>, page: Option<String>) -> Result<StreamPage, Error> {
        let page_token = page.unwrap_or_default();
        let request = pb::ListStreamsRequest { prefix: prefix.into(), page_size: 0, page_token, options: None };
        let answer = self.call(request).await?;
        let streams = answer.streams.into_iter().map(|summary| StreamSummary {
            stream: summary.stream,
            length: summary.length,
            last_id: id(summary.last_id),
            groups: summary.groups,
        });
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(StreamPage { streams: streams.collect(), next })
    }

    /// Removes a stream with its entries and groups.
    pub async fn delete_stream(&self, stream: impl Into<String>) -> Result<StreamDeleted, Error> {
        let answer = self.call(pb::DeleteStreamRequest { stream: stream.into(), request: None }).await?;
        Ok(StreamDeleted { existed: answer.deleted, receipt: receipt(answer.receipt) })
    }
}
