//! Read: entries after given ids, waiting for the first if asked to (XREAD).

use millstream_proto::v1 as pb;
use millstream_streams::ReadStreams;
use tokio::time::Instant;

use super::convert::{self, Result};
use super::{Api, EntryBounds, reply};
use crate::front::StreamPage;

pub(super) async fn read(api: &Api, request: pb::ReadRequest) -> Result<pb::ReadResponse> {
    let arrived = Instant::now();
    let wait = convert::wait(request.wait)?;
    let freshness = convert::freshness(request.options)?;
    let ReadStreams { streams, count, total_max, bytes_max } = convert::read(request)?;
    let total_max = if total_max == 0 { usize::MAX } else { total_max as usize };
    let bytes_max = convert::max_bytes(bytes_max, api.front.limits.response_bytes_max);
    let bounds = EntryBounds::new(bytes_max as usize, total_max);
    let deadline = Some(arrived + wait).filter(|_| !wait.is_zero());
    let found = api.front.read(freshness, streams, count, bounds, deadline, || {}).await?;
    let streams = found.into_iter().map(|StreamPage { stream, next_after, page }| pb::StreamEntries {
        stream: stream.to_string(),
        entries: reply::entries(&page.entries),
        next_after: Some(reply::id(next_after)),
        more: page.more,
    });
    Ok(pb::ReadResponse { streams: streams.collect(), header: api.header() })
}
