//! Clients that create, move and delete groups while they are in use, each on a stream of its own, where it also
//! appends, consumes and trims.

use millstream_client::Error;

use super::worker::Worker;
use super::{Stage, changed};
use crate::history::{Action, After, Id, Keep, Outcome, Placed, Trim};

pub(super) async fn run(mut worker: Worker, number: u64) -> Result<(), Error> {
    let stream = changed(number);
    let mut own: Vec<Id> = Vec::new();
    let mut held: Vec<Id> = Vec::new();
    while worker.stage() == Stage::Work {
        let group = (stream.clone(), format!("x{}", 1 + worker.rng.below(2)));
        let consumer = format!("{}-{}", worker.name, worker.rng.below(3));
        let place = worker.rng.below(own.len().max(1) as u64) as usize;
        let after = match own.get(place) {
            Some(id) if worker.rng.one_in(2) => After::Id(*id),
            _ if worker.rng.one_in(2) => After::Id(Id::MIN),
            _ => After::Arrival,
        };
        let action = match worker.rng.below(20) {
            0 | 1 => Action::CreateGroup { group, after },
            2 => Action::DeleteGroup { group },
            3 => Action::MoveGroup { group, after },
            4..=7 => Action::ReadGroup { group, consumer, count: 1 + worker.rng.below(8), wait_ms: 0 },
            8 => Action::AutoClaim { group, consumer, idle_min_ms: 50, count: 10 },
            9 => Action::ReadPending { group, consumer, after: Id::MIN, count: 10 },
            10 | 11 if !held.is_empty() => Action::Ack { group, ids: std::mem::take(&mut held) },
            12 if !held.is_empty() => Action::Nack { group, ids: std::mem::take(&mut held) },
            13 => Action::ListPending { group, count: 50 },
            14 => {
                let trim = Trim { keep: Keep::Newest(10 + worker.rng.below(50)), exact: worker.rng.one_in(2) };
                Action::Trim { stream: stream.clone(), trim }
            }
            _ => Action::Append(worker.put(&stream)),
        };
        match worker.call(action).await.outcome {
            Outcome::Appended(placed) => own.extend(placed.iter().filter_map(Placed::id)),
            Outcome::Delivered { entries, deleted } => {
                held = entries.iter().map(|entry| entry.id).chain(deleted).collect();
            }
            _ => {}
        }
        worker.pause().await;
    }
    Ok(())
}
