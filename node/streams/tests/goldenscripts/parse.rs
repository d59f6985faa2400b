//! From the words of a script to commands.

use std::error::Error;
use std::str::FromStr;

use goldenscript::ArgumentConsumer;
use millstream_streams::*;

use super::Result;

/// The command that a line means; `None` if it means none.
pub(crate) fn command(
    name: &str,
    args: &mut ArgumentConsumer<'_>,
    who: &str,
    flag: &dyn Fn(&str) -> bool,
) -> Result<Option<Command>> {
    let consumer = ConsumerName::new(who)?;
    let references = references(flag);
    Ok(Some(match name {
        "append" => {
            let stream = StreamName::new(pos(args, "stream")?)?;
            let id = match args.next_pos() {
                None => NewId::Auto,
                Some(id) => match id.strip_suffix("-@") {
                    Some(ms) => NewId::Ms(ms.parse()?),
                    None => NewId::Explicit(id.parse()?),
                },
            };
            let trim = policy(args, "_", flag)?;
            let idempotency = idempotency(args)?;
            let mut pairs = Vec::new();
            while let Some(pair) = args.next_key() {
                pairs.push(pair);
            }
            if pairs.is_empty() {
                pairs.push(("n", "1"));
            }
            let fields = Fields::from_pairs(pairs)?;
            Append { id, no_create: flag("no_create"), trim, idempotency, ..append(stream, fields) }.into()
        }
        "delete" => DeleteEntries { stream: stream(args)?, ids: ids(args)?, references }.into(),
        "trim" => Trim { stream: stream(args)?, policy: policy(args, "", flag)?.ok_or("no threshold")? }.into(),
        "delete_stream" => DeleteStream { stream: stream(args)? }.into(),
        "delete_all" => DeleteAll {}.into(),
        "set_last_id" => SetLastId {
            stream: stream(args)?,
            last_id: pos(args, "last id")?.parse()?,
            entries_added: key(args, "entries_added")?,
            max_deleted_id: key(args, "max_deleted")?,
        }
        .into(),
        "configure" => ConfigureStream {
            stream: stream(args)?,
            create_stream: flag("create_stream"),
            idempotency_duration_s: key(args, "duration")?,
            idempotency_keys_max: key(args, "keys_max")?,
            retention: retention(args, references)?.or(flag("no_retention").then(Retention::default)),
        }
        .into(),
        "record_key" => RecordIdempotency {
            stream: stream(args)?,
            producer: ProducerId::new(pos(args, "producer")?.to_owned())?,
            key: IdempotencyKey::new(pos(args, "key")?.to_owned())?,
            id: pos(args, "id")?.parse()?,
        }
        .into(),
        "enforce_retention" => {
            let names = std::iter::from_fn(|| args.next_pos()).map(StreamName::new);
            EnforceRetention { streams: names.collect::<std::result::Result<_, _>>()? }.into()
        }
        "open_session" => OpenSession {}.into(),
        "close_session" => CloseSession { session: pos(args, "session")?.parse()? }.into(),
        "create_cluster" => CreateCluster { cluster_id: pos(args, "cluster id")?.to_owned() }.into(),
        "register_node" => RegisterNode {
            node_id: pos(args, "node id")?.parse()?,
            incarnation: pos(args, "incarnation")?.parse()?,
            peer_address: pos(args, "peer address")?.to_owned(),
            client_address: pos(args, "client address")?.to_owned(),
        }
        .into(),
        "read" => read_group(consumer, args, flag)?.into(),
        "ask" => query(args, flag)?.into(),
        "create_group" | "set_position" | "delete_group" | "create_consumer" | "delete_consumer" | "ack"
        | "ack_and_delete" | "nack" | "claim" | "auto_claim" => {
            let (stream, group) = (stream(args)?, GroupName::new(pos(args, "group")?)?);
            of_group(name, stream, group, consumer, args, flag)?
        }
        _ => return Ok(None),
    }))
}

fn of_group(
    name: &str,
    stream: StreamName,
    group: GroupName,
    consumer: ConsumerName,
    args: &mut ArgumentConsumer<'_>,
    flag: &dyn Fn(&str) -> bool,
) -> Result<Command> {
    Ok(match name {
        "create_group" => CreateGroup {
            stream,
            group,
            position: position(args)?,
            create_stream: flag("create_stream"),
            entries_read: key(args, "entries_read")?,
        }
        .into(),
        "set_position" => {
            let (position, entries_read) = (position(args)?, key(args, "entries_read")?);
            SetGroupPosition { stream, group, position, entries_read }.into()
        }
        "delete_group" => DeleteGroup { stream, group }.into(),
        "create_consumer" => CreateConsumer { stream, group, consumer }.into(),
        "delete_consumer" => DeleteConsumer { stream, group, consumer }.into(),
        "ack" => Ack { stream, group, ids: ids(args)? }.into(),
        "ack_and_delete" => AckAndDelete { stream, group, ids: ids(args)?, references: references(flag) }.into(),
        "nack" => Nack {
            stream,
            group,
            mode: match (flag("silent"), flag("fatal")) {
                (true, _) => NackMode::Silent,
                (_, true) => NackMode::Fatal,
                _ => NackMode::Fail,
            },
            delivery_count: key(args, "retry_count")?,
            force: flag("force"),
            ids: ids(args)?,
        }
        .into(),
        "claim" => Claim {
            stream,
            group,
            consumer,
            min_idle_ms: key(args, "min_idle")?.unwrap_or(0),
            delivery_time: match (key(args, "idle")?, key(args, "time")?) {
                (Some(idle_ms), _) => DeliveryTime::IdleMs(idle_ms),
                (None, Some(unix_ms)) => DeliveryTime::UnixMs(unix_ms),
                (None, None) => DeliveryTime::Now,
            },
            delivery_count: key(args, "retry_count")?,
            force: flag("force"),
            ids_only: flag("ids_only"),
            last_id: key(args, "last_id")?,
            ids: ids(args)?,
        }
        .into(),
        _ => AutoClaim {
            stream,
            group,
            consumer,
            min_idle_ms: key(args, "min_idle")?.unwrap_or(0),
            start: key(args, "start")?.unwrap_or(EntryId::MIN),
            count: key(args, "count")?.unwrap_or(100),
            ids_only: flag("ids_only"),
        }
        .into(),
    })
}

fn read_group(
    consumer: ConsumerName,
    args: &mut ArgumentConsumer<'_>,
    flag: &dyn Fn(&str) -> bool,
) -> Result<ReadGroup> {
    let group = GroupName::new(pos(args, "group")?)?;
    let count = key(args, "_count")?.unwrap_or(0);
    let bytes_max = key(args, "_bytes_max")?.unwrap_or(0);
    let total_max = key(args, "_total")?.unwrap_or(0);
    let claim_min_idle_ms = key(args, "_claim")?;
    let mut streams = Vec::new();
    while let Some((stream, from)) = args.next_key() {
        let from = match from {
            "new" => GroupReadFrom::New,
            id => GroupReadFrom::PendingAfter(id.parse()?),
        };
        streams.push(GroupRead { stream: StreamName::new(stream)?, from });
    }
    Ok(ReadGroup { group, consumer, streams, count, no_ack: flag("no_ack"), bytes_max, total_max, claim_min_idle_ms })
}

/// A question within a batch.
fn query(args: &mut ArgumentConsumer<'_>, flag: &dyn Fn(&str) -> bool) -> Result<Query> {
    let what = pos(args, "question")?;
    if what == "read" {
        let (total_max, bytes_max) = (key(args, "_total")?.unwrap_or(0), key(args, "_bytes_max")?.unwrap_or(0));
        let count = key(args, "_count")?.unwrap_or(if total_max > 0 { total_max } else { 1000 });
        let mut streams = Vec::new();
        while let Some((stream, from)) = args.next_key() {
            let from = match from {
                "new" => ReadFrom::New,
                "last" => ReadFrom::Last,
                id => ReadFrom::After(id.parse()?),
            };
            streams.push(StreamRead { stream: StreamName::new(stream)?, from });
        }
        return Ok(Query::Read(ReadStreams { streams, count, total_max, bytes_max }));
    }
    let stream = stream(args)?;
    let count = key(args, "count")?.unwrap_or(1000);
    Ok(match what {
        "range" => Query::Range(range(stream, count, args, flag("reverse"))?),
        "info" => Query::Stream(stream),
        "details" => Query::Details { stream, count },
        "groups" => Query::Groups { stream, after: args.take_key("after").map(GroupName::new).transpose()?, count },
        "pending_summary" => Query::PendingSummary { stream, group: GroupName::new(pos(args, "group")?)? },
        "pending" => Query::Pending(pending(stream, count, args)?),
        "consumers" => Query::Consumers {
            stream,
            group: GroupName::new(pos(args, "group")?)?,
            after: args.take_key("after").map(ConsumerName::new).transpose()?,
            count,
        },
        _ => return Err(format!("no such question: {what}").into()),
    })
}

pub(crate) fn range(
    stream: StreamName,
    count: u32,
    args: &mut ArgumentConsumer<'_>,
    reverse: bool,
) -> Result<RangeQuery> {
    let start = args.next_pos().map_or(Ok(EntryId::MIN), str::parse)?;
    let end = args.next_pos().map_or(Ok(EntryId::MAX), |end| EntryId::parse_with_seq(end, u64::MAX))?;
    Ok(RangeQuery { stream, start, end, reverse, count })
}

pub(crate) fn pending(stream: StreamName, count: u32, args: &mut ArgumentConsumer<'_>) -> Result<PendingQuery> {
    Ok(PendingQuery {
        stream,
        group: GroupName::new(pos(args, "group")?)?,
        start: args.next_pos().map_or(Ok(EntryId::MIN), str::parse)?,
        end: args.next_pos().map_or(Ok(EntryId::MAX), |end| EntryId::parse_with_seq(end, u64::MAX))?,
        count,
        consumer: args.take_key("consumer").map(ConsumerName::new).transpose()?,
        min_idle_ms: key(args, "min_idle")?.unwrap_or(0),
    })
}

/// A plain append.
pub(crate) fn append(stream: StreamName, fields: Fields) -> Append {
    Append { stream, id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None }
}

fn idempotency(args: &mut ArgumentConsumer<'_>) -> Result<Option<Idempotency>> {
    let Some(producer) = args.take_key("_producer") else { return Ok(None) };
    let producer = ProducerId::new(producer.to_owned())?;
    let key = args.take_key("_key").map(|key| IdempotencyKey::new(key.to_owned())).transpose()?;
    Ok(Some(Idempotency { producer, key }))
}

fn references(flag: &dyn Fn(&str) -> bool) -> References {
    match (flag("delete_references"), flag("acked")) {
        (true, _) => References::Delete,
        (_, true) => References::Acked,
        _ => References::Keep,
    }
}

fn policy(args: &mut ArgumentConsumer<'_>, prefix: &str, flag: &dyn Fn(&str) -> bool) -> Result<Option<TrimPolicy>> {
    let max_length = key(args, &format!("{prefix}maxlen"))?.map(TrimThreshold::MaxLength);
    let min_id = key(args, &format!("{prefix}minid"))?.map(TrimThreshold::MinId);
    let limit = key(args, &format!("{prefix}limit"))?;
    let (approximate, references) = (flag("approximate"), references(flag));
    Ok(max_length.or(min_id).map(|threshold| TrimPolicy { threshold, approximate, limit, references }))
}

fn retention(args: &mut ArgumentConsumer<'_>, references: References) -> Result<Option<Retention>> {
    let retention = Retention {
        max_length: key(args, "max_length")?,
        min_id: key(args, "min_id")?,
        max_age_ms: key(args, "max_age")?,
        max_bytes: key(args, "max_bytes")?,
        references,
    };
    Ok((retention != Retention { references, ..Retention::default() }).then_some(retention))
}

/// `stream=index`: unchanged since then. `stream=absent`: not there.
pub(crate) fn guards(args: &mut ArgumentConsumer<'_>) -> Result<Vec<Guard>> {
    let mut guards = Vec::new();
    while let Some((stream, state)) = args.next_key() {
        let stream = StreamName::new(stream)?;
        guards.push(match state {
            "absent" => Guard::Absent { stream },
            index => Guard::Unchanged { stream, last_change_index: index.parse()? },
        });
    }
    Ok(guards)
}

/// `session/sequence` or `session/sequence/completed_below`.
pub(crate) fn request(text: &str) -> Result<RequestId> {
    let numbers = text.split('/').map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
    match numbers[..] {
        [session, sequence] => Ok(RequestId { session, sequence, completed_below: 0 }),
        [session, sequence, completed_below] => Ok(RequestId { session, sequence, completed_below }),
        _ => Err("a request is session/sequence or session/sequence/completed_below".into()),
    }
}

pub(crate) fn pos<'a>(args: &mut ArgumentConsumer<'a>, what: &str) -> Result<&'a str> {
    args.next_pos().ok_or_else(|| format!("{what} not given").into())
}

pub(crate) fn key<T: FromStr<Err: Error + 'static>>(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<Option<T>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

pub(crate) fn stream(args: &mut ArgumentConsumer<'_>) -> Result<StreamName> {
    Ok(StreamName::new(pos(args, "stream")?)?)
}

fn ids(args: &mut ArgumentConsumer<'_>) -> Result<Vec<EntryId>> {
    Ok(std::iter::from_fn(|| args.next_pos()).map(str::parse).collect::<std::result::Result<_, _>>()?)
}

fn position(args: &mut ArgumentConsumer<'_>) -> Result<GroupPosition> {
    Ok(match pos(args, "position")? {
        "end" => GroupPosition::End,
        id => GroupPosition::After(id.parse()?),
    })
}
