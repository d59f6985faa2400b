//! Rows and commands for a person to read: what a tool shows of a store or a log.
//!
//! A row is taken apart by its format alone, with the names of its parts beside them, and not through the types of the
//! state: a row that the state would refuse is the one that somebody wants to look at.

use std::fmt::Write;

use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::Type;

use crate::block::{Block, BlockFormatError};
use crate::codec::{self, Proposal};
use crate::entry::Entry;
use crate::error::DecodeError;
use crate::rows::{
    BLOCK_INDEX_PREFIX, BODY_PREFIX, CONSUMER_PREFIX, GROUP_PREFIX, META_PREFIX, NODE_PREFIX, PENDING_PREFIX,
    PRODUCERS_PREFIX, REPLIES_PREFIX, RowKey, SESSION_PREFIX, STREAM_PREFIX,
};

/// Bytes of one name, value or payload that are shown.
const SHOWN_BYTES: usize = 64;
/// Arrays within arrays. Ours are less deep; damaged bytes may be anything.
const DEPTH_MAX: usize = 32;

/// The names of a row's parts, in their order.
fn names_of(kind: u8) -> &'static [&'static str] {
    match kind {
        META_PREFIX => &["clock_ms", "digest", "applied", "cluster_id", "incarnations"],
        NODE_PREFIX => &["node_id", "incarnation", "peer_address", "client_address"],
        STREAM_PREFIX => &["incarnation", "counters", "config", "last_change_index", "producers"],
        BLOCK_INDEX_PREFIX => &["meta", "body", "open", "parts"],
        GROUP_PREFIX => &["incarnation", "last_id", "entries_read", "next_consumer", "next_put"],
        CONSUMER_PREFIX => &["name", "seen_ms", "active_ms"],
        SESSION_PREFIX => &["active_ms", "floor"],
        _ => &[],
    }
}

/// The names of the parts of a part.
fn names_within(kind: u8, name: &str) -> &'static [&'static str] {
    match (kind, name) {
        (STREAM_PREFIX, "counters") => &["length", "last_id", "max_deleted_id", "entries_added", "bytes", "bodies"],
        (STREAM_PREFIX, "config") => &["idempotency_duration_s", "idempotency_keys_max", "retention"],
        (BLOCK_INDEX_PREFIX, "meta") => {
            &["entries", "bytes", "live_bytes", "version", "first_live", "last_live", "dead"]
        }
        (PENDING_PREFIX, _) => &["id", "consumer", "delivered_ms", "delivery_count", "put_number"],
        (REPLIES_PREFIX, _) => &["sequence", "fingerprint", "outcome"],
        (PRODUCERS_PREFIX, _) => &["number", "producer", "key", "id"],
        _ => &[],
    }
}

/// A row in one line: its key taken apart, and its value. The error says that the value does not follow its format;
/// that the key is none of ours is said in the text.
pub fn describe(key: &RowKey, value: &Bytes) -> Result<String, DecodeError> {
    let kind = key.as_bytes().first().copied().unwrap_or_default();
    let mut text = format!("{key:?} = ");
    if kind == BODY_PREFIX {
        let block = Block::decode(value.clone());
        let block = block.map_err(|BlockFormatError(problem)| DecodeError::Malformed { problem })?;
        show_entries(block.entries(), &mut text);
        return Ok(text);
    }
    let mut d = Decoder::new(codec::body(value)?);
    show_value(&mut d, kind, names_of(kind), 0, &mut text)?;
    codec::at_end(&d)?;
    Ok(text)
}

/// A proposal in one line.
pub fn describe_proposal(proposal: &Bytes) -> Result<String, DecodeError> {
    let Proposal { at_ms, request, command, bytes_max } = Proposal::decode(proposal)?;
    let mut text = format!("at_ms={at_ms}");
    if let Some(request) = request {
        let _ = write!(text, " session={} sequence={}", request.session, request.sequence);
        let _ = write!(text, " completed_below={}", request.completed_below);
    }
    let _ = write!(text, " bytes_max={bytes_max} {command:?}");
    Ok(text)
}

fn show_entries(entries: &[Entry], text: &mut String) {
    let _ = write!(text, "{} entries [", entries.len());
    for (nth, Entry { id, fields }) in entries.iter().enumerate() {
        text.push_str(if nth == 0 { "" } else { ", " });
        let _ = write!(text, "{id}");
        for (nth, (name, value)) in fields.iter().enumerate() {
            text.push(if nth == 0 { ' ' } else { ',' });
            show_bytes(name, text);
            text.push('=');
            show_bytes(value, text);
        }
    }
    text.push(']');
}

/// Bytes as text, cut to what a line can hold.
fn show_bytes(bytes: &[u8], text: &mut String) {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    let _ = write!(text, "\"{}\"", shown.escape_ascii());
    if shown.len() < bytes.len() {
        let _ = write!(text, "..({} bytes)", bytes.len());
    }
}

/// The next value, whatever it is. `names` are those of its parts.
fn show_value(
    d: &mut Decoder<'_>,
    kind: u8,
    names: &[&str],
    depth: usize,
    text: &mut String,
) -> Result<(), DecodeError> {
    let malformed = |problem: &str| DecodeError::Malformed { problem: problem.to_owned() };
    if depth == DEPTH_MAX {
        return Err(malformed("arrays within arrays, too deep"));
    }
    let written = match d.datatype()? {
        Type::Array => {
            let parts = codec::definite_array(d)?;
            // An id reads better as one.
            if depth > 0 && parts == 2 && names.is_empty() && is_pair_of_numbers(d) {
                let _ = write!(text, "{}-{}", d.u64()?, d.u64()?);
                return Ok(());
            }
            text.push('[');
            for nth in 0..parts {
                text.push_str(if nth == 0 { "" } else { ", " });
                let name = usize::try_from(nth).ok().and_then(|nth| names.get(nth)).copied().unwrap_or_default();
                if !name.is_empty() {
                    let _ = write!(text, "{name}: ");
                }
                if matches!(name, "digest" | "dead" | "parts") && d.datatype()? == Type::Bytes {
                    let bytes = d.bytes()?;
                    for byte in bytes {
                        let _ = write!(text, "{byte:02x}");
                    }
                    continue;
                }
                // Rows that are lists have parts without names.
                let within = if depth == 0 || !name.is_empty() { names_within(kind, name) } else { &[] };
                show_value(d, kind, within, depth + 1, text)?;
            }
            text.push(']');
            Ok(())
        }
        Type::Bytes => {
            show_bytes(d.bytes()?, text);
            Ok(())
        }
        Type::String => write!(text, "{:?}", d.str()?),
        Type::Bool => write!(text, "{}", d.bool()?),
        Type::Null => {
            d.null()?;
            text.push('-');
            Ok(())
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => write!(text, "{}", d.u64()?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => write!(text, "{}", d.i64()?),
        other => return Err(malformed(&format!("a value of type {other}, which rows do not have"))),
    };
    // Writing to a String cannot fail.
    debug_assert!(written.is_ok());
    Ok(())
}

/// Whether the next two values are numbers.
fn is_pair_of_numbers(d: &Decoder<'_>) -> bool {
    let mut ahead = d.clone();
    ahead.u64().is_ok() && ahead.u64().is_ok()
}
