//! Clients that append on condition that a stream is unchanged, and with ids of their own choice.

use millstream_client::Error;

use super::worker::Worker;
use super::{EXPLICIT, GUARDED, Stage};
use crate::history::{Action, Guard, Id, Mode, Outcome};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    let mut next_ms = 1;
    while worker.stage() == Stage::Work {
        match worker.rng.below(3) {
            0 => on_condition(&mut worker).await,
            1 => {
                let put = worker.put(GUARDED);
                worker.call(Action::Append(put)).await;
            }
            _ => next_ms = with_id(&mut worker, next_ms).await,
        }
        worker.pause().await;
    }
    Ok(())
}

async fn on_condition(worker: &mut Worker) {
    let told = worker.call(Action::Describe { stream: GUARDED.into() }).await;
    let (last_change, last_id) = match told.outcome {
        Outcome::Described { last_change, last_id, .. } => (Some(last_change), last_id),
        Outcome::NothingChanged { reason, .. } if reason == "STREAM_NOT_FOUND" => (None, Id::MIN),
        _ => return,
    };
    if worker.rng.one_in(3) {
        worker.pause().await;
    }
    let guard = Some(Guard { stream: GUARDED.into(), last_change, last_id });
    let puts = vec![worker.put(GUARDED), worker.put(GUARDED)];
    worker.call(Action::Batch { puts, mode: Mode::AllOrNothing, guard, is_refused: false }).await;
}

/// The next id that may be free, by what it has learnt.
async fn with_id(worker: &mut Worker, next_ms: u64) -> u64 {
    let ms = match worker.rng.below(6) {
        // Taken, most likely.
        0 => next_ms.saturating_sub(1 + worker.rng.below(5)).max(1),
        _ => next_ms + worker.rng.below(3),
    };
    let mut put = worker.put(EXPLICIT);
    put.id = Some(Id { ms, seq: worker.rng.below(2) });
    let told = worker.call(Action::Append(put)).await;
    let refused = matches!(&told.outcome, Outcome::NothingChanged { reason, .. } if reason == "ID_NOT_GREATER");
    if refused
        && let Outcome::Described { last_id, .. } =
            worker.call(Action::Describe { stream: EXPLICIT.into() }).await.outcome
    {
        return last_id.ms + 1;
    }
    next_ms.max(ms + 1)
}
