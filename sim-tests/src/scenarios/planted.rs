//! Situations in which what keeps a node from harm is the only thing that does: planted bugs show there.

use std::time::Duration;

use millstream_node::world::RpcKind;

use super::Scenario;
use super::membership::{add, replace};
use super::tools::*;
use crate::cluster::{CLIENTS, Cluster, Failure, Life, Setup, failure};
use crate::disk::{Area, DiskFault};
use crate::net::Links;
use crate::rpc::{RpcEffect, RpcFault};

pub(super) const VOTES_WAIT_FOR_SLOW_DISKS: Scenario =
    Scenario { name: "votes_wait_for_slow_disks", setup: coarse, run: votes_wait_for_slow_disks };
pub(super) const DAMAGED_LOG_DOES_NOT_VOTE: Scenario =
    Scenario { name: "damaged_log_does_not_vote", setup: one_segment, run: damaged_log_does_not_vote };
pub(super) const WIPED_NODE_DOES_NOT_VOTE: Scenario =
    Scenario { name: "wiped_node_does_not_vote", setup: coarse, run: wiped_node_does_not_vote };
pub(super) const LEARNER_WITHOUT_ROOM: Scenario =
    Scenario { name: "learner_and_follower_without_room", setup: spare_with_reserve, run: learner_without_room };
pub(super) const QUESTIONS_WITHOUT_ANSWER: Scenario =
    Scenario { name: "questions_between_nodes_without_answer", setup: coarse, run: questions_without_answer };
pub(super) const DISPLACED_ENTRY_COMES_BACK: Scenario =
    Scenario { name: "displaced_entry_comes_back", setup: careless, run: displaced_entry_comes_back };
pub(super) const TORN_BATCHES: Scenario = Scenario { name: "torn_batches", setup: large_entries, run: torn_batches };

fn large_entries(setup: &mut Setup) {
    coarse(setup);
    setup.load.producers = 8;
    setup.load.large_one_in = 20;
}

fn careless(setup: &mut Setup) {
    coarse(setup);
    setup.load.careless = 6;
}

/// All of the log is in one file and in no checkpoint, and nobody reads it again but a node that starts.
fn one_segment(setup: &mut Setup) {
    coarse(setup);
    setup.nodes.segment_bytes = 16 << 20;
    setup.nodes.checkpoint_entries = 1_000_000;
    setup.nodes.dirty_bytes = 64 << 20;
    setup.nodes.scrub_bytes_per_second = 0;
}

fn spare_with_reserve(setup: &mut Setup) {
    short_log(setup);
    setup.nodes.spares = 1;
    setup.nodes.reserve_bytes = 8 << 20;
}

/// Nothing gets through between this host and those.
fn apart(links: &mut Links, host: &str, others: &[&str]) {
    for other in others {
        links.cut(host, other);
        links.cut(other, host);
    }
}

/// Nobody leads, for so long.
fn nobody_leads(cluster: &mut Cluster, who: &'static str) -> Result<(), Failure> {
    cluster.run_for(secs(1))?;
    match steps_until(cluster, secs(7), |cluster| cluster.leader().is_some())? {
        true => Err(failure(who, cluster.describe())),
        false => Ok(()),
    }
}

/// The leader ends, and one of the two that are left has a slow disk: its vote counts when it is on that disk. It loses its
/// power as soon as the other leads.
fn votes_wait_for_slow_disks(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let mut elected = 0;
    for _ in 0..4 {
        let leader = a_leader(cluster)?;
        let slow = any_other(cluster, &leader);
        let stall = 200 + cluster.rng.below(400);
        cluster.nemesis(format_args!("each sync of {slow} takes {stall} ms longer"));
        cluster.disk(&slow).inject(DiskFault::Stall { ms: stall, area: Area::Anywhere });
        set(cluster, &[&leader], Life::Dead)?;
        let other_leads = |cluster: &Cluster| cluster.leader().is_some_and(|it| it != slow && it != leader);
        if steps_until(cluster, secs(6), other_leads)? {
            elected += 1;
            set(cluster, &[&slow], Life::Dark)?;
            cluster.run_for(ms(200))?;
        }
        cluster.disk(&slow).clear_faults();
        set(cluster, &[&leader, &slow], Life::Runs)?;
        cluster.run_for(secs(3))?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    came_about("a leader elected by a slow voter", 0 < elected, cluster)?;
    ends_well(cluster)
}

/// Only the leader and one follower have the newest entries. The follower's disk changes a bit of what it had synced, the
/// leader is gone, and the follower starts again beside one that was away: with what is left of its log it must not make a
/// majority.
fn damaged_log_does_not_vote(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let away = any_other(cluster, &leader);
    let damaged = others(cluster, &[&leader, &away]);
    let Some(damaged) = damaged.first().cloned() else { return Err(failure("three nodes", cluster.describe())) };
    isolate(cluster, &away);
    cluster.run_for(secs(2))?;
    work_goes_on(cluster)?;
    cluster.nemesis(format_args!("bits of the log of {damaged} change"));
    cluster.expect_stop(&damaged, Duration::MAX);
    let seed = cluster.rng.next_u64();
    cluster.disk(&damaged).inject(DiskFault::FlipBits { count: 4, seed, area: Area::Log });
    came_about("bits that change", 0 < cluster.disk(&damaged).counters().bits_flipped, cluster)?;
    // The end of a log may be missing: nobody can tell that from a write that was cut short. So there must be more.
    cluster.run_for(secs(1))?;
    work_goes_on(cluster)?;
    set(cluster, &[&leader, &damaged], Life::Dead)?;
    cluster.run_for(ms(100))?;
    heal(cluster);
    set(cluster, &[&damaged], Life::Runs)?;
    nobody_leads(cluster, "a log that has lost something gives no vote")?;
    came_about("a node that stops because of its log", !cluster.take_stopped().is_empty(), cluster)?;
    set(cluster, &[&leader], Life::Runs)?;
    a_leader(cluster)?;
    work_goes_on(cluster)?;
    replace(cluster, &damaged, 4)?;
    ends_well(cluster)
}

/// Only the leader and one follower have the newest entries. The follower comes back with an empty disk under its old id,
/// and the leader is gone: with one that was away it must not make a majority.
fn wiped_node_does_not_vote(cluster: &mut Cluster) -> Result<(), Failure> {
    let leader = boot(cluster)?;
    let away = any_other(cluster, &leader);
    let wiped = others(cluster, &[&leader, &away]);
    let Some(wiped) = wiped.first().cloned() else { return Err(failure("three nodes", cluster.describe())) };
    isolate(cluster, &away);
    cluster.run_for(secs(2))?;
    work_goes_on(cluster)?;
    set(cluster, &[&leader, &wiped], Life::Dead)?;
    let id = cluster.id(&wiped);
    cluster.join(&wiped, id)?;
    heal(cluster);
    nobody_leads(cluster, "a node that has lost everything gives no vote")?;
    cluster.phase("the leader comes back");
    set(cluster, &[&leader], Life::Runs)?;
    a_leader(cluster)?;
    work_goes_on(cluster)?;
    replace(cluster, &wiped, 4)?;
    ends_well(cluster)
}

/// A learner and one voter have no room: the majority of the voters has, so writers are served.
fn learner_without_room(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    add(cluster, "n4", 4)?;
    work_goes_on(cluster)?;
    let leader = a_leader(cluster)?;
    let follower = others(cluster, &[&leader, "n4"]).into_iter().next().unwrap_or_default();
    for node in [&follower, "n4"] {
        let bytes_left = (5 << 20) + cluster.rng.below(2 << 20);
        cluster.nemesis(format_args!("{node} has room for {bytes_left} bytes"));
        cluster.disk(node).inject(DiskFault::Full { bytes_left });
    }
    cluster.run_for(secs(3))?;
    for _ in 0..3 {
        cluster.run_for(secs(1))?;
        work_goes_on(cluster)?;
    }
    cluster.phase("the leader has no room either: now a majority has none");
    let leader = a_leader(cluster)?;
    let refused = marks(cluster, "disk_full_refused");
    cluster.nemesis(format_args!("{leader} has little room"));
    cluster.disk(&leader).inject(DiskFault::Full { bytes_left: 6 << 20 });
    cluster.run_until("what grows is refused", secs(20), |c| refused < marks(c, "disk_full_refused"))?;
    [&follower, "n4", &leader].iter().for_each(|node| cluster.disk(node).clear_faults());
    cluster.run_for(secs(3))?;
    work_goes_on(cluster)?;
    ends_well(cluster)
}

/// What nodes ask each other beside the log is asked and not answered for a while. Nobody may wait for those answers for
/// ever: in the end each node serves reads.
fn questions_without_answer(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let kinds = [RpcKind::ReadIndex, RpcKind::CompareDigest, RpcKind::Register];
    for effect in [RpcEffect::DropAnswer, RpcEffect::DropRequest] {
        cluster.nemesis(format_args!("every other call of {kinds:?} befalls {effect:?}"));
        cluster.rpc().inject(RpcFault { from: None, to: None, kinds: kinds.to_vec(), one_in: 2, effect });
        cluster.run_for(secs(4))?;
        cluster.rpc().clear();
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    came_about("calls that are lost", 0 < cluster.rpc().counts().values().sum::<u64>(), cluster)?;
    ends_well(cluster)
}

/// An entry that another leader has displaced comes back: clients were told of the displacement by a leader that then lost
/// its power before the displacement was on its disk, and the other leader, who was the only one to know better, is away.
fn displaced_entry_comes_back(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let mut back = 0;
    for _ in 0..5 {
        let old = a_leader(cluster)?;
        let rest = others(cluster, &[&old]);
        let vote = |cluster: &Cluster, node: &str| cluster.durable_log(node).and_then(|log| log.vote);
        let before = rest.iter().filter_map(|node| vote(cluster, node)).max();
        cluster.phase("the leader is alone with all clients, and those without clients are slow to hear each other");
        let mut links = Links::default();
        for node in &rest {
            apart(&mut links, node, &[&old, CLIENTS]);
            others(cluster, &[&old, node]).iter().for_each(|other| links.slow(node, other, ms(250)));
        }
        cluster.set_links(links);
        let elected = |cluster: &Cluster| {
            let leads = |node: &&String| {
                vote(cluster, node)
                    .is_some_and(|vote| vote.committed && Some(vote) > before && vote.leader.node == cluster.id(node))
            };
            rest.iter().find(leads).cloned()
        };
        steps_until(cluster, secs(20), |cluster| elected(cluster).is_some())?;
        let Some(new) = elected(cluster) else { return came_about("another leader", false, cluster) };
        let third = others(cluster, &[&old, &new]);
        cluster.phase("who was elected reaches only the old leader, whose disk is slow");
        let proposer = |cluster: &Cluster, index| cluster.durable_log(&old).and_then(|log| log.leader_of(index));
        let last = cluster.durable_log(&old).map_or(0, |log| log.next()).saturating_sub(1);
        let tail = proposer(cluster, last);
        let before = mark(cluster, &old, "log_truncated");
        cluster.disk(&old).inject(DiskFault::Stall { ms: 400, area: Area::Anywhere });
        let mut links = Links::default();
        third.iter().for_each(|node| apart(&mut links, node, &[&old, &new]));
        cluster.set_links(links);
        let displaced = steps_until(cluster, secs(6), |c| before < mark(c, &old, "log_truncated"))?;
        // The clients hear of it, and the disk does not. Whoever asks again is refused, and comes back later.
        set(cluster, &[&new], Life::Dead)?;
        cluster.run_for(ms(15))?;
        set(cluster, &[&old], Life::Dead)?;
        cluster.run_for(ms(100))?;
        set(cluster, &[&old], Life::Dark)?;
        cluster.disk(&old).clear_faults();
        cluster.run_for(ms(300))?;
        cluster.phase("the old leader and the third make a majority");
        heal(cluster);
        set(cluster, &[&old], Life::Runs)?;
        a_leader(cluster)?;
        cluster.run_for(secs(2))?;
        back += u64::from(displaced && tail.is_some() && proposer(cluster, last) == tail);
        set(cluster, &[&new], Life::Runs)?;
        cluster.run_for(secs(2))?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    came_about("a tail that was displaced and came back", 0 < back, cluster)?;
    ends_well(cluster)
}

/// All nodes lose their power while they write large batches, again and again: of a batch any part may be on the disk, its
/// beginning as well, and none of it counts.
fn torn_batches(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let all = cluster.nodes();
    let torn = |cluster: &Cluster| cluster.disks().values().map(|disk| disk.writes_torn).sum::<u64>();
    let before = torn(cluster);
    for _ in 0..10 {
        cluster.run_until_writing(&all, 2)?;
        cycle(cluster, &all, Life::Dark, ms(500))?;
        a_leader(cluster)?;
        let works = cluster.rng.duration(ms(300), ms(1_500));
        cluster.run_for(works)?;
    }
    came_about("writes that are torn", before < torn(cluster), cluster)?;
    ends_well(cluster)
}
