//! Producers with idempotency keys, and without sessions: they repeat what is not known to be done until it is, and
//! then sometimes send something else under the same key.

use millstream_client::Error;

use super::worker::Worker;
use super::{KEYED, Stage};
use crate::history::{Action, Outcome};

pub(super) async fn run(mut worker: Worker) -> Result<(), Error> {
    let mut number: u64 = 0;
    while worker.stage() == Stage::Work {
        number += 1;
        let key = (worker.name.clone(), format!("key {number}"));
        let mut put = worker.put(KEYED);
        put.key = Some(key.clone());
        // Until it is known: also while others have stopped.
        loop {
            let told = worker.call(Action::Append(put.clone())).await;
            worker.pause().await;
            match told.outcome {
                Outcome::Appended(_) => break,
                Outcome::NothingChanged { .. } if worker.stage() != Stage::Work => return Ok(()),
                _ => {}
            }
        }
        if worker.rng.one_in(4) {
            let mut other = worker.put(KEYED);
            other.key = Some(key);
            worker.call(Action::Append(other)).await;
        } else if worker.rng.one_in(6) {
            worker.call(Action::Append(put)).await;
        }
    }
    Ok(())
}
