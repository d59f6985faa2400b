//! What scenarios are made of.

use std::time::Duration;

use crate::cluster::{CLIENTS, Cluster, Failure, Life, Setup, failure};
use crate::net::Links;
use crate::run::ELECTION;
use crate::workload::{Order, Told};

/// Everything is consumed and read within this time.
const DRAIN: Duration = Duration::from_secs(90);
/// A cluster that is mended has one leader, and all agree on it, within this time.
const RECOVERY: Duration = Duration::from_secs(40);
/// Clients get something done within this time, once there is a leader.
const WORK: Duration = Duration::from_secs(20);
/// A follower that is away needs a snapshot within this time.
const PURGE: Duration = Duration::from_secs(60);

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Coarse steps, as most plans have.
pub(super) fn coarse(setup: &mut Setup) {
    setup.tick = ms(5);
}

/// Little log is kept, so that a node that was away needs a snapshot soon.
pub(super) fn short_log(setup: &mut Setup) {
    coarse(setup);
    setup.nodes.entries_kept = 40;
    // Else a node that was just sent a snapshot has a minute.
    setup.nodes.transfer_bytes_kept = 128 << 10;
    setup.nodes.checkpoint_entries = 50;
    setup.nodes.segment_bytes = 32 << 10;
    setup.nodes.tail_bytes_max = 16 << 10;
}

/// Lets a cluster form and clients work. Who leads.
pub(super) fn boot(cluster: &mut Cluster) -> Result<String, Failure> {
    cluster.phase("a cluster forms, and clients start to work");
    a_leader(cluster)?;
    cluster.run_for(secs(2))?;
    work_goes_on(cluster)?;
    a_leader(cluster)
}

pub(super) fn a_leader(cluster: &mut Cluster) -> Result<String, Failure> {
    cluster.run_until("a leader", ELECTION, |cluster| cluster.leader().is_some())?;
    cluster.leader().ok_or_else(|| failure("a leader", "gone again"))
}

/// A node other than this one leads.
pub(super) fn other_leader(cluster: &mut Cluster, than: &str) -> Result<String, Failure> {
    let is_other = |cluster: &Cluster| cluster.leader().filter(|leader| leader != than);
    cluster.run_until("another leader", 2 * ELECTION, |cluster| is_other(cluster).is_some())?;
    is_other(cluster).ok_or_else(|| failure("another leader", "gone again"))
}

/// The members beside these, in order.
pub(super) fn others(cluster: &Cluster, than: &[&str]) -> Vec<String> {
    cluster.nodes().into_iter().filter(|node| !than.contains(&node.as_str())).collect()
}

/// Any of the members beside this one.
pub(super) fn any_other(cluster: &mut Cluster, than: &str) -> String {
    let others = others(cluster, &[than]);
    let pick = cluster.rng.below(others.len() as u64) as usize;
    others[pick].clone()
}

/// Clients get appends, deliveries and acknowledgements through.
pub(super) fn work_goes_on(cluster: &mut Cluster) -> Result<(), Failure> {
    let before = cluster.tally();
    cluster.run_until("work goes on", WORK, |cluster| {
        let after = cluster.tally();
        before.appended < after.appended
            && before.delivered < after.delivered
            && before.acknowledged < after.acknowledged
    })
}

/// The situation that the scenario is about.
pub(super) fn came_about(what: &str, yes: bool, cluster: &Cluster) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(failure("the scenario's situation came about", format!("not: {what}; {}", cluster.describe())))
}

/// Nothing gets through between these hosts, instead of what was wrong with links before.
pub(super) fn cut(cluster: &mut Cluster, pairs: &[(&str, &str)]) {
    let mut links = Links::default();
    for (a, b) in pairs {
        links.cut(a, b);
        links.cut(b, a);
    }
    cluster.nemesis(format_args!("cut {pairs:?}"));
    cluster.set_links(links);
}

/// Cuts a node off from all other nodes, and from the clients.
pub(super) fn isolate(cluster: &mut Cluster, node: &str) {
    let others = others(cluster, &[node]);
    let pairs: Vec<_> = others.iter().map(String::as_str).chain([CLIENTS]).map(|other| (node, other)).collect();
    cut(cluster, &pairs);
}

/// Cuts a node off from all other nodes. Clients reach it.
pub(super) fn cut_from_nodes(cluster: &mut Cluster, node: &str) {
    let others = others(cluster, &[node]);
    cut(cluster, &others.iter().map(|other| (node, other.as_str())).collect::<Vec<_>>());
}

/// Nothing gets from these to those, instead of what was wrong with links before.
pub(super) fn one_way(cluster: &mut Cluster, from: &[String], to: &[&str]) {
    let mut links = Links::default();
    for from in from {
        to.iter().filter(|to| **to != from).for_each(|to| links.cut(from, to));
    }
    cluster.nemesis(format_args!("nothing gets from {from:?} to {to:?}"));
    cluster.set_links(links);
}

/// All links are well again.
pub(super) fn heal(cluster: &mut Cluster) {
    cluster.nemesis(format_args!("heal links"));
    cluster.set_links(Links::default());
}

pub(super) fn set<S: AsRef<str>>(cluster: &mut Cluster, nodes: &[S], life: Life) -> Result<(), Failure> {
    cluster.set_lives(&nodes.iter().map(|node| (node.as_ref().to_owned(), life)).collect())
}

/// Ends these nodes' lives, and starts them again after a while.
pub(super) fn cycle<S: AsRef<str>>(
    cluster: &mut Cluster,
    nodes: &[S],
    life: Life,
    most: Duration,
) -> Result<(), Failure> {
    set(cluster, nodes, life)?;
    let down = cluster.rng.duration(ms(20), most);
    cluster.run_for(down)?;
    set(cluster, nodes, Life::Runs)
}

/// How often this node has set a mark.
pub(super) fn mark(cluster: &Cluster, node: &str, mark: &'static str) -> u64 {
    cluster.witness().marks_of(node, mark)
}

/// How often all nodes have set a mark.
pub(super) fn marks(cluster: &Cluster, mark: &str) -> u64 {
    cluster.witness().marks().get(mark).copied().unwrap_or_default()
}

/// Steps until a condition holds, looking after each step. Whether it came to hold in time.
pub(super) fn steps_until(
    cluster: &mut Cluster,
    limit: Duration,
    condition: impl Fn(&Cluster) -> bool,
) -> Result<bool, Failure> {
    let end = cluster.elapsed() + limit;
    while !condition(cluster) {
        if end <= cluster.elapsed() {
            return Ok(false);
        }
        cluster.step()?;
    }
    Ok(true)
}

/// Steps until the crash that this node's disk waits for has come, and takes the node's life then. Whether it came.
pub(super) fn until_crash(cluster: &mut Cluster, node: &str, life: Life, limit: Duration) -> Result<bool, Failure> {
    let came = steps_until(cluster, limit, |cluster| cluster.disk(node).has_crashed())?;
    if came {
        cluster.nemesis(format_args!("{node} crashes at the step of its disk"));
        set(cluster, &[node], life)?;
    }
    cluster.disk(node).forget_crash();
    Ok(came)
}

/// Cuts a follower off until the log was purged past it, so that it needs a snapshot.
pub(super) fn fall_behind(cluster: &mut Cluster, node: &str) -> Result<(), Failure> {
    isolate(cluster, node);
    until_purged_past(cluster, node)
}

/// The others go on until their log was purged past this node's.
pub(super) fn until_purged_past(cluster: &mut Cluster, node: &str) -> Result<(), Failure> {
    let others = others(cluster, &[node]);
    cluster.run_until("the log is purged past a node that is away", PURGE, |cluster| {
        let next = cluster.durable_log(node).map_or(0, |log| log.next());
        let is_past = |other: &String| cluster.durable_log(other).is_some_and(|log| next < log.first());
        others.iter().all(is_past)
    })
}

/// Has an operator do something and waits for what comes of it.
pub(super) fn ordered(cluster: &mut Cluster, order: Order) -> Result<Result<Told, String>, Failure> {
    let number = cluster.order(order);
    cluster.run_until("an order is answered", secs(60), |cluster| cluster.told(number).is_some())?;
    let told = cluster.told(number).unwrap_or_else(|| Err("no answer".into()));
    cluster.phase(&format!("the order is answered: {}", describe(&told)));
    Ok(told)
}

fn describe(told: &Result<Told, String>) -> String {
    match told {
        Ok(Told::Backup { log_index, bytes }) => format!("a backup of {} bytes up to {log_index}", bytes.len()),
        told => format!("{told:?}"),
    }
}

/// Has an operator do something until it is done.
pub(super) fn done(cluster: &mut Cluster, order: Order) -> Result<Told, Failure> {
    let mut last = String::new();
    for _ in 0..8 {
        match ordered(cluster, order.clone())? {
            Ok(told) => return Ok(told),
            Err(error) => last = error,
        }
        cluster.run_for(secs(2))?;
    }
    Err(failure("an order is carried out", format!("{order:?}: {last}; {}", cluster.describe())))
}

/// Starts again what has ended by itself because of its disk. Their words.
pub(super) fn restart_stopped(cluster: &mut Cluster) -> Result<Vec<String>, Failure> {
    let stopped = cluster.take_stopped();
    for (node, _) in &stopped {
        set(cluster, &[node], Life::Dead)?;
        set(cluster, &[node], Life::Runs)?;
    }
    Ok(stopped.into_iter().map(|(node, words)| format!("{node} {words}")).collect())
}

/// Mends everything and demands what every run demands at its end. The checkers come after.
pub(super) fn ends_well(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.phase("everything is mended");
    heal(cluster);
    cluster.rpc().clear();
    let able: Vec<_> = cluster.nodes().into_iter().filter(|node| !cluster.is_damaged(node)).collect();
    for node in &able {
        cluster.disk(node).clear_faults();
        cluster.disk(node).forget_crash();
    }
    restart_stopped(cluster)?;
    set(cluster, &able, Life::Runs)?;
    cluster.run_until("one leader, and all agree on it and on the members", RECOVERY, |c| c.agree(&able))?;
    work_goes_on(cluster)?;
    cluster.phase("no more appends; everything is consumed and read");
    cluster.stop_appending();
    cluster.run_until("everything is consumed and read", DRAIN, Cluster::has_read)?;
    cluster.run_until("all nodes are level", RECOVERY, |cluster| cluster.is_level(&able))?;
    cluster.all_serve(&able)?;
    cluster.phase("all nodes lose their power at one instant, and start from their disks");
    let running: Vec<_> = cluster.machines().into_iter().filter(|node| cluster.life(node) == Life::Runs).collect();
    set(cluster, &running, Life::Dark)?;
    cluster.run_for(ms(500))?;
    set(cluster, &running, Life::Runs)?;
    cluster.run_until("one leader, and all agree on it and on the members", RECOVERY, |c| c.agree(&able))?;
    cluster.read_again();
    cluster.run_until("everything is read once more", DRAIN, Cluster::has_read)?;
    cluster.run_until("all nodes are level", RECOVERY, |cluster| cluster.is_level(&able))
}
