//! Shows a data directory in readable form: one line, or one JSON object, for each thing in it.

use std::path::Path;

use serde_json::{Value, json};

use super::ToolError;
use super::scratch::StoredState;
use crate::replica::inspect;
use crate::storage::wal::{self, Content, DumpedFrame};
use crate::storage::{Identity, Inspected, StoreError};
use crate::types::{LogId, LogPayload, Vote};
use crate::world::World;

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Every record of the log, with the commands in it
    Log,
    /// Every row of the state
    Store,
    /// Whose directory it is
    Identity,
}

/// What to show, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Dump {
    /// Of which part.
    pub part: Part,
    /// Leaves out log entries before this index, and what stands before them in the log. The state has rows without an
    /// index: it is shown from its beginning.
    pub from: u64,
    /// Lines at most.
    pub limit: u64,
    /// JSON instead of text.
    pub json: bool,
}

/// Shows a part of a data directory of a node that does not run, line by line, and changes nothing. `line` returns
/// whether more is wanted. The state is copied to a directory in `scratch` and looked at there. Blocks on files.
pub fn dump(
    world: &World,
    data_dir: &Path,
    scratch: Option<&Path>,
    what: Dump,
    progress: &mut dyn FnMut(&str, u64),
    line: &mut dyn FnMut(&str) -> bool,
) -> Result<(), ToolError> {
    let directory = Inspected::open(world, data_dir)?;
    let mut lines = Lines { what, shown: 0, line };
    match what.part {
        Part::Identity => {
            identity(directory.identity?, &mut lines);
            Ok(())
        }
        Part::Log => log(world, &directory, &mut lines),
        Part::Store => store(world, &directory, scratch, progress, &mut lines),
    }
}

/// Prints up to the limit.
struct Lines<'l> {
    what: Dump,
    shown: u64,
    line: &'l mut dyn FnMut(&str) -> bool,
}

impl Lines<'_> {
    /// Shows one thing, as text or as JSON. Returns whether more is wanted.
    fn show(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> bool {
        if self.what.limit <= self.shown {
            return false;
        }
        self.shown += 1;
        let shown = if self.what.json { json().to_string() } else { text() };
        (self.line)(&shown) && self.shown < self.what.limit
    }
}

fn identity(identity: Identity, lines: &mut Lines<'_>) {
    let Identity { node_id, incarnation, cluster_id, has_log } = identity;
    lines.show(
        || {
            let cluster = cluster_id.as_deref().unwrap_or("none yet");
            format!("node {node_id}, incarnation {incarnation:016x}, cluster {cluster}, has a log: {has_log}")
        },
        || {
            let incarnation = format!("{incarnation:016x}");
            json!({ "node_id": node_id, "incarnation": incarnation, "cluster_id": cluster_id, "has_log": has_log })
        },
    );
}

fn log(world: &World, directory: &Inspected, lines: &mut Lines<'_>) -> Result<(), ToolError> {
    let damaged = |error: wal::WalError| ToolError::Damaged(error.to_string());
    let mut begun = lines.what.from == 0;
    for frame in wal::dump(world, &directory.wal_path()).map_err(damaged)? {
        let frame = frame.map_err(damaged)?;
        begun |= matches!(&frame.content, Content::Append(entry) if lines.what.from <= entry.log_id.index);
        if begun && !lines.show(|| frame_text(&frame), || frame_json(&frame)) {
            break;
        }
    }
    Ok(())
}

/// The kind of a frame, the log id or index it names, and the rest.
fn frame_parts(content: &Content) -> (&'static str, Option<String>, Option<String>) {
    let shown = |log_id: &LogId| log_id.to_string();
    match content {
        Content::Append(entry) => {
            let rest = match &entry.payload {
                LogPayload::Blank => "blank".to_owned(),
                LogPayload::Normal(proposal) => match millstream_streams::describe_proposal(&proposal.0) {
                    Ok(text) => text,
                    Err(error) => format!("a proposal that does not decode: {error}"),
                },
                LogPayload::Membership(membership) => format!("membership {membership}"),
            };
            ("append", Some(shown(&entry.log_id)), Some(rest))
        }
        Content::Vote(vote) => ("vote", None, Some(vote_text(vote))),
        Content::Truncate(after) => ("truncate", after.as_ref().map(shown), None),
        Content::Purge(up_to) => ("purge", Some(shown(up_to)), None),
        Content::Committed(up_to) => ("committed", up_to.as_ref().map(shown), None),
        Content::Next(index) => ("next", Some(index.to_string()), None),
    }
}

fn vote_text(vote: &Vote) -> String {
    let committed = if vote.committed { ", committed" } else { "" };
    format!("term {} for node {}{committed}", vote.leader_id.term, vote.leader_id.node_id)
}

fn frame_text(frame: &DumpedFrame) -> String {
    let DumpedFrame { segment, offset, group, batch, content, .. } = frame;
    let (kind, log_id, rest) = frame_parts(content);
    let said: Vec<String> = [log_id, rest].into_iter().flatten().collect();
    let said = if said.is_empty() { "nothing".to_owned() } else { said.join(" ") };
    format!("{segment:016x}:{offset:<8} batch {batch} group {group} {kind} {said}")
}

fn frame_json(frame: &DumpedFrame) -> Value {
    let DumpedFrame { segment, offset, group, batch, content, .. } = frame;
    let (kind, log_id, rest) = frame_parts(content);
    let index = match content {
        Content::Append(entry) => Some(entry.log_id.index),
        _ => None,
    };
    json!({
        "segment": segment, "offset": offset, "batch": batch, "group": group, "kind": kind, "index": index,
        "log_id": log_id, "content": rest,
    })
}

fn store(
    world: &World,
    directory: &Inspected,
    scratch: Option<&Path>,
    progress: &mut dyn FnMut(&str, u64),
    lines: &mut Lines<'_>,
) -> Result<(), ToolError> {
    let failed = |error: StoreError| match error {
        StoreError::Corrupt { what } => ToolError::Damaged(what),
        StoreError::Io(error) => ToolError::io("the state cannot be read")(error),
        other => ToolError::io("the state cannot be read")(std::io::Error::other(other)),
    };
    let Some(stored) = StoredState::find(world, &directory.state_path()).map_err(failed)? else { return Ok(()) };
    let copy = stored.copy(world, scratch, |bytes| progress("copy of the state", bytes))?;
    let opened = stored.open(world, copy).map_err(failed)?;
    for row in opened.store.scan(&[], &[0xff]) {
        let more = match row {
            Ok((key, value)) => {
                let shown = inspect::describe(&key, &value);
                let key = || key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                match shown {
                    Ok(text) => lines.show(
                        || text.clone(),
                        || json!({ "key": key(), "bytes": value.len(), "content": text.clone() }),
                    ),
                    Err(problem) => lines.show(
                        || format!("damaged: {problem}"),
                        || json!({ "key": key(), "bytes": value.len(), "damage": problem.clone() }),
                    ),
                }
            }
            Err(StoreError::Corrupt { what }) => {
                lines.show(|| format!("damaged: {what}"), || json!({ "damage": what.clone() }))
            }
            Err(error) => return Err(failed(error)),
        };
        if !more {
            break;
        }
    }
    Ok(())
}
