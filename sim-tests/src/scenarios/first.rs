//! The first scenario, of all faults of a process and a machine in turn.

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life};

pub(super) const LEADER_ISOLATED_THEN_POWER_CUT: Scenario =
    Scenario { name: "leader_isolated_then_power_cut", setup: |_| {}, run: leader_isolated_then_power_cut };

/// The leader is isolated, its successor loses its power, and at last all nodes lose it at one instant. Clients never
/// stop, and each time they must get on with the nodes that are left.
fn leader_isolated_then_power_cut(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.phase("a cluster forms, and clients start to work");
    let leader = a_leader(cluster)?;
    cluster.run_for(secs(2))?;
    work_goes_on(cluster)?;

    cluster.phase("the leader is isolated; the others go on");
    isolate(cluster, &leader);
    cluster.run_for(secs(8))?;
    work_goes_on(cluster)?;
    let stay = cluster.rng.duration(secs(0), secs(3));
    cluster.run_for(stay)?;

    cluster.phase("the old leader comes back");
    heal(cluster);
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;

    cluster.phase("the leader's process is killed and starts again at once");
    let leader = a_leader(cluster)?;
    set(cluster, std::slice::from_ref(&leader), Life::Dead)?;
    let down = cluster.rng.duration(ms(1), ms(500));
    cluster.run_for(down)?;
    set(cluster, &[leader], Life::Runs)?;
    cluster.run_for(secs(8))?;
    work_goes_on(cluster)?;

    cluster.phase("the leader loses its power; the others go on");
    let leader = a_leader(cluster)?;
    let leader = [leader];
    cluster.run_until_writing(&leader, 1)?;
    set(cluster, &leader, Life::Dark)?;
    cluster.run_for(secs(8))?;
    work_goes_on(cluster)?;

    cluster.phase("it starts again from its disk");
    set(cluster, &leader, Life::Runs)?;
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;

    cluster.phase("all nodes lose their power at one instant, and start again");
    let all = cluster.nodes();
    cluster.run_until_writing(&all, 2)?;
    set(cluster, &all, Life::Dark)?;
    let dark = cluster.rng.duration(secs(1), secs(4));
    cluster.run_for(dark)?;
    set(cluster, &all, Life::Runs)?;
    a_leader(cluster)?;
    cluster.run_for(secs(4))?;
    work_goes_on(cluster)?;

    ends_well(cluster)
}
