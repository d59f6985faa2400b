//! openraft's view of the state: apply, and snapshots made of checkpoints.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use millstream_streams::{Applied, ApplyError, Change, Reply, State};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::compare;
use super::shared::Shared;
use super::snapshot::{CheckpointSnapshot, SnapshotData};
use crate::types::{LogEntry, LogId, LogPayload, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied under one hold of the state's lock: queries wait for so many at most.
const APPLY_CHUNK: usize = 128;

/// What applying the log changes, under one lock.
pub(crate) struct Machine {
    pub(crate) state: State,
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl Machine {
    pub(crate) fn applied_index(&self) -> u64 {
        self.last_applied.as_ref().map_or(0, |id| id.index)
    }
}

/// The half of the replica that openraft owns.
pub(crate) struct StateMachine(pub(crate) Arc<Shared>);

impl StateMachine {
    /// Applies one entry. `serve`: a client waits for the result here.
    fn apply_entry(&self, machine: &mut Machine, entry: LogEntry, serve: bool) -> Result<Option<Applied>, ApplyError> {
        let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
        let probe = &*self.0.world.probe;
        let applied = match entry.payload {
            LogPayload::Blank => {
                probe.applied(index, term, &[], None, false);
                None
            }
            LogPayload::Normal(proposal) => {
                let applied = machine.state.apply(index, &proposal.0, &*self.0.blocks, serve)?;
                probe.applied(index, term, &proposal.0, Some(&applied.outcome), applied.repeated);
                Some(applied)
            }
            LogPayload::Membership(membership) => {
                probe.applied(index, term, &[], None, false);
                machine.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
        };
        machine.last_applied = Some(entry.log_id);
        if index.is_multiple_of(compare::STEP) {
            self.0.remember(machine);
        }
        Ok(applied)
    }
}

/// Whether a command changed who the nodes are.
fn changes_identities(applied: &Applied) -> bool {
    matches!(applied.outcome, Ok(Reply::ClusterCreated(_) | Reply::NodeRegistered(_)))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.0.machine();
        Ok((machine.last_applied, machine.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        while let Some(chunk) = chunks.next().await {
            let mut answers = Vec::with_capacity(chunk.len());
            let mut changes: Vec<Change> = Vec::new();
            let mut identities_changed = false;
            self.0.gate.pass(&self.0).await;
            let applied_index = {
                let mut machine = self.0.machine_mut();
                for item in chunk {
                    let (entry, responder) = item?;
                    let mut applied = self
                        .apply_entry(&mut machine, entry, responder.is_some())
                        .inspect_err(|error| self.0.cannot_apply(error))
                        .map_err(|error| io::Error::other(format!("the state cannot go on: {error}")))?;
                    if let Some(applied) = &mut applied {
                        changes.append(&mut applied.changes);
                        identities_changed |= changes_identities(applied);
                    }
                    if let Some(responder) = responder {
                        answers.push((responder, applied));
                    }
                }
                machine.applied_index()
            };
            if identities_changed {
                self.0.refresh_identities();
            }
            // Readers learn of new entries before the producers learn of their success: whoever is told "appended" can
            // rely on it that waiting readers are on their way.
            self.0.watch.notify(&changes);
            self.0.applied.send_replace(applied_index);
            if let [first, .., last] = &mut answers[..]
                && millstream_streams::mutant!(AnswersExchanged)
            {
                std::mem::swap(&mut first.1, &mut last.1);
            }
            for (responder, applied) in answers {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self::SnapshotBuilder> {
        Some(CheckpointBuilder(self.0.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        CheckpointBuilder(self.0.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        super::snapshot::install(&self.0, meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<CheckpointSnapshot>> {
        Ok(super::snapshot::newest(&self.0))
    }
}

/// Builds nothing: the newest synced checkpoint *is* the snapshot.
pub(crate) struct CheckpointBuilder(Arc<Shared>);

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<CheckpointSnapshot> {
        super::snapshot::built(&self.0).ok_or_else(|| io::Error::other("no checkpoint has been written yet"))
    }
}
