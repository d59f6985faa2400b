//! The engines of the state store side by side: speed, memory and disk.
//!
//! ```text
//! cargo run --release -p millstream-node --example store_bench -- --engine sled,redb --entries 10000000
//! ```
//! Entries of 100 bytes are written in blocks of 100, in checkpoints of 32 MiB with some pages beside them, as a node
//! does; then the older half is trimmed, pages are rewritten, blocks read at random and all rows scanned; then blocks are
//! appended and trimmed at the same pace, so that a constant amount is alive. Each phase runs in a process of its own, so
//! that its resident memory is its own; opening is measured after a clean end and after a kill in the midst of a commit.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use millstream_node::config::Engine;
use millstream_node::storage::{Batch, StateDir, StateStore};
use millstream_node::world::World;

const ENTRY_BYTES: usize = 100;
/// What an entry takes in a block beside its payload: id, lengths, a field's name.
const OVERHEAD_BYTES: usize = 20;
const BLOCK_ENTRIES: u64 = 100;
const BLOCK_BYTES: usize = BLOCK_ENTRIES as usize * (ENTRY_BYTES + OVERHEAD_BYTES);
const CHECKPOINT_BYTES: usize = 32 << 20;
const BLOCKS_PER_CHECKPOINT: u64 = (CHECKPOINT_BYTES / BLOCK_BYTES) as u64;
/// Rows of 3 KiB that are rewritten all the time: pending entries, heads.
const PAGES: u64 = 10_000;
const PAGE_BYTES: usize = 3 << 10;
const PAGES_PER_CHECKPOINT: u64 = 500;
const RANDOM_READS: u64 = 20_000;

type Failure = Box<dyn std::error::Error>;

/// Compares the engines of the state store.
#[derive(Parser)]
struct Arguments {
    /// Engines, with commas between them: sled, redb, memory
    #[arg(long, default_value = "sled,redb")]
    engine: String,
    /// How many entries to write
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Where to keep the stores [default: a temporary directory]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Used by the bench itself: run one phase in a process of its own
    #[arg(long, hide = true)]
    phase: Option<String>,
}

fn engine(name: &str) -> Result<Engine, Failure> {
    match name {
        "sled" => Ok(Engine::Sled),
        "redb" => Ok(Engine::Redb),
        "memory" => Ok(Engine::Memory),
        _ => Err(format!("{name}: expected sled, redb or memory").into()),
    }
}

/// One figure, as a phase tells its parent: `name value unit`.
fn tell(name: &str, value: impl std::fmt::Display) {
    println!("figure {name} {value}");
}

fn noise(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn value(bytes: usize, seed: u64) -> Bytes {
    let mut value = Vec::with_capacity(bytes + 8);
    let mut word = seed;
    while value.len() < bytes {
        word = noise(word);
        value.extend_from_slice(&word.to_le_bytes());
    }
    value.truncate(bytes);
    value.into()
}

fn block_key(block: u64) -> Vec<u8> {
    [&[1, 240][..], &7_u64.to_be_bytes(), &block.to_be_bytes(), &[0; 8]].concat()
}

fn page_key(page: u64) -> Vec<u8> {
    [&[1, 7][..], &page.to_be_bytes()].concat()
}

/// A checkpoint that writes `new` and deletes `old` blocks, and rewrites pages.
fn checkpoint(new: std::ops::Range<u64>, old: std::ops::Range<u64>, round: u64) -> Batch {
    let mut batch: Batch = new.map(|block| (block_key(block), Some(value(BLOCK_BYTES, block)))).collect();
    batch.extend(old.map(|block| (block_key(block), None)));
    for nth in 0..PAGES_PER_CHECKPOINT {
        let page = noise(round * PAGES_PER_CHECKPOINT + nth) % PAGES;
        batch.push((page_key(page), Some(value(PAGE_BYTES, round))));
    }
    batch
}

/// Resident memory of this process in MiB: now and at most.
fn resident_mib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// CPU time of this process so far, threads included.
fn cpu() -> Duration {
    // SAFETY: all zeros is a valid value, and the call only writes to it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

struct Phase {
    engine: Engine,
    path: PathBuf,
    blocks: u64,
}

impl Phase {
    fn open(&self) -> Result<(StateDir, Arc<dyn StateStore>), Failure> {
        Ok(StateDir::open(&World::real(), &self.path, self.engine)?)
    }

    /// Runs checkpoints over `blocks` new ones, each deleting as many as `old` says, and tells what it took.
    fn checkpoints(&self, name: &str, range: std::ops::Range<u64>, old: impl Fn(u64) -> u64) -> Result<(), Failure> {
        let (_dir, store) = self.open()?;
        let (mut slowest, mut most_disk, started, before) = (Duration::ZERO, 0, Instant::now(), cpu());
        let (mut at, mut deleted) = (range.start, old(range.start));
        // What it costs to make the batches is not the engine's.
        let (mut making, mut making_cpu) = (Duration::ZERO, Duration::ZERO);
        while at < range.end {
            let end = range.end.min(at + BLOCKS_PER_CHECKPOINT);
            let (made, made_cpu) = (Instant::now(), cpu());
            let batch = checkpoint(at..end, deleted..old(end), at);
            making += made.elapsed();
            making_cpu += cpu().saturating_sub(made_cpu);
            let commit = Instant::now();
            store.commit(batch)?;
            slowest = slowest.max(commit.elapsed());
            most_disk = most_disk.max(store.disk_bytes()?);
            (at, deleted) = (end, old(end));
        }
        let entries = (range.end - range.start) * BLOCK_ENTRIES;
        let elapsed = started.elapsed() - making;
        tell(&format!("{name}-entries-per-second"), (entries as f64 / elapsed.as_secs_f64()) as u64);
        let spent = cpu().saturating_sub(before).saturating_sub(making_cpu);
        tell(&format!("{name}-cpu-ns-per-entry"), spent.as_nanos() as u64 / entries);
        tell(&format!("{name}-slowest-commit-ms"), slowest.as_millis());
        tell(&format!("{name}-disk-mib"), store.disk_bytes()? >> 20);
        tell(&format!("{name}-most-disk-mib"), most_disk >> 20);
        let (now, most) = resident_mib();
        tell(&format!("{name}-resident-mib"), now);
        tell(&format!("{name}-most-resident-mib"), most);
        let closing = Instant::now();
        drop((_dir, store));
        tell(&format!("{name}-close-ms"), closing.elapsed().as_millis());
        Ok(())
    }

    fn run(&self, phase: &str) -> Result<(), Failure> {
        let blocks = self.blocks;
        match phase {
            "fill" => self.checkpoints("fill", 0..blocks, |_| 0),
            "trim" => {
                let (dir, store) = self.open()?;
                let (started, mut slowest, mut at) = (Instant::now(), Duration::ZERO, 0);
                while at < blocks / 2 {
                    let end = (blocks / 2).min(at + 4 * BLOCKS_PER_CHECKPOINT);
                    let commit = Instant::now();
                    store.commit(checkpoint(0..0, at..end, at))?;
                    slowest = slowest.max(commit.elapsed());
                    at = end;
                }
                let entries = blocks / 2 * BLOCK_ENTRIES;
                tell("trim-entries-per-second", (entries as f64 / started.elapsed().as_secs_f64()) as u64);
                tell("trim-slowest-commit-ms", slowest.as_millis());
                tell("trim-disk-mib", store.disk_bytes()? >> 20);
                drop((dir, store));
                Ok(())
            }
            "read" => {
                let opening = Instant::now();
                let (_dir, store) = self.open()?;
                tell("open-clean-ms", opening.elapsed().as_millis());
                let started = Instant::now();
                for nth in 0..RANDOM_READS {
                    let block = blocks / 2 + noise(nth) % (blocks - blocks / 2);
                    store.get(&block_key(block))?.ok_or("a block is missing")?;
                }
                tell("random-block-read-us", started.elapsed().as_micros() as u64 / RANDOM_READS);
                let (started, mut rows) = (Instant::now(), 0);
                for row in store.scan(&[1, 240], &[1, 241]) {
                    row?;
                    rows += 1;
                }
                let rate = rows as f64 * BLOCK_ENTRIES as f64 / started.elapsed().as_secs_f64();
                tell("scan-entries-per-second", rate as u64);
                let (started, mut at) = (Instant::now(), Vec::new());
                let mut bytes = 0;
                loop {
                    let step = store.verify(&at, 8 << 20)?;
                    bytes += step.bytes;
                    if !step.damaged.is_empty() {
                        return Err(format!("{:?}", step.damaged).into());
                    }
                    let Some(next) = step.next else { break };
                    at = next;
                }
                tell(
                    "verify-mib-per-second",
                    (bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64()) as u64,
                );
                let (now, most) = resident_mib();
                tell("read-resident-mib", now);
                tell("read-most-resident-mib", most);
                Ok(())
            }
            // Half as many blocks as were written are alive all the time, until everything was written once more.
            "churn" => self.checkpoints("churn", blocks..2 * blocks, |at| at - (blocks - blocks / 2)),
            "die" => {
                let (_dir, store) = self.open()?;
                println!("figure writing 1");
                for round in 0.. {
                    let from = 2 * blocks + round * BLOCKS_PER_CHECKPOINT;
                    let half = blocks - blocks / 2;
                    store.commit(checkpoint(
                        from..from + BLOCKS_PER_CHECKPOINT,
                        from - half..from - half + 1,
                        round,
                    ))?;
                }
                Ok(())
            }
            "open-killed" => {
                let opening = Instant::now();
                let (_dir, store) = self.open()?;
                tell("open-killed-ms", opening.elapsed().as_millis());
                // What a restart reads first: everything but the blocks.
                let started = Instant::now();
                let rows = store.scan(&[1], &[1, 240]).try_fold(0_u64, |rows, row| row.map(|_| rows + 1))?;
                tell("open-killed-index-ms", started.elapsed().as_millis());
                tell("index-rows", rows);
                Ok(())
            }
            _ => Err("an unknown phase".into()),
        }
    }
}

/// Runs a phase in a child, and returns its figures. `kill_after` it has begun to write.
fn child(
    name: &str,
    path: &Path,
    entries: u64,
    phase: &str,
    kill_after: Option<Duration>,
) -> Result<Vec<(String, u64)>, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--engine", name, "--entries", &entries.to_string(), "--phase", phase, "--directory"])
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut figures = Vec::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
        let line = line?;
        let mut parts = line.split(' ').skip(1);
        if let (Some(name), Some(Ok(value))) = (parts.next(), parts.next().map(str::parse)) {
            figures.push((name.to_owned(), value));
        }
        if let Some(time) = kill_after {
            std::thread::sleep(time);
            child.kill()?;
            break;
        }
    }
    let status = child.wait()?;
    if !status.success() && kill_after.is_none() {
        return Err(format!("{name}: phase {phase} failed: {status}").into());
    }
    Ok(figures)
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let blocks = (arguments.entries / BLOCK_ENTRIES).max(8);
    if let Some(phase) = &arguments.phase {
        let path = arguments.directory.ok_or("a phase needs a directory")?;
        return Phase { engine: engine(&arguments.engine)?, path, blocks }.run(phase);
    }
    let names: Vec<&str> = arguments.engine.split(',').collect();
    for name in &names {
        engine(name)?;
    }
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut columns: Vec<Vec<(String, u64)>> = Vec::new();
    for name in &names {
        let path = parent.join(format!("store-bench-{}-{name}", std::process::id()));
        let mut figures = Vec::new();
        for phase in ["fill", "trim", "read", "churn", "die", "open-killed"] {
            let kill_after = (phase == "die").then_some(Duration::from_millis(2_300));
            figures.extend(child(name, &path, arguments.entries, phase, kill_after)?);
            eprintln!("{name}: {phase} is done");
        }
        std::fs::remove_dir_all(&path)?;
        columns.push(figures);
    }

    let live = (blocks * BLOCK_BYTES as u64) >> 20;
    println!("{} entries, {live} MiB of blocks at the peak, half of that during churn\n", arguments.entries);
    let shown: Vec<&String> = columns[0].iter().map(|(name, _)| name).filter(|name| *name != "writing").collect();
    print!("| figure |");
    names.iter().for_each(|name| print!(" {name} |"));
    println!("\n|---|{}", "---|".repeat(names.len()));
    for figure in shown {
        print!("| {figure} |");
        for column in &columns {
            match column.iter().find(|(name, _)| name == figure) {
                Some((_, value)) => print!(" {value} |"),
                None => print!(" - |"),
            }
        }
        println!();
    }
    Ok(())
}
