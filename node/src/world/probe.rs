//! What an onlooker may see of a node: nothing in production.

use std::sync::Weak;

use millstream_streams::{Blocks, Outcome, State};

/// Watches a node from inside, for tests that must know more than clients are told. It is called where the node is at
/// work, often under a lock: it looks, takes notes, and returns. It never calls back into the node from within a call.
pub trait Probe: Send + Sync + 'static {
    /// The entry at `index` of `term` is applied to this node's state, for the first time or again after a restart.
    /// `proposal`: its bytes, empty if it holds no command (a blank entry, or one about members); `outcome`: what became
    /// of the command. `repeated`: a session answered, and nothing was done.
    fn applied(&self, index: u64, term: u64, proposal: &[u8], outcome: Option<&Outcome>, repeated: bool) {
        let _ = (index, term, proposal, outcome, repeated);
    }

    /// openraft has told the log that the entry at `index` of `term` is committed, and with it all before.
    fn committed(&self, index: u64, term: u64) {
        let _ = (index, term);
    }

    /// The state is now what a stored or received one was made into, with all up to `index` applied.
    fn restored(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        let _ = (index, state, blocks);
    }

    /// A checkpoint of the state begins, with all up to `index` applied.
    fn checkpoint(&self, index: u64, state: &State, blocks: &dyn Blocks) {
        let _ = (index, state, blocks);
    }

    /// The replica runs. `look` shows its state for as long as it does.
    fn started(&self, look: Weak<dyn Look>) {
        let _ = look;
    }

    /// Something happened that a test may want to have happened: see [`MARKS`].
    fn mark(&self, name: &'static str) {
        let _ = name;
    }
}

/// Shows a node's state from outside, between its own steps.
pub trait Look: Send + Sync {
    /// Calls `see` with the index of the last applied entry, the state, and where its stored blocks come from. Holds the
    /// state's lock meanwhile.
    fn look(&self, see: &mut dyn FnMut(u64, &State, &dyn Blocks));
}

/// Nobody watches.
pub struct NoProbe;

impl Probe for NoProbe {}

/// The marks that a node sets, with what each says.
pub const MARKS: [(&str, &str); 30] = [
    ("asked_again", "a command whose first attempt was left open was asked for again, and answered"),
    ("back_pressure", "apply waited for a checkpoint"),
    ("bodies_held", "a checkpoint left dead bodies to the sweep, as a snapshot was being copied"),
    ("checkpoint_refused", "a checkpoint was due and there was no room for it, or the state was suspect"),
    ("checkpoint_written", "a checkpoint was written"),
    ("cluster_formed", "this node formed the cluster"),
    ("commit_unknown", "a proposal was answered COMMIT_UNKNOWN"),
    ("dead_swept", "the sweep removed rows of what had been deleted"),
    ("disk_full_refused", "a command was refused with DISK_FULL"),
    ("entries_refused_full", "this node refused entries because its disk was full"),
    ("forwarded", "a call was handed on to the leader"),
    ("late_delivery_ruled_out", "a group read that found nothing used up its number, as an attempt may come late"),
    ("leader_stepped_down", "this node led and does no longer"),
    ("log_discarded", "this node ceased to lead with a proposal under way, whose entry was replaced"),
    ("log_emptied", "a start dropped a log that contradicted the state"),
    ("log_purged", "the log was purged"),
    ("log_purged_past_follower", "the log was purged past what a follower still needed"),
    ("log_truncated", "entries of the log were replaced by another leader's"),
    ("log_waits_for_room", "the log waited for room on the disk"),
    ("overloaded", "a proposal was refused with OVERLOADED"),
    ("readdressed", "a member's peer address was changed"),
    ("retention_due", "the leader proposed to enforce retention"),
    ("segment_recycled", "an old segment's file became a new one"),
    ("snapshot_installed", "a snapshot was installed"),
    ("snapshot_resumed", "a snapshot transfer went on where it had broken off"),
    ("snapshot_sent", "a snapshot was sent to the end"),
    ("state_rebuilt", "a state was built anew, from the log or from another member"),
    ("state_set_aside", "a stored state was of no use and set aside"),
    ("state_suspect", "the stored state was marked as suspect"),
    ("torn_tail_dropped", "recovery cut a torn batch from the end of the log"),
];

#[cfg(test)]
mod tests {
    use super::MARKS;

    #[test]
    fn marks_are_sorted_and_unique() {
        assert!(MARKS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
