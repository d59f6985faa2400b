//! Links that are broken in one way only, and calls that are lost or come twice.

use millstream_node::world::RpcKind;

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life, Setup};
use crate::rpc::{RpcEffect, RpcFault};

pub(super) const LEADER_HEARS_NOTHING: Scenario =
    Scenario { name: "leader_sends_and_hears_nothing", setup: coarse, run: leader_hears_nothing };
pub(super) const BRIDGE_BETWEEN_TWO: Scenario =
    Scenario { name: "bridge_between_leader_and_follower", setup: coarse, run: bridge_between_two };
pub(super) const BRIDGE_BETWEEN_HALVES: Scenario =
    Scenario { name: "bridge_between_halves", setup: five, run: bridge_between_halves };
pub(super) const REPLAYED_CALLS: Scenario =
    Scenario { name: "replayed_calls_of_each_kind", setup: short_log, run: replayed_calls };
pub(super) const LOST_ANSWERS_BETWEEN_NODES: Scenario =
    Scenario { name: "lost_answers_between_nodes", setup: coarse, run: lost_answers_between_nodes };

fn five(setup: &mut Setup) {
    coarse(setup);
    setup.nodes.nodes = 5;
}

fn term(cluster: &Cluster) -> u64 {
    cluster.statuses().into_iter().filter_map(|(_, status)| Some(status?.term)).max().unwrap_or_default()
}

/// The leader's messages arrive and keep the followers quiet, and it hears nobody. It must give up.
fn leader_hears_nothing(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let before = term(cluster);
    cluster.phase("nothing gets to the leader from other nodes");
    let nodes = cluster.nodes();
    one_way(cluster, &nodes, &[&leader]);
    let new = other_leader(cluster, &leader)?;
    came_about("a new term", before < term(cluster) && new != leader, cluster)?;
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;
    cluster.phase("nothing gets from the new leader to other nodes");
    one_way(cluster, std::slice::from_ref(&new), &nodes.iter().map(String::as_str).collect::<Vec<_>>());
    other_leader(cluster, &new)?;
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;
    ends_well(cluster)
}

/// A follower does not reach the leader, and both reach the third node. The follower must not depose a leader that has a
/// majority again and again (openraft #2080), and work goes on all the time.
fn bridge_between_two(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let away = any_other(cluster, &leader);
    let before = term(cluster);
    cut(cluster, &[(&leader, &away)]);
    for _ in 0..6 {
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    let terms = term(cluster) - before;
    came_about("few elections while a majority hears the leader", terms <= 4, cluster)?;
    came_about("a node that hears no leader", terms != 0 || hears_nobody(cluster), cluster)?;
    ends_well(cluster)
}

/// Whether a node is further behind than one that is merely slow.
fn hears_nobody(cluster: &Cluster) -> bool {
    let next = |node: &String| cluster.durable_log(node).map_or(0, |log| log.next());
    let all: Vec<_> = cluster.nodes().iter().map(next).collect();
    all.iter().max().zip(all.iter().min()).is_some_and(|(most, least)| 200 < most - least)
}

/// Two halves of two see each other only by the fifth node: each half has a majority with it. If that node leads, all hear
/// it, and it goes on leading. If not, one half hears no leader until it has one that it hears.
fn bridge_between_halves(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for leads in [true, false, false] {
        let leader = a_leader(cluster)?;
        let bridge = if leads { leader.clone() } else { any_other(cluster, &leader) };
        let (before, mut unheard) = (term(cluster), false);
        let halves = others(cluster, &[&bridge]);
        let (left, right) = halves.split_at(2);
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a.as_str(), b.as_str())));
        cluster.phase(&format!("{bridge} is the bridge, {leader} leads"));
        cut(cluster, &pairs.collect::<Vec<_>>());
        for _ in 0..4 {
            cluster.run_for(secs(3))?;
            unheard |= hears_nobody(cluster) || before < term(cluster);
            work_goes_on(cluster)?;
        }
        let what = if leads { "a bridge that leads, and all hear it" } else { "a half that hears no leader" };
        came_about(what, unheard != leads, cluster)?;
        heal(cluster);
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

fn befallen(cluster: &Cluster, name: &str) -> u64 {
    cluster.rpc().counts().get(name).copied().unwrap_or_default()
}

/// Every other call arrives again seconds later, when the term is another: appends, then votes, then parts of snapshots.
fn replayed_calls(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let kinds =
        [&[RpcKind::Append, RpcKind::Heartbeat][..], &[RpcKind::Vote, RpcKind::PreVote], &[RpcKind::SnapshotPart]];
    for kinds in kinds {
        cluster.phase(&format!("{kinds:?} come twice"));
        let before = befallen(cluster, "rpc request replayed");
        let effect = RpcEffect::Replay { min_ms: 50, max_ms: 5_000 };
        cluster.rpc().inject(RpcFault { from: None, to: None, kinds: kinds.to_vec(), one_in: 2, effect });
        for _ in 0..3 {
            let leader = a_leader(cluster)?;
            if kinds == [RpcKind::SnapshotPart] {
                let behind = any_other(cluster, &leader);
                fall_behind(cluster, &behind)?;
                heal(cluster);
            } else {
                cycle(cluster, &[leader], Life::Dead, secs(2))?;
            }
            cluster.run_for(secs(5))?;
            a_leader(cluster)?;
            work_goes_on(cluster)?;
        }
        cluster.rpc().clear();
        came_about("calls that come twice", before < befallen(cluster, "rpc request replayed"), cluster)?;
    }
    ends_well(cluster)
}

/// Requests arrive, and many answers do not: whoever asked must not take silence for a refusal.
fn lost_answers_between_nodes(cluster: &mut Cluster) -> Result<(), Failure> {
    const VOTES: [RpcKind; 2] = [RpcKind::Vote, RpcKind::PreVote];
    boot(cluster)?;
    for kinds in [vec![RpcKind::Forward, RpcKind::ReadIndex], vec![RpcKind::Append], VOTES.to_vec()] {
        let before = befallen(cluster, "rpc answer dropped");
        let what = format!("answers that are lost: {kinds:?}");
        // A leader that is back at once goes on without a vote. There are few, so more of them must be lost.
        let (away, one_in) = if kinds == VOTES { (secs(3), 2) } else { (ms(500), 3) };
        let fault = RpcFault { from: None, to: None, kinds, one_in, effect: RpcEffect::DropAnswer };
        cluster.rpc().inject(fault);
        for _ in 0..4 {
            cluster.run_for(secs(3))?;
            let leader = [a_leader(cluster)?];
            set(cluster, &leader, Life::Dead)?;
            cluster.run_for(away)?;
            set(cluster, &leader, Life::Runs)?;
        }
        cluster.rpc().clear();
        came_about(&what, before < befallen(cluster, "rpc answer dropped"), cluster)?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}
