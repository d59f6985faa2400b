//! The calls that describe a stream.

use millstream_proto::v1 as pb;

use crate::types::{Answer, entries, entry, id};
use crate::{Client, Entry, EntryId, Error, StreamConfig, requests};

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
    /// The oldest entry; `None` when the stream is empty, and in [`StreamDetails`].
    pub first_entry: Option<Entry>,
    /// The newest entry; `None` when the stream is empty, and in [`StreamDetails`].
    pub last_entry: Option<Entry>,
    /// Bytes of the entries: their fields, packed, and 16 for each entry's id.
    pub bytes: u64,
    /// The log index of the last command that changed the stream or one of its groups, for
    /// [`Batch::unchanged`](crate::Batch::unchanged).
    pub last_change_index: u64,
    /// The stream's settings.
    pub config: StreamConfig,
    /// What idempotent producers have done.
    pub producers: ProducerInfo,
}

/// What idempotent producers have done in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerInfo {
    /// Producers of which a key is remembered.
    pub producers: u64,
    /// Keys that are remembered; those that have expired go within about a second.
    pub keys: u64,
    /// Appends ever made under a key.
    pub keys_added: u64,
    /// Appends ever found to be made already.
    pub duplicates: u64,
}

impl Answer for pb::GetStreamResponse {
    type Value = StreamInfo;

    fn value(self) -> StreamInfo {
        let pb::ProducerInfo { producers, keys, keys_added, duplicates } = self.producers.unwrap_or_default();
        StreamInfo {
            stream: self.stream,
            length: self.length,
            last_id: id(self.last_id),
            max_deleted_id: id(self.max_deleted_id),
            entries_added: self.entries_added,
            groups: self.groups,
            first_entry: self.first_entry.map(entry),
            last_entry: self.last_entry.map(entry),
            bytes: self.bytes,
            last_change_index: self.last_change_index,
            config: self.config.unwrap_or_default().into(),
            producers: ProducerInfo { producers, keys, keys_added, duplicates },
        }
    }
}

/// A stream to describe in full (XINFO STREAM FULL).
#[derive(Debug, Clone, PartialEq)]
pub struct InspectStream(pub(crate) pb::InspectStreamRequest);

impl InspectStream {
    /// `stream`, with its groups, consumers and pending entries.
    pub fn of(stream: impl Into<String>) -> Self {
        Self(pb::InspectStreamRequest { stream: stream.into(), ..Default::default() })
    }

    /// At most this many entries, and this many pending entries of each group and each consumer: 1 to 10,000. Default:
    /// 10.
    pub fn count(mut self, entries: u32) -> Self {
        self.0.count = entries;
        self
    }
}

/// A stream in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDetails {
    /// The description, without first and last entry.
    pub info: StreamInfo,
    /// The first entries.
    pub entries: Vec<Entry>,
    /// The groups, by name.
    pub groups: Vec<GroupDetails>,
    /// The answer was full: there are more groups, consumers or pending entries than it holds.
    pub truncated: bool,
}

/// A group, with its consumers and pending entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDetails {
    /// The group's name.
    pub group: String,
    /// The last delivered id.
    pub last_delivered_id: EntryId,
    /// How many entries the group has read; `None` if unknown.
    pub entries_read: Option<u64>,
    /// How many entries wait to be delivered; `None` if unknown.
    pub lag: Option<u64>,
    /// Number of pending entries.
    pub pending_count: u64,
    /// Number of pending entries that were given back and belong to nobody.
    pub released_count: u64,
    /// The first of its pending entries, by id.
    pub pending: Vec<PendingDetails>,
    /// Its consumers, by name.
    pub consumers: Vec<ConsumerDetails>,
}

/// A consumer, with its pending entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerDetails {
    /// The consumer's name.
    pub consumer: String,
    /// When it last tried to read or claim, in milliseconds since the Unix epoch.
    pub seen_ms: u64,
    /// When an entry last became its own, in milliseconds since the Unix epoch; `None` if never.
    pub active_ms: Option<u64>,
    /// Number of its pending entries.
    pub pending_count: u64,
    /// The first of its pending entries, by id.
    pub pending: Vec<PendingDetails>,
}

/// A pending entry, with times as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDetails {
    /// The entry's id. It may be in the stream no longer.
    pub id: EntryId,
    /// The consumer that owns it; `None` if it was given back.
    pub consumer: Option<String>,
    /// When it was last delivered, in milliseconds since the Unix epoch; 0 if it was given back.
    pub delivered_ms: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
}

impl Answer for pb::InspectStreamResponse {
    type Value = StreamDetails;

    fn value(self) -> StreamDetails {
        StreamDetails {
            info: self.stream.unwrap_or_default().value(),
            entries: entries(self.entries),
            groups: self.groups.into_iter().map(group).collect(),
            truncated: self.truncated,
        }
    }
}

fn group(details: pb::GroupDetails) -> GroupDetails {
    GroupDetails {
        group: details.group,
        last_delivered_id: id(details.last_delivered_id),
        entries_read: details.entries_read,
        lag: details.lag,
        pending_count: details.pending_count,
        released_count: details.released_count,
        pending: details.pending.into_iter().map(pending).collect(),
        consumers: details.consumers.into_iter().map(consumer).collect(),
    }
}

fn consumer(details: pb::ConsumerDetails) -> ConsumerDetails {
    let pb::ConsumerDetails { consumer, seen_ms, active_ms, pending_count, pending: first } = details;
    ConsumerDetails { consumer, seen_ms, active_ms, pending_count, pending: first.into_iter().map(pending).collect() }
}

fn pending(details: pb::PendingDetails) -> PendingDetails {
    let pb::PendingDetails { id: entry_id, consumer, delivered_ms, delivery_count } = details;
    PendingDetails { id: id(entry_id), consumer, delivered_ms, delivery_count }
}

impl Client {
    /// Describes a stream.
    pub async fn get_stream(&self, stream: impl Into<String>) -> Result<StreamInfo, Error> {
        self.ask(requests::get_stream(stream)).await
    }

    /// Describes a stream with its groups, consumers and pending entries.
    pub async fn inspect_stream(&self, inspect: InspectStream) -> Result<StreamDetails, Error> {
        self.ask(inspect.0).await
    }
}
