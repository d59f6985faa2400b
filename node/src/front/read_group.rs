//! New entries for a consumer, waiting for the first if asked to, or its pending ones again (XREADGROUP).
//!
//! A delivery is a command in the log; a poll that finds nothing is not. So the leader looks at its state first and
//! proposes only what will have an effect: entries to deliver, pending ones to repeat, a consumer to create, or the
//! repeat of a request that is on record. Otherwise the call waits in the queue of its group, and looks again when it is
//! woken. The look may be out of date either way: a stale "there is something" costs a log entry with an empty delivery,
//! and a stale "there is nothing" is ruled out by one read barrier before it is believed.
//!
//! With claim_min_idle_ms there is a second thing to deliver: pending entries that have been idle for long enough, or that
//! were given back. The first kind comes with time alone, so such a call also sleeps no longer than until the next of them
//! is due.
//!
//! Of several who are woken at once, each asks for its delivery after those before it in the queue have.
//!
//! A client that goes away while its delivery is under way leaves the entries pending, as in Redis.

use std::task::Poll;
use std::time::Duration;

use millstream_streams::{Command, GroupRead, GroupReadFrom, ReadGroup, Refusal, Reply, RequestId, State};
use tokio::time::Instant;

use super::{Denied, Done, Front, Result};
use crate::replica::{Freshness, Leadership, Unavailable};
use crate::watch::GroupWaiter;

/// Of several who wait for the same entries to become due, each looks this much later than the one before in the queue,
/// and nobody more than [`CLAIM_STAGGER_MS_MAX`] late: by then the first has them, and the log is spared the attempts.
const CLAIM_STAGGER_MS: u64 = 5;
/// Redis is no more punctual either.
const CLAIM_STAGGER_MS_MAX: u64 = 100;

impl Front {
    /// Delivers, waiting until `deadline` for something to deliver, after having said so by `waits`. `None`: there was
    /// nothing, and nothing was proposed that has delivered anything. What was done may be an empty delivery, too.
    pub(crate) async fn read_group(
        &self,
        identity: Option<RequestId>,
        call: &ReadGroup,
        deadline: Instant,
        waits: impl Fn(),
    ) -> Result<Option<Done>> {
        Command::from(call.clone()).check()?;
        self.require_leader()?;

        // History never waits, and neither does what stands beside it.
        let may_wait = Instant::now() < deadline && call.streams.iter().all(|read| read.from == GroupReadFrom::New);
        let mut waiter = match may_wait {
            true => {
                let streams = call.streams.iter().map(|read| &read.stream);
                let claims = call.claim_min_idle_ms.is_some();
                Some(self.replica.watch().group_waiter(&call.group, streams, claims)?)
            }
            false => None,
        };
        let mut is_fresh = false;
        // What was claimable up to here was tried for in vain: the entries are gone, which only reading blocks could tell.
        let mut vain_ms: Option<u64> = None;
        loop {
            // Both before the look: what changes after it will wake.
            let leadership_changed = self.replica.leadership_changed();
            begin_look(&mut waiter, call)?;
            if let Some(waiter) = &waiter {
                tokio::select! {
                    biased;
                    () = waiter.turn() => {}
                    () = tokio::time::sleep_until(deadline) => return Ok(None),
                }
            }

            let now_ms = self.replica.stamp_ms();
            let found = self.replica.with_state(|state| look(state, call, identity.as_ref(), vain_ms));
            let is_worth_it = found.as_ref().is_ok_and(|found| found.has_effect(now_ms));
            if !is_worth_it && !is_fresh {
                // This state may be behind what has been acknowledged, by this leader or the one before.
                self.barrier(Freshness::Linearizable).await?;
                is_fresh = true;
                continue;
            }
            let found = found?;
            if is_worth_it {
                let mut proposing = std::pin::pin!(self.propose(identity, call.clone().into()));
                // Proposals are taken in the order in which they are made, and made when they are polled first.
                let made = futures::poll!(proposing.as_mut());
                waiter.iter().for_each(GroupWaiter::passed);
                let done = match made {
                    Poll::Ready(done) => done?,
                    Poll::Pending => proposing.await?,
                };
                let Reply::Delivered(delivered) = &done.reply else {
                    return Err(Denied::Broken("the reply does not fit the command"));
                };
                let is_empty = delivered.is_empty();
                if !is_empty || !may_wait {
                    end_look(&mut waiter);
                    return Ok(Some(done));
                }
                // Another consumer was faster, or only the consumer was created. Back to the same place.
                vain_ms = Some(now_ms);
                if Instant::now() < deadline {
                    continue;
                }
            }

            end_look(&mut waiter);
            let Some(waiter) = &waiter else { return Ok(None) };
            waits();
            let claimable = async {
                match call.claim_min_idle_ms {
                    Some(min_idle_ms) => {
                        // Without a pending entry, one that is delivered now is the earliest that can become due.
                        let due_ms = found.due_ms.unwrap_or(now_ms.saturating_add(min_idle_ms));
                        let stagger_ms = (waiter.claims_before() as u64 * CLAIM_STAGGER_MS).min(CLAIM_STAGGER_MS_MAX);
                        let sleep_ms = due_ms.saturating_sub(now_ms).saturating_add(stagger_ms);
                        tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The deadline first: wakes that bring nothing must not put it off.
                biased;
                () = tokio::time::sleep_until(deadline) => {
                    // The same call may have come twice, and the other been served.
                    let is_recorded = |identity| self.replica.with_state(|state| state.request_recorded(identity));
                    if !identity.as_ref().is_some_and(is_recorded) {
                        return Ok(None);
                    }
                }
                // What seemed due in vain may have company by now: entries that were given back are due at once.
                () = waiter.woken() => vain_ms = None,
                () = leadership_changed => self.require_leader()?,
                () = claimable => {}
            }
        }
    }

    /// Only the leader can deliver.
    fn require_leader(&self) -> Result<()> {
        if !self.replica.is_ready() {
            return Err(Unavailable::NotReady.into());
        }
        match self.replica.leadership() {
            Leadership::Leader { .. } => Ok(()),
            Leadership::Follower { leader } => Err(Unavailable::NotLeader(leader).into()),
            Leadership::NoLeader => Err(Unavailable::NoLeader.into()),
        }
    }
}

/// What a look at the state found.
struct Found {
    /// A proposal would have an effect, whatever the time.
    always: bool,
    /// When the first pending entry becomes claimable, in milliseconds since the Unix epoch; 0 if it was given back.
    /// `None`: there is none, or none is wanted.
    due_ms: Option<u64>,
}

impl Found {
    /// Whether a proposal would have an effect now.
    fn has_effect(&self, now_ms: u64) -> bool {
        self.always || self.due_ms.is_some_and(|due_ms| due_ms <= now_ms)
    }
}

fn look(
    state: &State,
    call: &ReadGroup,
    identity: Option<&RequestId>,
    vain_ms: Option<u64>,
) -> std::result::Result<Found, Refusal> {
    let mut found = Found { always: false, due_ms: None };
    // First: what it delivered then is the answer, also if the group is gone by now.
    if identity.is_some_and(|identity| state.request_recorded(identity))
        && !millstream_streams::mutant!(RecordedDeliveryForgotten)
    {
        found.always = true;
        return Ok(found);
    }
    for GroupRead { stream, from } in &call.streams {
        found.always |= state.group_has_new(stream, &call.group)?
            || *from != GroupReadFrom::New
            || !state.consumer_exists(stream, &call.group, &call.consumer)?;
        if let Some(min_idle_ms) = call.claim_min_idle_ms
            && *from == GroupReadFrom::New
        {
            let due_ms = state.next_claimable_ms(stream, &call.group, min_idle_ms, vain_ms)?;
            found.due_ms = found.due_ms.into_iter().chain(due_ms).min();
        }
    }
    Ok(found)
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
