//! A simulated disk that keeps its promises to the letter, and nothing beyond them.
//!
//! Every file has two images: what a read returns now, and what is on the platter. A write changes the first; only
//! [`File::sync`] brings it to the second. The same holds for the names in a directory and [`Fs::sync_dir`]: a file that
//! was synced, but whose name was not, is gone after a power loss.
//!
//! - **The process dies** ([`Disk::kill_process`]): what was written stays readable, but is still not durable. A program
//!   that reads it after a restart and relies on it is wrong.
//! - **The power fails** ([`Disk::power_loss`]): each write since the last sync is lost, kept, or torn at sectors of 512
//!   bytes; each unsynced change of a name is lost or kept. The seed decides.
//!
//! The driver owns the disk; a node gets a [`SimFs`] for one life of its process. After that life every call of the old
//! handle fails, so destructors that run late, where a real process would have none, change nothing.
//!
//! - **The disk fails at a numbered step** ([`Disk::plan`]): the life ends there, or an operation fails; or there is no
//!   room. For programs that are run again and again with a fault at each step in turn.
//! - **The disk fails at run time** ([`Disk::inject`]): errors, no room, slow syncs, and damage to what was synced.
//!
//! What is absent: a sync that reports success and does nothing, which no program could survive; and time, which the disk
//! leaves to the tasks that use it (`stall.rs`).

mod counters;
mod damage;
mod durable;
#[cfg(test)]
mod fault_tests;
mod faults;
mod fs;
mod images;
mod names;
mod stall;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::counters::Counters;
pub use self::durable::{Durable, DurableName};
pub use self::faults::{Area, DiskFault};
use self::faults::{Injected, Operation};
pub use self::fs::SimFs;
pub use self::images::SECTOR;
use self::images::{Images, Inode};
use self::names::ROOT;
use self::steps::{Ambush, Progress, Verdict, broken};
pub use self::steps::{Faults, Step};
use crate::entropy::Rng;
use crate::trace::Trace;

/// A node's disk, as the driver holds it. Cheap to clone.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    node: String,
    /// For power losses.
    rng: Rng,
    /// For syncs that fail.
    sync_rng: Rng,
    trace: Option<Trace>,
    life: u64,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    locks: BTreeMap<PathBuf, u64>,
    /// How often the present life has a file open.
    open: BTreeMap<u64, usize>,
    written_last: Option<u64>,
    counters: Counters,
    faults: Progress,
    injected: Injected,
    /// Counts changes of the platter.
    version: u64,
    damaged: bool,
    replacements: u64,
}

impl Disk {
    /// An empty disk of `node`. `rng` decides what survives a power loss.
    pub fn new(node: &str, rng: Rng, trace: Option<Trace>) -> Self {
        Self(Arc::new(Mutex::new(State {
            node: node.to_owned(),
            sync_rng: rng.fork("failed syncs"),
            rng,
            trace,
            life: 0,
            inodes: BTreeMap::from([(ROOT, Inode::Directory(Images::default()))]),
            inode_next: ROOT + 1,
            locks: BTreeMap::new(),
            open: BTreeMap::new(),
            written_last: None,
            counters: Counters::default(),
            faults: Progress::default(),
            injected: Injected::default(),
            version: 0,
            damaged: false,
            replacements: 0,
        })))
    }

    /// Sets the faults to come, and counts steps from 1 again.
    pub fn plan(&self, faults: Faults) {
        self.lock().faults = Progress { plan: faults, ..Progress::default() };
    }

    /// Steps begun since the last [`plan`](Self::plan).
    pub fn steps(&self) -> u64 {
        self.lock().faults.steps
    }

    /// Whether the crash that was planned has come.
    pub fn has_crashed(&self) -> bool {
        self.lock().faults.crashed
    }

    /// What failed by plan, if anything has.
    pub fn failed(&self) -> Option<Step> {
        self.lock().faults.failed
    }

    /// The new name that a rename was to give, if it is what failed by plan.
    pub fn failed_name(&self) -> Option<String> {
        self.lock().faults.failed_name.clone()
    }

    /// Injects a fault, beside those in force. The next of a stall or a full disk replaces the one before.
    pub fn inject(&self, fault: DiskFault) {
        let mut state = self.lock();
        state.trace(format_args!("inject {fault:?}"));
        match fault {
            DiskFault::FailRead { nth } => state.injected.fail(Operation::Read, nth),
            DiskFault::FailWrite { nth } => state.injected.fail(Operation::Write, nth),
            DiskFault::FailSync { nth } => state.injected.fail(Operation::Sync, nth),
            DiskFault::FailSyncDir { nth } => state.injected.fail(Operation::SyncDir, nth),
            DiskFault::FailRename { nth } => state.injected.fail(Operation::Rename, nth),
            DiskFault::Full { bytes_left } => state.injected.quota = Some(state.used().saturating_add(bytes_left)),
            DiskFault::Stall { ms, area } => state.injected.stall(Duration::from_millis(ms), area),
            DiskFault::FlipBits { count, seed, area } => state.flip_bits(count, seed, area),
            DiskFault::MisdirectWrite { nth, seed } => state.injected.misdirect(nth, seed),
            DiskFault::LoseSectors { count, seed, area } => state.lose_sectors(count, seed, area),
        }
    }

    /// Ends all injected faults. Damage that was done stays.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.trace(format_args!("clear faults"));
        state.injected.clear();
    }

    /// Just before the n-th step from now, counted from 1, the life ends.
    pub fn crash_at(&self, nth: u64) {
        let Progress { plan, steps, crashed, .. } = &mut self.lock().faults;
        plan.crash_at = Some(*steps + nth);
        *crashed = false;
    }

    /// Just before the n-th step from now, counted from 1, among those on files of `area` that directly follow a step
    /// `after` if that is given, the life ends.
    pub fn crash_in(&self, area: Area, after: Option<Step>, nth: u64) {
        let Progress { ambush, crashed, .. } = &mut self.lock().faults;
        *ambush = Some(Ambush { area, after, left: nth.max(1) });
        *crashed = false;
    }

    /// Just before the n-th step behind the sync of a directory, the `names`-th of them from now, counted from 1, the life
    /// ends; 0: before the sync itself. New names are rare, and what they promise is not yet kept by any later sync then.
    pub fn crash_behind_names(&self, names: u64, nth: u64) {
        let Progress { plan, crash_behind, crashed, .. } = &mut self.lock().faults;
        plan.crash_at = None;
        *crash_behind = Some((names, nth));
        *crashed = false;
    }

    /// No crash is to come any more.
    pub fn forget_crash(&self) {
        let Progress { plan, crashed, ambush, crash_behind, .. } = &mut self.lock().faults;
        plan.crash_at = None;
        (*ambush, *crash_behind) = (None, None);
        *crashed = false;
    }

    /// Whether the disk has lost or changed what it held: by flipped bits, misdirected writes or lost sectors.
    pub fn is_damaged(&self) -> bool {
        self.lock().damaged
    }

    /// Ends the present life and replaces the disk by an empty one.
    pub fn replace(&self) {
        self.kill_process();
        let mut state = self.lock();
        state.trace(format_args!("replace"));
        // Inodes are not numbered anew, so nobody takes a new file for an old one.
        state.inodes = BTreeMap::from([(ROOT, Inode::Directory(Images::default()))]);
        state.injected = Injected::default();
        state.written_last = None;
        state.damaged = false;
        state.version += 1;
        state.replacements += 1;
    }

    /// The disk for the present life of the node's process.
    pub fn mount(&self) -> SimFs {
        SimFs { disk: self.clone(), life: self.lock().life }
    }

    /// Ends the present life: locks are released, old handles fail, unsynced data stays readable and unsynced.
    pub fn kill_process(&self) {
        self.lock().end_life();
    }

    /// Ends the present life and takes the power away: of what was not synced, the seed decides what is left.
    pub fn power_loss(&self) {
        self.kill_process();
        self.lock().lose_unsynced();
    }

    /// Whether a write is under way: the file written last has not been synced since.
    pub fn is_writing(&self) -> bool {
        let state = self.lock();
        let file = state.written_last.and_then(|inode| state.inodes.get(&inode));
        matches!(file, Some(Inode::File(file)) if !file.unsynced.is_empty())
    }

    /// What the disk has been through.
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// What would be found after a power loss that keeps nothing unsynced: path and content, in order.
    pub fn durable_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.lock();
        let mut files = Vec::new();
        state.collect_durable(ROOT, Path::new("/"), &mut files);
        files
    }

    /// How long the sync of what was written last is to be held up. Each is held up once.
    fn take_stall(&self) -> Option<Duration> {
        let mut state = self.lock();
        let stall = state.injected.take_stall();
        state.count_stall(stall)
    }

    /// How long a job on files is to be held up.
    fn stall_of_job(&self) -> Option<Duration> {
        let mut state = self.lock();
        let stall = state.injected.job_stall();
        state.count_stall(stall)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere fails the simulation anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if `life` is still the present one.
    fn enter(&self, life: u64) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.life != life {
            return Err(io::Error::other("the process that opened this has ended"));
        }
        Ok(state)
    }
}

impl State {
    fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.open.clear();
    }

    fn lose_unsynced(&mut self) {
        self.version += 1;
        let Self { node, rng, trace, inodes, counters, version, .. } = self;
        counters.power_losses += 1;
        let before = *counters;
        for inode in inodes.values_mut() {
            match inode {
                Inode::File(file) => file.lose_power(*version, rng, counters),
                Inode::Directory(directory) => directory.lose_power(*version, rng, counters),
            }
        }
        if let Some(trace) = trace {
            trace.line(
                "disk",
                format_args!(
                    "{node} power loss: writes lost {} kept {} torn {}, names lost {} kept {}",
                    counters.writes_lost - before.writes_lost,
                    counters.writes_kept - before.writes_kept,
                    counters.writes_torn - before.writes_torn,
                    counters.names_lost - before.names_lost,
                    counters.names_kept - before.names_kept,
                ),
            );
        }
        self.forget_unreachable();
    }

    /// Begins a step of the present life: whether it may happen.
    fn step(&mut self, step: Step) -> io::Result<()> {
        match self.faults.next(step) {
            Verdict::Happens => {}
            Verdict::Fails => return Err(broken()),
            Verdict::Crash => {
                self.end_life();
                return Err(io::Error::other("the process that opened this has ended"));
            }
        }
        match Operation::of(step) {
            Some(operation) if self.injected.strikes(operation) => {
                self.trace(format_args!("{step:?} fails"));
                Err(broken())
            }
            _ => Ok(()),
        }
    }

    /// Says where the next step happens, for a crash that waits for its place.
    fn approach(&mut self, inode: u64) {
        if let Some(Ambush { area, .. }) = self.faults.ambush {
            self.faults.is_there = self.path_of(inode, ROOT, PathBuf::from("/")).is_some_and(|path| area.holds(&path));
        }
    }

    fn path_of(&self, wanted: u64, at: u64, path: PathBuf) -> Option<PathBuf> {
        if at == wanted {
            return Some(path);
        }
        let Some(Inode::Directory(directory)) = self.inodes.get(&at) else { return None };
        directory.volatile.iter().find_map(|(name, inode)| self.path_of(wanted, *inode, path.join(name)))
    }

    /// Bytes of all files together.
    fn used(&self) -> u64 {
        let files = self.inodes.values().map(|inode| match inode {
            Inode::File(file) => file.volatile.len() as u64,
            Inode::Directory(_) => 0,
        });
        files.sum()
    }

    /// Bytes that may still be written.
    fn room(&self) -> u64 {
        let quotas = [self.faults.plan.quota, self.injected.quota];
        let Some(quota) = quotas.into_iter().flatten().min() else { return u64::MAX };
        quota.saturating_sub(self.used())
    }

    /// What a failed sync leaves, on the platter and as the system believes it to be.
    fn fail_sync(&mut self, inode: u64) -> io::Result<()> {
        self.version += 1;
        let mut rng = self.sync_rng.clone();
        let version = self.version;
        let file = self.file(inode)?;
        for write in std::mem::take(&mut file.unsynced) {
            // Not counted: no power was lost.
            write.survive(&mut file.durable, &mut rng, &mut Counters::default());
            file.durable_since = version;
        }
        self.sync_rng = rng;
        Ok(())
    }

    fn count_stall(&mut self, stall: Option<Duration>) -> Option<Duration> {
        if let Some(time) = stall {
            self.counters.stalls += 1;
            self.trace(format_args!("stall {} ms", time.as_millis()));
        }
        stall
    }

    fn trace(&self, event: fmt::Arguments<'_>) {
        if let Some(trace) = &self.trace {
            trace.line("disk", format_args!("{} {event}", self.node));
        }
    }
}
