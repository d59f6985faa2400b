//! From the wire to the core: every default, bound and absence that the .proto comments state.
//!
//! One function for each request, named like its call: the call itself and a batch convert alike. [`values`] holds what
//! requests are made of. A function that takes a `field` names it in its errors: the path as the .proto spells it,
//! `streams[3].position`. What the core itself checks (`Command::check`) is not checked twice, unless the core would name
//! another path.

mod batch;
mod groups;
mod streams;
mod values;

#[cfg(test)]
mod tests;

use std::time::Duration;

use millstream_proto::v1 as pb;
use millstream_streams::RequestId;

use super::errors::Failure;
use crate::replica::Freshness;

pub(super) use batch::{ConvertedBatch, batch};
pub(super) use groups::*;
pub(super) use streams::*;
pub(super) use values::max_bytes;

/// The longest wait: one hour.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3_600);

pub(super) type Result<T> = std::result::Result<T, Failure>;

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

fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Failure::invalid(field, "must be set"))
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
