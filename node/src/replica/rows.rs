//! Where the replica keeps what in the state store.
//!
//! ```text
//! 00 01          how far the state has applied the log, and the membership there: written in every checkpoint
//! 01 <row key>   the core's rows (millstream_streams::RowKey); block bodies are the last of them
//! ```

use bytes::Bytes;
use millstream_streams::rows::{BLOCK_INDEX_PREFIX, BODY_PREFIX};
use millstream_streams::{BlockKey, RowKey};

use crate::types::{LogId, StoredMembership, wire};

/// Key of the row that says what a checkpoint covers.
pub(crate) const COVERAGE: &[u8] = &[0x00, 0x01];
/// First byte of the core's rows.
const CORE: u8 = 0x01;

/// Key of one of the core's rows.
pub(crate) fn core_key(key: &RowKey) -> Vec<u8> {
    let key = key.as_bytes();
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(CORE);
    stored.extend_from_slice(key);
    stored
}

/// The core's key in a stored key; `None` for the replica's own rows.
pub(crate) fn from_core_key(stored: &[u8]) -> Option<RowKey> {
    stored.strip_prefix(&[CORE]).map(RowKey::from_bytes)
}

/// Stored key of the index row of a block.
pub(crate) fn index_key(body: &BlockKey) -> Vec<u8> {
    let BlockKey { stream, first, version: _ } = body;
    let numbers = [stream, &first.ms, &first.seq].map(|number| number.to_be_bytes());
    [&[CORE, BLOCK_INDEX_PREFIX][..], numbers.as_flattened()].concat()
}

/// The stored range that holds the core's rows without block bodies: what a restart reads.
pub(crate) fn index_range() -> (Vec<u8>, Vec<u8>) {
    (vec![CORE], vec![CORE, BODY_PREFIX])
}

/// What a checkpoint covers: log id, then membership, each with its length.
pub(crate) fn encode_coverage(last_applied: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    let log_id = last_applied.map(wire::encode_log_id).unwrap_or_default();
    let membership = wire::encode_stored_membership(membership);
    let mut row = Vec::with_capacity(4 + log_id.len() + membership.len());
    row.extend_from_slice(&(log_id.len() as u32).to_le_bytes());
    row.extend_from_slice(&log_id);
    row.extend_from_slice(&membership);
    row.into()
}

/// The reverse of [`encode_coverage`].
pub(crate) fn decode_coverage(row: &[u8]) -> Result<(Option<LogId>, StoredMembership), String> {
    let (length, rest) = row.split_first_chunk::<4>().ok_or("the coverage row is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (log_id, membership) = rest.split_at_checked(length).ok_or("the coverage row is cut short")?;
    let log_id = match log_id.is_empty() {
        true => None,
        false => Some(wire::decode_log_id(log_id).map_err(|error| error.to_string())?),
    };
    let membership = wire::decode_stored_membership(membership).map_err(|error| error.to_string())?;
    Ok((log_id, membership))
}
