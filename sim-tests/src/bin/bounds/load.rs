//! Load: filling streams as fast as it goes, and single appends whose waits are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use millstream_client::{Append, Batch, Client, EntryId, Error, OperationResult};
use millstream_sim_tests::real::Outcome;

/// Entries of a batch.
pub(crate) const BATCH: u64 = 2_000;
/// Batches under way.
const IN_FLIGHT: usize = 6;
/// Entries for slow streams in one batch, one for each.
const SLOW_BATCH: u64 = 500;

/// What to append.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    /// Streams and their entries, filled in turn by shares.
    pub(crate) streams: Vec<(String, u64)>,
    /// Streams that get an entry every now and then.
    pub(crate) slow_streams: u64,
    /// How many entries each of them gets.
    pub(crate) slow_rounds: u64,
    /// Bytes of an entry's one value.
    pub(crate) payload: usize,
}

/// How it went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filled {
    /// Entries appended.
    pub(crate) entries: u64,
    /// How long it took.
    pub(crate) time: Duration,
    /// The longest that one batch took.
    pub(crate) longest: Duration,
    /// Of the first stream: the first id of every hundredth batch or so, in order.
    pub(crate) marks: Vec<EntryId>,
}

/// The name of a slow stream.
pub(crate) fn slow(number: u64) -> String {
    format!("slow-{number}")
}

/// Appends it all, in batches, with several under way. Prints how it goes on.
pub(crate) async fn fill(client: &Client, filling: &Filling) -> Outcome<Filled> {
    let Filling { streams, slow_streams, slow_rounds, payload } = filling;
    let value = Bytes::from(vec![b'x'; *payload]);
    let total = streams.iter().map(|(_, entries)| entries).sum::<u64>();
    let slow_total = slow_streams * slow_rounds;
    let mut left: Vec<u64> = streams.iter().map(|(_, entries)| *entries).collect();
    let (mut sent, mut slow_sent) = (0, 0);
    let mut filled = Filled::default();
    let start = Instant::now();
    let mut said = start;
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < IN_FLIGHT && (sent < total || slow_sent < slow_total) {
            let mut batch = Batch::new();
            let mut of_first = false;
            // Slow streams keep pace with the others.
            if slow_sent < slow_total && slow_sent * total.max(1) <= sent * slow_total {
                let count = SLOW_BATCH.min(slow_total - slow_sent);
                for number in slow_sent..slow_sent + count {
                    batch = batch.add(Append::to(slow(number % slow_streams)).field("payload", value.clone()));
                }
                slow_sent += count;
            } else {
                // Whoever has most left: all end together.
                let Some(at) = (0..left.len()).max_by_key(|at| (left[*at] * 1_000 / streams[*at].1.max(1), left[*at]))
                else {
                    break;
                };
                let count = BATCH.min(left[at]);
                for _ in 0..count {
                    batch = batch.add(Append::to(&*streams[at].0).field("payload", value.clone()));
                }
                left[at] -= count;
                sent += count;
                of_first = at == 0;
            }
            let client = client.clone();
            under_way.push(async move {
                let start = Instant::now();
                let done = client.batch(batch).await?;
                Ok::<_, Error>((done, of_first, start.elapsed()))
            });
        }
        let Some(done) = under_way.next().await else { break };
        let (done, of_first, time) = done?;
        filled.entries += done.results.len() as u64;
        filled.longest = filled.longest.max(time);
        if of_first && let Some(Ok(OperationResult::Append(appended))) = done.results.first() {
            filled.marks.push(appended.id);
        }
        if Duration::from_secs(10) < said.elapsed() {
            said = Instant::now();
            let rate = filled.entries as f64 / start.elapsed().as_secs_f64();
            println!("    {} of {} entries, {rate:.0}/s", filled.entries, total + slow_total);
        }
    }
    filled.time = start.elapsed();
    filled.marks.sort_unstable();
    Ok(filled)
}

/// Waits of single appends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits(Vec<Duration>);

impl Waits {
    /// The wait that so many of a thousand do not exceed.
    pub(crate) fn per_mille(&self, per_mille: usize) -> Duration {
        let at = (self.0.len() * per_mille / 1_000).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The longest.
    pub(crate) fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// Clients that append one entry after the other, until they are stopped.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    unanswered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<Duration>>>,
}

impl Probe {
    /// So many clients on `stream`.
    pub(crate) fn start(client: &Client, stream: &str, payload: usize, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let unanswered = Arc::new(AtomicU64::new(0));
        let entry = Append::to(stream).field("payload", vec![b'p'; payload]);
        let run = |_| {
            let (client, entry, stop, unanswered) = (client.clone(), entry.clone(), stop.clone(), unanswered.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    if client.append(entry.clone()).await.is_err() {
                        unanswered.fetch_add(1, Ordering::Relaxed);
                    }
                    waits.push(start.elapsed());
                }
                waits
            })
        };
        let clients = (0..clients).map(run).collect();
        Self { stop, unanswered, clients }
    }

    /// Stops them; returns their waits, and how many appends had no answer.
    pub(crate) async fn stop(self) -> Outcome<(Waits, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for client in self.clients {
            waits.extend(client.await?);
        }
        waits.sort_unstable();
        Ok((Waits(waits), self.unanswered.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_waits() {
        let waits = Waits((1..=1_000).map(Duration::from_millis).collect());
        assert_eq!((waits.per_mille(500).as_millis(), waits.per_mille(990).as_millis()), (501, 991));
        assert_eq!(waits.longest().as_millis(), 1_000);
        assert_eq!(Waits::default().per_mille(990), Duration::ZERO);
    }
}
