//! Faults that come and go while a node runs.
//!
//! Each is injected by the driver, between two steps of the simulation, and counts from there: "the third sync from now".
//! None moves the luck of another: what a fault leaves to chance comes from its own seed or from a stream of its own.
//!
//! Two kinds are told apart. What is *broken for a while* (errors, no room, stalls) ends with
//! [`Disk::clear_faults`](super::Disk::clear_faults). *Damage* (flipped bits, misdirected writes, lost sectors) stays until
//! the bytes are written again or the disk is replaced: the disk then no longer holds what it said it held, and a checker
//! must not blame the node for that ([`Disk::is_damaged`](super::Disk::is_damaged)).

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::steps::Step;

/// A fault of a disk. `nth` counts from 1 and from the moment of the injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum DiskFault {
    /// The nth read fails with an I/O error.
    FailRead {
        /// Which read.
        nth: u64,
    },
    /// The nth write, or change of a length, fails with an I/O error, and nothing of it happens.
    FailWrite {
        /// Which write.
        nth: u64,
    },
    /// The nth sync of a file fails as on Linux: what was not synced stays readable and counts as clean. Any part of it may
    /// have reached the platter; the rest never will.
    FailSync {
        /// Which sync.
        nth: u64,
    },
    /// The nth sync of a directory fails. Its new names stay as durable as they were.
    FailSyncDir {
        /// Which sync.
        nth: u64,
    },
    /// The nth rename fails, and nothing of it happens.
    FailRename {
        /// Which rename.
        nth: u64,
    },
    /// The disk is full but for so many bytes. There is room again after [`clear_faults`](super::Disk::clear_faults).
    Full {
        /// Bytes by which all files together may still grow.
        bytes_left: u64,
    },
    /// Each sync takes this much longer, in simulated time.
    Stall {
        /// Milliseconds.
        ms: u64,
        /// Of which files: log and state may lie on different devices.
        #[serde(default)]
        area: Area,
    },
    /// Bits on the platter change, in sectors that hold something other than zeros.
    FlipBits {
        /// How many.
        count: u32,
        /// Decides which.
        seed: u64,
        /// In which files.
        #[serde(default)]
        area: Area,
    },
    /// The nth write is readable where it was meant to be, but goes to another place of the file.
    MisdirectWrite {
        /// Which write.
        nth: u64,
        /// Decides where to.
        seed: u64,
    },
    /// Sectors on the platter cannot be read until they are written again.
    LoseSectors {
        /// How many.
        count: u32,
        /// Decides which.
        seed: u64,
        /// In which files.
        #[serde(default)]
        area: Area,
    },
}

impl DiskFault {
    /// Whether it changes what the disk holds, for good.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::FlipBits { .. } | Self::MisdirectWrite { .. } | Self::LoseSectors { .. })
    }
}

/// The files in which damage is done, by a directory in their path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// All.
    #[default]
    Anywhere,
    /// The log: below a directory `wal`.
    Log,
    /// The state store: below a directory `state`.
    State,
}

impl Area {
    /// Whether a file at this path is meant.
    pub(super) fn holds(self, path: &std::path::Path) -> bool {
        let below = |name: &str| path.components().any(|component| component.as_os_str() == name);
        match self {
            Area::Anywhere => true,
            Area::Log => below("wal"),
            Area::State => below("state"),
        }
    }
}

/// What may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    Sync,
    SyncDir,
    Rename,
}

impl Operation {
    /// What of a numbered step an injected fault may hit.
    pub(super) fn of(step: Step) -> Option<Self> {
        match step {
            Step::Write | Step::SetLen => Some(Self::Write),
            Step::Sync => Some(Self::Sync),
            Step::SyncDir => Some(Self::SyncDir),
            Step::Rename => Some(Self::Rename),
            Step::Create | Step::Remove => None,
        }
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Injected {
    /// What is to fail, and after how many more.
    failures: Vec<(Operation, u64)>,
    /// Writes to be misdirected: after how many more, and the seed.
    misdirections: Vec<(u64, u64)>,
    /// Bytes that all files together may have.
    pub(super) quota: Option<u64>,
    stall: Option<(Duration, Area)>,
    /// Whether something was written that no stall has held up yet.
    stall_due: bool,
    /// Sectors that cannot be read, by inode.
    pub(super) unreadable: BTreeSet<(u64, usize)>,
}

impl Injected {
    pub(super) fn fail(&mut self, operation: Operation, nth: u64) {
        self.failures.push((operation, nth.max(1)));
    }

    pub(super) fn misdirect(&mut self, nth: u64, seed: u64) {
        self.misdirections.push((nth.max(1), seed));
    }

    pub(super) fn stall(&mut self, time: Duration, area: Area) {
        self.stall = Some((time, area));
    }

    /// Ends what is broken for a while. Damage stays.
    pub(super) fn clear(&mut self) {
        *self = Self { unreadable: std::mem::take(&mut self.unreadable), ..Self::default() };
    }

    /// Counts an operation. Whether it fails.
    pub(super) fn strikes(&mut self, operation: Operation) -> bool {
        let mut strikes = false;
        self.failures.retain_mut(|(armed, left)| {
            if *armed == operation {
                *left -= 1;
                strikes |= *left == 0;
            }
            0 < *left
        });
        strikes
    }

    /// Counts a write that happens. The seed of its misdirection, if it is misdirected.
    pub(super) fn misdirects(&mut self) -> Option<u64> {
        self.stall_due = self.stall.is_some();
        let mut seed = None;
        self.misdirections.retain_mut(|(left, with)| {
            *left -= 1;
            if *left == 0 {
                seed = Some(*with);
            }
            0 < *left
        });
        seed
    }

    /// How long the sync of what was written last is to be held up. Each is held up once.
    pub(super) fn take_stall(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.stall_due) {
            return None;
        }
        self.stall_of(Area::Log)
    }

    /// How long a job on files is to be held up.
    pub(super) fn job_stall(&self) -> Option<Duration> {
        self.stall_of(Area::State)
    }

    fn stall_of(&self, area: Area) -> Option<Duration> {
        let (time, stalls) = self.stall?;
        (stalls == Area::Anywhere || stalls == area).then_some(time)
    }
}

pub(super) fn unreadable() -> io::Error {
    io::Error::other("the disk cannot read this sector")
}
