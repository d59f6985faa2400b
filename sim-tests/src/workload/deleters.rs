//! Clients that delete some of what they have appended.

use millstream_client::Error;

use super::worker::Worker;
use super::{DELETED, Stage};
use crate::history::{Action, Fresh, Id, Outcome, Placed};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    let mut own: Vec<Id> = Vec::new();
    while worker.stage() == Stage::Work {
        let action = match worker.rng.below(4) {
            0 if !own.is_empty() => {
                let mut ids = Vec::new();
                for _ in 0..1 + worker.rng.below(4) {
                    let place = worker.rng.below(own.len().max(1) as u64) as usize;
                    // Some are named again, when they are gone.
                    let is_forgotten = !worker.rng.one_in(5);
                    ids.extend(own.get(place));
                    if is_forgotten && place < own.len() {
                        own.swap_remove(place);
                    }
                }
                Action::Delete { stream: DELETED.into(), ids }
            }
            1 => {
                let (count, fresh) = (3 + worker.rng.below(40), Fresh::Linearizable);
                Action::Range { stream: DELETED.into(), reverse: true, beyond: None, count, fresh }
            }
            _ => Action::Append(worker.put(DELETED)),
        };
        if let Outcome::Appended(placed) = worker.call(action).await.outcome {
            own.extend(placed.iter().filter_map(Placed::id));
        }
        worker.pause().await;
    }
    Ok(())
}
