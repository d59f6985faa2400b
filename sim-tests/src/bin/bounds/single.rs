//! One node, a cluster by itself.

use std::ops::Bound as Edge;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_client::{Client, CreateGroup, EntryId, GroupPosition, Range, ReadGroup, Trim};
use millstream_sim_tests::real::disk::bytes_on_disk;
use millstream_sim_tests::real::node::{NodeProcess, NodeSpec, client};
use millstream_sim_tests::real::{Outcome, loopback, wait_for};

use crate::Cli;
use crate::idle;
use crate::load::{Filled, Filling, Probe, fill, slow};
use crate::table::{Bound, Table, Unit};

const HOT: &str = "hot";
const DOOMED: &str = "doomed";
const GROUP: &str = "workers";
const PROBED: &str = "probed";
/// From this many entries on, the full bounds are held.
const FULL: u64 = 50_000_000;
/// From this many entries on, filling takes long enough to fill all buffers.
const BUFFERS_FULL: u64 = 1_000_000;
/// Pages of a scan.
const PAGE: u32 = 10_000;
/// Calls wait for whatever is measured, however slow.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures it all.
pub(crate) async fn measure(cli: &Cli, program: &Path, directory: &Path, table: &mut Table) -> Outcome<()> {
    let spec = NodeSpec {
        program: program.to_owned(),
        id: 1,
        address: loopback(1),
        data_dir: directory.join("data"),
        members: Vec::new(),
        engine: cli.engine.clone(),
        arguments: cli.node_argument.clone(),
        log: directory.join("node.log"),
    };
    let mut node = spec.start()?;
    node.ready(PATIENCE).await?;
    let mut bench = Bench { cli, node, client: client(&[spec.endpoint()], PATIENCE)?, live_peak: 0, table };
    println!("{} entries of {} bytes, engine {}", cli.entries, cli.payload, cli.engine);
    let outcome = bench.all().await;
    if outcome.is_err() {
        println!("the end of the node's log:\n{}", bench.node.log_tail());
    }
    outcome
}

struct Bench<'a> {
    cli: &'a Cli,
    node: NodeProcess,
    client: Client,
    /// The most bytes of entries that ever lived at once.
    live_peak: u64,
    table: &'a mut Table,
}

impl Bench<'_> {
    async fn all(&mut self) -> Outcome<()> {
        idle::connections(&mut self.node, self.table).await?;
        let filled = self.fill().await?;
        self.pending().await?;
        self.reads(&filled.marks).await?;
        self.restarts("full").await?;
        for _ in 0..self.cli.rounds {
            self.trim_and_fill().await?;
        }
        self.delete().await?;
        self.restarts("at the end").await
    }

    async fn fill(&mut self) -> Outcome<Filled> {
        let Cli { entries, payload, .. } = self.cli;
        let slow_streams = self.cli.slow_streams();
        let slow_rounds = 3;
        let rest = entries - (slow_streams * slow_rounds).min(entries / 2);
        let (doomed, warm) = (rest / 5, rest / 40);
        let mut streams = vec![(HOT.to_owned(), rest - doomed - 4 * warm), (DOOMED.to_owned(), doomed)];
        streams.extend((0..4).map(|number| (format!("warm-{number}"), warm)));
        let filling = Filling { streams, slow_streams, slow_rounds, payload: *payload };
        let cpu = self.node.cpu()?;
        let filled = fill(&self.client, &filling).await?;
        self.node.check()?;
        let (count, time) = (filled.entries as f64, filled.time.as_secs_f64());
        let cpu = self.node.cpu()?.saturating_sub(cpu).as_secs_f64();
        self.table.add("filling: entries appended", count, Unit::Count, Bound::None);
        self.table.add("filling: rate", count / time, Unit::PerSecond, Bound::None);
        self.table.add("filling: the node's CPU for 1,000 entries", cpu * 1e6 / count, Unit::Ms, Bound::None);
        self.table.add("filling: longest wait of a batch", ms(filled.longest), Unit::Ms, Bound::None);
        self.memory("after filling")?;
        self.settle().await?;
        self.disk("after filling").await?;
        Ok(filled)
    }

    async fn pending(&mut self) -> Outcome<()> {
        let wanted = self.cli.pending();
        let group = CreateGroup::new(HOT, GROUP, GroupPosition::After(EntryId::MIN));
        self.client.create_group(group).await?;
        let start = Instant::now();
        let (mut delivered, mut consumer) = (0, 0);
        while delivered < wanted {
            let count = (wanted - delivered).min(PAGE.into()) as u32;
            let read = ReadGroup::new(GROUP, format!("consumer-{}", consumer % 10)).new_entries(HOT).count(count);
            let answer = self.client.read_group(read).await?;
            let entries = answer.streams.iter().map(|stream| stream.entries.len() as u64).sum::<u64>();
            if entries == 0 {
                return Err("the group has read everything, and that is not enough".into());
            }
            delivered += entries;
            consumer += 1;
        }
        let rate = delivered as f64 / start.elapsed().as_secs_f64();
        self.table.add("pending entries", delivered as f64, Unit::Count, Bound::None);
        self.table.add("group reads: entries delivered", rate, Unit::PerSecond, Bound::None);
        self.memory("with pending entries")
    }

    async fn reads(&mut self, marks: &[EntryId]) -> Outcome<()> {
        // At most so many entries for each reader: enough to measure.
        let each = (self.cli.entries / 8).clamp(50_000, 1_000_000);
        let full = FULL / 5 <= self.cli.entries;
        let bound = if full { Bound::AtLeast(200_000.0) } else { Bound::AtLeast(20_000.0) };
        let mut best = 0.0_f64;
        for readers in [1, 4] {
            let start = Instant::now();
            let tasks = (0..readers).map(|reader| {
                let endpoints = self.client.endpoints().map(str::to_owned).collect::<Vec<_>>();
                // Not from the newest end, which may be in memory.
                let from = marks.get(marks.len() * reader / (readers + 1)).copied().unwrap_or(EntryId::MIN);
                tokio::spawn(async move {
                    let client = client(&endpoints, PATIENCE)?;
                    let (mut at, mut count) = (Edge::Included(from), 0);
                    while count < each {
                        let page = client.range(Range::of(HOT).start(at).page_size(PAGE)).await?;
                        count += page.entries.len() as u64;
                        match page.entries.last() {
                            Some(last) if page.more => at = Edge::Excluded(last.id),
                            _ => break,
                        }
                    }
                    Outcome::Ok(count)
                })
            });
            let mut count = 0;
            for task in tasks.collect::<Vec<_>>() {
                count += task.await??;
            }
            let rate = count as f64 / start.elapsed().as_secs_f64();
            let name = format!("reading {count} old entries over {readers} connections");
            self.table.add(&name, rate, Unit::PerSecond, Bound::None);
            best = best.max(rate);
        }
        self.table.add("reading old entries, the better of the two", best, Unit::PerSecond, bound);
        let start = Instant::now();
        let mut count = 0;
        for _ in 0..100 {
            count += self.client.range(Range::of(HOT).reverse().page_size(1_000)).await?.entries.len();
        }
        let time = start.elapsed().as_secs_f64();
        self.table.add("reading the newest 1,000 entries", count as f64 / time, Unit::PerSecond, Bound::None);
        self.table.add("reading the newest 1,000 entries, each time", time * 10.0, Unit::Ms, Bound::None);
        self.memory("after reading")
    }

    async fn trim_and_fill(&mut self) -> Outcome<()> {
        let length = self.client.get_stream(HOT).await?.length;
        let probe = self.probe();
        let start = Instant::now();
        let trimmed = self.client.trim(HOT, Trim::max_length(length / 2)).await?.trimmed;
        let time = start.elapsed();
        self.table.add("trimming half of the hot stream: entries", trimmed as f64, Unit::Count, Bound::None);
        self.table.add("trimming half of the hot stream", time.as_secs_f64(), Unit::Seconds, Bound::None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (waits, _) = probe.stop().await?;
        self.table.add("longest append wait meanwhile", ms(waits.longest()), Unit::Ms, Bound::None);
        let filling = Filling {
            streams: vec![(HOT.to_owned(), trimmed)],
            slow_streams: self.cli.slow_streams(),
            slow_rounds: 1,
            payload: self.cli.payload,
        };
        let filled = fill(&self.client, &filling).await?;
        self.node.check()?;
        let rate = filled.entries as f64 / filled.time.as_secs_f64();
        self.table.add("filling again: rate", rate, Unit::PerSecond, Bound::None);
        self.memory("after trimming and filling again")?;
        self.settle().await?;
        self.disk("after trimming and filling again").await
    }

    async fn delete(&mut self) -> Outcome<()> {
        let length = self.client.get_stream(DOOMED).await?.length;
        let before = self.probe();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (before, _) = before.stop().await?;
        let during = self.probe();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        self.client.delete_stream(DOOMED).await?;
        let time = start.elapsed();
        // Until the next checkpoints have been written as well.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (during, unanswered) = during.stop().await?;
        self.node.check()?;
        self.table.add("deleting a stream: its entries", length as f64, Unit::Count, Bound::None);
        self.table.add("deleting a stream", ms(time), Unit::Ms, Bound::None);
        self.table.add("append waits before: p50", ms(before.per_mille(500)), Unit::Ms, Bound::None);
        self.table.add("append waits before: p99", ms(before.per_mille(990)), Unit::Ms, Bound::None);
        self.table.add("append waits before: longest", ms(before.longest()), Unit::Ms, Bound::None);
        self.table.add("append waits during and 5 s after: p99", ms(during.per_mille(990)), Unit::Ms, Bound::None);
        let bound = Bound::AtMost(500.0);
        self.table.add("append waits during and 5 s after: longest", ms(during.longest()), Unit::Ms, bound);
        self.table.add("appends without an answer", unanswered as f64, Unit::Count, Bound::AtMost(0.0));
        self.memory("after deleting")
    }

    /// Stops and kills the node, and waits until it serves again and knows all it knew.
    async fn restarts(&mut self, when: &str) -> Outcome<()> {
        let before = self.lengths().await?;
        let spec = self.node.spec().clone();
        let stopping = Instant::now();
        self.node.stop(PATIENCE).await?;
        let stopped = stopping.elapsed();
        self.node = spec.start()?;
        let ready = self.node.ready(PATIENCE).await?;
        self.table.add(&format!("clean stop, {when}"), stopped.as_secs_f64(), Unit::Seconds, Bound::None);
        let bound = Bound::AtMost(3.0);
        self.table.add(&format!("ready after a clean stop, {when}"), ready.as_secs_f64(), Unit::Seconds, bound);
        self.same(&before).await?;

        // There is something to replay: some commands and some large ones.
        let probe = self.probe();
        let filling = Filling {
            streams: vec![("warm-0".to_owned(), 50 * crate::load::BATCH)],
            slow_streams: 0,
            slow_rounds: 0,
            payload: self.cli.payload,
        };
        fill(&self.client, &filling).await?;
        probe.stop().await?;
        let before = self.lengths().await?;
        self.node.kill()?;
        self.node = spec.start()?;
        let ready = self.node.ready(PATIENCE).await?;
        let bound = Bound::AtMost(10.0);
        self.table.add(&format!("ready after kill -9, {when}"), ready.as_secs_f64(), Unit::Seconds, bound);
        self.same(&before).await?;
        self.memory(&format!("after a restart, {when}"))
    }

    async fn lengths(&self) -> Outcome<Vec<(String, u64, EntryId)>> {
        let mut lengths = Vec::new();
        for stream in [HOT, "warm-0", "warm-3", &slow(0)] {
            let info = self.client.get_stream(stream).await?;
            lengths.push((stream.to_owned(), info.length, info.last_id));
        }
        let pending = self.client.get_pending(HOT, GROUP).await?;
        lengths.push(("pending".to_owned(), pending.count, pending.max_id.unwrap_or(EntryId::MIN)));
        Ok(lengths)
    }

    async fn same(&self, before: &[(String, u64, EntryId)]) -> Outcome<()> {
        let after = self.lengths().await?;
        if after == before { Ok(()) } else { Err(format!("after a restart there is {after:?}, not {before:?}").into()) }
    }

    fn probe(&self) -> Probe {
        Probe::start(&self.client, PROBED, self.cli.payload, 1)
    }

    fn memory(&mut self, when: &str) -> Outcome<()> {
        let memory = self.node.memory()?;
        // A node that holds nothing takes some, and more where enough is written to fill its buffers: the log's tail, what is
        // changed and what a checkpoint encodes of it, calls under way. Each entry may take a little; at full size, with all
        // of that, it is 1 GiB.
        let base = if self.cli.entries < BUFFERS_FULL { 320 << 20 } else { 600 << 20 };
        let bound = base + ((1 << 30) - base) * self.cli.entries.min(FULL) / FULL;
        self.table.add(&format!("resident {when}"), memory.now as f64, Unit::Bytes, Bound::None);
        let bound = Bound::AtMost(bound as f64);
        self.table.add(&format!("resident {when}, peak"), memory.peak as f64, Unit::Bytes, bound);
        Ok(())
    }

    /// Waits until the newest checkpoint does not move any more.
    async fn settle(&self) -> Outcome<()> {
        let endpoint = self.node.spec().endpoint();
        let mut seen = (0, Instant::now());
        wait_for("an end of checkpoints", PATIENCE, async || {
            let index = self.client.status(&endpoint).await?.checkpoint_index;
            if index != seen.0 {
                seen = (index, Instant::now());
            }
            Ok((Duration::from_secs(2) < seen.1.elapsed()).then_some(()))
        })
        .await
    }

    async fn disk(&mut self, when: &str) -> Outcome<()> {
        let data = &self.node.spec().data_dir;
        let (log, store) = (bytes_on_disk(&data.join("wal"))?, bytes_on_disk(&data.join("state"))?);
        let mut live = 0;
        for stream in [HOT, DOOMED, PROBED, "warm-0", "warm-1", "warm-2", "warm-3"] {
            live += self.client.get_stream(stream).await.map_or(0, |info| info.bytes);
        }
        let slow_streams = self.cli.slow_streams();
        if 0 < slow_streams {
            live += self.client.get_stream(slow(0)).await?.bytes * slow_streams;
        }
        self.live_peak = self.live_peak.max(live);
        self.table.add(&format!("bytes of live entries {when}"), live as f64, Unit::Bytes, Bound::None);
        self.table.add(&format!("disk of the log {when}"), log as f64, Unit::Bytes, Bound::None);
        self.table.add(&format!("disk of the store {when}"), store as f64, Unit::Bytes, Bound::None);
        // An engine may have some segments of its own ready.
        let beyond = store.saturating_sub(64 << 20) as f64 / self.live_peak as f64;
        self.table.add("store beyond 64 MiB by the most that ever lived", beyond, Unit::Times, Bound::AtMost(2.0));
        Ok(())
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
