//! What a node tells the witness while it works.

use std::sync::Weak;

use bytes::Bytes;
use millstream_node::world::{Look, Probe};
use millstream_streams::{Blocks, Outcome, Refusal, Reply, State};

use super::Witness;
use super::log::Applied;

/// One life of one node.
pub(super) struct NodeProbe {
    pub(super) node: String,
    pub(super) witness: Witness,
}

impl Probe for NodeProbe {
    fn applied(&self, index: u64, term: u64, proposal: &[u8], outcome: Option<&Outcome>, repeated: bool) {
        if repeated {
            self.mark("dedup_hit");
        }
        if let Some(outcome) = outcome {
            noteworthy(outcome, &mut |mark| self.mark(mark));
        }
        let applied = Applied { term, proposal: Bytes::copy_from_slice(proposal), outcome: outcome.cloned(), repeated };
        let mut inner = self.witness.lock();
        inner.trace_applied(&self.node, index, &applied);
        inner.states.grew(proposal.len());
        let seen = inner.log.applied(&self.node, index, &applied);
        inner.note("all apply the same", seen);
    }

    fn committed(&self, index: u64, _: u64) {
        let mut inner = self.witness.lock();
        let seen = inner.log.committed(&self.node, index);
        inner.note("what is committed stays so", seen);
    }

    fn restored(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        let mut inner = self.witness.lock();
        let seen = inner.log.restored(&self.node, index);
        inner.note("all apply the same", seen);
        let seen = inner.states.look(&format!("{} (restored)", self.node), index, state, blocks);
        inner.note("replicas are the same", seen);
    }

    fn checkpoint(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        let mut inner = self.witness.lock();
        if inner.states.can_afford() {
            let seen = inner.states.look(&format!("{} (checkpoint)", self.node), index, state, blocks);
            inner.note("replicas are the same", seen);
        }
    }

    fn started(&self, look: Weak<dyn Look>) {
        self.witness.lock().looks.insert(self.node.clone(), look);
    }

    fn mark(&self, name: &'static str) {
        self.witness.lock().mark(&self.node, name);
    }
}

/// Marks that outcomes show.
fn noteworthy(outcome: &Outcome, mark: &mut impl FnMut(&'static str)) {
    match outcome {
        Err(Refusal::SessionNotFound { .. } | Refusal::SequenceOutOfWindow { .. } | Refusal::SequenceReused { .. }) => {
            mark("session_refused");
        }
        Err(Refusal::OperationRefused { .. }) => mark("batch_undone"),
        Err(Refusal::GuardFailed { .. }) => mark("guard_failed"),
        Ok(Reply::Claimed(claimed)) if !claimed.ids.is_empty() => mark("claim_took"),
        Ok(Reply::AutoClaimed(claimed)) if !claimed.ids.is_empty() => mark("claim_took"),
        Ok(Reply::Appended(appended)) if appended.duplicate => mark("idempotency_hit"),
        Ok(Reply::RetentionEnforced(enforced)) if 0 < enforced.trimmed => mark("retention_trimmed"),
        Ok(Reply::Batched(batched)) => batched.results.iter().for_each(|outcome| noteworthy(outcome, mark)),
        _ => {}
    }
}

/// The marks that [`NodeProbe`] sets by itself, beside those of the node.
pub(super) const MARKS: [(&str, &str); 7] = [
    ("batch_undone", "a batch was refused as a whole because of one operation"),
    ("claim_took", "a claim moved entries to another consumer"),
    ("dedup_hit", "a session answered a repeated request from its record"),
    ("guard_failed", "a batch was refused because its guard did not hold"),
    ("idempotency_hit", "an append was found to have been done before, by its idempotency key"),
    ("retention_trimmed", "retention removed entries"),
    ("session_refused", "a request was refused because of its session or sequence number"),
];
