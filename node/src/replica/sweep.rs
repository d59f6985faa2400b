//! Sweeping garbage: rows of streams and groups that were deleted, and bodies that are needed no more.
//!
//! Deleting a stream of many millions of entries costs its checkpoint one row. What that row names is deleted here, a few
//! rows at a time, at leisure; at the end the row itself. Nothing is kept in memory: what is left to do stands in the
//! store, so it goes on after a restart, and after a snapshot was installed.
//!
//! While somebody holds block bodies ([`Pins::hold_bodies`](super::pins::Pins::hold_bodies)), nothing is swept.

use std::sync::Arc;
use std::time::Duration;

use millstream_streams::RowKey;
use millstream_streams::rows::{Garbage, body_rows, garbage_range};

use super::shared::Shared;
use super::{Replica, checkpoint, rows};
use crate::storage::{Batch, StateStore, StoreError};

/// Rows deleted in one batch: some milliseconds, and a checkpoint may have to wait for it.
const BATCH_ROWS: usize = 1_000;
/// Between two batches, so that the disk has time for others.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to leave bodies alone that somebody holds.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// Sweeps while the replica runs.
pub(crate) fn sweep(replica: &Replica) {
    let shared = replica.inner.shared.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        loop {
            let swept = match round(&shared).await {
                Ok(swept) => swept,
                // The next start builds the state anew.
                Err(error @ StoreError::Corrupt { .. }) => return shared.blocks.failed(&error),
                Err(error) => {
                    shared.world.abort.abort(&format!("what was deleted could not be removed from the store: {error}"));
                    return;
                }
            };
            let next = async {
                match swept {
                    Swept::All => shared.garbage.notified().await,
                    Swept::Some => tokio::time::sleep(PAUSE).await,
                    Swept::Held => tokio::time::sleep(HELD_PAUSE).await,
                }
            };
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = next => {}
            }
        }
    });
}

/// What came of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    /// Nothing is left.
    All,
    /// Some rows; there may be more.
    Some,
    /// Nothing, as somebody holds the bodies.
    Held,
}

/// Sweeps one batch.
async fn round(shared: &Arc<Shared>) -> Result<Swept, StoreError> {
    let _writer = shared.store_writer.lock().await;
    let _turn = shared.pins.write().await;
    // Deleting takes room, too, before it gives any; and a store that found none is not to be tried again.
    if shared.pins.bodies_held() || shared.is_suspect() || !checkpoint::has_room(shared) {
        return Ok(Swept::Held);
    }
    let store = shared.blocks.store();
    let swept = move || {
        let mut batch = next_batch(&*store, BATCH_ROWS)?;
        if !batch.is_empty() && millstream_streams::mutant!(SweepDeletesLiveRows) {
            let (_, bodies) = rows::index_range();
            batch.extend(store.scan(&bodies, &[2]).flatten().map(|(key, _)| (key, None)));
        }
        if batch.is_empty() {
            return Ok(Swept::All);
        }
        store.commit(batch)?;
        Ok(Swept::Some)
    };
    let swept: Result<Swept, StoreError> = shared.world.blocking(move || Ok(swept())).await?;
    let swept = swept?;
    if swept == Swept::Some {
        shared.world.probe.mark("dead_swept");
    }
    Ok(swept)
}

/// The next rows to delete, not many more than `rows_max`; none: there is no garbage. A row that names garbage goes in the
/// same batch as the last of it.
fn next_batch(store: &dyn StateStore, rows_max: usize) -> Result<Batch, StoreError> {
    let mut batch = Batch::new();
    let (start, end) = garbage_range();
    for row in store.scan(&rows::core_key(&start), &rows::core_key(&end)) {
        let (stored_key, value) = row?;
        match Garbage::read(&core_key(&stored_key)?, &value).map_err(damaged)? {
            Some(Garbage::Ranges(ranges)) => {
                for (start, end) in ranges {
                    for row in store.scan(&rows::core_key(&start), &rows::core_key(&end)) {
                        let (key, value) = row?;
                        // The bodies that an index row names go with it: so they need not be read to be found.
                        let bodies = body_rows(&core_key(&key)?, &value).map_err(damaged)?;
                        batch.extend(bodies.iter().map(|body| (rows::core_key(body), None)));
                        batch.push((key, None));
                        if rows_max <= batch.len() {
                            return Ok(batch);
                        }
                    }
                }
            }
            Some(Garbage::Rows(bodies)) => batch.extend(bodies.iter().map(|body| (rows::core_key(body), None))),
            None => {}
        }
        batch.push((stored_key, None));
        if rows_max <= batch.len() {
            break;
        }
    }
    Ok(batch)
}

fn core_key(stored: &[u8]) -> Result<RowKey, StoreError> {
    rows::from_core_key(stored).ok_or_else(|| damaged("a row outside the core's range"))
}

fn damaged(problem: impl ToString) -> StoreError {
    StoreError::Corrupt { what: problem.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use millstream_streams::{
        ConsumerName, CreateGroup, DeleteGroup, DeleteStream, EntryId, GroupName, GroupPosition, GroupRead,
        GroupReadFrom, ReadGroup, References, Trim, TrimPolicy, TrimThreshold,
    };

    use super::super::testing::{Story, stream};
    use super::*;

    fn group() -> GroupName {
        GroupName::new("billing").unwrap()
    }

    /// Two streams with groups that have pending entries, in blocks of which some are in parts.
    fn story() -> Story {
        let mut story = Story::new();
        for name in ["orders", "returns"] {
            for _ in 0..7 {
                story.append(name, 41);
                story.write(false);
            }
            let (position, create_stream) = (GroupPosition::After(EntryId::MIN), false);
            story.run(CreateGroup {
                stream: stream(name),
                group: group(),
                position,
                create_stream,
                entries_read: None,
            });
            story.run(ReadGroup {
                group: group(),
                consumer: ConsumerName::new("ada").unwrap(),
                streams: vec![GroupRead { stream: stream(name), from: GroupReadFrom::New }],
                count: 200,
                no_ack: false,
                bytes_max: 0,
                total_max: 0,
                claim_min_idle_ms: None,
            });
            story.write(false);
        }
        story
    }

    fn bodies(story: &Story) -> usize {
        story.stored().iter().filter(|(key, _)| key.is_body()).count()
    }

    /// Sweeps in batches of that size, and restarts after each. What is left is what a state that never had more would
    /// have stored.
    fn sweep_and_restart(story: &Story, rows_max: usize) -> usize {
        let before = story.state.all_rows(&story.blocks).unwrap();
        let mut batches = 0;
        loop {
            assert_eq!(story.restored(), before, "after {batches} batches");
            let batch = next_batch(&*story.store(), rows_max).unwrap();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() < rows_max + 200);
            story.store().commit(batch).unwrap();
            batches += 1;
        }
        // Every row that is left has its place in the state.
        let of = |key: &RowKey| key.body_part().map_or_else(|| key.clone(), |(block, _)| block.row_key());
        let mut left: Vec<RowKey> = story.stored().iter().map(|(key, _)| of(key)).collect();
        left.dedup();
        assert_eq!(left, before.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
        batches
    }

    #[test]
    fn a_sweep_leaves_the_live_rows_wherever_it_is_interrupted() {
        for rows_max in [1, 3, 10_000] {
            let mut story = story();
            let rows = story.stored().len();
            story.run(DeleteGroup { stream: stream("returns"), group: group() });
            story.run(DeleteStream { stream: stream("orders") });
            story.append("orders", 3);
            story.write(false);
            assert!(rows < story.stored().len() + 3, "nothing is deleted but heads");
            let batches = sweep_and_restart(&story, rows_max);
            assert_eq!(batches == 1, rows_max == 10_000, "{batches}");
        }
    }

    #[test]
    fn bodies_that_are_held_stay_until_they_are_swept() {
        let mut story = story();
        let before = bodies(&story);
        let threshold = TrimThreshold::MaxLength(50);
        let policy = TrimPolicy { threshold, approximate: false, limit: None, references: References::Keep };
        story.run(Trim { stream: stream("orders"), policy });
        story.append("returns", 1);
        story.write(true);
        assert!(before < bodies(&story), "none was deleted: {before}");
        sweep_and_restart(&story, 2);
        assert!(bodies(&story) < before);
    }

    #[test]
    fn damaged_garbage_is_an_error() {
        let story = story();
        let key = rows::core_key(&garbage_range().0);
        let broken = [&key[..], &[0; 8]].concat();
        story.store().commit(vec![(broken, Some(bytes::Bytes::from_static(b"\xff")))]).unwrap();
        assert!(next_batch(&*story.store(), 10).is_err());
    }
}
