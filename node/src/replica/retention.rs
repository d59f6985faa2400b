//! What time removes: entries beyond the retention of their stream, and idempotency keys that have expired.
//!
//! The leader looks once a second and proposes what is due as an ordinary command; where nothing is due, the log holds
//! still. A look costs time under the state's lock, so it is taken in slices.
//!
//! Entries that a group refers to may have to stay. Which those are shows only when the command is applied, so a stream
//! whose turn came to nothing is put off, for longer each time, until something in it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_streams::limits::{RETENTION_ENTRIES_MAX, RETENTION_STREAMS_MAX};
use millstream_streams::{EnforceRetention, Reply, StreamName};

use super::{Committed, Leadership, Replica, Unavailable};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);
/// Streams looked at under one hold of the state's lock.
const LOOKS: usize = 10_000;
/// How often the time doubles for which a stream is put off: to 32 rounds.
const DOUBLINGS_MAX: u32 = 5;

/// Enforces retention while the replica runs and leads.
pub(crate) fn enforce(replica: &Replica) {
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let mut vain = Vain::default();
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if let Err(unavailable) = round(&replica, &mut vain).await {
                // Another leader does it, or this one the next time.
                tracing::debug!(?unavailable, "retention has to wait");
            }
        }
    });
}

/// Looks at every stream that has anything to lose, and proposes what is due.
async fn round(replica: &Replica, vain: &mut Vain) -> Result<(), Unavailable> {
    vain.next_round();
    let mut after: Option<StreamName> = None;
    while matches!(replica.leadership(), Leadership::Leader { .. }) {
        let now_ms = replica.stamp_ms();
        let (due, next) = replica.with_state(|state| {
            let (mut due, next) = state.retention_due(now_ms, after.as_ref(), LOOKS);
            due.retain(|stream| vain.may_try(stream, state.last_change_index(stream)));
            (due, next)
        });
        for streams in due.chunks(RETENTION_STREAMS_MAX) {
            let command = EnforceRetention { streams: streams.to_vec() };
            replica.inner.shared.world.probe.mark("retention_due");
            let tried = loop {
                let Committed { log_index, applied, .. } = replica.propose(None, command.clone().into()).await?;
                // It came to the most that one command may remove: there may be more.
                let more = matches!(&applied.outcome, Ok(Reply::RetentionEnforced(enforced))
                    if enforced.trimmed >= RETENTION_ENTRIES_MAX);
                if !more {
                    break log_index;
                }
            };
            replica.with_state(|state| {
                for stream in streams {
                    vain.tried(stream, state.last_change_index(stream), tried);
                }
            });
        }
        if next.is_none() {
            break;
        }
        after = next;
        tokio::task::yield_now().await;
    }
    vain.forget_others();
    Ok(())
}

/// The streams whose retention was enforced in vain. Lost with the leadership, which costs one attempt each.
#[derive(Default)]
struct Vain {
    round: u64,
    streams: BTreeMap<StreamName, Attempt>,
}

struct Attempt {
    /// The log index of the stream's last change then.
    change: u64,
    /// How often it was tried in vain before.
    times: u32,
    /// The round in which to try again.
    again: u64,
    /// The last round in which it was due.
    due: u64,
}

impl Vain {
    fn next_round(&mut self) {
        self.round += 1;
    }

    /// Whether a stream that is due and has this last change is worth an attempt.
    fn may_try(&mut self, stream: &StreamName, change: Option<u64>) -> bool {
        let Some(attempt) = self.streams.get_mut(stream) else { return true };
        attempt.due = self.round;
        attempt.again <= self.round || change != Some(attempt.change)
    }

    /// An attempt was made at log index `tried`, and this is the stream's last change since.
    fn tried(&mut self, stream: &StreamName, change: Option<u64>, tried: u64) {
        let Some(change) = change.filter(|change| *change < tried) else {
            self.streams.remove(stream);
            return;
        };
        let before = self.streams.get(stream).filter(|before| before.change == change);
        let times = before.map_or(0, |before| (before.times + 1).min(DOUBLINGS_MAX));
        let attempt = Attempt { change, times, again: self.round + (1 << times), due: self.round };
        self.streams.insert(stream.clone(), attempt);
    }

    /// Forgets the streams that are no longer due.
    fn forget_others(&mut self) {
        let round = self.round;
        self.streams.retain(|_, attempt| attempt.due == round);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_cannot_have_its_way_is_put_off_until_it_changes() {
        let stream = StreamName::new("orders").unwrap();
        let mut vain = Vain::default();
        let mut change = 7;
        let mut tried = Vec::new();
        for round in 0..80 {
            if round == 70 {
                change = 100;
            }
            vain.next_round();
            if vain.may_try(&stream, Some(change)) {
                tried.push(round);
                vain.tried(&stream, Some(change), 200);
            }
            vain.forget_others();
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 70, 71, 73, 77]);
        // One that was trimmed, or is gone, starts anew; so does one that was not due for a while.
        vain.tried(&stream, Some(200), 200);
        assert!(vain.streams.is_empty());
        vain.tried(&stream, Some(7), 200);
        vain.next_round();
        vain.forget_others();
        assert!(vain.streams.is_empty());
    }
}
