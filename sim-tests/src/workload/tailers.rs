//! Clients that wait for new entries: after the last that they know, or after whatever is there.

use millstream_client::Error;

use super::worker::Worker;
use super::{HOT, Stage};
use crate::history::{Action, After, Fresh, Outcome};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    let streams = worker.workload.streams();
    while worker.stage() == Stage::Work {
        let stream = if worker.rng.one_in(2) {
            HOT.to_owned()
        } else {
            streams[worker.rng.below(streams.len() as u64) as usize].clone()
        };
        let fresh = if worker.rng.one_in(3) { Fresh::Local } else { Fresh::Linearizable };
        let mut after = After::Arrival;
        for _ in 0..1 + worker.rng.below(8) {
            let wait_ms = 100 + 200 * worker.rng.below(12);
            let count = 1 + worker.rng.below(20);
            let read = Action::Read { stream: stream.clone(), after, count, wait_ms, fresh };
            if let Outcome::Read { entries, .. } = worker.call(read).await.outcome
                && let Some(last) = entries.last()
            {
                after = After::Id(last.id);
            }
            if worker.stage() != Stage::Work {
                break;
            }
        }
        worker.pause().await;
    }
    Ok(())
}
