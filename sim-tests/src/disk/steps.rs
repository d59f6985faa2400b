//! Faults at numbered steps: a crash, an error, a full disk.
//!
//! Whatever changes the disk is a *step*: creating, writing, changing a length, syncing, renaming, removing, and
//! syncing a directory. Steps are counted from 1 since [`Disk::plan`](super::Disk::plan), so that a deterministic
//! program can be run again and again with a fault at each of them in turn.

use std::io;

use super::faults::Area;

/// The faults to come. The default: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// The life ends just before this step: neither it nor any later one happens.
    pub crash_at: Option<u64>,
    /// This step fails with an I/O error. A failed sync leaves the file as Linux does: readable and clean, so that a
    /// later sync succeeds and brings nothing of it to the platter.
    pub fail_at: Option<u64>,
    /// Bytes that all files together may have. A write beyond it does not happen and fails with `StorageFull`.
    pub quota: Option<u64>,
}

/// A crash that waits for its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ambush {
    pub(super) area: Area,
    pub(super) after: Option<Step>,
    /// How many such steps are still to come, this one included.
    pub(super) left: u64,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A file or directory is created.
    Create,
    /// Bytes are written.
    Write,
    /// A length is changed.
    SetLen,
    /// A file is synced.
    Sync,
    /// A file is renamed.
    Rename,
    /// A file or directory is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
}

/// Where a disk is in its plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) plan: Faults,
    /// Steps begun so far.
    pub(super) steps: u64,
    /// What failed by `fail_at`.
    pub(super) failed: Option<Step>,
    /// The new name, if that was a rename.
    pub(super) failed_name: Option<String>,
    pub(super) crashed: bool,
    pub(super) ambush: Option<Ambush>,
    /// Whether the step to come is in the area of the ambush.
    pub(super) is_there: bool,
    /// The step before.
    pub(super) last: Option<Step>,
    /// After so many more syncs of a directory a crash is planned, and how many steps behind the last of them.
    pub(super) crash_behind: Option<(u64, u64)>,
}

/// What becomes of a step.
pub(super) enum Verdict {
    Happens,
    Crash,
    Fails,
}

impl Progress {
    pub(super) fn next(&mut self, step: Step) -> Verdict {
        self.steps += 1;
        let last = self.last.replace(step);
        let is_there = std::mem::take(&mut self.is_there);
        if let Some(ambush) = &mut self.ambush
            && is_there
            && ambush.after.is_none_or(|after| last == Some(after))
        {
            ambush.left = ambush.left.saturating_sub(1);
            if ambush.left == 0 {
                self.ambush = None;
                self.crashed = true;
                return Verdict::Crash;
            }
        }
        if let (Step::SyncDir, Some((names, steps))) = (step, self.crash_behind) {
            self.crash_behind = (1 < names).then(|| (names - 1, steps));
            if names <= 1 {
                self.plan.crash_at = Some(self.steps + steps);
            }
        }
        if self.plan.crash_at == Some(self.steps) {
            self.crashed = true;
            return Verdict::Crash;
        }
        if self.plan.fail_at == Some(self.steps) {
            self.failed = Some(step);
            return Verdict::Fails;
        }
        Verdict::Happens
    }
}

pub(super) fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
}

pub(super) fn broken() -> io::Error {
    io::Error::other("the disk answers with an I/O error")
}
