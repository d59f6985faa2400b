//! Producers append to the hot stream and to small ones: one entry, or several at once. In sessions; or without, and
//! then what is not known stays unknown.

use millstream_client::Error;

use super::worker::Worker;
use super::{HOT, Stage, small};
use crate::history::{Action, Fresh, Mode, Outcome, Placed};

pub(super) async fn run(mut worker: Worker, number: u64) -> Result<(), Error> {
    while worker.stage() == Stage::Work {
        let small_streams = worker.workload.load.small_streams;
        let stream = match worker.rng.below(10) {
            // Each producer has streams where it is nearly alone, and some that it shares with all.
            0..=1 if 0 < small_streams => small(1 + (number + 7 * worker.rng.below(3)) % small_streams),
            2 if 0 < small_streams => small(1 + worker.rng.below(small_streams)),
            _ => HOT.to_owned(),
        };
        let action = match worker.rng.below(5) {
            0 => batch(&mut worker, &stream, small_streams),
            _ => Action::Append(worker.put(&stream)),
        };
        let told = worker.call(action).await;
        if worker.rng.one_in(10)
            && let (Outcome::Appended(placed), Some(index)) = (&told.outcome, told.index)
            && let Some(id) = placed.iter().find_map(Placed::id)
        {
            // What it has just written, from any node.
            let before = crate::history::Id { ms: id.ms.saturating_sub(1), seq: u64::MAX };
            let fresh = Fresh::AtLeast(index);
            let range = Action::Range { stream, reverse: false, beyond: Some(before), count: 5, fresh };
            worker.call(range).await;
        }
        if matches!(told.outcome, Outcome::Unknown(_)) && worker.rng.one_in(6) {
            worker.call(Action::CloseSessions).await;
        }
        worker.pause().await;
    }
    Ok(())
}

fn batch(worker: &mut Worker, stream: &str, small_streams: u64) -> Action {
    let count = 2 + worker.rng.below(3);
    let mut puts: Vec<_> = (0..count).map(|_| worker.put(stream)).collect();
    if 0 < small_streams && worker.rng.one_in(4) {
        // As one command, wherever the parts go.
        let other = small(1 + worker.rng.below(small_streams));
        puts.push(worker.put(&other));
    }
    let mode = if worker.rng.one_in(3) { Mode::Continue } else { Mode::AllOrNothing };
    // Some hold what is refused, so that nothing of them may be left, or all but that.
    Action::Batch { puts, mode, guard: None, is_refused: worker.rng.one_in(4) }
}
