//! Power failures: whatever the disk keeps of what was not synced, nothing that was promised is lost.

mod wal_support;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use millstream_node::storage::{LogStore, Wal, WalOptions};
use millstream_node::types::{LogEntry, Vote};
use millstream_node::world::{File, Fs, OpenMode, World};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use wal_support::{Disk, entry, run, world};

const SECTOR: usize = 512;

/// A sequence of numbers that looks random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A file: what can be read, and what is durable.
#[derive(Default)]
struct Content {
    read: Vec<u8>,
    durable: Vec<u8>,
}

/// A disk that loses, at a power failure, any part of what was not synced: sectors of files, and names.
#[derive(Default)]
struct Drive {
    files: Vec<Content>,
    /// Names and the files they stand for.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// After so many more operations the power fails: nothing has an effect any more.
    power: u64,
}

#[derive(Clone, Default)]
struct Fragile(Arc<Mutex<Drive>>);

impl Fragile {
    fn lock(&self) -> MutexGuard<'_, Drive> {
        self.0.lock().expect("not poisoned")
    }

    /// Takes one operation's power.
    fn powered(&self) -> io::Result<MutexGuard<'_, Drive>> {
        let mut drive = self.lock();
        if drive.power == 0 {
            return Err(io::Error::other("the power is off"));
        }
        drive.power -= 1;
        Ok(drive)
    }

    /// The disk as it is after a power failure.
    fn restart(&self, dice: &mut Dice, power: u64) -> Self {
        let old = self.lock();
        let mut new = Drive { power, ..Drive::default() };
        for content in &old.files {
            let mut left = content.durable.clone();
            if content.read.len() != left.len() && dice.roll(2) == 0 {
                left.resize(content.read.len(), 0);
            }
            for (at, sector) in content.read.chunks(SECTOR).enumerate() {
                let end = (at * SECTOR + sector.len()).min(left.len());
                if at * SECTOR < end && dice.roll(2) == 0 {
                    left[at * SECTOR..end].copy_from_slice(&sector[..end - at * SECTOR]);
                }
            }
            new.files.push(Content { read: left.clone(), durable: left });
        }
        let mut names = old.durable_names.clone();
        for name in old.names.keys().chain(old.durable_names.keys()) {
            if dice.roll(2) == 0 {
                match old.names.get(name) {
                    Some(file) => drop(names.insert(name.clone(), *file)),
                    None => drop(names.remove(name)),
                }
            }
        }
        (new.names, new.durable_names) = (names.clone(), names);
        Self(Arc::new(Mutex::new(new)))
    }
}

struct FragileFile {
    disk: Fragile,
    number: usize,
}

impl File for FragileFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let drive = self.disk.lock();
        let content = &drive.files[self.number].read;
        let range = offset as usize..offset as usize + buf.len();
        buf.copy_from_slice(content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut drive = self.disk.powered()?;
        let content = &mut drive.files[self.number].read;
        let end = offset as usize + buf.len();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.powered()?.files[self.number].read.resize(len as usize, 0);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.number].read.len() as u64)
    }
    fn sync(&self) -> io::Result<()> {
        let mut drive = self.disk.powered()?;
        let content = &mut drive.files[self.number];
        content.durable = content.read.clone();
        Ok(())
    }
}

impl Fs for Fragile {
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut drive = self.powered()?;
        let number = match (drive.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(number), _) => number,
            (None, OpenMode::CreateNew) => {
                drive.files.push(Content::default());
                let number = drive.files.len() - 1;
                drive.names.insert(path.to_owned(), number);
                number
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(FragileFile { disk: self.clone(), number }))
    }
    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        Ok(self.lock().names.keys().map(name).collect())
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.lock().names.contains_key(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut drive = self.powered()?;
        let file = drive.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        drive.names.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.powered()?.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the log removes no directory"))
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut drive = self.powered()?;
        drive.durable_names = drive.names.clone();
        Ok(())
    }
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

fn powered_world(disk: &Fragile) -> World {
    World { fs: Arc::new(disk.clone()), ..world(&Disk::default(), false).0 }
}

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 2048,
        flush_bytes_max: 700,
        tail_bytes_max: 0,
        simulated_sync_latency: None,
        ..WalOptions::default()
    }
}

/// What was asked of a log, and how much of it was confirmed.
#[derive(Default)]
struct Promises {
    term: u64,
    /// The log after each change, in order, since the last confirmation. The first one is what was confirmed.
    states: Vec<(Option<Vote>, Vec<LogEntry>)>,
    /// Below this everything may be gone. The purge itself need not be durable.
    kept_from: u64,
    /// Up to here nothing is ever truncated.
    committed: u64,
}

impl Promises {
    fn last(&self) -> (Option<Vote>, Vec<LogEntry>) {
        self.states.last().cloned().unwrap_or_default()
    }

    fn confirm(&mut self) {
        self.states = vec![self.last()];
    }
}

/// Works with a log until the power fails.
async fn work(log: &mut LogStore, promises: &mut Promises, dice: &mut Dice) -> io::Result<()> {
    loop {
        let (vote, mut entries) = promises.last();
        let next = entries.last().map_or(0, |entry| entry.log_id.index + 1);
        match dice.roll(10) {
            0 => {
                promises.term += 1;
                let vote = Vote::new(promises.term, 1);
                promises.states.push((Some(vote), entries));
                log.save_vote(&vote).await?;
                promises.confirm();
            }
            1 if 3 < entries.len() => {
                let keep = entries.len() - 1 - dice.roll(3) as usize;
                let keep =
                    keep.max(entries.iter().take_while(|entry| entry.log_id.index <= promises.committed).count());
                entries.truncate(keep.max(1));
                promises.term += 1;
                let last = entries.last().map(|entry| entry.log_id);
                promises.states.push((vote, entries));
                log.truncate_after(last).await?;
            }
            2 if 20 < entries.len() => {
                log.barrier().await?;
                promises.confirm();
                let upto = entries[entries.len() - 5].log_id;
                promises.kept_from = promises.kept_from.max(upto.index + 1);
                promises.committed = promises.committed.max(upto.index);
                log.purge(upto).await?;
            }
            3 => {
                if let Some(last) = entries.last() {
                    promises.committed = last.log_id.index;
                    log.save_committed(Some(last.log_id)).await?;
                }
            }
            4..=5 => {
                log.barrier().await?;
                promises.confirm();
            }
            _ => {
                let count = 1 + dice.roll(4);
                let size = [0, 10, 300, 2500][dice.roll(4) as usize];
                let new: Vec<_> = (next..next + count).map(|index| entry(promises.term, index, size)).collect();
                for at in 1..=new.len() {
                    let mut entries = entries.clone();
                    entries.extend_from_slice(&new[..at]);
                    promises.states.push((vote, entries));
                }
                log.append(new, IOFlushed::noop()).await?;
                if dice.roll(3) == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// What is in the log must be one of the states since the last confirmation, but for what was purged.
async fn check(log: &mut LogStore, promises: &mut Promises, seed: u64) {
    let vote = log.read_vote().await.expect("reads");
    let found = log.try_get_log_entries(..).await.expect("reads");
    let state = log.get_log_state().await.expect("reads");
    let first = found.first().map_or(promises.kept_from, |entry| entry.log_id.index);
    assert!(first <= promises.kept_from, "seed {seed}: entries from {first} of {}", promises.kept_from);
    let floor =
        |entries: &[LogEntry]| entries.iter().filter(|entry| first <= entry.log_id.index).cloned().collect::<Vec<_>>();
    if promises.states.is_empty() {
        promises.states.push((None, Vec::new()));
    }
    let at = promises
        .states
        .iter()
        .rposition(|(promised, entries)| *promised == vote && floor(entries) == found)
        .unwrap_or_else(|| {
            let confirmed = promises.states[0].1.last().map(|entry| entry.log_id);
            panic!("seed {seed}: found {vote:?} {:?}, confirmed {confirmed:?}", state.last_log_id)
        });
    if let Some(committed) = log.read_committed().await.expect("reads") {
        let there = found.iter().any(|entry| entry.log_id == committed) || committed.index < promises.kept_from;
        assert!(there, "seed {seed}: {committed} is committed, but not in the log");
    }
    promises.states = vec![promises.states[at].clone()];
    assert!(state.last_purged_log_id.map_or(0, |purged| purged.index + 1) <= promises.kept_from);
}

#[test]
fn nothing_promised_is_lost_whenever_the_power_fails() {
    let seeds = std::env::var("POWER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300_u64);
    for seed in 0..seeds {
        run(async {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let path = Path::new("/log/wal");
            let mut disk = Fragile::default();
            let mut promises = Promises::default();
            for life in 0..8 {
                // Sometimes the power fails while the log is being read.
                let sides = if dice.roll(3) == 0 { 12 } else { 150 };
                let power = 1 + dice.roll(sides);
                disk = disk.restart(&mut dice, if life == 7 { u64::MAX } else { power });
                match Wal::open(&powered_world(&disk), path, options()) {
                    Ok(wal) => {
                        let mut log = wal.group(0);
                        check(&mut log, &mut promises, seed).await;
                        if life < 7 {
                            work(&mut log, &mut promises, &mut dice).await.expect_err("the power fails");
                        }
                        wal.close().await;
                    }
                    Err(error) => assert!(error.to_string().contains("the power is off"), "seed {seed}: {error}"),
                }
            }
        });
    }
}
