//! From the wire to the core: every default, bound and absence that the .proto comments state.
//!
//! A function that takes a `field` names it in its errors: the path as the .proto spells it, `streams[3].position`.
//! What the core itself checks (`Command::check`) is not checked twice, unless the core would name another path.

use std::time::Duration;

use millstream_proto::v1::{self as pb};
use millstream_streams::limits::{COUNT_MAX, FIELDS_MAX, GROUP_READ_STREAMS_MAX, IDS_MAX};
use millstream_streams::{
    ConsumerName, DeliveryTime, EntryId, Fields, FieldsError, GroupName, GroupPosition, GroupRead, GroupReadFrom,
    NewId, RequestId, StreamName, TrimPolicy, TrimThreshold,
};

use super::errors::Failure;
use crate::replica::Freshness;

/// Bytes of a field's name: 64 KiB.
const FIELD_NAME_BYTES_MAX: usize = 64 << 10;
/// Streams of one Read: 1,024.
const READ_STREAMS_MAX: usize = 1_024;
/// The longest wait: one hour.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Entries of a page when the call does not say how many.
pub(super) const PAGE_DEFAULT: u32 = 1_000;
/// Entries of a delivery when the call does not say how many.
pub(super) const DELIVERY_DEFAULT: u32 = 100;

pub(super) type Result<T> = std::result::Result<T, Failure>;

pub(super) fn id(id: pb::EntryId) -> EntryId {
    EntryId::new(id.ms, id.seq)
}

pub(super) fn stream(name: &str) -> Result<StreamName> {
    stream_in("stream", name)
}

fn stream_in(field: &str, name: &str) -> Result<StreamName> {
    StreamName::new(name).map_err(|error| Failure::name(field, error))
}

pub(super) fn group(name: &str) -> Result<GroupName> {
    GroupName::new(name).map_err(|error| Failure::name("group", error))
}

pub(super) fn consumer(name: &str) -> Result<ConsumerName> {
    ConsumerName::new(name).map_err(|error| Failure::name("consumer", error))
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
    Ok(TrimPolicy { threshold, approximate, limit: policy.limit })
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

/// Absent: no wait.
pub(super) fn wait(wait: Option<prost_types::Duration>) -> Result<Duration> {
    let Some(wait) = wait else { return Ok(Duration::ZERO) };
    // By hand: prost's own conversion overflows on the smallest number of seconds.
    let (Ok(seconds), Ok(nanos @ 0..=999_999_999)) = (u64::try_from(wait.seconds), u32::try_from(wait.nanos)) else {
        return Err(Failure::invalid("wait", "must be a duration that is not negative"));
    };
    let wait = Duration::new(seconds, nanos);
    if WAIT_MAX < wait {
        return Err(Failure::too_large("wait", WAIT_MAX.as_secs(), "seconds"));
    }
    Ok(wait)
}

pub(super) fn freshness(options: Option<pb::ReadOptions>) -> Result<Freshness> {
    let options = options.unwrap_or_default();
    match pb::Consistency::try_from(options.consistency) {
        // It covers every index that a receipt can name, so the minimum says nothing more.
        Ok(pb::Consistency::Unspecified | pb::Consistency::Linearizable) => Ok(Freshness::Linearizable),
        Ok(pb::Consistency::Local) => Ok(Freshness::Local { min_applied_index: options.min_applied_index }),
        Err(_) => Err(unknown_value("options.consistency")),
    }
}

pub(super) fn request(request: Option<pb::RequestIdentity>) -> Result<Option<RequestId>> {
    let Some(request) = request else { return Ok(None) };
    let pb::RequestIdentity { session_id, sequence, completed_below } = request;
    if sequence == 0 {
        return Err(Failure::invalid("request.sequence", "sequences start at 1"));
    }
    Ok(Some(RequestId { session: session_id, sequence, completed_below }))
}

pub(super) fn group_position(position: Option<pb::GroupPosition>) -> Result<GroupPosition> {
    use pb::group_position::Position;
    let position = position.ok_or_else(|| Failure::invalid("position", "must be set"))?;
    match position.position {
        Some(Position::After(after)) => Ok(GroupPosition::After(id(after))),
        Some(Position::End(true)) => Ok(GroupPosition::End),
        Some(Position::End(false)) => Err(must_be_true("position.end")),
        None => Err(unset("position.position")),
    }
}

/// Where a Read starts, as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFrom {
    After(EntryId),
    New,
    Last,
}

pub(super) fn read_positions(streams: &[pb::ReadPosition]) -> Result<Vec<(StreamName, ReadFrom)>> {
    use pb::read_position::Position;
    check_streams(streams.len(), READ_STREAMS_MAX)?;
    let position = |(i, asked): (usize, &pb::ReadPosition)| {
        let from = match asked.position {
            Some(Position::After(after)) => ReadFrom::After(id(after)),
            Some(Position::NewEntries(true)) => ReadFrom::New,
            Some(Position::NewEntries(false)) => return Err(must_be_true(format!("streams[{i}].new_entries"))),
            Some(Position::LastEntry(true)) => ReadFrom::Last,
            Some(Position::LastEntry(false)) => return Err(must_be_true(format!("streams[{i}].last_entry"))),
            None => return Err(unset(format!("streams[{i}].position"))),
        };
        Ok((stream_in(&format!("streams[{i}].stream"), &asked.stream)?, from))
    };
    streams.iter().enumerate().map(position).collect()
}

pub(super) fn group_reads(streams: &[pb::GroupReadPosition]) -> Result<Vec<GroupRead>> {
    use pb::group_read_position::Position;
    check_streams(streams.len(), GROUP_READ_STREAMS_MAX)?;
    let read = |(i, asked): (usize, &pb::GroupReadPosition)| {
        let from = match asked.position {
            Some(Position::NewEntries(true)) => GroupReadFrom::New,
            Some(Position::NewEntries(false)) => return Err(must_be_true(format!("streams[{i}].new_entries"))),
            Some(Position::PendingAfter(after)) => GroupReadFrom::PendingAfter(id(after)),
            None => return Err(unset(format!("streams[{i}].position"))),
        };
        Ok(GroupRead { stream: stream_in(&format!("streams[{i}].stream"), &asked.stream)?, from })
    };
    streams.iter().enumerate().map(read).collect()
}

pub(super) fn delivery_time(time: Option<pb::claim_request::DeliveryTime>) -> DeliveryTime {
    match time {
        None => DeliveryTime::Now,
        Some(pb::claim_request::DeliveryTime::IdleMs(ms)) => DeliveryTime::IdleMs(ms),
        Some(pb::claim_request::DeliveryTime::UnixMs(ms)) => DeliveryTime::UnixMs(ms),
    }
}

/// The token of a page is the last name of the page before. Empty: from the start.
pub(super) fn page_token(token: &str, prefix: &str) -> Result<Option<StreamName>> {
    if token.is_empty() {
        return Ok(None);
    }
    match StreamName::new(token) {
        Ok(name) if token.starts_with(prefix) => Ok(Some(name)),
        _ => Err(Failure::invalid("page_token", "not from a previous answer to this call")),
    }
}

fn check_streams(len: usize, max: usize) -> Result<()> {
    if len == 0 {
        return Err(Failure::invalid("streams", "at least one stream is needed"));
    }
    if max < len {
        return Err(Failure::too_large("streams", max as u64, "streams"));
    }
    Ok(())
}

fn unset(field: impl Into<String>) -> Failure {
    Failure::invalid(field, "one of its choices must be set")
}

fn must_be_true(field: impl Into<String>) -> Failure {
    Failure::invalid(field, "must be true where it is set")
}

fn unknown_value(field: impl Into<String>) -> Failure {
    Failure::invalid(field, "not a value that this server knows")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use millstream_proto::v1::ErrorReason::{InvalidArgument, LimitExceeded};

    type Case = (&'static str, Option<Failure>, Option<(pb::ErrorReason, &'static str)>);

    fn failed<T>(result: Result<T>) -> Option<Failure> {
        result.err()
    }

    fn field(name: usize, value: usize) -> pb::Field {
        pb::Field { name: vec![b'n'; name].into(), value: vec![b'v'; value].into() }
    }

    fn bound(bound: pb::id_bound::Bound) -> Option<pb::IdBound> {
        Some(pb::IdBound { bound: Some(bound) })
    }

    const ZERO: pb::EntryId = pb::EntryId { ms: 0, seq: 0 };
    const GREATEST: pb::EntryId = pb::EntryId { ms: u64::MAX, seq: u64::MAX };

    #[test]
    fn what_the_protocol_forbids_is_refused_by_the_path_of_the_field() {
        use pb::group_position::Position as Group;
        use pb::group_read_position::Position as GroupRead;
        use pb::id_bound::Bound;
        use pb::read_position::Position as Read;
        use pb::trim_policy::Threshold;

        let read = |position| vec![pb::ReadPosition { stream: "s".into(), position }];
        let group_read = |position| vec![pb::GroupReadPosition { stream: "s".into(), position }];
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let policy = |threshold, precision, limit| pb::TrimPolicy { threshold, precision, limit };
        let (exact, approximate) = (pb::TrimPrecision::Exact as i32, pb::TrimPrecision::Approximate as i32);
        let identity = |sequence| Some(pb::RequestIdentity { session_id: 1, sequence, completed_below: 0 });
        let options = |consistency| Some(pb::ReadOptions { consistency, min_applied_index: 0 });
        let long = "n".repeat(1025);

        let cases: Vec<Case> = vec![
            ("stream: empty", failed(stream("")), Some((InvalidArgument, "stream"))),
            ("stream: one byte", failed(stream("s")), None),
            ("stream: 1,024 bytes", failed(stream(&long[1..])), None),
            ("stream: 1,025 bytes", failed(stream(&long)), Some((LimitExceeded, "stream"))),
            ("group: empty", failed(group("")), None),
            ("group: 1,025 bytes", failed(group(&long)), Some((LimitExceeded, "group"))),
            ("consumer: empty", failed(consumer("")), None),
            ("consumer: 1,025 bytes", failed(consumer(&long)), Some((LimitExceeded, "consumer"))),
            ("fields: none", failed(fields(&[], 9)), Some((InvalidArgument, "fields"))),
            ("fields: an empty one", failed(fields(&[field(0, 0)], 0)), None),
            ("fields: as large as allowed", failed(fields(&[field(4, 5)], 9)), None),
            ("fields: one byte more", failed(fields(&[field(4, 3), field(2, 1)], 9)), Some((LimitExceeded, "fields"))),
            ("fields: 16,384", failed(fields(&vec![field(0, 0); 16_384], 9)), None),
            ("fields: 16,385", failed(fields(&vec![field(0, 0); 16_385], 9)), Some((LimitExceeded, "fields"))),
            ("fields: a name of 64 KiB", failed(fields(&[field(65_536, 0)], 1 << 20)), None),
            (
                "fields: a longer name",
                failed(fields(&[field(0, 0), field(65_537, 0)], 1 << 20)),
                Some((LimitExceeded, "fields[1].name")),
            ),
            ("id: unset", failed(new_id(Some(pb::NewEntryId { choice: None }))), Some((InvalidArgument, "id.choice"))),
            (
                "trim: unset",
                failed(trim_policy("trim", policy(None, 0, None))),
                Some((InvalidArgument, "trim.threshold")),
            ),
            (
                "trim: unknown precision",
                failed(trim_policy("trim", policy(Some(Threshold::MaxLength(1)), 9, None))),
                Some((InvalidArgument, "trim.precision")),
            ),
            (
                "trim: a limit with exact precision",
                failed(trim_policy("policy", policy(Some(Threshold::MaxLength(1)), exact, Some(0)))),
                Some((InvalidArgument, "policy.limit")),
            ),
            (
                "trim: a limit with unspecified precision",
                failed(trim_policy("policy", policy(Some(Threshold::MinId(ZERO)), 0, Some(0)))),
                Some((InvalidArgument, "policy.limit")),
            ),
            (
                "trim: a limit with approximate precision",
                failed(trim_policy("policy", policy(Some(Threshold::MinId(ZERO)), approximate, Some(0)))),
                None,
            ),
            ("ids: none", failed(ids(&[], 1)), Some((InvalidArgument, "ids"))),
            ("ids: none, where none is fine", failed(ids(&[], 0)), None),
            ("ids: 10,000", failed(ids(&vec![ZERO; 10_000], 1)), None),
            ("ids: 10,001", failed(ids(&vec![ZERO; 10_001], 0)), Some((LimitExceeded, "ids"))),
            ("count: 10,000", failed(count("count", 10_000, 1)), None),
            ("count: 10,001", failed(count("page_size", 10_001, 1)), Some((LimitExceeded, "page_size"))),
            (
                "start: unset",
                failed(range_start(Some(pb::IdBound { bound: None }))),
                Some((InvalidArgument, "start.bound")),
            ),
            ("end: unset", failed(range_end(Some(pb::IdBound { bound: None }))), Some((InvalidArgument, "end.bound"))),
            (
                "start: behind the greatest id",
                failed(range_start(bound(Bound::Exclusive(GREATEST)))),
                Some((InvalidArgument, "start.exclusive")),
            ),
            (
                "end: before the smallest id",
                failed(range_end(bound(Bound::Exclusive(ZERO)))),
                Some((InvalidArgument, "end.exclusive")),
            ),
            ("wait: an hour", failed(wait(seconds(3_600, 0))), None),
            ("wait: longer", failed(wait(seconds(3_600, 1))), Some((LimitExceeded, "wait"))),
            ("wait: negative", failed(wait(seconds(-1, 0))), Some((InvalidArgument, "wait"))),
            ("wait: negative nanos", failed(wait(seconds(0, -1))), Some((InvalidArgument, "wait"))),
            ("wait: the smallest number", failed(wait(seconds(i64::MIN, i32::MIN))), Some((InvalidArgument, "wait"))),
            ("wait: too many nanos", failed(wait(seconds(0, 1_000_000_000))), Some((InvalidArgument, "wait"))),
            ("wait: the greatest number", failed(wait(seconds(i64::MAX, 999_999_999))), Some((LimitExceeded, "wait"))),
            ("consistency: unknown", failed(freshness(options(9))), Some((InvalidArgument, "options.consistency"))),
            ("request: sequence 0", failed(request(identity(0))), Some((InvalidArgument, "request.sequence"))),
            ("request: sequence 1", failed(request(identity(1))), None),
            ("group position: absent", failed(group_position(None)), Some((InvalidArgument, "position"))),
            (
                "group position: unset",
                failed(group_position(Some(pb::GroupPosition { position: None }))),
                Some((InvalidArgument, "position.position")),
            ),
            (
                "group position: false",
                failed(group_position(Some(pb::GroupPosition { position: Some(Group::End(false)) }))),
                Some((InvalidArgument, "position.end")),
            ),
            ("read: no stream", failed(read_positions(&[])), Some((InvalidArgument, "streams"))),
            (
                "read: 1,025 streams",
                failed(read_positions(&vec![pb::ReadPosition::default(); 1_025])),
                Some((LimitExceeded, "streams")),
            ),
            ("read: unset", failed(read_positions(&read(None))), Some((InvalidArgument, "streams[0].position"))),
            (
                "read: false",
                failed(read_positions(&read(Some(Read::NewEntries(false))))),
                Some((InvalidArgument, "streams[0].new_entries")),
            ),
            (
                "read: false",
                failed(read_positions(&read(Some(Read::LastEntry(false))))),
                Some((InvalidArgument, "streams[0].last_entry")),
            ),
            (
                "read: the second has no name",
                failed(read_positions(&[
                    pb::ReadPosition { stream: "s".into(), position: Some(Read::After(ZERO)) },
                    pb::ReadPosition { stream: String::new(), position: Some(Read::After(ZERO)) },
                ])),
                Some((InvalidArgument, "streams[1].stream")),
            ),
            ("group read: no stream", failed(group_reads(&[])), Some((InvalidArgument, "streams"))),
            (
                "group read: 65 streams",
                failed(group_reads(&vec![pb::GroupReadPosition::default(); 65])),
                Some((LimitExceeded, "streams")),
            ),
            (
                "group read: unset",
                failed(group_reads(&group_read(None))),
                Some((InvalidArgument, "streams[0].position")),
            ),
            (
                "group read: false",
                failed(group_reads(&group_read(Some(GroupRead::NewEntries(false))))),
                Some((InvalidArgument, "streams[0].new_entries")),
            ),
            ("page token: empty", failed(page_token("", "or")), None),
            ("page token: another prefix", failed(page_token("mail", "or")), Some((InvalidArgument, "page_token"))),
            ("page token: too long", failed(page_token(&long, "n")), Some((InvalidArgument, "page_token"))),
        ];
        for (case, failure, expected) in cases {
            let expected = expected.map(|(reason, field)| (reason, Some(field)));
            assert_eq!(failure.as_ref().map(Failure::facts), expected, "{case}");
        }
    }

    #[test]
    fn absence_means_what_the_protocol_says() {
        let id = EntryId::new;
        assert_eq!(new_id(None).unwrap(), NewId::Auto);
        assert_eq!(count("count", 0, PAGE_DEFAULT).unwrap(), 1_000);
        assert_eq!((range_start(None).unwrap(), range_end(None).unwrap()), (EntryId::MIN, EntryId::MAX));
        assert_eq!(wait(None).unwrap(), Duration::ZERO);
        assert_eq!(freshness(None).unwrap(), Freshness::Linearizable);
        assert_eq!(request(None).unwrap(), None);
        assert_eq!(delivery_time(None), DeliveryTime::Now);
        assert_eq!(page_token("", "").unwrap(), None);

        let exclusive = |ms, seq| bound(pb::id_bound::Bound::Exclusive(pb::EntryId { ms, seq }));
        assert_eq!(range_start(exclusive(1, u64::MAX)).unwrap(), id(2, 0));
        assert_eq!(range_end(exclusive(2, 0)).unwrap(), id(1, u64::MAX));
    }

    #[test]
    fn fields_keep_order_duplicates_and_bytes() {
        let field = |name: &'static [u8], value: &'static [u8]| pb::Field { name: name.into(), value: value.into() };
        let packed = fields(&[field(b"a", b"1"), field(b"", b"\xff"), field(b"a", b"")], 100).unwrap();
        let pairs: Vec<_> = packed.iter().collect();
        assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"", b"\xff"), (b"a", b"")]);
    }
}
