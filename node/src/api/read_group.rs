//! ReadGroup: new entries for a consumer, waiting for the first if asked to, or its pending ones again (XREADGROUP).

use millstream_proto::v1 as pb;
use millstream_streams::{GroupRead, ReadGroup, Reply};
use tokio::time::Instant;

use super::convert::{self, Result};
use super::errors::Failure;
use super::reply::{self, Payloads};
use super::{Api, Done};

pub(super) async fn read_group(api: &Api, request: pb::ReadGroupRequest) -> Result<pb::ReadGroupResponse> {
    let deadline = Instant::now() + convert::wait(request.wait)?;
    let identity = convert::request(request.request)?;
    let call = convert::read_group(request)?;
    match api.front.read_group(identity, &call, deadline, || {}).await? {
        Some(done) => delivered(api, &call, done.into()),
        None => Ok(nothing(api, &call)),
    }
}

fn nothing(api: &Api, call: &ReadGroup) -> pb::ReadGroupResponse {
    let empty = |read: &GroupRead| pb::StreamDelivery { stream: read.stream.to_string(), entries: Vec::new() };
    let streams = call.streams.iter().map(empty).collect();
    pb::ReadGroupResponse { header: api.header(), streams, ..Default::default() }
}

/// The answer; without a receipt if nothing was delivered.
fn delivered(api: &Api, call: &ReadGroup, done: Done) -> Result<pb::ReadGroupResponse> {
    let Reply::Delivered(delivered) = &done.reply else { return Err(Failure::mismatched()) };
    let receipt = done.receipt.filter(|_| !delivered.is_empty());
    let response = reply::read_group(call, delivered, &mut Payloads::new(done.entries))?;
    Ok(pb::ReadGroupResponse { header: api.header(), receipt, ..response })
}
