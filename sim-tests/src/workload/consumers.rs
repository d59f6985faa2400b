//! Consumers read as a group, acknowledge, remove, give back, forget, come back under another name, and take over what
//! others hold. Claimers do little but that, all at the same moments.

use std::time::Duration;

use millstream_client::Error;
use tokio::time::Instant;

use super::Stage;
use super::worker::Worker;
use crate::history::{Action, GroupName, Id, Outcome};

/// One consumer is never slow, so that work goes on.
const STEADY: &str = "c1-1";
/// Claimers strike together, every so often.
const STORM_EVERY_MS: u64 = 1_500;

pub(super) async fn run(mut worker: Worker, group: String, is_claimer: bool) -> Result<(), Error> {
    let groups: Vec<GroupName> = worker.workload.groups().into_iter().filter(|(_, name)| *name == group).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let mut consumer = worker.name.clone();
    // An answer was lost: entries may be its own without its knowing.
    let mut may_have_more = false;
    while worker.stage() != Stage::Done {
        // Mostly the hot stream, until there is no more to come: then all alike.
        let is_any = worker.stage() != Stage::Work || worker.rng.one_in(4);
        let place = if is_any { worker.rng.below(groups.len() as u64) as usize } else { 0 };
        let group = groups[place].clone();
        if is_claimer && worker.stage() == Stage::Work {
            let into = began.elapsed().as_millis() as u64 % STORM_EVERY_MS;
            if 200 < into {
                tokio::time::sleep(Duration::from_millis(STORM_EVERY_MS - into)).await;
            }
        }
        let asked = ask(&mut worker, &group, &consumer, is_claimer, may_have_more).await;
        let is_read = matches!(asked, Action::ReadGroup { .. });
        let told = worker.call(asked).await;
        let ids: Vec<Id> = match &told.outcome {
            Outcome::Delivered { entries, deleted } => {
                entries.iter().map(|entry| entry.id).chain(deleted.iter().copied()).collect()
            }
            _ => Vec::new(),
        };
        may_have_more = is_read && matches!(told.outcome, Outcome::Unknown(_));
        worker.pause().await;
        // A consumer that dies with its entries in hand leaves them to the others.
        if worker.stage() == Stage::Work && worker.rng.one_in(15) {
            if worker.rng.one_in(2) {
                worker.start_anew()?;
                consumer = format!("{}.{}", worker.name, worker.lives());
                may_have_more = false;
            }
            continue;
        }
        if ids.is_empty() {
            continue;
        }
        if worker.stage() == Stage::Work && worker.name != STEADY && worker.rng.one_in(12) {
            // So slow that others take its entries.
            let idle_min = Duration::from_millis(worker.workload.load.idle_min_ms);
            let slow = worker.rng.duration(idle_min, 2 * idle_min);
            tokio::time::sleep(slow).await;
        }
        answer(&mut worker, &group, ids).await;
    }
    Ok(())
}

/// What it asks for next.
async fn ask(worker: &mut Worker, group: &GroupName, consumer: &str, is_claimer: bool, may_have_more: bool) -> Action {
    let (group, consumer) = (group.clone(), consumer.to_owned());
    let idle_min_ms = worker.workload.load.idle_min_ms;
    let is_draining = worker.stage() != Stage::Work;
    if may_have_more && !worker.rng.one_in(3) {
        return Action::ReadPending { group, consumer, after: Id::MIN, count: 50 };
    }
    let draw = worker.rng.below(if is_draining { 9 } else { 20 });
    match draw {
        _ if is_claimer && draw.is_multiple_of(2) => {
            let listed = worker.call(Action::ListPending { group: group.clone(), count: 40 }).await;
            let ids: Vec<Id> = match listed.outcome {
                Outcome::Pending { entries, .. } => entries.iter().map(|pending| pending.id).collect(),
                _ => Vec::new(),
            };
            match ids.is_empty() {
                true => Action::CountPending { group },
                false => Action::Claim { group, consumer, ids, idle_min_ms: idle_min_ms / 2 },
            }
        }
        _ if is_claimer => Action::AutoClaim { group, consumer, idle_min_ms: idle_min_ms / 2, count: 40 },
        0..=2 => Action::AutoClaim { group, consumer, idle_min_ms, count: if is_draining { 200 } else { 20 } },
        3 => Action::ReadPending { group, consumer, after: Id::MIN, count: 20 },
        _ => {
            let (count, wait_ms) = match is_draining {
                true => (200, 0),
                false => (1 + worker.rng.below(20), worker.workload.load.wait_unit_ms * worker.rng.below(10)),
            };
            Action::ReadGroup { group, consumer, count, wait_ms }
        }
    }
}

/// What it says to the entries it has got.
async fn answer(worker: &mut Worker, group: &GroupName, ids: Vec<Id>) {
    let group = group.clone();
    let action = match worker.rng.below(24) {
        // Only while there is work, or the drain would not end.
        0 | 1 if worker.stage() == Stage::Work => Action::Nack { group, ids },
        2..=4 => Action::AckAndDelete { group, ids },
        _ => Action::Ack { group, ids },
    };
    worker.call(action).await;
}
