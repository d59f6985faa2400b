//! XDEL, XDELEX, XACK, XACKDEL: Redis looks at their ids only if there is what they name.

use millstream_streams::{Ack, AckAndDelete, DeleteEntries, EntryId, GroupName, References, StreamName};

use super::append::references;
use super::{Call, NoGroup, Tell, core};
use crate::resp::arguments::{Arguments, Complaint, Parsed, strict_id};
use crate::resp::reply::Reply;

pub(super) fn xdel(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let stream = arguments.stream()?;
    Ok(match arguments.strict_ids() {
        Ok(ids) => core(DeleteEntries { stream, ids, references: References::Keep }, Tell::Number(NoGroup::Zero)),
        Err(complaint) => unless_there(stream, None, Reply::Integer(0), complaint),
    })
}

pub(super) fn xack(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (stream, group) = (arguments.stream()?, arguments.group()?);
    Ok(match arguments.strict_ids() {
        Ok(ids) => core(Ack { stream, group, ids }, Tell::Number(NoGroup::Zero)),
        Err(complaint) => unless_there(stream, Some(group), Reply::Integer(0), complaint),
    })
}

pub(super) fn xdelex(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let stream = arguments.stream()?;
    let (references, ids) = block(arguments)?;
    Ok(match parse(ids) {
        Ok(ids) => core(DeleteEntries { stream, ids, references }, Tell::Removals),
        Err(complaint) => unless_there(stream, None, none_of(ids.len()), complaint),
    })
}

pub(super) fn xackdel(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (stream, group) = (arguments.stream()?, arguments.group()?);
    let (references, ids) = block(arguments)?;
    Ok(match parse(ids) {
        Ok(ids) => core(AckAndDelete { stream, group, ids, references }, Tell::Removals),
        Err(complaint) => unless_there(stream, Some(group), none_of(ids.len()), complaint),
    })
}

/// `[KEEPREF | DELREF | ACKED] IDS numids id ...`, in either order.
fn block<'r>(arguments: &mut Arguments<'r>) -> Parsed<(References, &'r [bytes::Bytes])> {
    let (mut kept, mut ids) = (None, None);
    while 0 < arguments.len() {
        if kept.is_none()
            && let Some(references) = references(arguments)
        {
            kept = Some(references);
        } else if ids.is_none() && arguments.take_option("IDS", 1) {
            ids = Some(counted_ids(arguments)?);
        } else {
            return Err(Complaint::syntax());
        }
    }
    let ids = ids.ok_or_else(|| Complaint::err("IDS option is required"))?;
    Ok((kept.unwrap_or_default(), ids))
}

fn counted_ids<'r>(arguments: &mut Arguments<'r>) -> Parsed<&'r [bytes::Bytes]> {
    const POSITIVE: &str = "Number of IDs must be a positive integer";
    let count = arguments.integer_or(POSITIVE)?;
    let count = usize::try_from(count).ok().filter(|count| 0 < *count).ok_or_else(|| Complaint::err(POSITIVE))?;
    let ids = arguments.rest().get(..count);
    let ids = ids.ok_or_else(|| Complaint::err("The `numids` parameter must match the number of arguments"))?;
    for _ in ids {
        arguments.next()?;
    }
    Ok(ids)
}

fn parse(ids: &[bytes::Bytes]) -> Parsed<Vec<EntryId>> {
    ids.iter().map(|id| strict_id(id, 0)).collect()
}

fn none_of(ids: usize) -> Reply {
    Reply::Array(vec![Reply::Integer(-1); ids])
}

fn unless_there(stream: StreamName, group: Option<GroupName>, absent: Reply, complaint: Complaint) -> Call {
    Call::presence(stream, group, absent, Reply::Error(complaint.0))
}
