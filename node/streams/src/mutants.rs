//! Planted bugs, to prove that the simulation finds bugs. Only in builds with the feature `mutants`, which no shipped
//! binary has; see [`mutant!`](crate::mutant).
//!
//! A mutant is a few characters of harm at the place where the real bug would be: in this crate, in the node or in the
//! client. All of them are in one build, and at most one is *on*: whoever runs the simulation selects it once, before
//! anything else. The table below says of each what it breaks, which checker should see it, and which scenarios are
//! told first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The one that is on, by its place in the table from 1; 0: none. The one process-global value that is excused: a
/// simulation is a process of its own, and the places it is asked at have nothing in common to pass it through.
static SELECTED: AtomicUsize = AtomicUsize::new(0);
/// How often its place was reached.
static REACHED: AtomicU64 = AtomicU64::new(0);

/// What is known of a mutant.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// The mutant.
    pub mutant: Mutant,
    /// Its name, as in the source.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// Which checker should see it.
    pub seen_by: &'static str,
    /// Scenarios that should try it first, by name; none: any run will do.
    pub scenarios: &'static [&'static str],
}

macro_rules! table {
    ($($(#[doc = $doc:literal])+ $name:ident: $seen_by:literal, [$($scenario:literal),*];)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        /// All of them.
        pub const TABLE: &[Description] = &[$(Description {
            mutant: Mutant::$name,
            name: stringify!($name),
            breaks: concat!($($doc),+),
            seen_by: $seen_by,
            scenarios: &[$($scenario),*],
        }),+];
    };
}

table! {
    // Acknowledging too early.
    /// The leader counts a follower that it cannot reach as one that has the entries.
    AckBeforeQuorum: "acknowledged appends stay; committed on a durable quorum", [];
    /// Entries count as durable when they are queued, not when they are synced.
    AckBeforeFsync: "committed on a durable quorum; acknowledged appends stay", [];
    /// A vote counts as saved when it is queued.
    VoteNotSynced: "leaders_are_elected", ["votes_wait_for_slow_disks"];
    /// A vote is kept in memory alone.
    VoteNotWritten: "the durable vote never regresses; election safety", [];

    // The log's files.
    /// A truncation is not written, so that after a restart the old tail is back.
    TruncateNotWritten: "terms do not decrease in a durable log; log matching", ["truncation_then_power_loss"];
    /// A truncation takes away one entry too many.
    TruncateOneTooMany: "the node stops; log matching", ["truncation_then_power_loss"];
    /// A new segment's name is not made durable.
    SegmentNameNotSynced: "acknowledged appends stay; committed on a durable quorum", [];
    /// A new segment's header is not synced before it gets its name.
    SegmentHeaderNotSynced: "a node does not start on its own log", ["crash_between_rename_and_directory_sync"];
    /// A batch that does not match its checksum is taken for whole.
    TornTailAccepted: "a node does not start on its own log; replicas agree", ["torn_batches"];
    /// Recovery cuts the log at the first bad batch, though it was synced.
    SyncedDamageCut: "acknowledged appends stay; committed on a durable quorum", ["damaged_log_does_not_vote"];
    /// A failed sync of the log is not noticed.
    FsyncErrorIgnored: "committed on a durable quorum; acknowledged appends stay", ["sync_fails_on_the_leader"];
    /// A failed sync of the log is tried again, and believed when it then succeeds.
    FsyncTriedAgain: "committed on a durable quorum; acknowledged appends stay", ["sync_fails_on_the_leader"];
    /// What a killed process left in the page cache is believed to be durable.
    TailNotRewritten: "committed on a durable quorum", [];
    /// A retired segment gets its new content before its old name is durably gone.
    RetiredNameNotSynced: "a node does not start on its own log", ["crash_between_rename_and_directory_sync"];

    // Reads.
    /// A linearizable read is answered from whatever is here.
    StaleReads: "reads see what was acknowledged before", [];
    /// A linearizable read does not wait until its index is applied.
    ReadsBeforeApplied: "reads see what was acknowledged before", [];
    /// The leader trusts in its lease instead of asking a quorum.
    LeaseReads: "reads see what was acknowledged before", ["pause_longer_than_a_lease_then_a_read"];
    /// A follower answers linearizable reads by its own applied index.
    FollowerReadsAlone: "reads see what was acknowledged before; reads are monotone", [];

    // State, checkpoints, restarts.
    /// After a restart the last command of the checkpoint is applied once more.
    AppliesTwice: "nothing is invented; replicas agree; witness replay", [];
    /// A checkpoint may be durable before the log is.
    CheckpointAheadOfLog: "indexes_in_order", ["power_loss_of_all_during_checkpoints_under_trimming"];
    /// Every other checkpoint is announced and not written, and the log purged behind it.
    CheckpointNotStored: "purged up to the checkpoint at most; a node stops; acknowledged appends stay", [];
    /// A checkpoint loses one of its rows.
    CheckpointLosesRow: "a node stops; replicas agree after the power cycle", [];
    /// Checkpoints store a group's position as its start.
    GroupPositionNotStored: "new entries are delivered once; replicas are equal row by row", [];
    /// Delivery counts begin anew with a restart.
    DeliveryCountsForgotten: "delivery counts (C2); replicas are equal row by row", [];
    /// Recorded outcomes are not in checkpoints.
    DedupNotInCheckpoint: "nothing is appended twice", [];
    /// Recorded outcomes are not in installed snapshots.
    DedupNotInSnapshot: "replicas are the same", ["repeat_answered_after_a_snapshot"];
    /// Pending entries are not in installed snapshots.
    SnapshotMissesPending: "replicas are the same", ["log_purged_past_a_follower_that_was_away"];
    /// The pointer to an installed generation is not durable when Raft hears that it is.
    InstallNotDurable: "a node does not start on its own state", ["snapshot_install_interrupted_at_each_step"];
    /// The gate before apply does not open again.
    GateStaysShut: "liveness", [];
    /// The sweep of garbage deletes the bodies of the live streams, too.
    SweepDeletesLiveRows: "a node stops; the stream is read at the end", [];

    // What apply may not do.
    /// The node at which a client waits takes its own time.
    NodeLocalTime: "replicas agree", [];
    /// The state's clock follows the proposal backwards.
    ClockGoesBack: "outcomes are the model's", ["clock_jumps_on_the_leader"];
    /// A leader stamps its wall clock, wherever that jumps.
    LeaderFollowsWall: "time passes; claims honour idle times (C4)", ["clock_jumps_on_the_leader"];
    /// Ids follow the clock alone.
    IdsNotClamped: "order is kept", [];
    /// A repeat of a recorded request is applied again.
    DedupOff: "nothing is appended twice", [];
    /// Recorded outcomes are forgotten after a second of silence.
    DedupEvictedEarly: "nothing is appended twice", [];
    /// Deliveries are not recorded, so that a repeated read delivers more.
    DeliveriesNotRecorded: "one request has one effect; witness replay", [];
    /// Sessions expire at once when another opens, and come back when they are used.
    SessionsComeBack: "nothing is appended twice", [];
    /// A refused batch leaves the operations before the refused one.
    RefusedBatchKept: "batches are whole; errors tell the truth", [];
    /// A trim removes one entry too many.
    TrimOneTooMany: "witness replay; trims remove what they may", [];
    /// A group read that is full moves the position to the end of the stream.
    PositionSkips: "deliveries are complete (C1)", [];
    /// The last entry of a group read is delivered and stays new.
    DeliversTwice: "new entries are delivered once (C2)", [];
    /// A claim takes entries however short they have been idle.
    ClaimIgnoresIdle: "claims honour idle times (C4)", [];
    /// A claimed entry stays with the consumer that had it.
    ClaimKeepsOwner: "at most one owner (C2); pending counts agree (C6)", [];
    /// An acknowledgement takes effect only where its client waits.
    AckAtLeaderOnly: "acknowledged entries rest (C3); replicas are equal row by row", [];
    /// An acknowledgement counts entries that were not pending.
    AckCountsTwice: "acknowledged exactly once (C3)", [];
    /// What is given back is forgotten.
    NackForgets: "deliveries are complete (C7); nothing rests that was not acknowledged", [];
    /// What is acknowledged and deleted stays in the stream.
    AckDeleteKeeps: "removed entries are gone", [];

    // Calls and answers.
    /// Calls to peers have no deadline.
    CallsWithoutDeadline: "each node serves reads", ["questions_between_nodes_without_answer"];
    /// A replication stream waits for its answer for ever.
    StreamsWithoutDeadline: "liveness", ["lost_answers_between_nodes"];
    /// The answers of two commands that are applied together are exchanged.
    AnswersExchanged: "nothing is invented; answers fit their calls", [];
    /// Readers that wait are not told of new entries.
    ReadersNotWoken: "a waiting read ends soon after an append", [];
    /// What was proposed and overtaken is called not proposed.
    DiscardedMeansNothing: "errors tell the truth", ["displaced_entry_comes_back"];
    /// What was not committed in time is called not proposed.
    TimeoutMeansNothing: "errors tell the truth", ["isolated_leader_that_clients_reach"];
    /// A forwarded call whose answer is lost is called not sent.
    LostForwardMeansNothing: "errors tell the truth", ["lost_answers_between_nodes"];
    /// The client calls a lost attempt one that changed nothing.
    LostAttemptMeansNothing: "errors tell the truth", [];
    /// The client repeats what it must not repeat.
    ClientRepeatsUnsafely: "nothing is appended twice", ["answers_to_all_clients_lost"];
    /// The client numbers each attempt anew.
    ClientRenumbers: "nothing is appended twice", [];

    // The Redis door.
    /// A follower asks again for what it was not told of without the number under which it was asked for.
    DoorRenumbers: "nothing is appended twice", ["door_leader_killed_under_producers"];
    /// A follower asks the next leader without the number under which it asked the one before.
    DoorRenumbersForNextLeader: "nothing is appended twice", ["door_leader_killed_under_producers"];
    /// What was sent on and not answered in time is called not done.
    DoorLostMeansNothing: "errors tell the truth", ["door_commands_without_answer"];
    /// The door reads without asking the leader how far this node must have come.
    DoorReadsAlone: "questions are answered as by the model", ["door_follower_isolated_then_power_loss"];
    /// Two commands at a time go on under the same number.
    DoorSharesTurns: "every call has its own answer; liveness", ["door_leader_killed_under_producers"];
    /// A group read whose delivery is on record, and which is asked for again, finds nothing.
    RecordedDeliveryForgotten: "pending lists agree", ["door_late_reads_after_a_change"];
    /// A group read that is answered with nothing may still deliver when an attempt that was taken for lost arrives late.
    LateDeliveryNotRuledOut: "owners take turns; pending lists agree", ["door_late_reads_while_little_happens"];

    // Members and damage.
    /// A node whose disk was wiped is taken for the one it was.
    WipedNodeAccepted: "election safety; acknowledged appends stay", ["wiped_node_does_not_vote"];
    /// Learners without room count against the voters.
    LearnersCountForRoom: "work goes on", ["learner_and_follower_without_room"];
    /// Digests of different log indexes are compared.
    DigestsMixedUp: "no node stops without a fault", [];
}

/// Selects the one that is on, by name, for the rest of this process. False if there is none of that name.
pub fn select(name: &str) -> bool {
    let place = TABLE.iter().position(|described| described.name == name);
    SELECTED.store(place.map_or(0, |place| place + 1), Ordering::Relaxed);
    place.is_some()
}

/// Whether this one is on.
pub fn on(mutant: Mutant) -> bool {
    let on = SELECTED.load(Ordering::Relaxed) == mutant as usize + 1;
    if on {
        REACHED.fetch_add(1, Ordering::Relaxed);
    }
    on
}

/// How often the place of the one that is on was reached.
pub fn reached() -> u64 {
    REACHED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_is_on() {
        assert!(TABLE.iter().all(|described| !on(described.mutant)));
        for described in TABLE {
            assert!(select(described.name));
            let are_on: Vec<_> = TABLE.iter().filter(|other| on(other.mutant)).map(|other| other.name).collect();
            assert_eq!(are_on, [described.name]);
        }
        assert_eq!(reached(), TABLE.len() as u64);
        assert!(!select("NoSuchMutant"));
        assert!(TABLE.iter().all(|described| !on(described.mutant)));
    }
}
