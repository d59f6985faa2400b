//! Clients of the Redis door at nodes that do not lead, and what happens to what those ask the leader on their behalf.
//!
//! Every client that can uses the door here, so what is acknowledged, repeated or left open in a history is the door's
//! doing.

use std::collections::BTreeSet;

use millstream_node::world::RpcKind;

use super::Scenario;
use super::tools::*;
use crate::cluster::{Cluster, Failure, Life, Setup};
use crate::history::{Action, Call, Outcome};
use crate::net::Links;
use crate::rpc::{RpcEffect, RpcFault};

pub(super) const LEADER_KILLED_UNDER_PRODUCERS: Scenario =
    Scenario { name: "door_leader_killed_under_producers", setup: at_the_door, run: leader_killed_under_producers };
pub(super) const ANSWERS_OF_THE_LEADER_LOST: Scenario =
    Scenario { name: "door_answers_of_the_leader_lost", setup: at_the_door, run: answers_of_the_leader_lost };
pub(super) const COMMANDS_WITHOUT_ANSWER: Scenario =
    Scenario { name: "door_commands_without_answer", setup: at_the_door, run: commands_without_answer };
pub(super) const FOLLOWER_ISOLATED_THEN_POWER_LOSS: Scenario =
    Scenario { name: "door_follower_isolated_then_power_loss", setup: patient, run: follower_isolated_then_power_loss };
pub(super) const LATE_COMMANDS_AFTER_A_CHANGE: Scenario =
    Scenario { name: "door_late_commands_after_a_change", setup: at_the_door, run: late_commands_after_a_change };
pub(super) const READERS_WAIT_ACROSS_A_CHANGE: Scenario =
    Scenario { name: "door_readers_wait_across_a_change", setup: waiting, run: readers_wait_across_a_change };

pub(super) const LATE_READS_AFTER_A_CHANGE: Scenario =
    Scenario { name: "door_late_reads_after_a_change", setup: waiting, run: late_reads_after_a_change };

pub(super) const LATE_READS_WHILE_LITTLE_HAPPENS: Scenario = Scenario {
    name: "door_late_reads_while_little_happens",
    setup: little_happens,
    run: late_reads_while_little_happens,
};

/// Nobody leaves, nobody is in a hurry: what stays open does so because of a node.
fn at_the_door(setup: &mut Setup) {
    coarse(setup);
    setup.load.door_one_in = 1;
    setup.load.producers = 6;
    setup.load.leave_one_in = 0;
    setup.load.hurry_one_in = 0;
    setup.load.pause_max_ms = 60;
}

fn patient(setup: &mut Setup) {
    at_the_door(setup);
    setup.load.producers = 10;
}

/// So little is appended, and so many consume, that readers wait.
fn waiting(setup: &mut Setup) {
    at_the_door(setup);
    setup.load.producers = 1;
    setup.load.careless = 0;
    setup.load.small_streams = 0;
    setup.load.consumers = 8;
    setup.load.claimers = 0;
    setup.load.pause_max_ms = 400;
    setup.load.wait_unit_ms = 700;
}

/// So few clients, who do so little, that nobody uses the session of a read soon after it.
fn little_happens(setup: &mut Setup) {
    waiting(setup);
    let load = &mut setup.load;
    (load.consumers, load.readers) = (2, 1);
    (load.keyed, load.guarded, load.tailers, load.trimmers, load.deleters, load.changers) = (0, 0, 0, 0, 0, 0);
    (load.pause_max_ms, load.wait_unit_ms) = (2_000, 50);
}

fn befallen(cluster: &Cluster, name: &str) -> u64 {
    cluster.rpc().counts().get(name).copied().unwrap_or_default()
}

/// How often something was noted of the clients of the door.
fn noted(cluster: &Cluster, mark: &str) -> u64 {
    cluster.marks().counts().get(mark).copied().unwrap_or_default()
}

/// The calls since `from`, in the order in which they were made.
fn since(cluster: &Cluster, from: usize) -> Vec<Call> {
    cluster.history().calls().split_off(from)
}

fn made(cluster: &Cluster) -> usize {
    cluster.history().calls().len()
}

/// How many entries were to be appended by calls that were not answered with success, and how many of these somebody has
/// seen. That none of the latter was promised to have had no effect is for the checkers.
fn not_acknowledged(calls: &[Call]) -> (usize, usize) {
    let is_error = |outcome: &Outcome| matches!(outcome, Outcome::Unknown(_) | Outcome::NothingChanged { .. });
    let open = calls.iter().filter(|call| call.outcome().is_some_and(is_error));
    let open: BTreeSet<&[u8]> = open.flat_map(|call| call.action.puts()).map(|put| &put.content[..]).collect();
    let read = calls.iter().flat_map(|call| match call.outcome() {
        Some(Outcome::Read { entries, .. } | Outcome::Delivered { entries, .. }) => &entries[..],
        _ => &[],
    });
    let seen: BTreeSet<&[u8]> = read.map(|entry| &entry.content[..]).filter(|content| open.contains(content)).collect();
    (open.len(), seen.len())
}

/// Requests that a session answered from its record.
fn repeats(cluster: &Cluster) -> u64 {
    marks(cluster, "dedup_hit")
}

/// The leader is killed again and again while producers append at all doors. Followers ask the next leader under the
/// same numbers: they leave nothing open, except for clients of the node that was killed.
fn leader_killed_under_producers(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let (mut answered, mut asked_again) = (0, 0);
    for _ in 0..5 {
        let leader = a_leader(cluster)?;
        let followers = others(cluster, &[&leader]);
        let again = |cluster: &Cluster| followers.iter().map(|node| mark(cluster, node, "asked_again")).sum::<u64>();
        let (before, from) = (again(cluster), made(cluster));
        cluster.phase(&format!("{leader} is killed, and producers wait at the other doors"));
        set(cluster, &[&leader], Life::Dead)?;
        other_leader(cluster, &leader)?;
        cluster.run_for(secs(2))?;
        asked_again += again(cluster) - before;
        let appended = |call: &&Call| matches!(call.outcome(), Some(Outcome::Appended(_)));
        answered += since(cluster, from).iter().filter(appended).count();
        set(cluster, &[&leader], Life::Runs)?;
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    came_about("appends acknowledged across changes of leaders", 20 < answered, cluster)?;
    came_about("commands asked for again of another leader", 3 < asked_again, cluster)?;
    ends_well(cluster)
}

/// The leader does what followers ask for, and most of its answers are lost. Asked again under the same number, it
/// answers from the session's record, and nothing is done twice.
fn answers_of_the_leader_lost(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    for one_in in [2, 1, 3] {
        let (lost, before, again) =
            (befallen(cluster, "rpc answer dropped"), repeats(cluster), marks(cluster, "asked_again"));
        let answered = noted(cluster, "door_answered");
        cluster.phase(&format!("one answer in {one_in} to followers is lost"));
        let kinds = vec![RpcKind::Execute];
        cluster.rpc().inject(RpcFault { from: None, to: None, kinds, one_in, effect: RpcEffect::DropAnswer });
        cluster.run_for(secs(6))?;
        cluster.rpc().clear();
        cluster.run_for(secs(3))?;
        came_about("answers that are lost", lost + 5 < befallen(cluster, "rpc answer dropped"), cluster)?;
        came_about("requests answered from a record", before + 5 < repeats(cluster), cluster)?;
        came_about("commands asked for again", again + 5 < marks(cluster, "asked_again"), cluster)?;
        came_about("clients that are answered", answered + 20 < noted(cluster, "door_answered"), cluster)?;
        work_goes_on(cluster)?;
    }
    ends_well(cluster)
}

/// Requests of followers arrive at the leader, and its answers come too late for their patience: the commands are done,
/// and nobody may be told that they were not.
fn commands_without_answer(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let start = made(cluster);
    for _ in 0..3 {
        cluster.phase("answers to followers come too late");
        let effect = RpcEffect::DelayAnswer { min_ms: 6_000, max_ms: 9_000 };
        cluster.rpc().inject(RpcFault { from: None, to: None, kinds: vec![RpcKind::Execute], one_in: 2, effect });
        cluster.run_for(secs(5))?;
        cluster.rpc().clear();
        cluster.run_for(secs(6))?;
        work_goes_on(cluster)?;
    }
    let (_, done) = not_acknowledged(&since(cluster, start));
    came_about("appends that were done though nobody was told", 5 < done, cluster)?;
    ends_well(cluster)
}

/// A follower takes commands, and nothing gets from the others to it: what it has sent is done, and it does not hear of
/// it. Then it loses its power. What its clients were not told stays open, and is done at most once.
fn follower_isolated_then_power_loss(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let (start, mut refused) = (made(cluster), 0);
    for deaf in [true, false, true] {
        let leader = a_leader(cluster)?;
        let follower = any_other(cluster, &leader);
        cluster.phase(&format!("{follower} is isolated with commands in its hands"));
        let mut links = Links::default();
        for other in others(cluster, &[&follower]) {
            links.cut(&other, &follower);
            if !deaf {
                links.cut(&follower, &other);
            }
        }
        cluster.nemesis(format_args!("{follower} hears no other node; it is heard: {deaf}"));
        cluster.set_links(links);
        let stay = cluster.rng.duration(ms(600), secs(3));
        cluster.run_for(stay)?;
        let down = noted(cluster, "door_clusterdown");
        set(cluster, &[&follower], Life::Dark)?;
        heal(cluster);
        cluster.run_for(secs(6))?;
        set(cluster, &[&follower], Life::Runs)?;
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
        // Alone for longer than the door is patient: it says that nothing was done, or that it does not know.
        let leader = a_leader(cluster)?;
        let follower = any_other(cluster, &leader);
        cluster.phase(&format!("{follower} is alone with its clients"));
        cut_from_nodes(cluster, &follower);
        cluster.run_for(secs(9))?;
        refused += noted(cluster, "door_clusterdown") - down;
        cycle(cluster, &[follower], Life::Dark, secs(2))?;
        heal(cluster);
        cluster.run_for(secs(3))?;
        work_goes_on(cluster)?;
    }
    // The longest patience of a client.
    cluster.run_for(secs(6))?;
    let (open, done) = not_acknowledged(&since(cluster, start));
    came_about("appends that are not acknowledged", 5 < open, cluster)?;
    came_about("appends that were done though nobody was told", 0 < done && done < open, cluster)?;
    came_about("clients of a lonely node that are told that nothing was done", 3 < refused, cluster)?;
    ends_well(cluster)
}

/// Commands of followers arrive late, and twice, with a change of leaders in between: what was done then is not done
/// again.
fn late_commands_after_a_change(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let effects = [
        RpcEffect::Replay { min_ms: 200, max_ms: 6_000 },
        RpcEffect::DelayRequest { min_ms: 500, max_ms: 6_000 },
        RpcEffect::DelayAnswer { min_ms: 500, max_ms: 6_000 },
    ];
    let again = repeats(cluster);
    for effect in effects {
        let names = ["rpc request replayed", "rpc request delayed", "rpc answer delayed"];
        let count = |cluster: &Cluster| names.iter().map(|name| befallen(cluster, name)).sum::<u64>();
        let before = count(cluster);
        cluster.phase(&format!("commands of followers: {effect:?}"));
        cluster.rpc().inject(RpcFault { from: None, to: None, kinds: vec![RpcKind::Execute], one_in: 3, effect });
        for _ in 0..3 {
            cluster.run_for(secs(2))?;
            let leader = a_leader(cluster)?;
            cycle(cluster, std::slice::from_ref(&leader), Life::Dead, secs(1))?;
            cluster.run_for(secs(4))?;
            a_leader(cluster)?;
        }
        cluster.rpc().clear();
        came_about("commands that come late, or twice", before + 10 < count(cluster), cluster)?;
        cluster.run_for(secs(6))?;
        work_goes_on(cluster)?;
    }
    came_about("requests answered from a record", again + 10 < repeats(cluster), cluster)?;
    ends_well(cluster)
}

/// Readers of a group wait at the followers when the leader ends. They queue at the next one, and are served there.
fn readers_wait_across_a_change(cluster: &mut Cluster) -> Result<(), Failure> {
    readers_wait(cluster, false)
}

/// The same, and what readers asked for before that, and took for lost, arrives at the next leader when they have been
/// told that there is nothing: it must not deliver any more. Or what was delivered is lost on its way, and asked for
/// again when there is nothing new: it must be told then.
fn late_reads_after_a_change(cluster: &mut Cluster) -> Result<(), Failure> {
    readers_wait(cluster, true)
}

fn readers_wait(cluster: &mut Cluster, are_late: bool) -> Result<(), Failure> {
    boot(cluster)?;
    let mut across = 0;
    for round in 0..8 {
        let leader = a_leader(cluster)?;
        let is_long = |action: &Action| matches!(action, Action::ReadGroup { wait_ms: 3_000.., .. });
        let waiting = |cluster: &Cluster| {
            let calls = cluster.history().calls().into_iter();
            calls
                .filter(|call| is_long(&call.action) && call.answer.is_none())
                .map(|call| call.made)
                .collect::<Vec<_>>()
        };
        cluster.run_until("readers wait", secs(20), |cluster| 2 < waiting(cluster).len())?;
        let waiting = waiting(cluster);
        if are_late {
            let replay = RpcEffect::Replay { min_ms: 200, max_ms: 6_000 };
            let effect = if round % 2 == 0 { replay } else { RpcEffect::DropAnswer };
            let kinds = vec![RpcKind::Execute];
            cluster.rpc().inject(RpcFault { from: None, to: None, kinds, one_in: 2, effect });
        }
        cluster.phase(&format!("{leader} is killed while {} readers wait", waiting.len()));
        set(cluster, &[&leader], Life::Dead)?;
        other_leader(cluster, &leader)?;
        cluster.run_for(secs(3))?;
        set(cluster, &[&leader], Life::Runs)?;
        cluster.rpc().clear();
        let calls = cluster.history().calls();
        let served = |call: &&Call| matches!(call.outcome(), Some(Outcome::Delivered { .. }));
        across += calls.iter().filter(|call| waiting.contains(&call.made)).filter(served).count();
        cluster.run_for(secs(2))?;
        work_goes_on(cluster)?;
    }
    came_about("readers answered by another leader than they waited for", 3 < across, cluster)?;
    if are_late {
        came_about("reads that arrive late", 10 < befallen(cluster, "rpc request replayed"), cluster)?;
        came_about("deliveries that are lost", 10 < befallen(cluster, "rpc answer dropped"), cluster)?;
    } else {
        let ruled_out = marks(cluster, "late_delivery_ruled_out");
        came_about("reads that found nothing, and after which a late one may come", 3 < ruled_out, cluster)?;
    }
    ends_well(cluster)
}

/// Half of what readers ask for is taken for lost, and asked for again, and the first arrives a moment after the second
/// was told that there is nothing. What has come meanwhile stays new.
fn late_reads_while_little_happens(cluster: &mut Cluster) -> Result<(), Failure> {
    boot(cluster)?;
    let effect = RpcEffect::Replay { min_ms: 1_000, max_ms: 1_600 };
    cluster.rpc().inject(RpcFault { from: None, to: None, kinds: vec![RpcKind::Execute], one_in: 2, effect });
    cluster.run_for(secs(400))?;
    cluster.rpc().clear();
    came_about("reads that arrive late", 100 < befallen(cluster, "rpc request replayed"), cluster)?;
    came_about("commands asked for again", 100 < marks(cluster, "asked_again"), cluster)?;
    ends_well(cluster)
}
