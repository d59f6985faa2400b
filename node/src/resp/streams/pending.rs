//! XPENDING, XCLAIM, XAUTOCLAIM, XNACK.

use millstream_streams::limits::COUNT_MAX;
use millstream_streams::{
    AutoClaim, Claim, DeliveryTime, EntryId, GroupName, Nack, NackMode, PendingQuery, Query, StreamName,
};

use super::{Call, NoGroup, Tell, core};
use crate::resp::arguments::{Arguments, Complaint, Parsed, interval_end, interval_start, strict_id};
use crate::resp::reply::Reply;

/// Redis's default of XAUTOCLAIM.
const AUTO_CLAIM_COUNT: u32 = 100;

pub(super) fn xpending(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (name, group_name) = (arguments.next()?, arguments.next()?);
    if arguments.len() == 0 {
        let (stream, group) = named(name, group_name)?;
        return Ok(core(Query::PendingSummary { stream, group }, Tell::PendingSummary));
    }
    if arguments.len() < 3 || 6 < arguments.len() {
        return Err(Complaint::syntax());
    }
    let mut min_idle_ms = 0;
    if arguments.take_word("IDLE") {
        min_idle_ms = at_least_zero(arguments.integer()?);
        if arguments.len() < 3 {
            return Err(Complaint::syntax());
        }
    }
    let (start, end) = (arguments.next()?, arguments.next()?);
    let count = arguments.integer()?;
    let (start, end) = (interval_start(start)?, interval_end(end)?);
    let consumer = if 0 < arguments.len() { Some(arguments.consumer()?) } else { None };
    let (stream, group) = named(name, group_name)?;
    if count <= 0 {
        let absent = no_group(name, group_name);
        return Ok(Call::presence(stream, Some(group), absent, Reply::Array(Vec::new())));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(COUNT_MAX);
    let query = PendingQuery { stream, group, start, end, count, consumer, min_idle_ms };
    Ok(core(Query::Pending(query), Tell::PendingList))
}

pub(super) fn xclaim(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (name, group_name) = (arguments.next()?, arguments.next()?);
    let (stream, group) = named(name, group_name)?;
    // The group is looked up before all the rest.
    Ok(match claim(arguments, &stream, &group) {
        Ok(claim) => {
            let ids_only = claim.ids_only;
            core(claim, Tell::Claimed { ids_only })
        }
        Err(complaint) => unless_there(name, group_name, stream, group, complaint),
    })
}

fn claim(arguments: &mut Arguments<'_>, stream: &StreamName, group: &GroupName) -> Parsed<Claim> {
    let consumer = arguments.consumer()?;
    let min_idle = arguments.integer_or("Invalid min-idle-time argument for XCLAIM")?;
    let mut ids = Vec::new();
    // Up to the first word that is none.
    while let Some(id) = arguments.peek().and_then(|id| strict_id(id, 0).ok()) {
        ids.push(id);
        arguments.next()?;
    }
    let mut claim = Claim {
        stream: stream.clone(),
        group: group.clone(),
        consumer,
        min_idle_ms: at_least_zero(min_idle),
        ids,
        delivery_time: DeliveryTime::Now,
        delivery_count: None,
        force: false,
        ids_only: false,
        last_id: None,
    };
    while let Some(word) = arguments.peek() {
        if arguments.take_word("FORCE") {
            claim.force = true;
        } else if arguments.take_word("JUSTID") {
            claim.ids_only = true;
        } else if arguments.take_option("IDLE", 1) {
            let idle = arguments.integer_or("Invalid IDLE option argument for XCLAIM")?;
            claim.delivery_time = u64::try_from(idle).map_or(DeliveryTime::Now, DeliveryTime::IdleMs);
        } else if arguments.take_option("TIME", 1) {
            let time = arguments.integer_or("Invalid TIME option argument for XCLAIM")?;
            claim.delivery_time = u64::try_from(time).map_or(DeliveryTime::Now, DeliveryTime::UnixMs);
        } else if arguments.take_option("RETRYCOUNT", 1) {
            let count = arguments.integer_or("Invalid RETRYCOUNT option argument for XCLAIM")?;
            // A negative one is as good as none.
            claim.delivery_count = u64::try_from(count).ok();
        } else if arguments.take_option("LASTID", 1) {
            claim.last_id = Some(arguments.strict_id()?);
        } else {
            let word = String::from_utf8_lossy(word);
            return Err(Complaint::err(format!("Unrecognized XCLAIM option '{word}'")));
        }
    }
    Ok(claim)
}

pub(super) fn xautoclaim(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (name, group_name) = (arguments.next()?, arguments.next()?);
    let consumer = arguments.consumer()?;
    let min_idle = arguments.integer_or("Invalid min-idle-time argument for XAUTOCLAIM")?;
    let start = interval_start(arguments.next()?)?;
    let (mut count, mut ids_only) = (AUTO_CLAIM_COUNT, false);
    while 0 < arguments.len() {
        if arguments.take_option("COUNT", 1) {
            const POSITIVE: &str = "COUNT must be > 0";
            let wanted = arguments.integer_or(POSITIVE)?;
            if !(1..=i64::MAX / 16).contains(&wanted) {
                return Err(Complaint::err(POSITIVE));
            }
            count = u32::try_from(wanted).unwrap_or(u32::MAX).min(COUNT_MAX);
        } else if arguments.take_word("JUSTID") {
            ids_only = true;
        } else {
            return Err(Complaint::syntax());
        }
    }
    let (stream, group) = named(name, group_name)?;
    let min_idle_ms = at_least_zero(min_idle);
    let command = AutoClaim { stream, group, consumer, min_idle_ms, start, count, ids_only };
    Ok(core(command, Tell::AutoClaimed { ids_only }))
}

pub(super) fn xnack(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (name, group_name) = (arguments.next()?, arguments.next()?);
    let (stream, group) = named(name, group_name)?;
    Ok(match nack(arguments, &stream, &group) {
        Ok(nack) => core(nack, Tell::Number(NoGroup::Either)),
        Err(complaint) => unless_there(name, group_name, stream, group, complaint),
    })
}

fn nack(arguments: &mut Arguments<'_>, stream: &StreamName, group: &GroupName) -> Parsed<Nack> {
    let modes = [("SILENT", NackMode::Silent), ("FAIL", NackMode::Fail), ("FATAL", NackMode::Fatal)];
    let mode = modes.into_iter().find(|(word, _)| arguments.take_word(word)).map(|(_, mode)| mode);
    let mode = mode.ok_or_else(|| Complaint::err("mode must be SILENT, FAIL, or FATAL"))?;
    let (mut ids, mut delivery_count, mut force) = (None::<Vec<EntryId>>, None, false);
    while let Some(word) = arguments.peek() {
        if ids.is_none() && arguments.take_option("IDS", 1) {
            const POSITIVE: &str = "numids must be a positive integer";
            let count = arguments.integer_or(POSITIVE)?;
            let count = usize::try_from(count).ok().filter(|count| 0 < *count);
            let count = count.ok_or_else(|| Complaint::err(POSITIVE))?;
            let given = arguments.rest().get(..count);
            let given = given.ok_or_else(|| Complaint::err("number of IDs doesn't match numids"))?;
            ids = Some(given.iter().map(|id| strict_id(id, 0)).collect::<Parsed<_>>()?);
            for _ in given {
                arguments.next()?;
            }
        } else if arguments.take_option("RETRYCOUNT", 1) {
            const LEAST: &str = "Invalid RETRYCOUNT value, must be >= 0";
            let count = arguments.integer_or(LEAST)?;
            delivery_count = Some(u64::try_from(count).map_err(|_| Complaint::err(LEAST))?);
        } else if arguments.take_word("FORCE") {
            force = true;
        } else {
            let word = String::from_utf8_lossy(word);
            return Err(Complaint::err(format!("Unrecognized XNACK option '{word}'")));
        }
    }
    let ids = ids.ok_or_else(|| Complaint::err("syntax error, expected IDS keyword"))?;
    Ok(Nack { stream: stream.clone(), group: group.clone(), ids, mode, delivery_count, force })
}

fn named(stream: &[u8], group: &[u8]) -> Parsed<(StreamName, GroupName)> {
    Ok((crate::resp::arguments::stream(stream)?, crate::resp::arguments::group(group)?))
}

/// No such stream, or no such group in it.
fn no_group(stream: &[u8], group: &[u8]) -> Reply {
    let (stream, group) = (String::from_utf8_lossy(stream), String::from_utf8_lossy(group));
    Reply::Error(format!("NOGROUP No such key '{stream}' or consumer group '{group}'"))
}

fn unless_there(name: &[u8], group_name: &[u8], stream: StreamName, group: GroupName, complaint: Complaint) -> Call {
    let absent = no_group(name, group_name);
    Call::presence(stream, Some(group), absent, Reply::Error(complaint.0))
}

/// Times below 0 are taken for 0.
fn at_least_zero(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
