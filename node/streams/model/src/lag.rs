//! Section 7, line by line: how many entries a group has read, and how many wait for it.

use millstream_streams::limits::ENTRIES_ADDED_MAX;
use millstream_streams::*;

use crate::state::{Group, Stream};

const ZERO: EntryId = EntryId::MIN;

/// `tombstones_after`: there may be deleted entries behind `after`.
fn tombstones_after(stream: &Stream, after: EntryId) -> bool {
    stream.length() > 0 && stream.max_deleted_id != ZERO && after <= stream.max_deleted_id
}

/// `estimate`: the logical position of an id. `None`: unknown.
fn estimate(stream: &Stream, id: EntryId) -> Option<u64> {
    if stream.entries_added == 0 {
        return Some(0);
    }
    if stream.length() == 0 && id <= stream.last_id {
        return Some(stream.entries_added);
    }
    if id != ZERO && id < stream.max_deleted_id {
        return None;
    }
    if id == stream.last_id {
        return Some(stream.entries_added);
    }
    if id > stream.last_id {
        return None;
    }
    let first_id = stream.first_id();
    if stream.max_deleted_id == ZERO || stream.max_deleted_id < first_id {
        if id < first_id {
            return Some(stream.entries_added - stream.length());
        }
        if id == first_id {
            return Some(stream.entries_added - stream.length() + 1);
        }
    }
    None
}

/// `deliver`: what `entries_read` becomes when `id` is delivered, before the group moves there.
pub(crate) fn entries_read_after(stream: &Stream, group: &Group, id: EntryId) -> Option<u64> {
    assert!(id > group.last_id);
    match group.entries_read {
        Some(read) if group.last_id >= stream.first_id() && !tombstones_after(stream, group.last_id) => {
            // The specification has no bound here; a signed number must have one.
            Some((read + 1).min(ENTRIES_ADDED_MAX))
        }
        _ if stream.entries_added > 0 => estimate(stream, id),
        read => read,
    }
}

/// `lag`. `None`: unknown.
pub(crate) fn lag(stream: &Stream, group: &Group) -> Option<u64> {
    if stream.entries_added == 0 || stream.length() == 0 {
        return Some(0);
    }
    if group.last_id < stream.first_id() && stream.max_deleted_id < stream.first_id() {
        return Some(stream.length());
    }
    if let Some(read) = group.entries_read
        && !tombstones_after(stream, group.last_id)
    {
        // A group may have read more than was ever added, by the numbers of XSETID: then nothing waits.
        return Some(stream.entries_added.saturating_sub(read));
    }
    Some(stream.entries_added - estimate(stream, group.last_id)?)
}
