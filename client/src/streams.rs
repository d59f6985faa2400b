//! The calls that change streams, and their list.

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::types::{Answer, id, receipt, removals, to_id, to_ids};
use crate::{Client, EntryId, Error, Receipt, References, Removal, Trim, requests};

/// An entry to append (XADD).
#[derive(Debug, Clone, PartialEq)]
pub struct Append(pub(crate) pb::AppendRequest);

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

    /// Appends only if this producer has not appended under this key before, whoever repeats it; for as long as the
    /// stream remembers its keys ([`StreamConfig`](crate::StreamConfig)). Both are 1 to 1,024 bytes. Not with an id or
    /// a millisecond part (IDMP).
    pub fn idempotency(self, producer: impl Into<Bytes>, key: impl Into<Bytes>) -> Self {
        self.idempotent(producer, pb::idempotency::KeyChoice::Key(key.into()))
    }

    /// As [`idempotency`](Self::idempotency), with a key that follows from the fields, whatever their order (IDMPAUTO).
    pub fn idempotent_by_content(self, producer: impl Into<Bytes>) -> Self {
        self.idempotent(producer, pb::idempotency::KeyChoice::FromFields(true))
    }

    /// Trims the stream afterwards, in the same command.
    pub fn trim(mut self, trim: Trim) -> Self {
        self.0.trim = Some(trim.into());
        self
    }

    fn idempotent(mut self, producer: impl Into<Bytes>, key: pb::idempotency::KeyChoice) -> Self {
        self.0.idempotency = Some(pb::Idempotency { producer_id: producer.into(), key_choice: Some(key) });
        self
    }
}

/// An acknowledged append: it is on stable storage at a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The entry's id.
    pub id: EntryId,
    /// How many entries were trimmed.
    pub trimmed: u64,
    /// It was appended before, under the same idempotency key, and not again now. It may be in the stream no longer.
    pub duplicate: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::AppendResponse {
    type Value = Appended;

    fn value(self) -> Appended {
        let Self { header: _, id: entry_id, receipt: place, trimmed, duplicate } = self;
        Appended { id: id(entry_id), trimmed, duplicate, receipt: receipt(place) }
    }
}

/// Entries to remove by id (XDEL, XDELEX).
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteEntries(pub(crate) pb::DeleteEntriesRequest);

impl DeleteEntries {
    /// These entries of `stream`: 1 to 10,000. The second time that one is named it is not found.
    pub fn of(stream: impl Into<String>, ids: impl IntoIterator<Item = EntryId>) -> Self {
        Self(pb::DeleteEntriesRequest { stream: stream.into(), ids: to_ids(ids), ..Default::default() })
    }

    /// What becomes of the groups' references to them. Default: they are kept.
    pub fn references(mut self, references: References) -> Self {
        self.0.references = pb::References::from(references).into();
        self
    }
}

/// What became of a deletion (XDEL, XDELEX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesDeleted {
    /// How many entries were removed.
    pub deleted: u64,
    /// What became of each id, in the order asked for. With [`References::Acked`] an id that is referred to is
    /// [`Removal::Referenced`] even if it was never there, as in Redis.
    pub results: Vec<Removal>,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::DeleteEntriesResponse {
    type Value = EntriesDeleted;

    fn value(self) -> EntriesDeleted {
        let Self { header: _, deleted, receipt: place, results } = self;
        EntriesDeleted { deleted, results: removals(results), receipt: receipt(place) }
    }
}

/// What became of a trim (XTRIM).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// How many entries were removed.
    pub trimmed: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::TrimResponse {
    type Value = Trimmed;

    fn value(self) -> Trimmed {
        Trimmed { trimmed: self.trimmed, receipt: receipt(self.receipt) }
    }
}

/// A last id to set, with its counters (XSETID).
#[derive(Debug, Clone, PartialEq)]
pub struct SetLastId(pub(crate) pb::SetLastIdRequest);

impl SetLastId {
    /// The last id of `stream` becomes this. It must not be smaller than the last entry's, the greatest deleted one's
    /// or [`max_deleted_id`](Self::max_deleted_id).
    pub fn new(stream: impl Into<String>, last_id: EntryId) -> Self {
        let last_id = Some(to_id(last_id));
        Self(pb::SetLastIdRequest { stream: stream.into(), last_id, ..Default::default() })
    }

    /// How many entries were ever appended; not fewer than there are, at most 2^63-1. Default: as before
    /// (ENTRIESADDED).
    pub fn entries_added(mut self, entries: u64) -> Self {
        self.0.entries_added = Some(entries);
        self
    }

    /// The greatest deleted id. Default, and if 0-0: as before (MAXDELETEDID).
    pub fn max_deleted_id(mut self, id: EntryId) -> Self {
        self.0.max_deleted_id = Some(to_id(id));
        self
    }
}

impl Answer for pb::SetLastIdResponse {
    type Value = Receipt;

    fn value(self) -> Receipt {
        receipt(self.receipt)
    }
}

/// What became of a stream's deletion (DEL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDeleted {
    /// Whether it existed.
    pub existed: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::DeleteStreamResponse {
    type Value = StreamDeleted;

    fn value(self) -> StreamDeleted {
        StreamDeleted { existed: self.deleted, receipt: receipt(self.receipt) }
    }
}

/// Everything is gone (FLUSHALL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllDeleted {
    /// How many streams there were.
    pub streams: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::DeleteAllResponse {
    type Value = AllDeleted;

    fn value(self) -> AllDeleted {
        AllDeleted { streams: self.streams, receipt: receipt(self.receipt) }
    }
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

impl Answer for pb::ListStreamsResponse {
    type Value = StreamPage;

    fn value(self) -> StreamPage {
        let streams = self.streams.into_iter().map(|summary| StreamSummary {
            stream: summary.stream,
            length: summary.length,
            last_id: id(summary.last_id),
            groups: summary.groups,
        });
        let next = Some(self.next_page_token).filter(|token| !token.is_empty());
        StreamPage { streams: streams.collect(), next }
    }
}

impl Client {
    /// Appends an entry, and returns when a majority has it on stable storage.
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        self.ask(append.0).await
    }

    /// Removes entries by id. A missing stream is empty.
    pub async fn delete_entries(&self, delete: DeleteEntries) -> Result<EntriesDeleted, Error> {
        self.ask(delete.0).await
    }

    /// Removes old entries. A missing stream is empty.
    pub async fn trim(&self, stream: impl Into<String>, trim: Trim) -> Result<Trimmed, Error> {
        self.ask(requests::trim(stream, trim)).await
    }

    /// Sets a stream's last id and counters. Wakes nobody.
    pub async fn set_last_id(&self, set: SetLastId) -> Result<Receipt, Error> {
        self.ask(set.0).await
    }

    /// Lists the streams whose names start with `prefix`, at most 1,000: the first page, or the one after a page whose
    /// [`StreamPage::next`] is `page`.
    pub async fn list_streams(&self, prefix: impl Into<String>, page: Option<String>) -> Result<StreamPage, Error> {
        let page_token = page.unwrap_or_default();
        self.ask(pb::ListStreamsRequest { prefix: prefix.into(), page_size: 0, page_token, options: None }).await
    }

    /// Removes a stream with its entries and groups.
    pub async fn delete_stream(&self, stream: impl Into<String>) -> Result<StreamDeleted, Error> {
        self.ask(requests::delete_stream(stream)).await
    }

    /// Removes all streams. Sessions stay.
    pub async fn delete_all(&self) -> Result<AllDeleted, Error> {
        self.ask(pb::DeleteAllRequest::default()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_is_a_key_or_the_content() {
        let sent = |append: Append| append.0.idempotency.expect("set");
        let named = sent(Append::to("s").idempotency("p", "k"));
        assert_eq!(
            (&named.producer_id[..], named.key_choice),
            (&b"p"[..], Some(pb::idempotency::KeyChoice::Key("k".into())))
        );
        let content = sent(Append::to("s").idempotent_by_content("p"));
        assert_eq!(content.key_choice, Some(pb::idempotency::KeyChoice::FromFields(true)));
        assert_eq!(Append::to("s").0.idempotency, None);
    }

    #[test]
    fn a_removal_that_is_not_known_keeps_its_place() {
        let results = vec![pb::Removal::Deleted.into(), 99, pb::Removal::NotFound.into()];
        let done = pb::DeleteEntriesResponse { deleted: 1, results, ..Default::default() }.value();
        assert_eq!(done.results, [Removal::Deleted, Removal::Unknown, Removal::NotFound]);
    }
}
