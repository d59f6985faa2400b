//! `bench append`: a closed loop.
//!
//! Each caller sends its next append when the last one is answered, so that latency and throughput are those of real
//! callers and no queue hides in the client. Sessions are on, as they are by default: this measures the path that
//! programs use.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use millstream_client::{Append, Client, ClientOptions, Error};
use serde_json::{Value, json};

use crate::output::Output;
use crate::{Failure, cpu, parse};

/// Measurements.
#[derive(Subcommand)]
pub(crate) enum Bench {
    Append(AppendBench),
}

/// Appends for a while with different numbers of concurrent clients: throughput, latency, CPU
#[derive(Args)]
pub(crate) struct AppendBench {
    /// Concurrent clients, one measurement for each number
    #[arg(long, value_name = "N,...", default_value = "1,16,256", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Vec<u32>,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse::duration)]
    seconds: Duration,
    /// Bytes of an entry's one value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: usize,
    /// The stream to append to
    #[arg(long, default_value = "bench")]
    stream: String,
    /// Connections that the clients share, each with a session of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Also measure the CPU time of these processes: the servers'
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pids: Vec<u32>,
    /// Take more pids from the *.pid files of this directory
    #[arg(long, value_name = "DIR")]
    pid_dir: Option<PathBuf>,
}

/// What one caller, or all of them, have seen.
#[derive(Default)]
struct Tally {
    /// Of successful appends, in microseconds.
    latencies_us: Vec<u32>,
    errors: u64,
    last_error: Option<Error>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.latencies_us.extend(other.latencies_us);
        self.errors += other.errors;
        self.last_error = other.last_error.or(self.last_error.take());
    }
}

impl Bench {
    pub(crate) async fn run(self, options: &ClientOptions, out: &mut Output) -> Result<(), Failure> {
        let Self::Append(bench) = self;
        let mut pids = bench.pids.clone();
        if let Some(dir) = &bench.pid_dir {
            pids.extend(cpu::pids_in(dir)?);
        }
        let mut rows = Vec::new();
        let mut server_cpu = Vec::new();
        for &clients in &bench.clients {
            let (row, cpu) = bench.measure(options, clients, &pids).await?;
            rows.push(row);
            server_cpu.extend(cpu);
        }
        let header = [
            "clients",
            "connections",
            "appends",
            "appends_per_second",
            "p50_us",
            "p99_us",
            "max_us",
            "errors",
            "server_cpu_us_per_append",
            "bench_cpu_us_per_append",
            "log_syncs_per_append",
        ];
        out.table(header, rows)?;
        if !server_cpu.is_empty() {
            out.table(["clients", "pid", "cpu_us_per_append"], server_cpu)?;
        }
        Ok(())
    }
}

impl AppendBench {
    /// The row of the table, and one more for each process.
    async fn measure(
        &self,
        options: &ClientOptions,
        clients: u32,
        pids: &[u32],
    ) -> Result<([Value; 11], Vec<[Value; 3]>), Failure> {
        let connections = self.connections.min(clients);
        let handles = (0..connections).map(|_| Client::connect(options.clone())).collect::<Result<Vec<_>, _>>()?;
        let payload = bytes::Bytes::from(vec![b'x'; self.payload]);
        let entry = Append::to(&self.stream).field("payload", payload);
        // Connects, finds the leader and opens the session before the clock starts; and a wrong set-up ends here.
        for client in &handles {
            client.append(entry.clone()).await?;
        }

        let bench_pid = std::process::id();
        let all_pids: Vec<u32> = pids.iter().copied().chain([bench_pid]).collect();
        let syncs_before = log_syncs(&handles[0]).await;
        let cpu_before: Vec<_> = all_pids.iter().map(|pid| cpu::used(*pid)).collect();
        let started = Instant::now();
        let end = started + self.seconds;
        let callers: Vec<_> = (0..clients as usize)
            .map(|caller| tokio::spawn(call_until(handles[caller % handles.len()].clone(), entry.clone(), end)))
            .collect();
        let mut total = Tally::default();
        for caller in callers {
            // A caller that panicked would have said so.
            total.add(caller.await.unwrap_or_default());
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu_after: Vec<_> = all_pids.iter().map(|pid| cpu::used(*pid)).collect();
        let syncs_after = log_syncs(&handles[0]).await;

        for client in &handles {
            // The sessions would expire by themselves.
            let _ = client.with_deadline(Duration::from_secs(1)).close().await;
        }
        if let Some(error) = &total.last_error {
            eprintln!("{clients} clients: {} errors, the last: {error}", total.errors);
        }

        total.latencies_us.sort_unstable();
        let appends = total.latencies_us.len() as u64;
        let per_append = |(before, after): (&Option<Duration>, Option<Duration>)| {
            let used = after?.saturating_sub((*before)?);
            (0 < appends).then(|| used.as_secs_f64() * 1e6 / appends as f64)
        };
        let mut cpu: Vec<Option<f64>> = cpu_before.iter().zip(cpu_after).map(per_append).collect();
        let bench_cpu = cpu.pop().flatten();
        let servers_cpu = if pids.is_empty() { None } else { cpu.iter().copied().sum::<Option<f64>>() };
        let syncs = syncs_before.zip(syncs_after).filter(|_| 0 < appends);
        let syncs = syncs.map(|(before, after)| after.saturating_sub(before) as f64 / appends as f64);
        let row = [
            clients.into(),
            connections.into(),
            appends.into(),
            ((appends as f64 / seconds).round() as u64).into(),
            percentile(&total.latencies_us, 50).into(),
            percentile(&total.latencies_us, 99).into(),
            percentile(&total.latencies_us, 100).into(),
            total.errors.into(),
            rounded(servers_cpu),
            rounded(bench_cpu),
            syncs.map_or(Value::Null, |syncs| json!((syncs * 1_000.0).round() / 1_000.0)),
        ];
        let by_pid = pids.iter().zip(cpu).map(|(pid, cpu)| [json!(clients), json!(pid), rounded(cpu)]);
        Ok((row, by_pid.collect()))
    }
}

/// How often the logs of all nodes that were given as endpoints have been synced; `None` if one of them does not say.
async fn log_syncs(client: &Client) -> Option<u64> {
    let mut syncs = 0;
    for endpoint in client.endpoints() {
        syncs += client.status(endpoint).await.ok()?.log_syncs;
    }
    Some(syncs)
}

async fn call_until(client: Client, entry: Append, end: Instant) -> Tally {
    let mut tally = Tally::default();
    while let started = Instant::now()
        && started < end
    {
        match client.append(entry.clone()).await {
            Ok(_) => {
                let us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
                tally.latencies_us.push(us);
            }
            Err(error) => {
                tally.errors += 1;
                let hopeless = matches!(error, Error::Refused { .. });
                tally.last_error = Some(error);
                if hopeless {
                    break;
                }
            }
        }
    }
    tally
}

/// The nearest rank; `None` without values. `sorted` ascends.
fn percentile(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn rounded(us: Option<f64>) -> Value {
    us.map(|us| (us * 10.0).round() / 10.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&sorted, percent)), [Some(100), Some(198), Some(200)]);
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[], 99), None);
    }
}
