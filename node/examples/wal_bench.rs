//! How fast the log alone is, on the disk of a directory: `wal_bench DIR [ENTRIES] [IN_FLIGHT] [BYTES] [SEGMENT_MIB] [SPARES]`.
//!
//! Appends entries with so many under way at once, purges all but the newest segments as it goes, and prints entries a
//! second, the time from append to durable, syncs per entry, and the CPU time of the whole process per entry.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use millstream_node::storage::{Wal, WalOptions};
use millstream_node::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, Proposal, TypeConfig};
use millstream_node::world::World;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;

fn cpu_seconds() -> f64 {
    // SAFETY: all zeros is a valid value, and the call writes only there.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory =
        PathBuf::from(arguments.next().expect("usage: wal_bench DIR [ENTRIES] [IN_FLIGHT] [BYTES] [MIB] [SPARES]"));
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (entries, in_flight, bytes, mib) = (number(100_000), number(1), number(100), number(64));
    let spares_max = number(2) as usize;

    let options = WalOptions { segment_bytes: mib << 20, spares_max, ..WalOptions::default() };
    let wal = Wal::open(&World::real(), &directory, options).expect("the log opens");
    let mut log = wal.group(0);
    let payload = Bytes::from(vec![7; bytes as usize]);
    let first = log.last_index() + 1;
    // Two segments' worth stay.
    let kept = 2 * (mib << 20) / (bytes + 36);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let counts = log.counts();
    let mut waiting = FuturesUnordered::new();
    let mut times: Vec<Duration> = Vec::with_capacity(entries as usize);
    for index in first..first + entries {
        let log_id = LogId { leader_id: CommittedLeaderId::new(1, 1), index };
        let entry = LogEntry { log_id, payload: LogPayload::Normal(Proposal(payload.clone())) };
        let (tell, told) = TypeConfig::oneshot();
        let asked = Instant::now();
        log.append([entry], IOFlushed::signal(tell)).await.expect("appends");
        waiting.push(async move {
            told.await.expect("is told").expect("is durable");
            asked.elapsed()
        });
        if index % 10_000 == 0 && first + kept < index {
            let log_id = LogId { leader_id: CommittedLeaderId::new(1, 1), index: index - kept };
            log.purge(log_id).await.expect("purges");
        }
        while in_flight <= waiting.len() as u64 {
            times.extend(waiting.next().await);
        }
    }
    while let Some(time) = waiting.next().await {
        times.push(time);
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let syncs = log.counts().syncs - counts.syncs;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{in_flight} in flight: {:.0} entries/s, p50 {} us, p99 {} us, max {} us, {:.3} syncs per entry, \
         {:.1} us CPU per entry",
        entries as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
        syncs as f64 / entries as f64,
        cpu * 1e6 / entries as f64,
    );
    wal.close().await;
}
