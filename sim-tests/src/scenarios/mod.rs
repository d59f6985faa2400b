//! Scenarios: which faults, in which order, and what is demanded in between.
//!
//! What a random plan reaches rarely is told here step by step. A scenario comes to its situation by conditions (what is
//! durable, what nodes say of themselves, marks), not by luck, and fails if the situation did not come about. Each ends
//! alike ([`tools::ends_well`]): everything is mended, drained, read, and read again after a power cut of all nodes.

mod clients;
mod clocks;
mod disks;
mod door;
mod elections;
mod first;
mod links;
mod membership;
mod planted;
mod snapshots;
mod tails;
mod tools;

use crate::cluster::{Cluster, Failure, Setup};

/// A story that is always told the same way; only chance differs by the seed.
pub struct Scenario {
    /// How it is called.
    pub name: &'static str,
    /// What is different about the cluster and its clients.
    pub setup: fn(&mut Setup),
    /// Tells it.
    pub run: fn(&mut Cluster) -> Result<(), Failure>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    first::LEADER_ISOLATED_THEN_POWER_CUT,
    elections::VOTE_GRANTED_THEN_POWER_LOSS,
    elections::PAUSE_THEN_READ,
    elections::TRANSFERS,
    tails::OLD_LEADER_WITH_A_LONGER_TAIL,
    tails::TRUNCATION_THEN_POWER_LOSS,
    tails::ISOLATED_LEADER_WITH_CLIENTS,
    links::LEADER_HEARS_NOTHING,
    links::BRIDGE_BETWEEN_TWO,
    links::BRIDGE_BETWEEN_HALVES,
    links::REPLAYED_CALLS,
    links::LOST_ANSWERS_BETWEEN_NODES,
    clients::ANSWERS_TO_CLIENTS_LOST,
    clients::GROUP_READS_WITHOUT_ANSWER,
    clients::CLAIM_RACING_AN_ACK,
    clients::REPEAT_ACROSS_A_SNAPSHOT,
    snapshots::INSTALL_INTERRUPTED,
    snapshots::TWO_IN_SHORT_ORDER,
    snapshots::PURGED_PAST_A_FOLLOWER,
    snapshots::BACKUP_DURING_FAULTS,
    membership::LEARNER_AWAY_WHILE_PURGED,
    membership::REMOVE_THE_LEADER,
    membership::WIPED_AND_REJOINED,
    disks::SYNC_FAILS_ON_THE_LEADER,
    disks::SYNC_FAILS_ON_A_FOLLOWER,
    disks::FULL_ON_THE_LEADER,
    disks::FULL_ON_ALL,
    disks::STALLED_ON_THE_LEADER,
    disks::POWER_LOSS_DURING_CHECKPOINTS,
    disks::CRASH_BEFORE_DIRECTORY_SYNC,
    disks::BITS_FLIPPED_ON_A_FOLLOWER,
    disks::POWER_CUTS_UNDER_REDB,
    clocks::CLOCK_JUMPS_ON_THE_LEADER,
    door::LEADER_KILLED_UNDER_PRODUCERS,
    door::ANSWERS_OF_THE_LEADER_LOST,
    door::COMMANDS_WITHOUT_ANSWER,
    door::FOLLOWER_ISOLATED_THEN_POWER_LOSS,
    door::LATE_COMMANDS_AFTER_A_CHANGE,
    door::READERS_WAIT_ACROSS_A_CHANGE,
    door::LATE_READS_AFTER_A_CHANGE,
    door::LATE_READS_WHILE_LITTLE_HAPPENS,
    planted::VOTES_WAIT_FOR_SLOW_DISKS,
    planted::DAMAGED_LOG_DOES_NOT_VOTE,
    planted::WIPED_NODE_DOES_NOT_VOTE,
    planted::LEARNER_WITHOUT_ROOM,
    planted::QUESTIONS_WITHOUT_ANSWER,
    planted::DISPLACED_ENTRY_COMES_BACK,
    planted::TORN_BATCHES,
];
