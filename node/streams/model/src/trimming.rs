//! Section 6, and retention: removing the oldest entries.

use millstream_streams::limits::{BLOCK_ENTRIES, TRIM_APPROX_LIMIT_DEFAULT};
use millstream_streams::*;

use crate::state::{Corners, Stream};

/// Trims. `observed` is what the core says it trimmed: believed, within its promise, where the core is free to choose.
pub(crate) fn trim(
    stream: &mut Stream,
    policy: &TrimPolicy,
    observed: Option<u64>,
    corners: &mut Corners,
) -> Result<u64, String> {
    let wanted = |stream: &Stream, id: EntryId| match policy.threshold {
        TrimThreshold::MaxLength(length) => stream.length() > length,
        TrimThreshold::MinId(min) => id < min,
    };
    let limit = match (policy.approximate, policy.limit) {
        (false, _) | (true, Some(0)) => None,
        (true, Some(limit)) => Some(limit),
        (true, None) => Some(TRIM_APPROX_LIMIT_DEFAULT),
    };
    if policy.approximate && policy.references == References::Keep {
        let mut exactly = stream.clone();
        let exact = trim_entries(&mut exactly, &wanted, References::Keep, None, corners);
        let trimmed = observed.unwrap_or(0);
        if trimmed > exact {
            return Err(format!("approximate trimming removed {trimmed}, exact trimming would remove {exact}"));
        }
        if limit.is_some_and(|limit| trimmed > limit) {
            return Err(format!("approximate trimming removed {trimmed}, more than its limit"));
        }
        if limit.is_none_or(|limit| exact <= limit) && exact - trimmed >= BLOCK_ENTRIES as u64 {
            return Err(format!("approximate trimming removed {trimmed} of {exact}, and left a whole block"));
        }
        corners.reach_if(trimmed > 0, "6 approximate trim removed blocks");
        corners.reach_if(trimmed < exact, "6 approximate trim removed less than an exact one would");
        stream.entries.drain(..trimmed as usize);
        return Ok(trimmed);
    }
    let trimmed = trim_entries(stream, &wanted, policy.references, limit, corners);
    corners.reach_if(policy.approximate && limit == Some(trimmed), "6 limit reached with DELREF or ACKED");
    Ok(trimmed)
}

/// Removes the oldest entries, as long as they are `wanted` gone.
pub(crate) fn trim_entries(
    stream: &mut Stream,
    wanted: &dyn Fn(&Stream, EntryId) -> bool,
    references: References,
    limit: Option<u64>,
    corners: &mut Corners,
) -> u64 {
    let mut trimmed = 0;
    let mut at = 0;
    while let Some(entry) = stream.entries.get(at) {
        let id = entry.id;
        if limit == Some(trimmed) || !wanted(stream, id) {
            break;
        }
        match references {
            References::Keep => {
                corners
                    .reach_if(stream.groups.values().any(|group| group.find(id).is_some()), "6 trim left a reference");
            }
            References::Delete => {
                let any = stream.drop_references(id);
                corners.reach_if(any, "6 DELREF trim dropped a reference");
            }
            References::Acked => {
                if stream.is_referenced(id) {
                    corners.reach("6 ACKED trim passed over an entry");
                    at += 1;
                    continue;
                }
                corners.reach_if(at > 0, "6 ACKED trim removed an entry behind one that it passed over");
            }
        }
        stream.entries.remove(at);
        trimmed += 1;
    }
    trimmed
}

/// Trims by the stream's own settings, until every bound holds.
pub fn retain(stream: &mut Stream, now_ms: u64, corners: &mut Corners) -> u64 {
    let Retention { max_length, min_id, max_age_ms, max_bytes, references } = stream.config.retention;
    let mut trimmed = 0;
    if let Some(max_length) = max_length {
        trimmed += trim_entries(stream, &|stream, _| stream.length() > max_length, references, None, corners);
        corners.reach_if(trimmed > 0, "retention by length");
    }
    if let Some(min_id) = min_id {
        let removed = trim_entries(stream, &|_, id| id < min_id, references, None, corners);
        corners.reach_if(removed > 0, "retention by id");
        trimmed += removed;
    }
    if let Some(max_age_ms) = max_age_ms {
        // An id may run ahead of the clock: then the entry has no age.
        let removed =
            trim_entries(stream, &|_, id| now_ms.saturating_sub(id.ms) > max_age_ms, references, None, corners);
        corners.reach_if(removed > 0, "retention by age");
        trimmed += removed;
    }
    if let Some(max_bytes) = max_bytes {
        let removed = trim_entries(stream, &|stream, _| stream.bytes() > max_bytes, references, None, corners);
        corners.reach_if(removed > 0, "retention by bytes");
        trimmed += removed;
    }
    trimmed
}
