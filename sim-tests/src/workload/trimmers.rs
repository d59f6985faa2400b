//! Clients that append to a stream and trim it, by number and by id, to the entry or by whole blocks, with the append
//! or by itself.

use millstream_client::Error;

use super::worker::Worker;
use super::{Stage, TRIMMED};
use crate::history::{Action, Fresh, Id, Keep, Mode, Outcome, Placed, Trim};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    // Ids of its own, the newest last.
    let mut own: Vec<Id> = Vec::new();
    while worker.stage() == Stage::Work {
        let action = match worker.rng.below(12) {
            0 => Action::Trim { stream: TRIMMED.into(), trim: draw(&mut worker, &own) },
            1 => {
                let mut put = worker.put(TRIMMED);
                put.trim = Some(draw(&mut worker, &own));
                Action::Append(put)
            }
            2 => {
                let count = 3 + worker.rng.below(30);
                let fresh = Fresh::Linearizable;
                Action::Range { stream: TRIMMED.into(), reverse: worker.rng.one_in(2), beyond: None, count, fresh }
            }
            3 => Action::Describe { stream: TRIMMED.into() },
            4 => {
                // Enough for whole blocks to go.
                let puts = (0..20 + worker.rng.below(30)).map(|_| worker.put(TRIMMED)).collect();
                Action::Batch { puts, mode: Mode::AllOrNothing, guard: None, is_refused: false }
            }
            _ => Action::Append(worker.put(TRIMMED)),
        };
        if let Outcome::Appended(placed) = worker.call(action).await.outcome {
            own.extend(placed.iter().filter_map(Placed::id));
        }
        worker.pause().await;
    }
    Ok(())
}

fn draw(worker: &mut Worker, own: &[Id]) -> Trim {
    let back = own.len().saturating_sub(1 + worker.rng.below(60) as usize);
    let keep = match own.get(back) {
        Some(id) if worker.rng.one_in(2) => Keep::From(*id),
        _ => Keep::Newest([10, 50, 150, 400][worker.rng.below(4) as usize]),
    };
    Trim { keep, exact: !worker.rng.one_in(3) }
}
