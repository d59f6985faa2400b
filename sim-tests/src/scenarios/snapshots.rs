//! Snapshots and backups, and what comes between.

use millstream_node::world::RpcKind;

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life};
use crate::rpc::{RpcEffect, RpcFault};
use crate::workload::{Order, Told};

pub(super) const INSTALL_INTERRUPTED: Scenario =
    Scenario { name: "snapshot_install_interrupted_at_each_step", setup: short_log, run: install_interrupted };
pub(super) const TWO_IN_SHORT_ORDER: Scenario =
    Scenario { name: "two_snapshots_in_short_order", setup: short_log, run: two_in_short_order };
pub(super) const PURGED_PAST_A_FOLLOWER: Scenario =
    Scenario { name: "log_purged_past_a_follower_that_was_away", setup: short_log, run: purged_past_a_follower };
pub(super) const BACKUP_DURING_FAULTS: Scenario =
    Scenario { name: "backup_during_faults", setup: coarse, run: backup_during_faults };

/// Makes the parts of snapshots that are sent to this node countable, by a delay that changes nothing.
fn count_parts(cluster: &Cluster, to: &str) {
    let effect = RpcEffect::DelayRequest { min_ms: 0, max_ms: 1 };
    let to = Some(cluster.id(to));
    cluster.rpc().inject(RpcFault { from: None, to, kinds: vec![RpcKind::SnapshotPart], one_in: 1, effect });
}

fn parts(cluster: &Cluster) -> u64 {
    cluster.rpc().counts().get("rpc request delayed").copied().unwrap_or_default()
}

/// Steps until a part of a snapshot is sent.
fn until_part(cluster: &mut Cluster) -> Result<(), Failure> {
    let before = parts(cluster);
    let sent = steps_until(cluster, secs(30), |cluster| before < parts(cluster))?;
    came_about("a snapshot is sent", sent, cluster)
}

fn until_installed(cluster: &mut Cluster, node: &str, before: u64) -> Result<(), Failure> {
    let installed = steps_until(cluster, secs(40), |c| before < mark(c, node, "snapshot_installed"))?;
    came_about("a snapshot is installed", installed, cluster)
}

/// A node that receives a snapshot dies at one step of its disk after the other, by a kill or a power loss in turn.
fn install_interrupted(cluster: &mut Cluster) -> Result<(), Failure> {
    const ROUNDS: u64 = 6;
    let leader = boot(cluster)?;
    let node = any_other(cluster, &leader);
    count_parts(cluster, &node);
    fall_behind(cluster, &node)?;
    let before = mark(cluster, &node, "snapshot_installed");
    heal(cluster);
    until_part(cluster)?;
    let first = cluster.disk(&node).steps();
    until_installed(cluster, &node, before)?;
    let steps = (cluster.disk(&node).steps() - first).max(ROUNDS);
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        fall_behind(cluster, &node)?;
        let before = mark(cluster, &node, "snapshot_installed");
        heal(cluster);
        until_part(cluster)?;
        let step = 1 + round * steps / ROUNDS + cluster.rng.below(steps / ROUNDS + 1);
        cluster.phase(&format!("the install of a snapshot is to end before step {step} of about {steps}"));
        cluster.disk(&node).crash_at(step);
        let life = if round % 2 == 0 { Life::Dark } else { Life::Dead };
        let came = until_crash(cluster, &node, life, secs(10))?;
        interrupted += u64::from(came && mark(cluster, &node, "snapshot_installed") == before);
        let down = cluster.rng.duration(ms(50), ms(800));
        cluster.run_for(down)?;
        set(cluster, &[&node], Life::Runs)?;
        cluster.run_for(secs(2))?;
    }
    came_about("installs that were interrupted", 2 <= interrupted, cluster)?;
    until_installed(cluster, &node, 0)?;
    ends_well(cluster)
}

/// A snapshot is cut off on its way until there is a newer one; that one is installed, and at once the next.
fn two_in_short_order(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let node = any_other(cluster, &leader);
    count_parts(cluster, &node);
    for _ in 0..2 {
        fall_behind(cluster, &node)?;
        heal(cluster);
        until_part(cluster)?;
        cluster.phase("the transfer breaks off, and the snapshot gets old");
        let before = mark(cluster, &node, "snapshot_installed");
        isolate(cluster, &node);
        cluster.run_for(secs(3))?;
        until_purged_past(cluster, &node)?;
        heal(cluster);
        until_installed(cluster, &node, before)?;
        cluster.phase("it falls behind again at once");
        fall_behind(cluster, &node)?;
        heal(cluster);
        until_installed(cluster, &node, before + 1)?;
    }
    ends_well(cluster)
}

/// A follower without power comes back when the log was purged past it, and loses its power again when it has installed a
/// snapshot.
fn purged_past_a_follower(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let node = any_other(cluster, &leader);
    for _ in 0..3 {
        set(cluster, &[&node], Life::Dark)?;
        until_purged_past(cluster, &node)?;
        let before = mark(cluster, &node, "snapshot_installed");
        set(cluster, &[&node], Life::Runs)?;
        until_installed(cluster, &node, before)?;
        let more = cluster.rng.below(40);
        for _ in 0..more {
            cluster.step()?;
        }
        cycle(cluster, &[&node], Life::Dark, secs(1))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// Backups while nodes end and are cut off. What is complete must hold all that was acknowledged before it was asked for,
/// and be restorable.
fn backup_during_faults(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let mut complete = 0;
    for round in 0..6 {
        cluster.run_for(secs(2))?;
        let leader = a_leader(cluster)?;
        let acknowledged = cluster.acknowledged_index();
        let number = cluster.order(Order::Backup);
        let wait = cluster.rng.duration(ms(0), ms(120));
        cluster.run_for(wait)?;
        let follower = any_other(cluster, &leader);
        match round % 3 {
            0 => cycle(cluster, &[leader], Life::Dead, secs(1))?,
            1 => cycle(cluster, &[follower], Life::Dark, secs(2))?,
            _ => isolate(cluster, &leader),
        }
        cluster.run_for(secs(3))?;
        heal(cluster);
        cluster.run_until("a backup is made or not", secs(60), |cluster| cluster.told(number).is_some())?;
        if let Some(Ok(Told::Backup { log_index, bytes })) = cluster.told(number) {
            complete += 1;
            cluster.check_backup(log_index, &bytes, acknowledged)?;
        }
    }
    came_about("backups that are complete", 2 <= complete, cluster)?;
    ends_well(cluster)
}
