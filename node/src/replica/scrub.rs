//! The scrub: reads again what lies in store and log, slowly, round and round, so that damage is found while the other
//! replicas still have what is lost, and not on the day on which it is needed.
//!
//! One round reads every row of the state as a restart would, and of each block that an index row names the whole body:
//! it must be there, verify, decode, and hold as many entries as the row says. Rows that nothing names any more (what a
//! sweep has yet to delete) are not read. Then come the batches of the log that are on stable storage.
//!
//! Damage in the store makes the state suspect: the node stops, and its next start builds it anew. Damage in the log
//! stops it, too; but a log that has lost what it promised may not vote again, so a person has to decide.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millstream_streams::BlockKey;
use millstream_streams::rows::body_of;

use super::shared::Shared;
use super::{Replica, blocks, rows};
use crate::storage::{ScrubCursor, Scrubbed, StateStore, StoreError};

/// Bytes read in one step. Between steps others have their turn.
const STEP_BYTES: u64 = 256 << 10;
/// Between two rounds, however little there is to read.
const PAUSE: Duration = Duration::from_secs(5);

/// How far the scrub is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Rounds that were completed since the start.
    pub rounds: u64,
    /// When the last of them ended, in milliseconds since the Unix epoch. `None`: none did.
    pub last_round_ms: Option<u64>,
    /// Rows read in this round.
    pub rows: u64,
    /// Bytes of the store read in this round.
    pub store_bytes: u64,
    /// Bytes of the log read in this round.
    pub log_bytes: u64,
}

/// Keeps the status of the scrub.
#[derive(Default)]
pub(crate) struct Scrub(Mutex<ScrubStatus>);

impl Scrub {
    /// How far it is.
    pub(crate) fn status(&self) -> ScrubStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut ScrubStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Reads everything, round and round, while the replica runs.
pub(crate) fn scrub(replica: &Replica) {
    let rate = replica.inner.shared.config.checks.scrub_bytes_per_second;
    if rate == 0 {
        return;
    }
    let shared = replica.inner.shared.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        let stopping = async { drop(ready.wait_for(|ready| !ready).await) };
        let rounds = async {
            loop {
                if !store(&shared, rate).await || !log(&shared, rate).await {
                    return;
                }
                let now = shared.world.clock.wall_ms();
                shared.scrub.note(|status| {
                    *status =
                        ScrubStatus { rounds: status.rounds + 1, last_round_ms: Some(now), ..ScrubStatus::default() };
                });
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = stopping => {}
            () = rounds => {}
        }
    });
}

/// Waits so long that reading `bytes` does not exceed the rate.
async fn pace(bytes: u64, rate: u64) {
    tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
}

/// Reads the store. Returns whether it is sound; if it is not, the node has been told to stop.
async fn store(shared: &Arc<Shared>, rate: u64) -> bool {
    let mut from = Some(Vec::new());
    while let Some(start) = from.take() {
        // One step reads one store, though another may take its place meanwhile.
        let store = shared.blocks.store();
        let step = shared.world.blocking(move || Ok(read_step(&*store, &start))).await;
        match step {
            Ok(Ok(step)) => {
                shared.scrub.note(|status| {
                    status.rows += step.rows;
                    status.store_bytes += step.bytes;
                });
                pace(step.bytes, rate).await;
                from = step.next;
            }
            Ok(Err(error)) => {
                shared.blocks.failed(&error);
                return false;
            }
            // A job that did not finish: a panic, which has been logged.
            Err(error) => {
                shared.fail(format!("the scrub of the state did not finish: {error}"));
                return false;
            }
        }
    }
    true
}

/// What one step has read.
struct Step {
    rows: u64,
    bytes: u64,
    /// Where the next one starts. `None` at the end.
    next: Option<Vec<u8>>,
}

fn read_step(store: &dyn StateStore, start: &[u8]) -> Result<Step, StoreError> {
    let (_, end) = rows::index_range();
    let mut step = Step { rows: 0, bytes: 0, next: None };
    for row in store.scan(start, &end) {
        let (key, value) = row?;
        step.rows += 1;
        step.bytes += (key.len() + value.len()) as u64 + read_body(store, &key, &value)?;
        if STEP_BYTES <= step.bytes {
            // The next key in order.
            step.next = Some([&key[..], &[0]].concat());
            break;
        }
    }
    Ok(step)
}

/// Reads the body that a row names, if it names one; returns its bytes.
fn read_body(store: &dyn StateStore, key: &[u8], value: &Bytes) -> Result<u64, StoreError> {
    match named_body(key, value)? {
        Some((body, entries)) => match blocks::read_body(store, body, entries) {
            Ok(Some(block)) => Ok(block.entries().iter().map(|entry| entry.fields.packed_len() as u64).sum()),
            // A checkpoint or a sweep may have been quicker.
            Ok(None) | Err(StoreError::Corrupt { .. }) if store.get(key)?.as_ref() != Some(value) => Ok(0),
            Ok(None) => Err(StoreError::Corrupt { what: format!("block {body:?} is named, but it is not there") }),
            Err(error) => Err(error),
        },
        None => Ok(0),
    }
}

fn named_body(key: &[u8], value: &Bytes) -> Result<Option<(BlockKey, u32)>, StoreError> {
    let Some(key) = rows::from_core_key(key) else { return Ok(None) };
    let body = body_of(&key, value);
    body.map_err(|error| StoreError::Corrupt { what: format!("row {key:?}: {error}") })
}

impl Shared {
    /// The state names a body that the store does not have, as a query has found more than once. It may be that the
    /// state moves on faster than the query; what the store itself says is decisive.
    pub(crate) fn check_body(&self, body: BlockKey) {
        let (store, key) = (self.blocks.store(), rows::index_key(&body));
        let found = store.get(&key).and_then(|value| match value {
            Some(value) if named_body(&key, &value)?.is_some_and(|(named, _)| named == body) => {
                read_body(&*store, &key, &value).map(drop)
            }
            _ => Ok(()),
        });
        if let Err(error) = found {
            self.blocks.failed(&error);
        }
    }
}

/// Reads the log. Returns whether it is sound; if it is not, the node has been told to stop.
async fn log(shared: &Arc<Shared>, rate: u64) -> bool {
    let mut from = Some(ScrubCursor::default());
    while let Some(cursor) = from {
        match shared.log.scrub(cursor, STEP_BYTES).await {
            Ok(Scrubbed { bytes, next }) => {
                shared.scrub.note(|status| status.log_bytes += bytes);
                pace(bytes, rate).await;
                from = next;
            }
            // The sentence says what to do.
            Err(error) => {
                shared.fail(error.to_string());
                return false;
            }
        }
    }
    true
}
