//! The calls of consumers: reading, acknowledging and giving back.

use std::time::Duration;

use millstream_proto::v1 as pb;

use crate::types::{Answer, entry, ms, receipt, removals, to_id, to_ids};
use crate::{Client, Entry, EntryId, Error, Receipt, References, Removal, requests};

/// What to read as a consumer of a group (XREADGROUP).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadGroup(pub(crate) pb::ReadGroupRequest);

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

    /// At most this many entries of all streams together, in the order of the streams: 1 to 640,000, and not fewer than
    /// [`count`](Self::count) if that is set. Default: no limit of its own (MAXCOUNT).
    pub fn total_count(mut self, entries: u32) -> Self {
        self.0.total_count = entries;
        self
    }

    /// At most this many bytes of fields of all streams together, but at least one entry; what lies beyond is not
    /// delivered. Default: the server's limit of an answer (MAXSIZE).
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.0.max_bytes = bytes;
        self
    }

    /// Before new entries, delivers pending ones of any consumer that were not delivered for at least this long, or
    /// that were given back; in milliseconds. Concerns streams with [`new_entries`](Self::new_entries) only. Default:
    /// does not (CLAIM).
    pub fn claim(mut self, min_idle: Duration) -> Self {
        self.0.claim_min_idle_ms = Some(ms(min_idle));
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
    /// With [`ReadGroup::claim`]: what the entry was before this delivery. `None` otherwise.
    pub redelivery: Option<Redelivery>,
}

/// What an entry was before it was delivered again. Both are 0 for a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivery {
    /// Milliseconds since it was last delivered; since the Unix epoch if it was given back.
    pub idle_ms: u64,
    /// How often it was delivered before.
    pub delivery_count: u64,
}

/// What was delivered of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDelivery {
    /// The stream's name.
    pub stream: String,
    /// Oldest first, after those that are delivered again with [`ReadGroup::claim`]; may be empty.
    pub entries: Vec<DeliveredEntry>,
}

/// What was delivered (XREADGROUP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// One for each stream, in the order asked for. After a wait without result each is empty.
    pub streams: Vec<StreamDelivery>,
    /// The answer was full before all was delivered that was asked for and is there: read again.
    pub more: bool,
    /// Where the delivery stands in the log; `None` when nothing was delivered.
    pub receipt: Option<Receipt>,
}

impl Answer for pb::ReadGroupResponse {
    type Value = Delivered;

    fn value(self) -> Delivered {
        let Self { header: _, streams, receipt: place, more } = self;
        let redelivery =
            |pb::Redelivery { idle_ms, delivery_count }: pb::Redelivery| Redelivery { idle_ms, delivery_count };
        let delivered = |delivered: pb::DeliveredEntry| DeliveredEntry {
            entry: entry(delivered.entry.unwrap_or_default()),
            deleted: delivered.deleted,
            redelivery: delivered.redelivery.map(redelivery),
        };
        let streams = streams.into_iter().map(|delivery| StreamDelivery {
            stream: delivery.stream,
            entries: delivery.entries.into_iter().map(delivered).collect(),
        });
        Delivered { streams: streams.collect(), more, receipt: place.map(|place| receipt(Some(place))) }
    }
}

/// What became of an acknowledgement (XACK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// How many entries were pending and no longer are.
    pub acknowledged: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::AckResponse {
    type Value = Acked;

    fn value(self) -> Acked {
        Acked { acknowledged: self.acknowledged, receipt: receipt(self.receipt) }
    }
}

/// Entries to acknowledge and remove (XACKDEL).
#[derive(Debug, Clone, PartialEq)]
pub struct AckAndDelete(pub(crate) pb::AckAndDeleteRequest);

impl AckAndDelete {
    /// These pending entries of `group`: 1 to 10,000.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, ids: impl IntoIterator<Item = EntryId>) -> Self {
        let (stream, group, ids) = (stream.into(), group.into(), to_ids(ids));
        Self(pb::AckAndDeleteRequest { stream, group, ids, ..Default::default() })
    }

    /// What becomes of other groups' references to them. Default: they are kept.
    pub fn references(mut self, references: References) -> Self {
        self.0.references = pb::References::from(references).into();
        self
    }
}

/// What became of entries to acknowledge and remove (XACKDEL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckedAndDeleted {
    /// What became of each id, in the order asked for.
    pub results: Vec<Removal>,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::AckAndDeleteResponse {
    type Value = AckedAndDeleted;

    fn value(self) -> AckedAndDeleted {
        AckedAndDeleted { results: removals(self.results), receipt: receipt(self.receipt) }
    }
}

/// What giving an entry back does to its delivery count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NackMode {
    /// The delivery does not count: one less, but not below 0.
    Silent,
    /// The delivery counts: as it is.
    #[default]
    Fail,
    /// Nobody should try again: the greatest count there is, 2^63-1.
    Fatal,
}

impl From<NackMode> for pb::NackMode {
    fn from(mode: NackMode) -> Self {
        match mode {
            NackMode::Silent => Self::Silent,
            NackMode::Fail => Self::Fail,
            NackMode::Fatal => Self::Fatal,
        }
    }
}

/// Pending entries to give back (XNACK).
#[derive(Debug, Clone, PartialEq)]
pub struct Nack(pub(crate) pb::NackRequest);

impl Nack {
    /// These entries of `group`, whoever owns them: 1 to 10,000. Those that are not pending do not count.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, ids: impl IntoIterator<Item = EntryId>) -> Self {
        let (stream, group, ids) = (stream.into(), group.into(), to_ids(ids));
        Self(pb::NackRequest { stream, group, ids, ..Default::default() }).mode(NackMode::default())
    }

    /// What becomes of the delivery count. Default: [`NackMode::Fail`].
    pub fn mode(mut self, mode: NackMode) -> Self {
        self.0.mode = pb::NackMode::from(mode).into();
        self
    }

    /// Sets the delivery count to this instead; at most 2^63-1 (RETRYCOUNT).
    pub fn delivery_count(mut self, deliveries: u64) -> Self {
        self.0.delivery_count = Some(deliveries);
        self
    }

    /// Makes entries pending that are not, if they are in the stream; their count starts at 0 (FORCE).
    pub fn force(mut self) -> Self {
        self.0.force = true;
        self
    }
}

/// What was given back (XNACK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nacked {
    /// How many entries belong to nobody now.
    pub released: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::NackResponse {
    type Value = Nacked;

    fn value(self) -> Nacked {
        Nacked { released: self.released, receipt: receipt(self.receipt) }
    }
}

impl Client {
    /// Delivers new entries to a consumer, or repeats its pending ones.
    ///
    /// If the returned future is dropped, entries may have been delivered all the same; they are then pending, and
    /// [`ReadGroup::pending_after`] finds them.
    pub async fn read_group(&self, read: ReadGroup) -> Result<Delivered, Error> {
        self.ask(read.0).await
    }

    /// Acknowledges 1 to 10,000 entries. Those that are not pending do not count; a missing stream or group
    /// acknowledges nothing.
    pub async fn ack(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        ids: impl IntoIterator<Item = EntryId>,
    ) -> Result<Acked, Error> {
        self.ask(requests::ack(stream, group, ids)).await
    }

    /// Acknowledges entries and removes them from the stream. A missing stream or group has none pending.
    pub async fn ack_and_delete(&self, ack: AckAndDelete) -> Result<AckedAndDeleted, Error> {
        self.ask(ack.0).await
    }

    /// Gives pending entries back: they belong to nobody, and the next claim takes them whatever its minimum idle time.
    pub async fn nack(&self, nack: Nack) -> Result<Nacked, Error> {
        self.ask(nack.0).await
    }
}
