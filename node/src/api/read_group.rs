//! ReadGroup: new entries for a consumer, waiting for the first if asked to, or its pending ones again (XREADGROUP).
//!
//! A delivery is a command in the log; a poll that finds nothing is not. So the leader looks at its state first and
//! proposes only what will have an effect: entries to deliver, pending ones to repeat, a consumer to create, or the
//! repeat of a request that is on record. Otherwise the call waits in the queue of its group, and looks again when it is
//! woken. The look may be out of date either way: a stale "there is something" costs a log entry with an empty delivery,
//! and a stale "there is nothing" is ruled out by one read barrier before it is believed.
//!
//! A client that goes away while its delivery is under way leaves the entries pending, as in Redis.

use millstream_proto::v1 as pb;
use millstream_streams::{
    Command, Entry, EntryId, GroupRead, GroupReadFrom, ReadGroup, Refusal, Reply, RequestId, State,
};
use tokio::time::Instant;

use super::convert::{self, Result};
use super::errors::Failure;
use super::{Api, Done, reply};
use crate::replica::{Freshness, Leadership, Unavailable};
use crate::watch::GroupWaiter;

pub(super) async fn read_group(api: &Api, request: pb::ReadGroupRequest) -> Result<pb::ReadGroupResponse> {
    let deadline = Instant::now() + convert::wait(request.wait)?;
    let call = ReadGroup {
        group: convert::group(&request.group)?,
        consumer: convert::consumer(&request.consumer)?,
        streams: convert::group_reads(&request.streams)?,
        count: convert::count("count", request.count, convert::DELIVERY_DEFAULT)?,
        no_ack: request.no_ack,
        bytes_max: api.limits.response_bytes_max as u64,
    };
    let identity = convert::request(request.request)?;
    Command::from(call.clone()).check()?;
    require_leader(api)?;

    // History never waits, and neither does what stands beside it.
    let waits = Instant::now() < deadline && call.streams.iter().all(|read| read.from == GroupReadFrom::New);
    let mut waiter = match waits {
        true => {
            let streams = call.streams.iter().map(|read| &read.stream);
            Some(api.replica.watch().group_waiter(&call.group, streams)?)
        }
        false => None,
    };
    let mut is_fresh = false;
    loop {
        // Both before the look: what changes after it will wake.
        let leadership_changed = api.replica.leadership_changed();
        begin_look(&mut waiter, &call)?;

        let has_effect = api.replica.with_state(|state| has_effect(state, &call, identity.as_ref()));
        match has_effect {
            // This state may be behind what has been acknowledged, by this leader or the one before.
            Ok(false) | Err(_) if !is_fresh => {
                api.barrier(Freshness::Linearizable).await?;
                is_fresh = true;
                continue;
            }
            Err(refusal) => return Err(refusal.into()),
            Ok(false) => {}
            Ok(true) => {
                let done = api.propose(identity, call.clone().into()).await?;
                let answer = delivered(api, &call, done)?;
                if answer.receipt.is_some() || !waits {
                    end_look(&mut waiter);
                    return Ok(answer);
                }
                // Another consumer was faster, or only the consumer was created. Back to the same place.
                if Instant::now() < deadline {
                    continue;
                }
            }
        }

        end_look(&mut waiter);
        let Some(waiter) = &waiter else { return Ok(nothing(api, &call)) };
        tokio::select! {
            // The deadline first: wakes that bring nothing must not put it off.
            biased;
            () = tokio::time::sleep_until(deadline) => return Ok(nothing(api, &call)),
            () = waiter.woken() => {}
            () = leadership_changed => require_leader(api)?,
        }
    }
}

/// Whether a proposal would have an effect, by this state.
fn has_effect(state: &State, call: &ReadGroup, identity: Option<&RequestId>) -> std::result::Result<bool, Refusal> {
    // First: what it delivered then is the answer, also if the group is gone by now.
    if identity.is_some_and(|identity| state.request_recorded(identity)) {
        return Ok(true);
    }
    let mut has_effect = false;
    for GroupRead { stream, from } in &call.streams {
        has_effect |= state.group_has_new(stream, &call.group)?
            || *from != GroupReadFrom::New
            || !state.consumer_exists(stream, &call.group, &call.consumer)?;
    }
    Ok(has_effect)
}

fn begin_look(waiter: &mut Option<GroupWaiter>, call: &ReadGroup) -> Result<()> {
    match waiter.as_mut().and_then(GroupWaiter::begin_look) {
        None => Ok(()),
        Some(stream) => Err(Refusal::GroupNotFound { stream, group: call.group.clone() }.into()),
    }
}

fn end_look(waiter: &mut Option<GroupWaiter>) {
    if let Some(waiter) = waiter {
        waiter.end_look();
    }
}

/// Only the leader can deliver.
fn require_leader(api: &Api) -> Result<()> {
    if !api.replica.is_ready() {
        return Err(Unavailable::NotReady.into());
    }
    match api.replica.leadership() {
        Leadership::Leader { .. } => Ok(()),
        Leadership::Follower { leader } => Err(Unavailable::NotLeader(leader).into()),
        Leadership::NoLeader => Err(Unavailable::NoLeader.into()),
    }
}

fn nothing(api: &Api, call: &ReadGroup) -> pb::ReadGroupResponse {
    let empty = |read: &GroupRead| pb::StreamDelivery { stream: read.stream.to_string(), entries: Vec::new() };
    pb::ReadGroupResponse { header: api.header(), streams: call.streams.iter().map(empty).collect(), receipt: None }
}

/// The answer; without a receipt if nothing was delivered.
fn delivered(api: &Api, call: &ReadGroup, done: Done) -> Result<pb::ReadGroupResponse> {
    let Reply::Delivered(delivered) = &done.reply else { return Err(Failure::mismatched()) };
    let is_empty = delivered.is_empty();
    let mut payloads = done.entries.iter();
    let mut bytes_left = api.limits.response_bytes_max;
    let mut streams = Vec::with_capacity(call.streams.len());
    for (read, ids) in call.streams.iter().zip(&delivered.streams) {
        // The core bounds new entries by `bytes_max`. Pending ones it does not bound; those left out here are asked for
        // next, after the last one returned.
        let may_cut = read.from != GroupReadFrom::New;
        let mut is_cut = false;
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(payload) = payloads.next() else { return Err(Failure::mismatched()) };
            let bytes = payload.as_ref().map_or(0, |entry| entry.fields.packed_len());
            is_cut |= may_cut && bytes_left < bytes && !entries.is_empty();
            if !is_cut {
                bytes_left = bytes_left.saturating_sub(bytes);
                entries.push(delivered_entry(*id, payload.as_ref()));
            }
        }
        streams.push(pb::StreamDelivery { stream: read.stream.to_string(), entries });
    }
    let receipt = done.receipt.filter(|_| !is_empty);
    Ok(pb::ReadGroupResponse { header: api.header(), streams, receipt })
}

fn delivered_entry(id: EntryId, payload: Option<&Entry>) -> pb::DeliveredEntry {
    match payload {
        Some(entry) => pb::DeliveredEntry { entry: Some(reply::entry(entry)), deleted: false },
        None => pb::DeliveredEntry { entry: Some(reply::bare_entry(id)), deleted: true },
    }
}
