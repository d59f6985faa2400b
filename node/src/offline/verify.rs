//! Checks a data directory as a whole: each part for itself, and that they fit together.

use std::path::Path;

use serde::Serialize;

use super::scratch::{OpenedState, StoredState};
use super::{CANNOT, DAMAGED, FINE, ToolError};
use crate::replica::inspect;
use crate::storage::wal::{self, Content, GroupSummary};
use crate::storage::{Inspected, SnapshotFile, StoreError, WalError, store};
use crate::types::{LogId, LogPayload};
use crate::world::World;

/// The only Raft group there is today.
const GROUP: u32 = 0;

/// What was found in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The directory.
    pub data_dir: String,
    /// Whether everything was checked and nothing is damaged.
    pub fine: bool,
    /// Its parts, in the order in which they were checked.
    pub parts: Vec<Checked>,
}

/// What was found in one part of a data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Which.
    pub part: &'static str,
    /// What was counted.
    pub counts: Vec<(&'static str, u64)>,
    /// What is worth knowing, though nothing is wrong with it.
    pub notes: Vec<String>,
    /// What is damaged, one sentence each; long lists are cut.
    pub damage: Vec<String>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
}

impl Report {
    /// Whether something is damaged.
    pub fn is_damaged(&self) -> bool {
        self.parts.iter().any(|part| !part.damage.is_empty())
    }

    pub(super) fn exit_code(&self) -> u8 {
        match (self.is_damaged(), self.fine) {
            (true, _) => DAMAGED,
            (false, true) => FINE,
            (false, false) => CANNOT,
        }
    }
}

impl Checked {
    fn new(part: &'static str) -> Self {
        Self { part, ..Self::default() }
    }

    fn count(&mut self, what: &'static str, number: u64) {
        self.counts.push((what, number));
    }

    fn store_failed(&mut self, error: StoreError) {
        match error {
            StoreError::Corrupt { what } => self.damage.push(what),
            StoreError::Io(_) | StoreError::OtherEngine { .. } => self.unchecked.push(error.to_string()),
        }
    }

    fn log_failed(&mut self, error: &WalError) {
        match error {
            WalError::Corrupt { .. } | WalError::Missing { .. } | WalError::Inconsistent { .. } => {
                self.damage.push(error.to_string());
            }
            WalError::Io { .. } | WalError::Undecodable { .. } => self.unchecked.push(error.to_string()),
        }
    }
}

/// Checks a data directory of a node that does not run, and changes nothing in it. The state is copied to a directory in
/// `scratch` and looked at there. `progress` is told what is being done, and how far it is. Blocks on files.
pub fn verify(
    world: &World,
    data_dir: &Path,
    scratch: Option<&Path>,
    progress: &mut dyn FnMut(&str, u64),
) -> Result<Report, ToolError> {
    let directory = Inspected::open(world, data_dir)?;
    let mut parts = vec![identity(&directory)];
    let (log, group) = log(world, &directory, progress);
    parts.push(log);
    let (mut files, opened) = state_files(world, &directory, scratch, progress);
    if let Some(opened) = &opened {
        parts.push(files);
        parts.push(rows(opened, progress));
        parts.push(blocks(opened, progress));
        parts.push(state(opened));
        parts.push(checkpoint(world, &directory, opened, group.as_ref(), progress));
    } else {
        if files.damage.is_empty() && files.unchecked.is_empty() && group.is_some_and(|group| group.purged.is_some()) {
            files.damage.push("the beginning of the log is purged, but there is no state".to_owned());
        }
        parts.push(files);
    }
    parts.push(spool(world, &directory));
    let fine = parts.iter().all(|part| part.damage.is_empty() && part.unchecked.is_empty());
    Ok(Report { data_dir: data_dir.display().to_string(), fine, parts })
}

fn identity(directory: &Inspected) -> Checked {
    let mut checked = Checked::new("identity");
    match &directory.identity {
        Ok(identity) => {
            checked.count("node", identity.node_id);
            checked.notes.push(match &identity.cluster_id {
                Some(cluster) => format!("a node of cluster {cluster}"),
                None => "has not joined a cluster yet".to_owned(),
            });
        }
        Err(error) => checked.damage.push(error.to_string()),
    }
    checked
}

/// The log, and what it holds of our group. `None`: nothing, or it cannot be told.
fn log(world: &World, directory: &Inspected, progress: &mut dyn FnMut(&str, u64)) -> (Checked, Option<GroupSummary>) {
    let mut checked = Checked::new("log");
    if !world.fs.exists(&directory.wal_path()).unwrap_or(true) {
        match &directory.identity {
            Ok(identity) if !identity.has_log => checked.notes.push("there is none yet".to_owned()),
            _ => checked.damage.push("there is none, although this node has had one".to_owned()),
        }
        return (checked, None);
    }
    let verified = wal::verify(world, &directory.wal_path(), &mut |at| progress("log", at.bytes));
    match verified {
        Ok(found) => {
            if found.segments == 0 && directory.identity.as_ref().is_ok_and(|identity| identity.has_log) {
                checked.damage.push("it is empty, although this node has had one".to_owned());
            }
            checked.count("segments", found.segments);
            checked.count("batches", found.batches);
            checked.count("entries", found.entries);
            checked.count("bytes", found.bytes);
            let group = found.groups.get(&GROUP).cloned();
            if let Some(group) = &group {
                let last = group.last.map_or(0, |log_id| log_id.index);
                checked.notes.push(match group.first <= last {
                    true => format!("holds the entries {} to {last}", group.first),
                    false => format!("holds no entry; the next is {}", group.first),
                });
            }
            (checked, group)
        }
        Err(error) => {
            checked.log_failed(&error);
            (checked, None)
        }
    }
}

/// The files of the state: finds, copies and opens them.
fn state_files(
    world: &World,
    directory: &Inspected,
    scratch: Option<&Path>,
    progress: &mut dyn FnMut(&str, u64),
) -> (Checked, Option<OpenedState>) {
    let mut checked = Checked::new("store");
    let path = directory.state_path();
    let names = world.fs.list(&path).unwrap_or_default();
    for broken in names.iter().filter(|name| name.starts_with("broken-")) {
        checked.notes.push(format!("{broken} is a state that was set aside; it was not looked at"));
    }
    let found = match StoredState::find(world, &path) {
        Ok(Some(found)) => found,
        Ok(None) => {
            checked.notes.push("there is no state yet".to_owned());
            return (checked, None);
        }
        Err(error) => {
            checked.store_failed(error);
            return (checked, None);
        }
    };
    checked.notes.push(format!("generation {}, engine {:?}", found.generation, found.engine));
    checked.count("files", found.files());
    checked.count("bytes", found.bytes());
    let copied = found.copy(world, scratch, |bytes| progress("copy of the state", bytes));
    let scratch = match copied {
        Ok(scratch) => scratch,
        Err(error) => {
            checked.unchecked.push(error.to_string());
            return (checked, None);
        }
    };
    match found.open(world, scratch) {
        Ok(opened) => {
            if let Some(rebuild) = opened.directory.must_rebuild() {
                checked.notes.push(format!("is being built anew because of this: {}", rebuild.reason));
            }
            (checked, Some(opened))
        }
        Err(error) => {
            checked.store_failed(error);
            (checked, None)
        }
    }
}

/// Each row and piece of the store, by its checksum.
fn rows(opened: &OpenedState, progress: &mut dyn FnMut(&str, u64)) -> Checked {
    let mut checked = Checked::new("rows");
    match store::verify_all(&*opened.store, |so_far| progress("rows", so_far.bytes)) {
        Ok(found) => {
            checked.count("rows", found.rows);
            checked.count("bytes", found.bytes);
            checked.damage = found.damaged;
        }
        Err(error) => checked.store_failed(error),
    }
    checked
}

fn blocks(opened: &OpenedState, progress: &mut dyn FnMut(&str, u64)) -> Checked {
    let mut checked = Checked::new("blocks");
    match inspect::blocks(&*opened.store, |bytes| progress("blocks", bytes)) {
        Ok(found) => {
            checked.count("blocks", found.blocks);
            checked.count("entries", found.entries);
            checked.count("bytes", found.bytes);
            if 0 < found.unnamed {
                checked.notes.push(format!("{} bodies are garbage that is yet to be swept away", found.unnamed));
            }
            checked.damage = found.damage;
        }
        Err(error) => checked.store_failed(error),
    }
    checked
}

/// Whether a node could start from the rows.
fn state(opened: &OpenedState) -> Checked {
    let mut checked = Checked::new("state");
    match inspect::restore(&*opened.store) {
        Ok(state) => {
            checked.count("applied proposal", state.applied_index());
            checked.count("nodes", state.nodes().count() as u64);
            checked.notes.push(format!("digest {:032x}", state.digest()));
        }
        Err(problem) => checked.damage.push(format!("a node cannot start from the rows: {problem}")),
    }
    checked
}

/// Whether state and log belong together: what the one does not have is in the other.
fn checkpoint(
    world: &World,
    directory: &Inspected,
    opened: &OpenedState,
    log: Option<&GroupSummary>,
    progress: &mut dyn FnMut(&str, u64),
) -> Checked {
    let mut checked = Checked::new("checkpoint");
    let covered = match inspect::coverage(&*opened.store) {
        Ok(coverage) => coverage.and_then(|(log_id, _)| log_id),
        Err(error) => {
            checked.store_failed(error);
            return checked;
        }
    };
    let applied = covered.map_or(0, |log_id| log_id.index);
    checked.count("log index", applied);
    let Some(log) = log else {
        // A damaged log has been reported; one that holds nothing must not be behind the state.
        if covered.is_some() {
            checked.unchecked.push("the log cannot be compared with the state".to_owned());
        }
        return checked;
    };
    let last = log.last.map_or(0, |log_id| log_id.index);
    let purged = log.purged.map_or(0, |log_id| log_id.index);
    let rebuilding = opened.directory.must_rebuild().is_some();
    if applied < purged && !rebuilding {
        checked.damage.push(format!("the log is purged up to {purged}, but the state ends at {applied}"));
    }
    if last < applied {
        let found = format!("the state has applied the log up to {applied}, but the log ends at {last}");
        // A snapshot counts from when it is the state; the log behind it is purged a moment later.
        match 1 < opened.generation {
            true => checked.notes.push(format!("{found}: the node ended right after it had installed a snapshot")),
            false => checked.damage.push(found),
        }
    }
    if log
        .purged
        .is_some_and(|purged| covered.is_some_and(|covered| purged.index == covered.index && purged != covered))
    {
        checked.damage.push(format!("log and state disagree about entry {applied}"));
    }
    if checked.damage.is_empty() {
        replay(world, directory, covered, &mut checked, progress);
    }
    checked
}

/// What a start would apply: each proposal decodes. And the entry at which the state stands is the one in the log.
fn replay(
    world: &World,
    directory: &Inspected,
    covered: Option<LogId>,
    checked: &mut Checked,
    progress: &mut dyn FnMut(&str, u64),
) {
    let frames = match wal::dump(world, &directory.wal_path()) {
        Ok(frames) => frames,
        Err(error) => return checked.log_failed(&error),
    };
    let applied = covered.map_or(0, |log_id| log_id.index);
    let (mut proposals, mut newest_at_covered) = (0, None);
    for frame in frames {
        let entry = match frame {
            Ok(frame) if frame.group == GROUP => match frame.content {
                Content::Append(entry) => entry,
                _ => continue,
            },
            Ok(_) => continue,
            Err(error) => return checked.log_failed(&error),
        };
        if entry.log_id.index == applied {
            // It may have been written more than once, by different leaders. The last one counts.
            newest_at_covered = Some(entry.log_id);
        }
        if entry.log_id.index <= applied {
            continue;
        }
        if let LogPayload::Normal(proposal) = &entry.payload {
            proposals += 1;
            progress("replay", proposals);
            if let Err(error) = millstream_streams::Proposal::decode(&proposal.0) {
                checked.damage.push(format!("the proposal of log entry {}: {error}", entry.log_id.index));
            }
        }
    }
    checked.count("proposals behind it", proposals);
    if newest_at_covered.is_some() && newest_at_covered != covered && covered.is_some() {
        checked.damage.push(format!("log and state disagree about entry {applied}"));
    }
}

/// Snapshots on their way. The next start removes them, so nothing in them can do harm.
fn spool(world: &World, directory: &Inspected) -> Checked {
    let mut checked = Checked::new("spool");
    let path = directory.spool_path();
    if !world.fs.exists(&path).unwrap_or(false) {
        return checked;
    }
    let names = match world.fs.list(&path) {
        Ok(names) => names,
        Err(error) => {
            checked.unchecked.push(error.to_string());
            return checked;
        }
    };
    let (mut whole, mut rows) = (0, 0);
    for name in names {
        let read = SnapshotFile::open(world, &path.join(&name))
            .and_then(|file| file.map(|row| row.map(drop)).collect::<std::io::Result<Vec<()>>>());
        match read {
            Ok(found) => {
                whole += 1;
                rows += found.len() as u64;
            }
            Err(error) => checked.notes.push(format!("{name} is not whole ({error}); the next start removes it")),
        }
    }
    checked.count("snapshots", whole);
    checked.count("rows", rows);
    checked
}
