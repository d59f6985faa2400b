//! Read: entries after given ids, waiting for the first if asked to (XREAD).
//!
//! Served by the node that gets the call. `$` is made concrete behind the read barrier, once; `+` stays what it is until
//! there is something to read, as in Redis.

use std::future::Future;

use millstream_proto::v1 as pb;
use millstream_streams::{EntryId, ReadFrom, ReadQuery, ReadStreams, State, StreamRead};
use tokio::time::Instant;

use super::convert::{self, Result};
use super::{Api, EntryBounds, reply};
use crate::replica::Unavailable;

/// `$` made concrete; `+` stays.
fn freeze(state: &State, StreamRead { stream, from }: StreamRead) -> StreamRead {
    let from = match from {
        ReadFrom::New => ReadFrom::After(state.last_id(&stream)),
        from => from,
    };
    StreamRead { stream, from }
}

pub(super) async fn read(api: &Api, request: pb::ReadRequest) -> Result<pb::ReadResponse> {
    let arrived = Instant::now();
    let wait = convert::wait(request.wait)?;
    let freshness = convert::freshness(request.options)?;
    let ReadStreams { streams, count, total_max, bytes_max } = convert::read(request)?;
    let total_max = if total_max == 0 { usize::MAX } else { total_max as usize };
    let bytes_max = convert::max_bytes(bytes_max, api.limits.response_bytes_max);
    let bounds = EntryBounds::new(bytes_max as usize, total_max);
    api.barrier(freshness).await?;

    let positions: Vec<StreamRead> =
        api.replica.with_state(|state| streams.into_iter().map(|read| freeze(state, read)).collect());
    // Registered before the first look, so that no entry slips in between.
    let reader = match wait.is_zero() {
        true => None,
        false => Some(api.replica.watch().reader(positions.iter().map(|position| &position.stream))?),
    };
    let deadline = arrived + wait;
    loop {
        let no_longer_ready = no_longer_ready(api);
        let found = look(api, &positions, count, bounds)?;
        let is_empty = found.iter().all(|stream| stream.entries.is_empty());
        let Some(reader) = reader.as_ref().filter(|_| is_empty) else {
            return Ok(pb::ReadResponse { header: api.header(), streams: found });
        };
        tokio::select! {
            // The deadline first: wakes that bring nothing must not put it off.
            biased;
            () = tokio::time::sleep_until(deadline) => {
                return Ok(pb::ReadResponse { header: api.header(), streams: found });
            }
            () = reader.changed() => {}
            unavailable = no_longer_ready => return Err(unavailable.into()),
        }
    }
}

fn look(api: &Api, positions: &[StreamRead], count: u32, bounds: EntryBounds) -> Result<Vec<pb::StreamEntries>> {
    let (afters, pages) = api.entries(bounds, |state| {
        let afters: Vec<EntryId> = positions.iter().map(|read| state.read_after(&read.stream, read.from)).collect();
        let plan = |(position, after): (&StreamRead, &EntryId)| {
            state.read(&ReadQuery { stream: position.stream.clone(), after: *after, count })
        };
        let plans = positions.iter().zip(&afters).map(plan).collect();
        Ok((afters, plans))
    })?;
    let found = positions.iter().zip(afters).zip(pages).map(|((position, after), page)| pb::StreamEntries {
        stream: position.stream.to_string(),
        entries: reply::entries(&page.entries),
        next_after: Some(reply::id(page.entries.last().map_or(after, |last| last.id))),
        more: page.more,
    });
    Ok(found.collect())
}

/// Resolves when the node begins to stop.
fn no_longer_ready(api: &Api) -> impl Future<Output = Unavailable> + Send + use<> {
    let replica = api.replica.clone();
    // Taken before the look at readiness, so that the change cannot come in between unseen.
    let mut changed = Box::pin(replica.leadership_changed());
    async move {
        while replica.is_ready() {
            changed.await;
            changed = Box::pin(replica.leadership_changed());
        }
        Unavailable::NotReady
    }
}
