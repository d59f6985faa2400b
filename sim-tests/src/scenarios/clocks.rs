//! Clocks that are wrong.

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life};
use crate::entropy::EPOCH;
use crate::net::Links;
use crate::plan::ClockFault;

pub(super) const CLOCK_JUMPS_ON_THE_LEADER: Scenario =
    Scenario { name: "clock_jumps_on_the_leader", setup: coarse, run: clock_jumps };

/// How far it jumps.
const JUMP_MS: i64 = 20_000;

/// The greatest id that a client was told, in milliseconds ahead of the right time.
fn ahead(cluster: &Cluster) -> i64 {
    let calls = cluster.history().calls();
    let placed = calls.iter().flat_map(|call| call.placed().filter_map(|(_, placed)| placed?.id()).collect::<Vec<_>>());
    // What clients choose themselves is small.
    let greatest = placed.map(|id| id.ms).max().unwrap_or_default();
    greatest as i64 - (EPOCH + cluster.elapsed()).as_millis() as i64
}

/// The leader's clock jumps forward while clients append, and back; then backward, and another leads. Ids never go back,
/// and idle times do not become immense.
fn clock_jumps(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for (number, by) in [(1, JUMP_MS), (2, -JUMP_MS), (3, JUMP_MS / 2)] {
        let leader = a_leader(cluster)?;
        cluster.nemesis(format_args!("{leader}'s clock jumps by {by} ms"));
        cluster.clock(&leader).begin(number, ClockFault::Jump { ms: by });
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
        if 0 < by && number == 1 {
            let ahead = ahead(cluster);
            came_about("ids of the time that the clock shows", JUMP_MS / 2 < ahead, cluster)?;
        }
        cluster.phase("another leads, whose clock is right, and learns late what is committed");
        let nodes = cluster.nodes();
        let mut links = Links::default();
        for node in &nodes {
            others(cluster, &[node]).iter().for_each(|other| links.slow(node, other, ms(250)));
        }
        cluster.set_links(links);
        cluster.run_for(secs(1))?;
        cycle(cluster, &[&leader], Life::Dead, secs(1))?;
        a_leader(cluster)?;
        cluster.run_for(ms(500))?;
        heal(cluster);
        work_goes_on(cluster)?;
        cluster.clock(&leader).end(number);
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}
