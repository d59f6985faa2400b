//! XLEN, XRANGE, XREVRANGE, XREAD, XREADGROUP, XINFO.

use std::time::Duration;

use bytes::Bytes;
use millstream_streams::limits::COUNT_MAX;
use millstream_streams::{
    ConsumerName, EntryId, GroupName, GroupRead, GroupReadFrom, Query, RangeQuery, ReadFrom, ReadGroup, ReadStreams,
    StreamRead,
};

use super::{Call, Tell, Wait, Wanted, bad_tail, core, unknown_subcommand};
use crate::resp::arguments::{Arguments, Complaint, Parsed, interval_end, interval_start, is_word, strict_id};
use crate::resp::reply::Reply;

/// Redis's default of XINFO STREAM FULL.
const DETAILS_COUNT: u32 = 10;

pub(super) fn xlen(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    Ok(core(Query::Stream(arguments.stream()?), Tell::Length))
}

pub(super) fn xrange(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    range(arguments, false)
}

pub(super) fn xrevrange(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    range(arguments, true)
}

fn range(arguments: &mut Arguments<'_>, reverse: bool) -> Parsed<Call> {
    let name = arguments.next()?;
    let (first, second) = (arguments.next()?, arguments.next()?);
    let (start, end) = if reverse { (second, first) } else { (first, second) };
    let (start, end) = (interval_start(start)?, interval_end(end)?);
    let mut count = None;
    while 0 < arguments.len() {
        if !arguments.take_option("COUNT", 1) {
            return Err(Complaint::syntax());
        }
        count = Some(arguments.integer()?);
    }
    let stream = crate::resp::arguments::stream(name)?;
    if count.is_some_and(|count| count <= 0) {
        // An oddity of Redis: nothing is an empty array, and nothing of something is null.
        let (absent, present) = (Reply::Array(Vec::new()), Reply::NullArray);
        return Ok(Call::presence(stream, None, absent, present));
    }
    let count = count.and_then(|count| u64::try_from(count).ok());
    let at_once = count.and_then(|count| u32::try_from(count).ok()).map_or(COUNT_MAX, |count| count.min(COUNT_MAX));
    Ok(Call::Range { query: RangeQuery { stream, start, end, reverse, count: at_once }, count })
}

/// What XREAD and XREADGROUP have in common.
#[derive(Default)]
struct Options {
    group: Option<(GroupName, ConsumerName)>,
    /// 0 or less: no limit.
    count: i64,
    total_max: Option<i64>,
    bytes_max: Option<i64>,
    wait: Option<Wait>,
    claim_min_idle_ms: Option<u64>,
    no_ack: bool,
}

pub(super) fn xread(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (options, names, ids) = options(arguments, "xread")?;
    let mut streams = Vec::with_capacity(names.len());
    for (name, id) in names.iter().zip(ids) {
        let from = match &**id {
            b"$" => ReadFrom::New,
            b"+" => ReadFrom::Last,
            b">" => {
                let text = "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> \
                            option.";
                return Err(Complaint::err(text));
            }
            id => ReadFrom::After(strict_id(id, 0)?),
        };
        streams.push(StreamRead { stream: crate::resp::arguments::stream(name)?, from });
    }
    let (count, total_max, bytes_max) = options.bounds()?;
    Ok(Call::Read { read: ReadStreams { streams, count, total_max, bytes_max }, wait: options.wait })
}

pub(super) fn xreadgroup(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (options, names, ids) = options(arguments, "xreadgroup")?;
    let missing = || Complaint::err("Missing GROUP option for XREADGROUP");
    let (group, consumer) = options.group.clone().ok_or_else(missing)?;
    let mut streams = Vec::with_capacity(names.len());
    let mut wanted = Vec::new();
    for (name, id) in names.iter().zip(ids) {
        let stream = crate::resp::arguments::stream(name)?;
        // For each of them the group is looked up before the id is looked at.
        let absent =
            format!("NOGROUP No such key '{stream}' or consumer group '{group}' in XREADGROUP with GROUP option");
        wanted.push(Wanted { stream: stream.clone(), group: Some(group.clone()), absent: Reply::Error(absent) });
        match group_read_from(id) {
            Ok(from) => streams.push(GroupRead { stream, from }),
            Err(complaint) => return Ok(Call::Presence { wanted, present: Reply::Error(complaint.0) }),
        }
    }
    let (count, total_max, bytes_max) = options.bounds()?;
    let Options { no_ack, claim_min_idle_ms, wait, .. } = options;
    let read = ReadGroup { group, consumer, streams, count, no_ack, bytes_max, total_max, claim_min_idle_ms };
    Ok(Call::ReadGroup { read, wait })
}

fn group_read_from(id: &[u8]) -> Parsed<GroupReadFrom> {
    match id {
        b">" => Ok(GroupReadFrom::New),
        b"$" | b"+" => {
            let sign = String::from_utf8_lossy(id);
            Err(Complaint::err(format!(
                "The {sign} ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer \
                 by specifying a proper ID, or use the > ID to get new messages. The {sign} ID would just return an empty \
                 result set."
            )))
        }
        id => match strict_id(id, 0)? {
            // Redis's own sign for new entries.
            EntryId::MAX => Ok(GroupReadFrom::New),
            after => Ok(GroupReadFrom::PendingAfter(after)),
        },
    }
}

/// The options, the names behind STREAMS, and as many ids.
fn options<'r>(arguments: &mut Arguments<'r>, command: &str) -> Parsed<(Options, &'r [Bytes], &'r [Bytes])> {
    let is_group = command == "xreadgroup";
    let mut options = Options::default();
    loop {
        if arguments.take_option("STREAMS", 1) {
            break;
        }
        if arguments.take_option("COUNT", 1) {
            options.count = arguments.integer()?.max(0);
        } else if arguments.take_option("MAXCOUNT", 1) {
            options.total_max = Some(positive(arguments, "MAXCOUNT")?);
        } else if arguments.take_option("MAXSIZE", 1) {
            options.bytes_max = Some(positive(arguments, "MAXSIZE")?);
        } else if arguments.take_option("BLOCK", 1) {
            options.wait = Some(wait(arguments)?);
        } else if arguments.take_option("GROUP", 2) {
            only_for_groups(is_group, "GROUP")?;
            options.group = Some((arguments.group()?, arguments.consumer()?));
        } else if arguments.take_word("NOACK") {
            only_for_groups(is_group, "NOACK")?;
            options.no_ack = true;
        } else if arguments.take_option("CLAIM", 1) {
            only_for_groups(is_group, "CLAIM")?;
            let min_idle = arguments.integer_or("min-idle-time is not an integer or out of range")?;
            let text = "min-idle-time must be a positive integer";
            options.claim_min_idle_ms = Some(u64::try_from(min_idle).map_err(|_| Complaint::err(text))?);
        } else {
            return Err(Complaint::syntax());
        }
    }
    let rest = arguments.rest();
    if !rest.len().is_multiple_of(2) {
        let ids = if is_group { "an ID or '>'" } else { "an ID, '+', or '$'" };
        return Err(Complaint::err(format!(
            "Unbalanced '{command}' list of streams: for each stream key {ids} must be specified."
        )));
    }
    let (names, ids) = rest.split_at(rest.len() / 2);
    Ok((options, names, ids))
}

impl Options {
    /// Entries of each stream, entries of all, and bytes of all, at most.
    fn bounds(&self) -> Parsed<(u32, u32, u64)> {
        let count = match self.count {
            0 => COUNT_MAX,
            count => u32::try_from(count).unwrap_or(u32::MAX).min(COUNT_MAX),
        };
        let Some(total) = self.total_max else { return Ok((count, 0, self.bytes())) };
        if 0 < self.count && total < self.count {
            return Err(Complaint::err("MAXCOUNT must not be smaller than COUNT"));
        }
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Ok((count.min(total), total, self.bytes()))
    }

    fn bytes(&self) -> u64 {
        self.bytes_max.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
    }
}

fn positive(arguments: &mut Arguments<'_>, word: &str) -> Parsed<i64> {
    match arguments.integer()? {
        number if 0 < number => Ok(number),
        _ => Err(Complaint::err(format!("{word} must be a positive integer"))),
    }
}

fn only_for_groups(is_group: bool, word: &str) -> Parsed<()> {
    match is_group {
        true => Ok(()),
        false => {
            Err(Complaint::err(format!("The {word} option is only supported by XREADGROUP. You called XREAD instead.")))
        }
    }
}

fn wait(arguments: &mut Arguments<'_>) -> Parsed<Wait> {
    let ms = arguments.integer_or("timeout is not an integer or out of range")?;
    match u64::try_from(ms) {
        Err(_) => Err(Complaint::err("timeout is negative")),
        Ok(0) => Ok(Wait::Forever),
        // Redis adds the time of day.
        Ok(ms) if i64::MAX as u64 / 2 < ms => Err(Complaint::err("timeout is out of range")),
        Ok(ms) => Ok(Wait::For(Duration::from_millis(ms))),
    }
}

pub(super) fn xinfo(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let subcommand = arguments.next()?;
    let count = arguments.len();
    // With the name of the command and that of the subcommand, as Redis counts.
    let arity = |least: usize, most: usize, name: &str| match (least..=most).contains(&(count + 2)) {
        true => Ok(()),
        false => Err(Complaint::arity(&format!("xinfo|{name}"))),
    };
    if is_word(subcommand, "STREAM") {
        arity(3, usize::MAX, "stream")?;
        let stream = arguments.stream()?;
        return Ok(match details(arguments, subcommand) {
            Ok(None) => core(Query::Stream(stream), Tell::StreamInfo),
            Ok(Some(count)) => core(Query::Details { stream, count }, Tell::StreamDetails),
            // The key is looked up before the rest.
            Err(complaint) => {
                Call::presence(stream, None, Reply::Error("ERR no such key".into()), Reply::Error(complaint.0))
            }
        });
    }
    if is_word(subcommand, "GROUPS") {
        arity(3, 3, "groups")?;
        let stream = arguments.stream()?;
        return Ok(core(Query::Groups { stream, after: None, count: COUNT_MAX }, Tell::Groups));
    }
    if is_word(subcommand, "CONSUMERS") {
        arity(4, 4, "consumers")?;
        let (stream, group) = (arguments.stream()?, arguments.group()?);
        return Ok(core(Query::Consumers { stream, group, after: None, count: COUNT_MAX }, Tell::Consumers));
    }
    Err(unknown_subcommand("XINFO", subcommand))
}

/// `FULL [COUNT n]`: how many of each; `None` without FULL.
fn details(arguments: &mut Arguments<'_>, subcommand: &[u8]) -> Parsed<Option<u32>> {
    if arguments.len() == 0 {
        return Ok(None);
    }
    if !arguments.take_word("FULL") || !matches!(arguments.len(), 0 | 2) {
        return Err(bad_tail("XINFO", subcommand));
    }
    if arguments.len() == 0 {
        return Ok(Some(DETAILS_COUNT));
    }
    if !arguments.take_option("COUNT", 1) {
        return Err(bad_tail("XINFO", subcommand));
    }
    Ok(Some(match arguments.integer()? {
        0 => COUNT_MAX,
        // As in Redis.
        count if count < 0 => DETAILS_COUNT,
        count => u32::try_from(count).unwrap_or(u32::MAX).min(COUNT_MAX),
    }))
}
