//! XLEN, XINFO STREAM, and the list of streams.

use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::names::StreamName;
use crate::state::State;

/// A stream, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Number of entries.
    pub length: u64,
    /// The last id generated or given; deletion does not lower it.
    pub last_id: EntryId,
    /// The greatest id removed by DeleteEntries; 0-0 if none. Trimming does not count.
    pub max_deleted_id: EntryId,
    /// Entries ever appended.
    pub entries_added: u64,
    /// Number of groups.
    pub groups: u64,
    /// The id of the oldest entry; `None` if the stream is empty.
    pub first: Option<EntryId>,
    /// The id of the newest entry; `None` if the stream is empty.
    pub last: Option<EntryId>,
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
        })
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
