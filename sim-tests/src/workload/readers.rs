//! Readers look at streams, forwards and backwards, at the leader's word or any node's, and at what is pending. A
//! reader never wants to see less than it has seen.

use std::collections::BTreeMap;

use millstream_client::Error;

use super::Stage;
use super::worker::Worker;
use crate::history::{Action, Fresh, Id, Outcome};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    let streams = worker.workload.streams();
    let groups = worker.workload.groups();
    // How far it has read each stream forwards.
    let mut places: BTreeMap<String, Id> = BTreeMap::new();
    // The newest log index of an answer.
    let mut newest = 0;
    while worker.stage() == Stage::Work {
        let stream = if worker.rng.one_in(3) {
            super::HOT.to_owned()
        } else {
            streams[worker.rng.below(streams.len() as u64) as usize].clone()
        };
        let fresh = match worker.rng.below(6) {
            0 => Fresh::Local,
            1 | 2 if 0 < newest => Fresh::AtLeast(newest),
            _ => Fresh::Linearizable,
        };
        let count_max = if worker.rng.one_in(5) { 200 } else { 30 };
        let count = 1 + worker.rng.below(count_max);
        let action = match worker.rng.below(10) {
            0 => Action::Describe { stream },
            1 if !groups.is_empty() => {
                let group = groups[worker.rng.below(groups.len() as u64) as usize].clone();
                if worker.rng.one_in(2) {
                    Action::ListPending { group, count: 200 }
                } else {
                    Action::CountPending { group }
                }
            }
            2..=5 => Action::Range { stream, reverse: true, beyond: None, count, fresh },
            _ => {
                let beyond = places.get(&stream).copied();
                Action::Range { stream, reverse: false, beyond, count, fresh }
            }
        };
        let told = worker.call(action.clone()).await;
        newest = newest.max(told.index.unwrap_or_default());
        if let (Action::Range { stream, reverse: false, .. }, Outcome::Read { entries, .. }) = (action, told.outcome) {
            match entries.last() {
                Some(last) => drop(places.insert(stream, last.id)),
                // From the beginning again, now and then.
                None if worker.rng.one_in(4) => drop(places.remove(&stream)),
                None => {}
            }
        }
        worker.pause().await;
    }
    Ok(())
}
