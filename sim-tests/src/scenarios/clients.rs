//! Answers that clients do not get, and clients that race each other.

use std::collections::BTreeSet;

use super::Scenario;
use super::tools::*;
use crate::cluster::{CLIENTS, Cluster, Failure, Life, Setup};
use crate::history::{Action, Id, Outcome};
use crate::net::Links;

pub(super) const ANSWERS_TO_CLIENTS_LOST: Scenario =
    Scenario { name: "answers_to_all_clients_lost", setup: coarse, run: answers_to_clients_lost };
pub(super) const GROUP_READS_WITHOUT_ANSWER: Scenario =
    Scenario { name: "group_reads_without_answer", setup: many_consumers, run: group_reads_without_answer };
pub(super) const CLAIM_RACING_AN_ACK: Scenario =
    Scenario { name: "claim_racing_an_ack", setup: impatient, run: claim_racing_an_ack };
pub(super) const REPEAT_ACROSS_A_SNAPSHOT: Scenario =
    Scenario { name: "repeat_answered_after_a_snapshot", setup: shortest_log, run: repeat_across_a_snapshot };

fn many_consumers(setup: &mut Setup) {
    coarse(setup);
    setup.load.consumers = 6;
    setup.load.idle_min_ms = 3_000;
}

fn impatient(setup: &mut Setup) {
    coarse(setup);
    setup.nodes.latency_ms_max = 40;
    setup.load.consumers = 5;
    setup.load.claimers = 4;
    setup.load.idle_min_ms = 80;
}

fn shortest_log(setup: &mut Setup) {
    short_log(setup);
    setup.nodes.checkpoint_entries = 1;
    setup.nodes.entries_kept = 20;
    setup.nodes.transfer_bytes_kept = 0;
    setup.load.producers = 8;
}

/// For seconds at a time all answers to clients are lost. What they asked for happens; none of it may happen again when
/// they ask once more.
fn answers_to_clients_lost(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let unknown = cluster.tally().unknown;
    for _ in 0..4 {
        cluster.phase("no answer reaches the clients");
        let (nodes, repeats) = (cluster.nodes(), marks(cluster, "dedup_hit"));
        one_way(cluster, &nodes, &[CLIENTS]);
        let away = cluster.rng.duration(ms(500), secs(6));
        cluster.run_for(away)?;
        heal(cluster);
        cluster.run_for(secs(6))?;
        work_goes_on(cluster)?;
        came_about("requests that come again", repeats < marks(cluster, "dedup_hit"), cluster)?;
    }
    came_about("clients that do not know", unknown < cluster.tally().unknown, cluster)?;
    ends_well(cluster)
}

/// Entries are delivered and the answer is lost: they must show up in their owner's pending list, or be taken over.
fn group_reads_without_answer(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..5 {
        let nodes = cluster.nodes();
        one_way(cluster, &nodes, &[CLIENTS]);
        let away = cluster.rng.duration(ms(300), secs(3));
        cluster.run_for(away)?;
        heal(cluster);
        cluster.run_for(secs(5))?;
        work_goes_on(cluster)?;
    }
    let (mut delivered, mut found) = (BTreeSet::<Id>::new(), BTreeSet::<Id>::new());
    for call in cluster.history().calls() {
        let Some(Outcome::Delivered { entries, .. }) = call.outcome() else { continue };
        let ids = entries.iter().map(|entry| entry.id);
        match call.action {
            Action::ReadGroup { .. } => delivered.extend(ids),
            _ => found.extend(ids),
        }
    }
    let lost = found.difference(&delivered).count();
    came_about("deliveries found in pending lists only", 0 < lost, cluster)?;
    ends_well(cluster)
}

/// Entries are taken over while their owner acknowledges them: one of the two wins, and each is told the truth.
fn claim_racing_an_ack(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for _ in 0..3 {
        cluster.run_for(secs(4))?;
        let leader = a_leader(cluster)?;
        cycle(cluster, &[leader], Life::Dead, secs(1))?;
        a_leader(cluster)?;
        work_goes_on(cluster)?;
    }
    let calls = cluster.history().calls();
    let too_late = calls.iter().filter(|call| {
        let asked = call.action.acknowledges().map(|(_, ids)| ids.len() as u64);
        let done = call.outcome().and_then(Outcome::acknowledged);
        matches!((asked, done), (Some(asked), Some(done)) if done < asked)
    });
    came_about("acknowledgements that come too late", 0 < too_late.count(), cluster)?;
    came_about("entries that are taken over", 20 < marks(cluster, "claim_took"), cluster)?;
    ends_well(cluster)
}

/// Requests take effect and their answers are lost. A follower gets their effect by a snapshot only; then the leader ends,
/// and the requests come again, to be answered from what the snapshot has of their sessions.
fn repeat_across_a_snapshot(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let mut across = 0;
    for _ in 0..4 {
        let leader = a_leader(cluster)?;
        let behind = any_other(cluster, &leader);
        cluster.phase("no answer reaches the clients, and one follower is away");
        isolate(cluster, &behind);
        cluster.run_for(ms(500))?;
        let done = cluster.durable_log(&leader).map_or(0, |log| log.next());
        let nodes = cluster.nodes();
        let mut silent = Links::default();
        nodes.iter().for_each(|node| silent.cut(node, CLIENTS));
        let mut away = silent.clone();
        for other in nodes.iter().filter(|node| **node != behind) {
            away.cut(&behind, other);
            away.cut(other, &behind);
        }
        cluster.nemesis(format_args!("nothing gets to the clients; {behind} stays away"));
        cluster.set_links(away);
        // What is asked for now takes effect, and the follower does not hear of it.
        cluster.run_for(ms(700))?;
        let installed = mark(cluster, &behind, "snapshot_installed");
        cluster.nemesis(format_args!("nothing gets to the clients; {behind} comes back"));
        cluster.set_links(silent);
        let is_there = |cluster: &Cluster| installed < mark(cluster, &behind, "snapshot_installed");
        if !steps_until(cluster, secs(6), is_there)? {
            heal(cluster);
            cluster.run_for(secs(5))?;
            continue;
        }
        let snapshot = cluster.witness().life(&behind).and_then(|life| life.applied).unwrap_or_default();
        cluster.phase("the leader ends, and clients hear answers again");
        set(cluster, &[&leader], Life::Dead)?;
        heal(cluster);
        other_leader(cluster, &leader)?;
        cluster.run_for(secs(8))?;
        set(cluster, &[&leader], Life::Runs)?;
        work_goes_on(cluster)?;
        let repeats = cluster.witness().repeats().into_iter();
        across += repeats.filter(|(first, again)| done <= *first && *first <= snapshot && snapshot < *again).count();
    }
    came_about("a repeat whose first time a snapshot covers", 0 < across, cluster)?;
    ends_well(cluster)
}
