//! Disks that fail, are full, are slow, lie, or lose their power at the worst moment.

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life, Setup};
use crate::disk::{Area, DiskFault, Step};
use crate::history::Tally;
use crate::plan::EnginePlan;

pub(super) const SYNC_FAILS_ON_THE_LEADER: Scenario =
    Scenario { name: "sync_fails_on_the_leader", setup: coarse, run: |cluster| sync_fails(cluster, true) };
pub(super) const SYNC_FAILS_ON_A_FOLLOWER: Scenario =
    Scenario { name: "sync_fails_on_a_follower", setup: coarse, run: |cluster| sync_fails(cluster, false) };
pub(super) const FULL_ON_THE_LEADER: Scenario =
    Scenario { name: "disk_full_on_the_leader_and_back", setup: with_reserve, run: |cluster| full(cluster, false) };
pub(super) const FULL_ON_ALL: Scenario =
    Scenario { name: "disk_full_on_all_and_back", setup: with_reserve, run: |cluster| full(cluster, true) };
pub(super) const STALLED_ON_THE_LEADER: Scenario =
    Scenario { name: "disk_stalls_on_the_leader", setup: coarse, run: stalled };
pub(super) const POWER_LOSS_DURING_CHECKPOINTS: Scenario = Scenario {
    name: "power_loss_of_all_during_checkpoints_under_trimming",
    setup: many_checkpoints,
    run: power_loss_during_checkpoints,
};
pub(super) const CRASH_BEFORE_DIRECTORY_SYNC: Scenario = Scenario {
    name: "crash_between_rename_and_directory_sync",
    setup: many_checkpoints,
    run: crash_before_directory_sync,
};
pub(super) const BITS_FLIPPED_ON_A_FOLLOWER: Scenario =
    Scenario { name: "bits_flipped_on_a_follower", setup: short_log, run: bits_flipped };
pub(super) const POWER_CUTS_UNDER_REDB: Scenario =
    Scenario { name: "power_cuts_under_redb", setup: redb, run: power_cuts_under_redb };

fn with_reserve(setup: &mut Setup) {
    coarse(setup);
    setup.nodes.reserve_bytes = 4 << 20;
}

fn many_checkpoints(setup: &mut Setup) {
    short_log(setup);
    setup.load.trimmers = 4;
    setup.load.deleters = 2;
}

fn redb(setup: &mut Setup) {
    short_log(setup);
    setup.nodes.engine = EnginePlan::Redb;
}

/// A sync fails, and what it was to keep is lost while it still can be read. The node must not go on with it.
fn sync_fails(cluster: &mut Cluster, leads: bool) -> Result<(), Failure> {
    boot(cluster)?;
    let mut ended = 0;
    for _ in 0..4 {
        let leader = a_leader(cluster)?;
        let node = if leads { leader } else { any_other(cluster, &leader) };
        let before = cluster.disk(&node).counters().syncs_failed;
        let until = cluster.elapsed() + secs(30);
        cluster.expect_stop(&node, until);
        let nth = 1 + cluster.rng.below(6);
        cluster.nemesis(format_args!("sync {nth} of {node} is to fail"));
        cluster.disk(&node).inject(DiskFault::FailSync { nth });
        let failed = steps_until(cluster, secs(10), |cluster| before < cluster.disk(&node).counters().syncs_failed)?;
        came_about("a sync that fails", failed, cluster)?;
        cluster.run_for(secs(1))?;
        cluster.disk(&node).clear_faults();
        let stopped = cluster.take_stopped();
        ended += stopped.len();
        if !stopped.is_empty() {
            let life = if cluster.rng.one_in(2) { Life::Dark } else { Life::Dead };
            cycle(cluster, &[&node], life, secs(3))?;
        }
        cluster.run_for(secs(4))?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    came_about("a node that ends because a sync failed", 0 < ended, cluster)?;
    ends_well(cluster)
}

/// Disks get full; with a reserve a node goes on, refuses what grows, and takes it again when there is room.
fn full(cluster: &mut Cluster, all: bool) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..2 {
        let nodes = if all { cluster.nodes() } else { vec![a_leader(cluster)?] };
        let refused = marks(cluster, "disk_full_refused");
        for node in &nodes {
            // Without a majority that has the reserve free, nothing may grow. A leader alone goes on until even a quarter
            // of it is gone.
            let least = if all { 3 << 20 } else { 1 << 20 };
            let bytes_left = least + cluster.rng.below(512 << 10);
            cluster.nemesis(format_args!("{node} has room for {bytes_left} bytes"));
            cluster.disk(node).inject(DiskFault::Full { bytes_left });
        }
        cluster.run_until("what grows is refused, or another leads", secs(20), |cluster| {
            let moved = cluster.leader().is_some_and(|leader| !nodes.contains(&leader));
            refused < marks(cluster, "disk_full_refused") || moved
        })?;
        let before = cluster.tally();
        cluster.run_until("reads and acknowledgements go on while disks are full", secs(10), |cluster| {
            let Tally { read, acknowledged, .. } = cluster.tally();
            before.read < read && before.acknowledged < acknowledged
        })?;
        if all {
            let appended = cluster.tally().appended;
            let refused = marks(cluster, "disk_full_refused");
            cluster.run_for(secs(5))?;
            came_about("what grows is still refused", refused < marks(cluster, "disk_full_refused"), cluster)?;
            came_about("nothing grows", cluster.tally().appended == appended, cluster)?;
        } else {
            cluster.run_for(secs(5))?;
            // The others have room: another leads, if this one has none at all.
            work_goes_on(cluster)?;
        }
        cluster.phase("there is room again");
        nodes.iter().for_each(|node| cluster.disk(node).clear_faults());
        cluster.run_for(secs(5))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// Each sync of the leader takes longer than an election, for a while.
fn stalled(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..3 {
        let leader = a_leader(cluster)?;
        let before = cluster.disk(&leader).counters().stalls;
        let stall = 1_000 + cluster.rng.below(4_000);
        cluster.nemesis(format_args!("each sync of {leader} takes {stall} ms longer"));
        cluster.disk(&leader).inject(DiskFault::Stall { ms: stall, area: Area::Anywhere });
        cluster.run_for(secs(8))?;
        came_about("syncs that stall", before < cluster.disk(&leader).counters().stalls, cluster)?;
        cluster.disk(&leader).clear_faults();
        cluster.run_for(secs(3))?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// All nodes lose their power in the step in which one of them is in the middle of a checkpoint.
fn power_loss_during_checkpoints(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let all = cluster.nodes();
    for round in 0..6 {
        // A checkpoint must not be ahead of a log whose disk is slow.
        let slow = round % 2 == 1;
        for node in all.iter().filter(|_| slow) {
            cluster.disk(node).inject(DiskFault::Stall { ms: 300, area: Area::Log });
        }
        for node in &all {
            let step = 1 + cluster.rng.below(8);
            cluster.disk(node).crash_in(Area::State, None, step);
        }
        let crashed = |cluster: &Cluster| all.iter().any(|node| cluster.disk(node).has_crashed());
        let came = steps_until(cluster, secs(20), crashed)?;
        came_about("a checkpoint that is interrupted", came, cluster)?;
        cluster.phase("all nodes lose their power during a checkpoint");
        cycle(cluster, &all, Life::Dark, secs(2))?;
        all.iter().for_each(|node| cluster.disk(node).forget_crash());
        all.iter().for_each(|node| cluster.disk(node).clear_faults());
        a_leader(cluster)?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// A file has its new name, and the directory was not synced: the name may be lost. First of the log, then of the state.
fn crash_before_directory_sync(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for (round, area) in [Area::Log, Area::State, Area::Log, Area::State, Area::Log].into_iter().enumerate() {
        let leader = a_leader(cluster)?;
        let node = if round % 2 == 0 { leader } else { any_other(cluster, &leader) };
        let nth = 1 + cluster.rng.below(3);
        cluster.disk(&node).crash_in(area, Some(Step::Rename), nth);
        let came = until_crash(cluster, &node, Life::Dark, secs(60))?;
        came_about(&format!("a crash after a rename in {area:?}"), came, cluster)?;
        let dark = cluster.rng.duration(ms(50), secs(2));
        cluster.run_for(dark)?;
        set(cluster, &[&node], Life::Runs)?;
        a_leader(cluster)?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// Bits of a follower's disk change, and it starts again from it: first of its log, then of its state, then anywhere. Each
/// time it must notice, before it serves or votes by what is wrong: it stops, with words that say so, or it does without
/// what it cannot rely on and gets it from the others. Then its disk is replaced.
fn bits_flipped(cluster: &mut Cluster) -> Result<(), Failure> {
    const NOTICED: [&str; 4] = ["state_suspect", "state_set_aside", "state_rebuilt", "snapshot_installed"];
    boot(cluster)?;
    for (id, area) in (4..).zip([Area::Log, Area::State, Area::Anywhere]) {
        let leader = a_leader(cluster)?;
        let node = any_other(cluster, &leader);
        let noticed = |cluster: &Cluster| NOTICED.iter().map(|name| mark(cluster, &node, name)).sum::<u64>();
        // So that there is both a log and a state.
        cluster.run_until("a checkpoint is written", secs(20), |c| 0 < mark(c, &node, "checkpoint_written"))?;
        cluster.nemesis(format_args!("bits of {node} change in {area:?}"));
        cluster.expect_stop(&node, std::time::Duration::MAX);
        let (seed, before, changed) = (cluster.rng.next_u64(), noticed(cluster), bits(cluster, &node));
        // So many that some are in what it needs, and not all behind the last entry that others rely on.
        cluster.disk(&node).inject(DiskFault::FlipBits { count: 200, seed, area });
        came_about("bits that change", changed < bits(cluster, &node), cluster)?;
        cycle(cluster, &[&node], Life::Dead, secs(1))?;
        cluster.run_for(secs(12))?;
        let words: Vec<_> = cluster.take_stopped().into_iter().filter(|(name, _)| *name == node).collect();
        match words.first() {
            Some((_, words)) => {
                cluster.phase(&format!("{node} does not go on: {words}"));
                cluster.marks().mark("stopped_by_damage");
            }
            None => {
                came_about("damage that is noticed", before < noticed(cluster), cluster)?;
                cluster.marks().mark("healed_damage");
                let all = cluster.nodes();
                cluster.run_until("it has all that the others have", secs(30), |cluster| cluster.agree(&all))?;
            }
        }
        super::membership::replace(cluster, &node, id)?;
    }
    ends_well(cluster)
}

fn bits(cluster: &Cluster, node: &str) -> u64 {
    cluster.disk(node).counters().bits_flipped
}

/// All nodes lose their power again and again, now while they write, now within a transaction of the store.
fn power_cuts_under_redb(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let all = cluster.nodes();
    let lost =
        |cluster: &Cluster| cluster.disks().values().map(|disk| disk.writes_lost + disk.writes_torn).sum::<u64>();
    let before = lost(cluster);
    for round in 0..6 {
        if round % 2 == 0 {
            cluster.run_until_writing(&all, 2)?;
        } else {
            for node in &all {
                let step = 1 + cluster.rng.below(30);
                cluster.disk(node).crash_in(Area::State, None, step);
            }
            let crashed = |cluster: &Cluster| all.iter().any(|node| cluster.disk(node).has_crashed());
            let came = steps_until(cluster, secs(20), crashed)?;
            came_about("a transaction that is interrupted", came, cluster)?;
        }
        cycle(cluster, &all, Life::Dark, secs(2))?;
        all.iter().for_each(|node| cluster.disk(node).forget_crash());
        all.iter().for_each(|node| cluster.disk(node).clear_faults());
        a_leader(cluster)?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    came_about("writes that are lost", before < lost(cluster), cluster)?;
    ends_well(cluster)
}
