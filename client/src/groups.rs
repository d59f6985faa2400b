//! The calls on consumer groups.

use std::ops::Bound;
use std::time::Duration;

use millstream_proto::v1 as pb;

use crate::types::{bound, entries, entry, id, receipt, to_id};
use crate::{Client, ConsumerInfo, ConsumerPending, Entry, EntryId, Error, Receipt};

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPosition {
    /// Delivers entries with ids greater than this; 0-0 means from the first.
    After(EntryId),
    /// Delivers entries appended from now on (`$`).
    End,
}

impl From<GroupPosition> for pb::GroupPosition {
    fn from(position: GroupPosition) -> Self {
        let position = match position {
            GroupPosition::After(id) => pb::group_position::Position::After(to_id(id)),
            GroupPosition::End => pb::group_position::Position::End(true),
        };
        Self { position: Some(position) }
    }
}

/// A group to create (XGROUP CREATE).
#[derive(Debug, Clone, PartialEq)]
pub struct CreateGroup(pb::CreateGroupRequest);

impl CreateGroup {
    /// A group of `stream`.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, position: GroupPosition) -> Self {
        let position = Some(position.into());
        Self(pb::CreateGroupRequest { stream: stream.into(), group: group.into(), position, ..Default::default() })
    }

    /// Creates the stream if it is missing (MKSTREAM).
    pub fn create_stream(mut self) -> Self {
        self.0.create_stream = true;
        self
    }

    /// How many entries the group counts as read, for its lag. Default: unknown.
    pub fn entries_read(mut self, entries: u64) -> Self {
        self.0.entries_read = Some(entries);
        self
    }
}

/// What became of a group's deletion (XGROUP DESTROY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupDeleted {
    /// Whether it existed.
    pub existed: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// A consumer exists (XGROUP CREATECONSUMER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerCreated {
    /// Whether this call created it.
    pub created: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// A consumer is gone (XGROUP DELCONSUMER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerDeleted {
    /// How many pending entries were dropped with it.
    pub pending: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// What to read as a consumer of a group (XREADGROUP).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadGroup(pb::ReadGroupRequest);

impl ReadGroup {
    /// Reads as `consumer`, who is created if missing. Add 1 to 64 streams.
    pub fn new(group: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self(pb::ReadGroupRequest { group: group.into(), consumer: consumer.into(), ..Default::default() })
    }

    /// The entries of `stream` never delivered to this group (`>`).
    pub fn new_entries(self, stream: impl Into<String>) -> Self {
        self.position(stream, pb::group_read_position::Position::NewEntries(true))
    }

    /// The consumer's own pending entries with ids greater than `after`. Never waits.
    pub fn pending_after(self, stream: impl Into<String>, after: EntryId) -> Self {
        self.position(stream, pb::group_read_position::Position::PendingAfter(to_id(after)))
    }

    /// At most this many entries of each stream, 1 to 10,000. Default: 100.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }

    /// If nothing is there, waits up to this long for the first entry; at most an hour. Default: does not wait.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.0.wait = prost_types::Duration::try_from(wait).ok();
        self
    }

    /// Counts entries as acknowledged on delivery (NOACK).
    pub fn no_ack(mut self) -> Self {
        self.0.no_ack = true;
        self
    }

    fn position(mut self, stream: impl Into<String>, position: pb::group_read_position::Position) -> Self {
        self.0.streams.push(pb::GroupReadPosition { stream: stream.into(), position: Some(position) });
        self
    }
}

/// An entry as delivered to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredEntry {
    /// The entry; without fields when `deleted`.
    pub entry: Entry,
    /// It is pending but no longer in the stream; acknowledge it to be rid of it.
    pub deleted: bool,
}

/// What was delivered of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDelivery {
    /// The stream's name.
    pub stream: String,
    /// Oldest first; may be empty.
    pub entries: Vec<DeliveredEntry>,
}

/// What became of an acknowledgement (XACK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// How many entries were pending and no longer are.
    pub acknowledged: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// Pending entries to move to a consumer (XCLAIM).
#[derive(Debug, Clone, PartialEq)]
pub struct Claim(pb::ClaimRequest);

impl Claim {
    /// Moves entries of `group` to `consumer`, who is created if missing.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, consumer: impl Into<String>) -> Self {
        let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
        Self(pb::ClaimRequest { stream, group, consumer, ..Default::default() })
    }

    /// These entries; at most 10,000.
    pub fn ids(mut self, ids: impl IntoIterator<Item = EntryId>) -> Self {
        self.0.ids.extend(ids.into_iter().map(to_id));
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

    /// Sets the delivery count (RETRYCOUNT). Default: one more than before, or as before with ids only.
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
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

/// Idle pending entries to move to a consumer (XAUTOCLAIM).
#[derive(Debug, Clone, PartialEq)]
pub struct AutoClaim(pb::AutoClaimRequest);

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

/// A summary of a group's pending entries (XPENDING).
#[derive(Debug, Clone, PartialEq)]
pub struct PendingSummary {
    /// How many entries are pending.
    pub count: u64,
    /// The smallest pending id; `None` if there is none.
    pub min_id: Option<EntryId>,
    /// The greatest pending id; `None` if there is none.
    pub max_id: Option<EntryId>,
    /// Consumers with at least one pending entry, by name.
    pub consumers: Vec<ConsumerPending>,
}

/// Which pending entries to list (XPENDING with a range).
#[derive(Debug, Clone, PartialEq)]
pub struct ListPending(pb::ListPendingRequest);

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

    /// At most this many, 1 to 10,000. Default: 1,000.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }

    /// Only this consumer's. Default: all.
    pub fn consumer(mut self, consumer: impl Into<String>) -> Self {
        self.0.consumer = Some(consumer.into());
        self
    }

    /// Only those not delivered for at least this long; in milliseconds. Default: all.
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
    /// The consumer that owns it.
    pub consumer: String,
    /// Milliseconds since it was last delivered.
    pub idle_ms: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
}

/// One group of a stream (XINFO GROUPS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group's name.
    pub group: String,
    /// Number of consumers.
    pub consumers: u64,
    /// Number of pending entries.
    pub pending: u64,
    /// The last delivered id.
    pub last_delivered_id: EntryId,
    /// How many entries the group has read; `None` if unknown.
    pub entries_read: Option<u64>,
    /// How many entries wait to be delivered; `None` if unknown.
    pub lag: Option<u64>,
}

impl Client {
    /// Creates a group.
    pub async fn create_group(&self, create: CreateGroup) -> Result<Receipt, Error> {
        Ok(receipt(self.call(create.0).await?.receipt))
    }

    /// Moves a group's position; pending entries stay. `entries_read`: how many entries the group counts as read;
    /// `None` if unknown (XGROUP SETID).
    pub async fn set_group_position(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        position: GroupPosition,
        entries_read: Option<u64>,
    ) -> Result<Receipt, Error> {
        let (stream, group, position) = (stream.into(), group.into(), Some(position.into()));
        let request = pb::SetGroupPositionRequest { stream, group, position, entries_read, request: None };
        Ok(receipt(self.call(request).await?.receipt))
    }

    /// Removes a group with its pending entries.
    pub async fn delete_group(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<GroupDeleted, Error> {
        let request = pb::DeleteGroupRequest { stream: stream.into(), group: group.into(), request: None };
        let answer = self.call(request).await?;
        Ok(GroupDeleted { existed: answer.deleted, receipt: receipt(answer.receipt) })
    }

    /// Creates a consumer. Reading as an unknown consumer creates it too.
    pub async fn create_consumer(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        consumer: impl Into<String>,
    ) -> Result<ConsumerCreated, Error> {
        let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
        let answer = self.call(pb::CreateConsumerRequest { stream, group, consumer, request: None }).await?;
        Ok(ConsumerCreated { created: answer.created, receipt: receipt(answer.receipt) })
    }

    /// Removes a consumer and drops its pending entries: claim them first if they matter.
    pub async fn delete_consumer(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        consumer: impl Into<String>,
    ) -> Result<ConsumerDeleted, Error> {
        let (stream, group, consumer) = (stream.into(), group.into(), consumer.into());
        let answer = self.call(pb::DeleteConsumerRequest { stream, group, consumer, request: None }).await?;
        Ok(ConsumerDeleted { pending: answer.pending, receipt: receipt(answer.receipt) })
    }

    /// Delivers new entries to a consumer, or repeats its pending ones: one list for each stream in the order asked for.
    /// After a wait without result every list is empty.
    ///
    /// If the returned future is dropped, entries may have been delivered all the same; they are then pending, and
    /// [`ReadGroup::pending_after`] finds them.
    pub async fn read_group(&self, read: ReadGroup) -> Result<Vec<StreamDelivery>, Error> {
        let answer = self.call(read.0).await?;
        let delivered = |delivered: pb::DeliveredEntry| DeliveredEntry {
            entry: entry(delivered.entry.unwrap_or_default()),
            deleted: delivered.deleted,
        };
        let streams = answer.streams.into_iter().map(|delivery| StreamDelivery {
            stream: delivery.stream,
            entries: delivery.entries.into_iter().map(delivered).collect(),
        });
        Ok(streams.collect())
    }

    /// Acknowledges 1 to 10,000 entries. Those that are not pending do not count; a missing stream or group acknowledges
    /// nothing.
    pub async fn ack(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        ids: impl IntoIterator<Item = EntryId>,
    ) -> Result<Acked, Error> {
        let ids = ids.into_iter().map(to_id).collect();
        let request = pb::AckRequest { stream: stream.into(), group: group.into(), ids, request: None };
        let answer = self.call(request).await?;
        Ok(Acked { acknowledged: answer.acknowledged, receipt: receipt(answer.receipt) })
    }

    /// Moves pending entries to a consumer.
    pub async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let answer = self.call(claim.0).await?;
        Ok(Claimed { entries: entries(answer.entries), receipt: receipt(answer.receipt) })
    }

    /// Moves pending entries that have been idle for long to a consumer.
    pub async fn auto_claim(&self, claim: AutoClaim) -> Result<AutoClaimed, Error> {
        let answer = self.call(claim.0).await?;
        Ok(AutoClaimed {
            cursor: id(answer.cursor),
            entries: entries(answer.entries),
            deleted_ids: answer.deleted_ids.into_iter().map(|deleted| id(Some(deleted))).collect(),
            receipt: receipt(answer.receipt),
        })
    }

    /// Summarises a group's pending entries.
    pub async fn get_pending(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<PendingSummary, Error> {
        let request = pb::GetPendingRequest { stream: stream.into(), group: group.into(), options: None };
        let answer = self.call(request).await?;
        Ok(PendingSummary {
            count: answer.count,
            min_id: answer.min_id.map(|min| id(Some(min))),
            max_id: answer.max_id.map(|max| id(Some(max))),
            consumers: answer.consumers,
        })
    }

    /// Lists pending entries by id. Fewer than were asked for means that there are no more in the range.
    pub async fn list_pending(&self, list: ListPending) -> Result<Vec<PendingEntry>, Error> {
        let answer = self.call(list.0).await?;
        let entries = answer.entries.into_iter().map(|pending| PendingEntry {
            id: id(pending.id),
            consumer: pending.consumer,
            idle_ms: pending.idle_ms,
            delivery_count: pending.delivery_count,
        });
        Ok(entries.collect())
    }

    /// Lists the groups of a stream, by name.
    pub async fn list_groups(&self, stream: impl Into<String>) -> Result<Vec<GroupInfo>, Error> {
        let answer = self.call(pb::ListGroupsRequest { stream: stream.into(), options: None }).await?;
        let groups = answer.groups.into_iter().map(|info| GroupInfo {
            group: info.group,
            consumers: info.consumers,
            pending: info.pending,
            last_delivered_id: id(info.last_delivered_id),
            entries_read: info.entries_read,
            lag: info.lag,
        });
        Ok(groups.collect())
    }

    /// Lists the consumers of a group, by name.
    pub async fn list_consumers(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<Vec<ConsumerInfo>, Error> {
        let request = pb::ListConsumersRequest { stream: stream.into(), group: group.into(), options: None };
        Ok(self.call(request).await?.consumers)
    }
}

/// Longer than the store can count is for ever.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
