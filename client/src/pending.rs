//! The calls that look at pending entries and move them.

use std::ops::Bound;
use std::time::Duration;

use futures::Stream;
use millstream_proto::v1 as pb;

use crate::types::{Answer, bound, entries, id, ms, receipt, to_id, to_ids};
use crate::{Client, ConsumerPending, Entry, EntryId, Error, Receipt, pages, requests};

/// Pending entries to move to a consumer (XCLAIM).
#[derive(Debug, Clone, PartialEq)]
pub struct Claim(pub(crate) pb::ClaimRequest);

impl Claim {
    /// Moves entries of `group` to `consumer`, who is created if missing.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, consumer: impl Into<String>) -> Self {
        let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
        Self(pb::ClaimRequest { stream, group, consumer, ..Default::default() })
    }

    /// These entries; at most 10,000.
    pub fn ids(mut self, ids: impl IntoIterator<Item = EntryId>) -> Self {
        self.0.ids.extend(to_ids(ids));
        self
    }

    /// Only those not delivered for at least this long; in milliseconds. Default: all.
    pub fn min_idle(mut self, idle: Duration) -> Self {
        self.0.min_idle_ms = ms(idle);
        self
    }

    /// The delivery time becomes this long ago (IDLE). Default: now.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.0.delivery_time = Some(pb::claim_request::DeliveryTime::IdleMs(ms(idle)));
        self
    }

    /// The delivery time becomes this, in milliseconds since the Unix epoch (TIME).
    pub fn delivered_at_unix_ms(mut self, unix_ms: u64) -> Self {
        self.0.delivery_time = Some(pb::claim_request::DeliveryTime::UnixMs(unix_ms));
        self
    }

    /// Sets the delivery count; at most 2^63-1 (RETRYCOUNT). Default: one more than before, or as before with ids only.
    pub fn delivery_count(mut self, deliveries: u64) -> Self {
        self.0.delivery_count = Some(deliveries);
        self
    }

    /// Makes entries pending that are not, if they are in the stream (FORCE).
    pub fn force(mut self) -> Self {
        self.0.force = true;
        self
    }

    /// Returns entries without fields and leaves the delivery count alone (JUSTID).
    pub fn ids_only(mut self) -> Self {
        self.0.ids_only = true;
        self
    }

    /// Advances the group's position to at least this (LASTID).
    pub fn last_id(mut self, id: EntryId) -> Self {
        self.0.last_id = Some(to_id(id));
        self
    }
}

/// What was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The entries the consumer now owns, in the order asked for.
    pub entries: Vec<Entry>,
    /// The answer was full, and the ids that follow the last entry were not looked at: ask again for those.
    pub more: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::ClaimResponse {
    type Value = Claimed;

    fn value(self) -> Claimed {
        Claimed { entries: entries(self.entries), more: self.more, receipt: receipt(self.receipt) }
    }
}

/// Idle pending entries to move to a consumer (XAUTOCLAIM).
#[derive(Debug, Clone, PartialEq)]
pub struct AutoClaim(pub(crate) pb::AutoClaimRequest);

impl AutoClaim {
    /// Moves entries of `group` that were not delivered for at least `min_idle` (in milliseconds) to `consumer`, who is
    /// created if missing.
    pub fn new(
        stream: impl Into<String>,
        group: impl Into<String>,
        consumer: impl Into<String>,
        min_idle: Duration,
    ) -> Self {
        let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
        Self(pb::AutoClaimRequest { stream, group, consumer, min_idle_ms: ms(min_idle), ..Default::default() })
    }

    /// Looks at pending entries from here: the cursor of the previous answer. Default: the first.
    pub fn start(mut self, start: Bound<EntryId>) -> Self {
        self.0.start = bound(start);
        self
    }

    /// Claims at most this many, 1 to 10,000. Default: 100.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }

    /// Returns entries without fields and leaves the delivery count alone (JUSTID).
    pub fn ids_only(mut self) -> Self {
        self.0.ids_only = true;
        self
    }
}

/// What was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoClaimed {
    /// Where to go on; 0-0 when the end of the list was reached.
    pub cursor: EntryId,
    /// The entries the consumer now owns, oldest first.
    pub entries: Vec<Entry>,
    /// Pending ids whose entries are no longer in the stream; they are pending no more.
    pub deleted_ids: Vec<EntryId>,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::AutoClaimResponse {
    type Value = AutoClaimed;

    fn value(self) -> AutoClaimed {
        AutoClaimed {
            cursor: id(self.cursor),
            entries: entries(self.entries),
            deleted_ids: self.deleted_ids.into_iter().map(|deleted| id(Some(deleted))).collect(),
            receipt: receipt(self.receipt),
        }
    }
}

/// A summary of a group's pending entries (XPENDING).
#[derive(Debug, Clone, PartialEq)]
pub struct PendingSummary {
    /// How many entries are pending, those that were given back included.
    pub count: u64,
    /// The smallest pending id; `None` if there is none.
    pub min_id: Option<EntryId>,
    /// The greatest pending id; `None` if there is none.
    pub max_id: Option<EntryId>,
    /// Consumers with at least one pending entry, by name.
    pub consumers: Vec<ConsumerPending>,
    /// The answer was full: there are more consumers with pending entries. [`Client::list_consumers_all`] names them
    /// all.
    pub more_consumers: bool,
}

impl Answer for pb::GetPendingResponse {
    type Value = PendingSummary;

    fn value(self) -> PendingSummary {
        PendingSummary {
            count: self.count,
            min_id: self.min_id.map(|min| id(Some(min))),
            max_id: self.max_id.map(|max| id(Some(max))),
            consumers: self.consumers,
            more_consumers: self.more_consumers,
        }
    }
}

/// Which pending entries to list (XPENDING with a range).
#[derive(Debug, Clone, PartialEq)]
pub struct ListPending(pub(crate) pb::ListPendingRequest);

impl ListPending {
    /// All of `group`'s.
    pub fn of(stream: impl Into<String>, group: impl Into<String>) -> Self {
        Self(pb::ListPendingRequest { stream: stream.into(), group: group.into(), ..Default::default() })
    }

    /// The low end. Default: the first.
    pub fn start(mut self, start: Bound<EntryId>) -> Self {
        self.0.start = bound(start);
        self
    }

    /// The high end. Default: the last.
    pub fn end(mut self, end: Bound<EntryId>) -> Self {
        self.0.end = bound(end);
        self
    }

    /// At most this many in a page, 1 to 10,000. Default: 1,000.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }

    /// Only this consumer's. Default: all.
    pub fn consumer(mut self, consumer: impl Into<String>) -> Self {
        self.0.consumer = Some(consumer.into());
        self
    }

    /// Only those not delivered for at least this long, and those that were given back; in milliseconds. Default: all.
    pub fn min_idle(mut self, idle: Duration) -> Self {
        self.0.min_idle_ms = ms(idle);
        self
    }
}

/// One pending entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEntry {
    /// The entry's id.
    pub id: EntryId,
    /// The consumer that owns it; `None` if it was given back.
    pub consumer: Option<String>,
    /// Milliseconds since it was last delivered; `None` if it was given back.
    pub idle_ms: Option<u64>,
    /// How often it was delivered.
    pub delivery_count: u64,
}

/// Some pending entries, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPage {
    /// The pending entries.
    pub entries: Vec<PendingEntry>,
    /// There may be more in the range: ask again from [`next`](Self::next).
    pub more: bool,
    /// Where to go on after 100,000 entries of which few or none were idle for long enough. `None`: after the last
    /// entry.
    pub next_start: Option<EntryId>,
}

impl PendingPage {
    /// The [`ListPending::start`] of the next page; `None` after the last.
    pub fn next(&self) -> Option<Bound<EntryId>> {
        let start = self.next_start.map(Bound::Included);
        let start = start.or_else(|| self.entries.last().map(|last| Bound::Excluded(last.id)));
        start.filter(|_| self.more)
    }
}

impl Answer for pb::ListPendingResponse {
    type Value = PendingPage;

    fn value(self) -> PendingPage {
        let entries = self.entries.into_iter().map(|pending| PendingEntry {
            id: id(pending.id),
            consumer: pending.consumer,
            idle_ms: pending.idle_ms,
            delivery_count: pending.delivery_count,
        });
        let next_start = self.next_start.map(|next| id(Some(next)));
        PendingPage { entries: entries.collect(), more: self.more, next_start }
    }
}

impl Client {
    /// Moves pending entries to a consumer.
    pub async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.ask(claim.0).await
    }

    /// Moves pending entries that have been idle for long to a consumer.
    pub async fn auto_claim(&self, claim: AutoClaim) -> Result<AutoClaimed, Error> {
        self.ask(claim.0).await
    }

    /// Summarises a group's pending entries.
    pub async fn get_pending(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<PendingSummary, Error> {
        self.ask(requests::get_pending(stream, group)).await
    }

    /// Lists pending entries by id: the first page.
    pub async fn list_pending(&self, list: ListPending) -> Result<PendingPage, Error> {
        self.ask(list.0).await
    }

    /// Lists all pending entries by id, page by page as they are consumed. Ends after the first error. The pages are
    /// read at different times: what is delivered, acknowledged or idle for long enough meanwhile may or may not be
    /// seen.
    pub fn list_pending_all(
        &self,
        list: ListPending,
    ) -> impl Stream<Item = Result<PendingEntry, Error>> + Send + use<> {
        let client = self.clone();
        pages::items(list, move |list| {
            let client = client.clone();
            async move {
                let page = client.list_pending(list.clone()).await?;
                let next = page.next().map(|start| list.start(start));
                Ok((page.entries, next))
            }
        })
    }
}
