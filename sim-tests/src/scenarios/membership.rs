//! Nodes that come and go.

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life, Setup};
use crate::workload::{Order, Told};

pub(super) const LEARNER_AWAY_WHILE_PURGED: Scenario =
    Scenario { name: "learner_away_while_the_log_is_purged", setup: with_a_spare, run: learner_away_while_purged };
pub(super) const REMOVE_THE_LEADER: Scenario =
    Scenario { name: "remove_the_leader", setup: with_a_spare, run: remove_the_leader };
pub(super) const WIPED_AND_REJOINED: Scenario =
    Scenario { name: "node_wiped_and_rejoined_under_a_new_id", setup: short_log, run: wiped_and_rejoined };

/// The machine of the spare node, and its id.
const SPARE: (&str, u64) = ("n4", 4);

fn with_a_spare(setup: &mut Setup) {
    short_log(setup);
    setup.nodes.spares = 1;
}

/// Adds the node on this machine as a learner.
pub(super) fn add(cluster: &mut Cluster, node: &str, id: u64) -> Result<(), Failure> {
    cluster.join(node, id)?;
    cluster.run_for(secs(1))?;
    let told = done(cluster, Order::AddLearner { id, address: cluster.peer_address(node) })?;
    came_about("a learner", matches!(told, Told::Members(members) if members.get(&id) == Some(&false)), cluster)
}

/// Changes who votes, until it is so.
fn change(cluster: &mut Cluster, add: &[u64], remove: &[u64]) -> Result<(), Failure> {
    let order = Order::ChangeVoters { add: add.to_vec(), remove: remove.to_vec() };
    let Told::Members(members) = done(cluster, order)? else { return Ok(()) };
    let is_so =
        add.iter().all(|id| members.get(id) == Some(&true)) && remove.iter().all(|id| !members.contains_key(id));
    came_about("a change of who votes", is_so, cluster)
}

/// Replaces the node on this machine by an empty one under a new id, which then votes.
pub(super) fn replace(cluster: &mut Cluster, node: &str, id: u64) -> Result<(), Failure> {
    let old = cluster.id(node);
    set(cluster, &[node], Life::Dead)?;
    change(cluster, &[], &[old])?;
    add(cluster, node, id)?;
    change(cluster, &[id], &[])?;
    work_goes_on(cluster)
}

/// A learner is cut off when it was just added, and the log is purged meanwhile. It gets a snapshot, votes, and the cluster
/// works with it and one of the others.
fn learner_away_while_purged(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let (node, id) = SPARE;
    add(cluster, node, id)?;
    isolate(cluster, node);
    let before = mark(cluster, node, "snapshot_installed");
    cluster.run_for(secs(2))?;
    until_purged_past(cluster, node)?;
    heal(cluster);
    cluster.run_until("the learner gets a snapshot", secs(40), |c| before < mark(c, node, "snapshot_installed"))?;
    change(cluster, &[id], &[])?;
    cluster.phase("one of the first voters loses its power");
    let leader = a_leader(cluster)?;
    let gone = others(cluster, &[&leader, node]).into_iter().take(1).collect::<Vec<_>>();
    set(cluster, &gone, Life::Dark)?;
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;
    ends_well(cluster)
}

/// The leader is removed under load while the spare takes its place.
fn remove_the_leader(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let (node, id) = SPARE;
    add(cluster, node, id)?;
    let leader = a_leader(cluster)?;
    change(cluster, &[id], &[cluster.id(&leader)])?;
    cluster.leave(&leader);
    other_leader(cluster, &leader)?;
    work_goes_on(cluster)?;
    cluster.run_until("the removed node finds out", secs(60), |cluster| {
        let mut statuses = cluster.statuses().into_iter();
        statuses.any(|(name, status)| name == leader && status.is_some_and(|status| status.removed))
    })?;
    cluster.phase("the new leader is killed");
    let leader = a_leader(cluster)?;
    cycle(cluster, &[&leader], Life::Dead, secs(2))?;
    a_leader(cluster)?;
    work_goes_on(cluster)?;
    ends_well(cluster)
}

/// A follower loses its disk, is removed, and comes back with nothing under a new id; then the same with the leader.
fn wiped_and_rejoined(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let follower = any_other(cluster, &leader);
    for (node, id) in [(follower, 4), (leader, 5)] {
        replace(cluster, &node, id)?;
        let all = cluster.nodes();
        cluster.run_until("all agree on the members", secs(40), |cluster| cluster.agree(&all))?;
    }
    came_about(
        "two disks that were replaced",
        cluster.machines().iter().filter(|n| cluster.id(n) > 3).count() == 2,
        cluster,
    )?;
    ends_well(cluster)
}
