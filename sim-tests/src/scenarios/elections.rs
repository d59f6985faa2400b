//! Votes, leases and leadership that is handed over.

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life};
use crate::net::Links;
use crate::plan::ClockFault;
use crate::workload::{Order, Told};

pub(super) const VOTE_GRANTED_THEN_POWER_LOSS: Scenario =
    Scenario { name: "vote_granted_then_power_loss", setup: coarse, run: vote_granted_then_power_loss };
pub(super) const PAUSE_THEN_READ: Scenario =
    Scenario { name: "pause_longer_than_a_lease_then_a_read", setup: |_| {}, run: pause_then_read };
pub(super) const TRANSFERS: Scenario =
    Scenario { name: "transfers_under_load_and_to_a_node_cut_off", setup: coarse, run: transfers };

/// Each time that a voter's vote for another has just become durable, it loses its power: it must not vote twice in that
/// term when the old leader and the candidate come to it later.
fn vote_granted_then_power_loss(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..3 {
        let leader = a_leader(cluster)?;
        let voters = others(cluster, &[&leader]);
        let vote = |cluster: &Cluster, node: &str| cluster.durable_log(node).and_then(|log| log.vote);
        let before = voters.iter().filter_map(|node| vote(cluster, node)).max();
        cluster.phase("the leader is isolated, and a follower asks for votes");
        isolate(cluster, &leader);
        let granted = |cluster: &Cluster| {
            let has_granted = |node: &&String| {
                let vote = vote(cluster, node).filter(|vote| Some(*vote) > before);
                vote.is_some_and(|vote| vote.leader.node != cluster.id(node) && !vote.committed)
            };
            voters.iter().find(has_granted).cloned()
        };
        steps_until(cluster, secs(20), |cluster| granted(cluster).is_some())?;
        let voter = granted(cluster);
        came_about("a vote for another is durable", voter.is_some(), cluster)?;
        let voter = voter.into_iter().collect::<Vec<_>>();
        cluster.phase("the voter loses its power, and comes back together with the old leader");
        set(cluster, &voter, Life::Dark)?;
        let dark = cluster.rng.duration(ms(5), ms(1_500));
        cluster.run_for(dark)?;
        heal(cluster);
        set(cluster, &voter, Life::Runs)?;
        a_leader(cluster)?;
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// For the leader time stands nearly still while its lease ends for the others, and another is elected and works. Clients
/// still reach it, and ask it for linearizable reads, while it does not know yet that it was replaced.
fn pause_then_read(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let mut were_two = 0;
    for number in 1_000..1_004 {
        let leader = a_leader(cluster)?;
        let rest = others(cluster, &[&leader]);
        cluster.phase("the leader stands still; for all others seconds pass");
        let mut links = Links::default();
        rest.iter().for_each(|other| links.hold(&leader, other));
        cluster.nemesis(format_args!("{leader} stands still"));
        cluster.set_links(links);
        let leads = cluster.rng.duration(secs(3), secs(5));
        for node in &rest {
            cluster.leap(node, leads);
            let clock = cluster.clock(node);
            clock.begin(number, ClockFault::Ahead { ms: leads.as_millis() as u64 });
            clock.end(number);
        }
        // Before it would notice by itself, and while clients write by the other.
        let mut reads = Vec::new();
        for _ in 0..4 {
            cluster.run_for(ms(225))?;
            reads.push(cluster.order(Order::ReadAt { endpoint: cluster.endpoint(&leader) }));
        }
        let leaders = cluster.statuses().into_iter().filter_map(|(_, status)| status);
        let leaders = leaders.filter(|status| status.role() == millstream_client::NodeRole::Leader).count();
        were_two += u64::from(leaders == 2);
        heal(cluster);
        cluster.run_until("the reads are answered", secs(30), |c| reads.iter().all(|read| c.told(*read).is_some()))?;
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    came_about("a leader that was replaced without knowing it", 0 < were_two, cluster)?;
    ends_well(cluster)
}

/// Leadership is handed over under load, back and forth; to a node that is cut off, where it must not end in silence; and
/// while another node is cut off.
fn transfers(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..3 {
        let leader = a_leader(cluster)?;
        let heir = any_other(cluster, &leader);
        cluster.phase("leadership is handed over under load");
        let told = done(cluster, Order::Transfer { to: cluster.id(&heir) })?;
        came_about("leadership is handed over", matches!(told, Told::Leads(_)), cluster)?;
        cluster.run_until("the heir leads", secs(5), |cluster| cluster.leader().as_ref() == Some(&heir))?;
        work_goes_on(cluster)?;
    }
    let leader = a_leader(cluster)?;
    let heir = any_other(cluster, &leader);
    cluster.phase("leadership is to be handed over to a node that is cut off");
    isolate(cluster, &heir);
    cluster.run_for(secs(2))?;
    let told = ordered(cluster, Order::Transfer { to: cluster.id(&heir) })?;
    came_about("a transfer that fails", told.is_err(), cluster)?;
    work_goes_on(cluster)?;
    cluster.phase("leadership is handed over to the only one that is left");
    let leader = a_leader(cluster)?;
    let last = others(cluster, &[&leader, &heir]);
    if let Some(last) = last.first() {
        done(cluster, Order::Transfer { to: cluster.id(last) })?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}
