//! Entries that only an old leader has.

use super::Scenario;
use super::tools::*;
use crate::cluster::{CLIENTS, Cluster, Failure, Life};

pub(super) const OLD_LEADER_WITH_A_LONGER_TAIL: Scenario =
    Scenario { name: "old_leader_returns_with_a_longer_tail", setup: coarse, run: old_leader_with_a_longer_tail };
pub(super) const TRUNCATION_THEN_POWER_LOSS: Scenario =
    Scenario { name: "truncation_then_power_loss", setup: coarse, run: truncation_then_power_loss };
pub(super) const ISOLATED_LEADER_WITH_CLIENTS: Scenario =
    Scenario { name: "isolated_leader_that_clients_reach", setup: coarse, run: isolated_leader_with_clients };

/// The leader is cut off from the other nodes, and clients reach nobody else. It takes entries that nobody else has, until
/// it gives up; meanwhile another leads. The old leader.
fn strand(cluster: &mut Cluster) -> Result<String, Failure> {
    let leader = a_leader(cluster)?;
    let rest = others(cluster, &[&leader]);
    cluster.phase("the leader is alone with all clients");
    let cuts = rest.iter().flat_map(|other| [(leader.as_str(), other.as_str()), (CLIENTS, other.as_str())]);
    let cuts = cuts.collect::<Vec<_>>();
    cut(cluster, &cuts);
    let new = other_leader(cluster, &leader)?;
    cluster.run_for(ms(500))?;
    let next = |node: &str| cluster.durable_log(node).map_or(0, |log| log.next());
    let (old_next, new_next) = (next(&leader), next(&new));
    came_about("the old leader's log is longer", new_next < old_next, cluster)?;
    Ok(leader)
}

fn old_leader_with_a_longer_tail(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..3 {
        let old = strand(cluster)?;
        let before = mark(cluster, &old, "log_truncated");
        cluster.phase("the old leader comes back");
        heal(cluster);
        cluster.run_until("its tail is replaced", secs(20), |c| before < mark(c, &old, "log_truncated"))?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// In the step in which the old leader's tail was replaced, it loses its power; every other time all nodes do.
fn truncation_then_power_loss(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for round in 0..4 {
        let old = strand(cluster)?;
        let before = mark(cluster, &old, "log_truncated");
        heal(cluster);
        let truncated = steps_until(cluster, secs(20), |cluster| before < mark(cluster, &old, "log_truncated"))?;
        came_about("a tail is replaced", truncated, cluster)?;
        let more = cluster.rng.below(3);
        for _ in 0..more {
            cluster.step()?;
        }
        cluster.phase("power is lost at this moment");
        let dark = if round % 2 == 0 { vec![old] } else { cluster.nodes() };
        cycle(cluster, &dark, Life::Dark, secs(3))?;
        a_leader(cluster)?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// Clients reach an isolated leader and the others alike. What the isolated one has taken must not be acknowledged, and its
/// clients must be told that they cannot know: by itself if it hears in time that it was replaced, else by their deadline.
fn isolated_leader_with_clients(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for alone in [ms(500), secs(12), ms(500), secs(2)] {
        let leader = a_leader(cluster)?;
        let (unknown, discarded) = (cluster.tally().unknown, mark(cluster, &leader, "log_discarded"));
        cluster.phase("the leader is cut off from the other nodes only");
        cut_from_nodes(cluster, &leader);
        other_leader(cluster, &leader)?;
        cluster.run_for(alone)?;
        heal(cluster);
        cluster.run_for(secs(4))?;
        work_goes_on(cluster)?;
        came_about("clients that do not know", unknown < cluster.tally().unknown, cluster)?;
        // Before anybody has lost patience.
        if alone < secs(5) {
            let discarded = discarded < mark(cluster, &leader, "log_discarded");
            came_about("outcomes that the isolated leader leaves open", discarded, cluster)?;
        }
    }
    ends_well(cluster)
}
