//! XLEN, XINFO STREAM, and the list of streams.

use minicbor::{Decode, Encode};

use crate::config::StreamConfig;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::StreamName;
use crate::state::State;
use crate::stream::Stream;

/// A stream, described.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamInfo {
    /// Number of entries.
    #[n(0)]
    pub length: u64,
    /// The last id generated or given; deletion does not lower it.
    #[n(1)]
    pub last_id: EntryId,
    /// The greatest id that was deleted by id; 0-0 if none. Trimming does not count.
    #[n(2)]
    pub max_deleted_id: EntryId,
    /// Entries ever appended.
    #[n(3)]
    pub entries_added: u64,
    /// Number of groups.
    #[n(4)]
    pub groups: u64,
    /// The id of the oldest entry; `None` if the stream is empty.
    #[n(5)]
    pub first: Option<EntryId>,
    /// The id of the newest entry; `None` if the stream is empty.
    #[n(6)]
    pub last: Option<EntryId>,
    /// Bytes of its entries: for each its packed fields and 16 for its id.
    #[n(7)]
    pub bytes: u64,
    /// The log index of the last command that changed the stream or one of its groups.
    #[n(8)]
    pub last_change_index: u64,
    /// Its settings.
    #[n(9)]
    pub config: StreamConfig,
    /// Producers of which an idempotency key is remembered.
    #[n(10)]
    pub producers: u64,
    /// Idempotency keys that are remembered. Those that have expired go within about a second, and at once when they
    /// matter.
    #[n(11)]
    pub idempotency_keys: u64,
    /// Appends ever made under an idempotency key.
    #[n(12)]
    pub idempotency_keys_added: u64,
    /// Appends ever found to be made already.
    #[n(13)]
    pub idempotency_duplicates: u64,
}

/// One stream of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream's name.
    pub stream: StreamName,
    /// Number of entries.
    pub length: u64,
    /// The last id generated or given.
    pub last_id: EntryId,
    /// Number of groups.
    pub groups: u64,
}

impl State {
    /// The last id generated or given (`$`); 0-0 if the stream is missing.
    pub fn last_id(&self, stream: &StreamName) -> EntryId {
        self.streams.get(stream).map_or(EntryId::MIN, |stream| stream.entries.counters().last_id)
    }

    /// The id of the last entry that is still there (`+`); `None` if the stream is empty or missing.
    pub fn last_entry_id(&self, stream: &StreamName) -> Option<EntryId> {
        self.streams.get(stream)?.entries.last_live()
    }

    /// Whether the stream has an entry with a greater id.
    pub fn has_entries_after(&self, stream: &StreamName, after: EntryId) -> bool {
        self.last_entry_id(stream).is_some_and(|last| after < last)
    }

    /// Describes a stream (XINFO STREAM). Refuses with `StreamNotFound`.
    pub fn stream_info(&self, stream: &StreamName) -> Result<StreamInfo, Refusal> {
        let stream = self.streams.find(stream)?;
        let counters = stream.entries.counters();
        Ok(StreamInfo {
            length: counters.length,
            last_id: counters.last_id,
            max_deleted_id: counters.max_deleted_id,
            entries_added: counters.entries_added,
            groups: stream.groups.len() as u64,
            first: (counters.length > 0).then_some(counters.first_id),
            last: stream.entries.last_live(),
            bytes: counters.bytes,
            last_change_index: stream.last_change_index(),
            config: *stream.config(),
            producers: stream.producers.len() as u64,
            idempotency_keys: stream.producers.keys() as u64,
            idempotency_keys_added: stream.producers.counters().added,
            idempotency_duplicates: stream.producers.counters().duplicates,
        })
    }

    /// The log index of the last command that changed the stream or one of its groups; `None` if there is no such stream.
    pub fn last_change_index(&self, stream: &StreamName) -> Option<u64> {
        self.streams.get(stream).map(Stream::last_change_index)
    }

    /// Looks at most `looks` streams over, by name, those after `after`: which of them retention or the age of
    /// idempotency keys concern at `now_ms`, and where to go on; `None` at the end.
    pub fn retention_due(
        &self,
        now_ms: u64,
        after: Option<&StreamName>,
        looks: usize,
    ) -> (Vec<StreamName>, Option<StreamName>) {
        let mut due = Vec::new();
        let mut streams = self.streams.retained_after(after);
        let mut last = None;
        for (name, stream) in streams.by_ref().take(looks) {
            if stream.is_due(now_ms) {
                due.push(name.clone());
            }
            last = Some(name);
        }
        let next = streams.next().and(last).cloned();
        (due, next)
    }

    /// How many streams there are.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Lists at most `count` streams whose names start with `prefix`, by name, those after `after`.
    pub fn list_streams(&self, prefix: &str, after: Option<&StreamName>, count: usize) -> Vec<StreamSummary> {
        let from = after.map_or(prefix, |after| after.as_str().max(prefix));
        self.streams
            .iter_from(from)
            .take_while(|(name, _)| name.as_str().starts_with(prefix))
            .filter(|(name, _)| after != Some(name))
            .take(count)
            .map(|(name, stream)| StreamSummary {
                stream: name.clone(),
                length: stream.entries.counters().length,
                last_id: stream.entries.counters().last_id,
                groups: stream.groups.len() as u64,
            })
            .collect()
    }
}
