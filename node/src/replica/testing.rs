//! What tests of this module share: a state whose checkpoints go to a real store, without a node around it.

use std::sync::Arc;

use bytes::Bytes;
use millstream_streams::{
    Append, Blocks, Command, Fields, FrozenBody, FrozenRows, NewId, Proposal, RowKey, State, StreamName,
};
use openraft::vote::RaftLeaderId;
use tempfile::TempDir;

use super::{blocks::StoredBlocks, checkpoint, rows, snapshot};
use crate::config::Engine;
use crate::storage::{StateDir, StateStore};
use crate::types::{CommittedLeaderId, LogId, SnapshotMeta};
use crate::world::World;

pub(super) struct Story {
    pub(super) state: State,
    pub(super) blocks: StoredBlocks,
    index: u64,
    _state_dir: StateDir,
    _directory: TempDir,
}

impl Story {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (state_dir, store) = StateDir::open(&World::real(), directory.path(), Engine::Memory).unwrap();
        let blocks = StoredBlocks::new(store);
        Self { state: State::new(), blocks, index: 0, _state_dir: state_dir, _directory: directory }
    }

    pub(super) fn store(&self) -> Arc<dyn StateStore> {
        self.blocks.store()
    }

    pub(super) fn run(&mut self, command: impl Into<Command>) {
        self.index += 1;
        let proposal = Proposal { at_ms: self.index, request: None, command: command.into(), bytes_max: 0 };
        let applied = self.state.apply(self.index, &proposal.encode(), &self.blocks, true).unwrap();
        applied.outcome.unwrap();
    }

    pub(super) fn append(&mut self, name: &str, entries: usize) {
        let fields = Fields::from_pairs([("n", "1")]).unwrap();
        for _ in 0..entries {
            let (stream, fields) = (stream(name), fields.clone());
            self.run(Append { stream, id: NewId::Auto, fields, no_create: false, trim: None, idempotency: None });
        }
    }

    /// Writes a checkpoint; with `held`, as if somebody held the bodies.
    pub(super) fn write(&mut self, held: bool) -> Vec<FrozenBody> {
        let FrozenRows { rows, bodies } = self.state.freeze().into_rows();
        let last_log_id = Some(LogId::new(CommittedLeaderId::new(1, 1), self.index));
        let covers = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
        self.store().commit(checkpoint::batch(rows, &covers, held)).unwrap();
        drop(self.state.thaw(&bodies));
        bodies
    }

    /// The core's rows in the store.
    pub(super) fn stored(&self) -> Vec<(RowKey, Bytes)> {
        let rows = self.store().scan(&[], &[0xff]).map(Result::unwrap).collect::<Vec<_>>();
        rows.into_iter().filter_map(|(key, row)| Some((rows::from_core_key(&key)?, row))).collect()
    }

    /// What a restart would find.
    pub(super) fn restored(&self) -> Vec<(RowKey, Bytes)> {
        let blocks: &dyn Blocks = &StoredBlocks::new(self.store());
        snapshot::restore_state(&*self.store()).unwrap().all_rows(blocks).unwrap()
    }
}

pub(super) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}
