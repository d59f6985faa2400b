//! What requests are made of: names, ids, counts, ranges, fields, policies.

use bytes::Bytes;
use millstream_proto::v1 as pb;
use millstream_streams::limits::{COUNT_MAX, FIELDS_MAX, GROUP_READ_STREAMS_MAX, IDS_MAX};
use millstream_streams::{
    ConsumerName, EntryId, Fields, FieldsError, GroupName, GroupPosition, Idempotency, IdempotencyKey, NewId,
    ProducerId, References, StreamName, TrimPolicy, TrimThreshold,
};

use super::{Result, must_be_true, required, unknown_value, unset};
use crate::api::errors::Failure;

/// Bytes of a field's name: 64 KiB.
const FIELD_NAME_BYTES_MAX: usize = 64 << 10;
/// Entries of all streams of one call together: as many as the largest group read may ask for stream by stream.
const TOTAL_COUNT_MAX: u32 = GROUP_READ_STREAMS_MAX as u32 * COUNT_MAX;

/// Entries of a page when the call does not say how many.
pub(super) const PAGE_DEFAULT: u32 = 1_000;
/// Entries of a delivery when the call does not say how many.
pub(super) const DELIVERY_DEFAULT: u32 = 100;
/// Entries, and pending entries of each group and consumer, of an inspection that does not say how many.
pub(super) const INSPECT_DEFAULT: u32 = 10;

/// The version of page tokens that are bytes.
const TOKEN_VERSION: u8 = 1;

pub(super) fn id(id: pb::EntryId) -> EntryId {
    EntryId::new(id.ms, id.seq)
}

pub(super) fn stream(name: &str) -> Result<StreamName> {
    stream_in("stream", name)
}

pub(super) fn stream_in(field: &str, name: &str) -> Result<StreamName> {
    StreamName::new(name).map_err(|error| Failure::name(field, error))
}

pub(super) fn group(name: &str) -> Result<GroupName> {
    GroupName::new(name).map_err(|error| Failure::name("group", error))
}

pub(super) fn consumer(name: &str) -> Result<ConsumerName> {
    ConsumerName::new(name).map_err(|error| Failure::name("consumer", error))
}

pub(super) fn producer(field: &str, bytes: Bytes) -> Result<ProducerId> {
    ProducerId::new(bytes).map_err(|error| Failure::producer(field, error))
}

pub(super) fn key(field: &str, bytes: Bytes) -> Result<IdempotencyKey> {
    IdempotencyKey::new(bytes).map_err(|error| Failure::producer(field, error))
}

pub(super) fn idempotency(idempotency: pb::Idempotency) -> Result<Idempotency> {
    use pb::idempotency::KeyChoice;
    let producer = producer("idempotency.producer_id", idempotency.producer_id)?;
    let key = match idempotency.key_choice {
        Some(KeyChoice::Key(bytes)) => Some(key("idempotency.key", bytes)?),
        Some(KeyChoice::FromFields(true)) => None,
        Some(KeyChoice::FromFields(false)) => return Err(must_be_true("idempotency.from_fields")),
        None => return Err(unset("idempotency.key_choice")),
    };
    Ok(Idempotency { producer, key })
}

/// Packs the fields of a new entry.
pub(super) fn fields(fields: &[pb::Field], bytes_max: usize) -> Result<Fields> {
    if FIELDS_MAX < fields.len() {
        return Err(Failure::too_large("fields", FIELDS_MAX as u64, "fields"));
    }
    let mut bytes = 0;
    for (i, field) in fields.iter().enumerate() {
        if FIELD_NAME_BYTES_MAX < field.name.len() {
            return Err(Failure::too_large(format!("fields[{i}].name"), FIELD_NAME_BYTES_MAX as u64, "bytes"));
        }
        bytes += field.name.len() + field.value.len();
    }
    let too_large = |bytes_max: usize| Failure::too_large("fields", bytes_max as u64, "bytes");
    if bytes_max < bytes {
        return Err(too_large(bytes_max));
    }
    Fields::from_pairs(fields.iter().map(|field| (&field.name, &field.value))).map_err(|error| match error {
        FieldsError::Empty => Failure::invalid("fields", error.to_string()),
        FieldsError::TooMany => Failure::too_large("fields", FIELDS_MAX as u64, "fields"),
        FieldsError::TooLarge => too_large(millstream_streams::limits::ENTRY_BYTES_MAX),
    })
}

pub(super) fn new_id(id: Option<pb::NewEntryId>) -> Result<NewId> {
    use pb::new_entry_id::Choice;
    let Some(id) = id else { return Ok(NewId::Auto) };
    match id.choice {
        Some(Choice::Explicit(explicit)) => Ok(NewId::Explicit(self::id(explicit))),
        Some(Choice::Ms(ms)) => Ok(NewId::Ms(ms)),
        None => Err(unset("id.choice")),
    }
}

pub(super) fn references(field: &str, references: i32) -> Result<References> {
    match pb::References::try_from(references) {
        Ok(pb::References::Unspecified | pb::References::Keep) => Ok(References::Keep),
        Ok(pb::References::Delete) => Ok(References::Delete),
        Ok(pb::References::Acked) => Ok(References::Acked),
        Err(_) => Err(unknown_value(field)),
    }
}

pub(super) fn trim_policy(field: &str, policy: pb::TrimPolicy) -> Result<TrimPolicy> {
    use pb::trim_policy::Threshold;
    let threshold = match policy.threshold {
        Some(Threshold::MaxLength(length)) => TrimThreshold::MaxLength(length),
        Some(Threshold::MinId(min)) => TrimThreshold::MinId(id(min)),
        None => return Err(unset(format!("{field}.threshold"))),
    };
    let approximate = match pb::TrimPrecision::try_from(policy.precision) {
        Ok(pb::TrimPrecision::Unspecified | pb::TrimPrecision::Exact) => false,
        Ok(pb::TrimPrecision::Approximate) => true,
        Err(_) => return Err(unknown_value(format!("{field}.precision"))),
    };
    if policy.limit.is_some() && !approximate {
        return Err(Failure::invalid(format!("{field}.limit"), "only possible with approximate precision"));
    }
    let references = references(&format!("{field}.references"), policy.references)?;
    Ok(TrimPolicy { threshold, approximate, limit: policy.limit, references })
}

/// The ids of a call, `min` to [`IDS_MAX`] of them.
pub(super) fn ids(ids: &[pb::EntryId], min: usize) -> Result<Vec<EntryId>> {
    if ids.len() < min {
        return Err(Failure::invalid("ids", "at least one id is needed"));
    }
    if IDS_MAX < ids.len() {
        return Err(Failure::too_large("ids", IDS_MAX as u64, "ids"));
    }
    Ok(ids.iter().map(|id| self::id(*id)).collect())
}

/// 0 stands for `default`.
pub(super) fn count(field: &str, count: u32, default: u32) -> Result<u32> {
    match count {
        0 => Ok(default),
        count if count <= COUNT_MAX => Ok(count),
        _ => Err(Failure::too_large(field, u64::from(COUNT_MAX), "entries")),
    }
}

/// How many entries of each stream, and of all together; for the latter, 0 says that there is no limit.
pub(super) fn counts(count: u32, total_count: u32, default: u32) -> Result<(u32, u32)> {
    let of_each = self::count("count", count, default)?;
    if TOTAL_COUNT_MAX < total_count {
        return Err(Failure::too_large("total_count", u64::from(TOTAL_COUNT_MAX), "entries"));
    }
    match total_count {
        0 => Ok((of_each, 0)),
        _ if total_count < count => Err(Failure::invalid("total_count", "must not be smaller than `count`")),
        // The default gives way.
        _ => Ok((of_each.min(total_count), total_count)),
    }
}

/// How many bytes of fields of all streams together. 0 stands for what fits into an answer, which is also the most.
pub(in crate::api) fn max_bytes(max_bytes: u64, response_bytes_max: usize) -> u64 {
    let fitting = response_bytes_max as u64;
    if max_bytes == 0 { fitting } else { max_bytes.min(fitting) }
}

/// The smallest id of a range.
pub(super) fn range_start(bound: Option<pb::IdBound>) -> Result<EntryId> {
    use pb::id_bound::Bound;
    match bound {
        None => Ok(EntryId::MIN),
        Some(pb::IdBound { bound: Some(Bound::Inclusive(first)) }) => Ok(id(first)),
        Some(pb::IdBound { bound: Some(Bound::Exclusive(before)) }) => {
            id(before).next().ok_or_else(|| Failure::invalid("start.exclusive", "there is no greater id"))
        }
        Some(pb::IdBound { bound: None }) => Err(unset("start.bound")),
    }
}

/// The greatest id of a range.
pub(super) fn range_end(bound: Option<pb::IdBound>) -> Result<EntryId> {
    use pb::id_bound::Bound;
    match bound {
        None => Ok(EntryId::MAX),
        Some(pb::IdBound { bound: Some(Bound::Inclusive(last)) }) => Ok(id(last)),
        Some(pb::IdBound { bound: Some(Bound::Exclusive(behind)) }) => {
            id(behind).prev().ok_or_else(|| Failure::invalid("end.exclusive", "there is no smaller id"))
        }
        Some(pb::IdBound { bound: None }) => Err(unset("end.bound")),
    }
}

pub(super) fn group_position(position: Option<pb::GroupPosition>) -> Result<GroupPosition> {
    use pb::group_position::Position;
    match required("position", position)?.position {
        Some(Position::After(after)) => Ok(GroupPosition::After(id(after))),
        Some(Position::End(true)) => Ok(GroupPosition::End),
        Some(Position::End(false)) => Err(must_be_true("position.end")),
        None => Err(unset("position.position")),
    }
}

/// The token of a page is the last name of the page before. Empty: from the start.
pub(super) fn page_token(token: &str, prefix: &str) -> Result<Option<StreamName>> {
    if token.is_empty() {
        return Ok(None);
    }
    match StreamName::new(token) {
        Ok(name) if token.starts_with(prefix) => Ok(Some(name)),
        _ => Err(foreign_token()),
    }
}

/// The token behind the page that ends with this name, which may be empty: a version byte and the name.
pub(in crate::api) fn token_after(name: &str) -> Bytes {
    [&[TOKEN_VERSION], name.as_bytes()].concat().into()
}

/// The last name of the page before, from [`token_after`]. Empty: `None`, from the start.
pub(super) fn name_in_token(token: &[u8]) -> Result<Option<&str>> {
    match token {
        [] => Ok(None),
        [TOKEN_VERSION, name @ ..] => std::str::from_utf8(name).map(Some).map_err(|_| foreign_token()),
        _ => Err(foreign_token()),
    }
}

pub(super) fn foreign_token() -> Failure {
    Failure::invalid("page_token", "not from a previous answer to this call")
}

pub(super) fn check_streams(len: usize, max: usize) -> Result<()> {
    if len == 0 {
        return Err(Failure::invalid("streams", "at least one stream is needed"));
    }
    if max < len {
        return Err(Failure::too_large("streams", max as u64, "streams"));
    }
    Ok(())
}
