//! Runs the stories in `tests/scripts`. Record them anew with `UPDATE_GOLDENFILES=1`, and review what changed.
//!
//! The one who acts is the prefix: `alice: read billing orders=new` reads as the consumer alice. A second replica
//! applies the same log but restarts before each command; after each command both must agree in every row.
#![allow(clippy::disallowed_methods, reason = "a test may look for its own files")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{ArgumentConsumer, Context};
use millstream_streams::*;
use support::Store;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn scripts() {
    let mut paths: Vec<_> = std::fs::read_dir("tests/scripts")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::default(), &path).unwrap();
    }
}

#[derive(Default)]
struct Runner {
    state: State,
    store: Store,
    /// The replica that restarts before each command, and its store.
    shadow: State,
    shadow_store: Store,
    index: u64,
    at_ms: u64,
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let who = context.prefix.as_deref().unwrap_or("");
        let flag = |name: &str| context.tags.contains(name);
        let request = args.take_key("request").map(parse_request).transpose()?;
        let output = match parse_command(&command.name, &mut args, who, &flag)? {
            Some(parsed) => self.propose(request, parsed)?,
            None => self.look(&command.name, &mut args, &flag)?,
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Runner {
    fn propose(&mut self, request: Option<RequestId>, command: Command) -> Result<String> {
        self.index += 1;
        let proposal = Proposal { at_ms: self.at_ms, request, command };
        let bytes = proposal.encode();
        assert_eq!(Proposal::decode(&bytes)?, proposal);
        let applied = self.state.apply(self.index, &bytes, &self.store, true)?;

        self.shadow_store.checkpoint(&mut self.shadow);
        self.shadow = self.shadow_store.restore();
        let shadowed = self.shadow.apply(self.index, &bytes, &self.shadow_store, true)?;
        assert_eq!((&applied.outcome, &applied.entries), (&shadowed.outcome, &shadowed.entries));
        assert_eq!(self.state.digest(), self.shadow.digest());
        assert_eq!(self.state.all_rows(&self.store)?, self.shadow.all_rows(&self.shadow_store)?);

        let mut output = String::new();
        let repeated = if applied.repeated { " (repeated)" } else { "" };
        match &applied.outcome {
            Ok(reply) => writeln!(output, "{}{repeated}", show_reply(reply))?,
            Err(refusal) => writeln!(output, "refused: {refusal}{repeated}")?,
        }
        let ids = match &applied.outcome {
            Ok(Reply::Delivered(delivered)) => delivered.streams.concat(),
            Ok(Reply::Claimed(claimed)) => claimed.ids.clone(),
            Ok(Reply::AutoClaimed(claimed)) => claimed.ids.clone(),
            _ => Vec::new(),
        };
        for (id, entry) in ids.iter().zip(&applied.entries) {
            match entry {
                Some(entry) => writeln!(output, "  {}", show_entry(entry))?,
                None => writeln!(output, "  {id} is deleted")?,
            }
        }
        Ok(output)
    }

    fn look(&mut self, name: &str, args: &mut ArgumentConsumer<'_>, flag: &dyn Fn(&str) -> bool) -> Result<String> {
        let mut out = String::new();
        let state = &self.state;
        let now_ms = self.at_ms;
        match name {
            "at" => self.at_ms = pos(args, "milliseconds")?.parse()?,
            "append_many" => {
                let (stream, count): (_, u64) = (StreamName::new(pos(args, "stream")?)?, pos(args, "count")?.parse()?);
                for n in 1..=count {
                    let fields = Fields::from_pairs([("n", n.to_string())])?;
                    let stream = stream.clone();
                    self.propose(
                        None,
                        Append { stream, id: NewId::Auto, fields, no_create: false, trim: None }.into(),
                    )?;
                }
                writeln!(out, "appended {count}, last id {}", self.state.last_id(&stream))?;
            }
            "restart" => {
                let (written, deleted) = self.store.checkpoint(&mut self.state);
                self.state = self.store.restore();
                writeln!(out, "restarted: {written} rows written, {deleted} deleted")?;
            }
            "checkpoint" => {
                let (written, deleted) = self.store.checkpoint(&mut self.state);
                writeln!(out, "checkpoint: {written} rows written, {deleted} deleted")?;
            }
            "rows" => {
                for (key, value) in state.all_rows(&self.store)? {
                    writeln!(out, "{key:?}: {} bytes", value.len())?;
                }
            }
            "range" => {
                let stream = StreamName::new(pos(args, "stream")?)?;
                let start = args.next_pos().map_or(Ok(EntryId::MIN), str::parse)?;
                let end = args.next_pos().map_or(Ok(EntryId::MAX), |end| EntryId::parse_with_seq(end, u64::MAX))?;
                let count = key(args, "count")?.unwrap_or(1000);
                let bytes_max = key(args, "bytes_max")?.unwrap_or(usize::MAX);
                let plan = state.range(&RangeQuery { stream, start, end, reverse: flag("reverse"), count });
                show_page(&mut out, plan.run(&self.store, bytes_max)?)?;
            }
            "read_after" => {
                let (stream, after) = (StreamName::new(pos(args, "stream")?)?, pos(args, "id")?.parse()?);
                let count = key(args, "count")?.unwrap_or(1000);
                show_page(&mut out, state.read(&ReadQuery { stream, after, count }).run(&self.store, usize::MAX)?)?;
            }
            "info" => match state.stream_info(&StreamName::new(pos(args, "stream")?)?) {
                Err(refusal) => writeln!(out, "refused: {refusal}")?,
                Ok(StreamInfo { length, last_id, max_deleted_id, entries_added, groups, first, last }) => {
                    writeln!(
                        out,
                        "length {length}, added {entries_added}, last id {last_id}, max deleted {max_deleted_id}"
                    )?;
                    writeln!(out, "first {}, last {}, {groups} groups", show_option(first), show_option(last))?;
                }
            },
            "streams" => {
                let after = args.take_key("after").map(StreamName::new).transpose()?;
                let count = key(args, "count")?.unwrap_or(1000);
                for summary in state.list_streams(args.next_pos().unwrap_or(""), after.as_ref(), count) {
                    let StreamSummary { stream, length, last_id, groups } = summary;
                    writeln!(out, "{stream}: {length} entries, last id {last_id}, {groups} groups")?;
                }
            }
            "groups" => match state.groups(&StreamName::new(pos(args, "stream")?)?) {
                Err(refusal) => writeln!(out, "refused: {refusal}")?,
                Ok(groups) => {
                    for GroupInfo { group, consumers, pending, last_delivered_id, entries_read, lag } in groups {
                        let (read, lag) = (show_option(entries_read), show_option(lag));
                        writeln!(
                            out,
                            "{group}: at {last_delivered_id}, read {read}, lag {lag}, {consumers} consumers, {pending} pending"
                        )?;
                    }
                }
            },
            "consumers" => {
                let (stream, group) = (StreamName::new(pos(args, "stream")?)?, GroupName::new(pos(args, "group")?)?);
                match state.consumers(&stream, &group, now_ms) {
                    Err(refusal) => writeln!(out, "refused: {refusal}")?,
                    Ok(consumers) => {
                        for ConsumerInfo { consumer, pending, idle_ms, inactive_ms } in consumers {
                            let inactive = show_option(inactive_ms);
                            writeln!(out, "{consumer}: {pending} pending, idle {idle_ms}, inactive {inactive}")?;
                        }
                    }
                }
            }
            "pending" => {
                let (stream, group) = (StreamName::new(pos(args, "stream")?)?, GroupName::new(pos(args, "group")?)?);
                let query = PendingQuery {
                    stream: stream.clone(),
                    group: group.clone(),
                    start: args.next_pos().map_or(Ok(EntryId::MIN), str::parse)?,
                    end: args.next_pos().map_or(Ok(EntryId::MAX), |end| EntryId::parse_with_seq(end, u64::MAX))?,
                    count: key(args, "count")?.unwrap_or(1000),
                    consumer: args.take_key("consumer").map(ConsumerName::new).transpose()?,
                    min_idle_ms: key(args, "min_idle")?.unwrap_or(0),
                };
                match state.pending_summary(&stream, &group) {
                    Err(refusal) => writeln!(out, "refused: {refusal}")?,
                    Ok(PendingSummary { count, min_id, max_id, consumers }) => {
                        let counts: Vec<_> = consumers.iter().map(|(name, count)| format!("{name} {count}")).collect();
                        let range = format!("{} to {}", show_option(min_id), show_option(max_id));
                        writeln!(out, "{count} pending, {range}; {}", counts.join(", "))?;
                    }
                }
                for PendingEntry { id, consumer, idle_ms, delivery_count } in
                    state.pending_list(&query, now_ms).unwrap_or_default()
                {
                    writeln!(out, "  {id} {consumer}: idle {idle_ms}, delivered {delivery_count}")?;
                }
            }
            "cluster" => {
                writeln!(out, "cluster {}", show_option(state.cluster_id()))?;
                for NodeRecord { node_id, incarnation, peer_address, client_address } in state.nodes() {
                    writeln!(out, "  node {node_id} ({incarnation}): peers {peer_address}, clients {client_address}")?;
                }
            }
            "clock" => writeln!(out, "clock {}", state.clock_ms())?,
            _ => return Err(format!("no such command: {name}").into()),
        }
        Ok(out)
    }
}

fn parse_command(
    name: &str,
    args: &mut ArgumentConsumer<'_>,
    who: &str,
    flag: &dyn Fn(&str) -> bool,
) -> Result<Option<Command>> {
    let consumer = ConsumerName::new(who)?;
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
            let trim = parse_policy(args, "_", flag)?;
            let mut pairs = Vec::new();
            while let Some(pair) = args.next_key() {
                pairs.push(pair);
            }
            if pairs.is_empty() {
                pairs.push(("n", "1"));
            }
            Append { stream, id, fields: Fields::from_pairs(pairs)?, no_create: flag("no_create"), trim }.into()
        }
        "delete" => DeleteEntries { stream: StreamName::new(pos(args, "stream")?)?, ids: ids(args)? }.into(),
        "trim" => Trim {
            stream: StreamName::new(pos(args, "stream")?)?,
            policy: parse_policy(args, "", flag)?.ok_or("no threshold")?,
        }
        .into(),
        "delete_stream" => DeleteStream { stream: StreamName::new(pos(args, "stream")?)? }.into(),
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
        "read" => {
            let group = GroupName::new(pos(args, "group")?)?;
            let count = key(args, "_count")?.unwrap_or(0);
            let bytes_max = key(args, "_bytes_max")?.unwrap_or(0);
            let mut streams = Vec::new();
            while let Some((stream, from)) = args.next_key() {
                let from = match from {
                    "new" => GroupReadFrom::New,
                    id => GroupReadFrom::PendingAfter(id.parse()?),
                };
                streams.push(GroupRead { stream: StreamName::new(stream)?, from });
            }
            ReadGroup { group, consumer, streams, count, no_ack: flag("no_ack"), bytes_max }.into()
        }
        "create_group" | "set_position" | "delete_group" | "create_consumer" | "delete_consumer" | "ack" | "claim"
        | "auto_claim" => {
            let (stream, group) = (StreamName::new(pos(args, "stream")?)?, GroupName::new(pos(args, "group")?)?);
            match name {
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
            }
        }
        _ => return Ok(None),
    }))
}

fn parse_policy(
    args: &mut ArgumentConsumer<'_>,
    prefix: &str,
    flag: &dyn Fn(&str) -> bool,
) -> Result<Option<TrimPolicy>> {
    let max_length = key(args, &format!("{prefix}maxlen"))?.map(TrimThreshold::MaxLength);
    let min_id = key(args, &format!("{prefix}minid"))?.map(TrimThreshold::MinId);
    let limit = key(args, &format!("{prefix}limit"))?;
    Ok(max_length.or(min_id).map(|threshold| TrimPolicy { threshold, approximate: flag("approximate"), limit }))
}

/// `session/sequence` or `session/sequence/completed_below`.
fn parse_request(text: &str) -> Result<RequestId> {
    let numbers = text.split('/').map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
    match numbers[..] {
        [session, sequence] => Ok(RequestId { session, sequence, completed_below: 0 }),
        [session, sequence, completed_below] => Ok(RequestId { session, sequence, completed_below }),
        _ => Err("a request is session/sequence or session/sequence/completed_below".into()),
    }
}

fn pos<'a>(args: &mut ArgumentConsumer<'a>, what: &str) -> Result<&'a str> {
    args.next_pos().ok_or_else(|| format!("{what} not given").into())
}

fn key<T: std::str::FromStr<Err: Error + 'static>>(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<Option<T>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
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

fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Appended(Appended { id, trimmed: 0 }) => format!("appended {id}"),
        Reply::Appended(Appended { id, trimmed }) => format!("appended {id}, trimmed {trimmed}"),
        Reply::EntriesDeleted(EntriesDeleted { deleted }) => format!("deleted {deleted}"),
        Reply::Trimmed(Trimmed { trimmed }) => format!("trimmed {trimmed}"),
        Reply::StreamDeleted(StreamDeleted { existed }) => format!("stream existed: {existed}"),
        Reply::GroupCreated(GroupCreated {}) => "group created".to_owned(),
        Reply::GroupPositionSet(GroupPositionSet {}) => "group moved".to_owned(),
        Reply::GroupDeleted(GroupDeleted { existed }) => format!("group existed: {existed}"),
        Reply::ConsumerCreated(ConsumerCreated { created }) => format!("consumer created: {created}"),
        Reply::ConsumerDeleted(ConsumerDeleted { pending }) => format!("consumer deleted, {pending} pending lost"),
        Reply::Delivered(Delivered { streams }) => {
            let streams: Vec<_> = streams.iter().map(|ids| show_ids(ids)).collect();
            format!("delivered {}", streams.join(" and "))
        }
        Reply::Acked(Acked { acknowledged }) => format!("acknowledged {acknowledged}"),
        Reply::Claimed(Claimed { ids }) => format!("claimed {}", show_ids(ids)),
        Reply::AutoClaimed(AutoClaimed { cursor, ids, deleted }) => {
            format!("claimed {}, deleted {}, cursor {cursor}", show_ids(ids), show_ids(deleted))
        }
        Reply::SessionOpened(SessionOpened { session }) => format!("session {session}"),
        Reply::SessionClosed(SessionClosed { existed }) => format!("session existed: {existed}"),
        Reply::ClusterCreated(ClusterCreated { cluster_id }) => format!("cluster {cluster_id}"),
        Reply::NodeRegistered(NodeRegistered {}) => "node registered".to_owned(),
    }
}

fn show_ids(ids: &[EntryId]) -> String {
    let ids: Vec<_> = ids.iter().map(EntryId::to_string).collect();
    format!("[{}]", ids.join(" "))
}

fn show_entry(Entry { id, fields }: &Entry) -> String {
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect();
    format!("{id} {}", pairs.join(" "))
}

fn show_page(out: &mut String, EntryPage { entries, more }: EntryPage) -> Result<()> {
    for entry in &entries {
        writeln!(out, "{}", show_entry(entry))?;
    }
    if entries.is_empty() {
        writeln!(out, "nothing")?;
    }
    if more {
        writeln!(out, "and more")?;
    }
    Ok(())
}

fn show_option<T: ToString>(value: Option<T>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}
