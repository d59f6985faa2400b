//! Nodes come and go: learners, promotions, removals, transfers, and what is refused.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use millstream_client::{Append, Client, Error, ErrorReason, Range};
use support::{Cluster, peer, run, wipe};

/// A thread that appends until it is told to stop, and insists on each entry.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(client: Client) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, count) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            run(async {
                while !stopping.load(Ordering::Relaxed) {
                    let number = count.load(Ordering::Relaxed).to_string();
                    client.append(Append::to("orders").field("number", number)).await.expect("appended");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        Self { stop, written, thread }
    }

    /// Waits for another 20 entries.
    fn goes_on(&self, cluster: &Cluster) {
        let before = self.written.load(Ordering::Relaxed);
        cluster.eventually("writes", || (before + 20 <= self.written.load(Ordering::Relaxed)).then_some(()));
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every append succeeded");
        self.written.load(Ordering::Relaxed)
    }
}

fn refused(error: Error, reason: ErrorReason, text: &str) {
    assert_eq!(error.reason(), Some(reason), "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_cluster_grows_and_shrinks_under_writes() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    let writer = Writer::start(client.clone());
    writer.goes_on(&cluster);

    // A fourth node waits, is added, catches up, and votes.
    cluster.join(4, |_| ()).expect("it starts");
    let members = run(client.add_learner(4, peer(4))).expect("added");
    assert_eq!(members.last().map(|member| (member.node_id, member.voter)), Some((4, false)));
    run(client.add_learner(4, peer(4))).expect("a repeat does no harm");
    let members = run(client.change_voters([4], [], Duration::from_secs(30))).expect("promoted");
    assert!(members.iter().all(|member| member.voter) && members.len() == 4, "{members:?}");
    run(client.change_voters([4], [], Duration::ZERO)).expect("a repeat does no harm");
    writer.goes_on(&cluster);

    // The leader goes for good, and is stopped.
    let members = run(client.change_voters([], [leader], Duration::ZERO)).expect("removed");
    assert!(members.iter().all(|member| member.node_id != leader), "{members:?}");
    cluster.stop(leader);
    let second = cluster.leader();
    assert_ne!(second, leader);
    writer.goes_on(&cluster);
    run(client.change_voters([], [leader], Duration::ZERO)).expect("a repeat does no harm");

    // Leadership moves to where it is wanted.
    let target = cluster.running().into_iter().find(|id| *id != second).expect("three run");
    let term = run(client.transfer_leader(target)).expect("transferred");
    cluster.eventually("the leader that was asked for", || (cluster.leader() == target).then_some(()));
    assert!(term <= cluster.status(target).term);
    run(client.transfer_leader(target)).expect("a repeat does no harm");
    writer.goes_on(&cluster);

    let written = writer.stop();
    cluster.converged();
    let entries: Vec<_> = run(async { client.range_all(Range::of("orders")).try_collect().await.expect("readable") });
    assert_eq!(entries.len() as u64, written, "nothing is lost and nothing twice");
}

/// Whether a node votes, as another sees it. `None`: it is no member.
fn votes(cluster: &Cluster, seen_by: u64, id: u64) -> Option<bool> {
    cluster.status(seen_by).members.into_iter().find(|member| member.node_id == id).map(|member| member.voter)
}

#[test]
fn a_repeat_of_a_change_that_was_left_half_done_does_not_say_that_it_is_done() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.join(4, |_| ()).expect("it starts");
    let client = cluster.client([1, 2, 3]);
    run(client.add_learner(4, peer(4))).expect("added");
    cluster.eventually("a learner that is known", || {
        let record = cluster.server(leader).replica().with_state(|state| state.node(4).is_some());
        record.then_some(())
    });

    // One comes and one goes: two sets of voters are in force. The caller goes away between the two steps.
    let (add, remove) = (BTreeSet::from([4]), BTreeSet::from([others[0]]));
    let replica = cluster.server(leader).replica();
    let is_joint = || votes(&cluster, leader, 4) == Some(true) && votes(&cluster, leader, others[0]) == Some(true);
    run(async {
        let until_joint = async {
            while !is_joint() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = until_joint => {}
            changed = replica.change_voters(&add, &remove, Duration::from_secs(30)) => changed.expect("changed"),
        }
    });
    run(replica.change_voters(&add, &remove, Duration::from_secs(30))).expect("a repeat goes on with it");
    assert_eq!((votes(&cluster, leader, 4), votes(&cluster, leader, others[0])), (Some(true), None));
    let before = cluster.status(leader).last_log_index;
    run(replica.change_voters(&add, &remove, Duration::ZERO)).expect("a repeat does no harm");
    assert_eq!(cluster.status(leader).last_log_index, before, "and writes nothing");

    // One that cannot be committed: of the four that there would be, two are down. It is never "done".
    cluster.stop(others[0]);
    cluster.join(5, |_| ()).expect("it starts");
    run(client.add_learner(5, peer(5))).expect("added");
    cluster.eventually("a learner that is known", || {
        let record = cluster.server(leader).replica().with_state(|state| state.node(5).is_some());
        record.then_some(())
    });
    cluster.kill(5);
    cluster.kill(others[1]);
    let add = BTreeSet::from([5]);
    let replica = cluster.server(leader).replica().clone();
    let nothing = BTreeSet::new();
    for _ in 0..3 {
        let changed = run(async {
            let change = replica.change_voters(&add, &nothing, Duration::ZERO);
            tokio::time::timeout(Duration::from_secs(2), change).await
        });
        assert!(!matches!(changed, Ok(Ok(()))), "it is not committed");
    }
    cluster.boot(5).expect("it starts");
    let mut changed = Err(());
    cluster.eventually("five voters", || {
        changed = run(async {
            let leads = cluster.server(cluster.leader()).replica();
            leads.change_voters(&add, &nothing, Duration::from_secs(10)).await.map_err(drop)
        });
        changed.ok()
    });
    assert_eq!(votes(&cluster, cluster.leader(), 5), Some(true));
}

#[test]
fn a_node_that_was_removed_finds_out() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let client = cluster.client([leader]);
    let knows_all =
        |id: u64| cluster.server(id).replica().with_state(|state| (1..=3).all(|member| state.node(member).is_some()));
    cluster.eventually("members that know each other", || (1..=3).all(knows_all).then_some(()));
    // One is away when it is removed, so its own log says nothing of it; the other may still hear of it.
    cluster.kill(others[0]);
    cluster.join(4, |_| ()).expect("it starts");
    run(client.add_learner(4, peer(4))).expect("added");
    run(client.change_voters([4], [], Duration::from_secs(30))).expect("promoted");
    run(client.change_voters([], [others[0]], Duration::ZERO)).expect("removed");
    cluster.boot(others[0]).expect("it starts");
    cluster.eventually("a node that knows", || cluster.status(others[0]).removed.then_some(()));
    assert!(cluster.running().contains(&others[0]), "it goes on all the same");
    // It will never have what is new, and says so, instead of waiting for it longer than its callers do.
    let alone = cluster.client([others[0]]).with_deadline(Duration::from_secs(5));
    let error = run(alone.range(Range::of("orders"))).expect_err("it cannot tell");
    assert_eq!(error.reason(), Some(ErrorReason::NoLeader), "{error}");
    run(client.change_voters([], [others[1]], Duration::ZERO)).expect("removed");
    cluster.eventually("a node that knows", || cluster.status(others[1]).removed.then_some(()));
    for member in [leader, 4] {
        assert!(!cluster.status(member).removed, "node {member} belongs to the cluster");
    }
}

#[test]
fn what_would_break_the_cluster_is_refused() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]).with_deadline(Duration::from_secs(3));
    let change = |add: &[u64], remove: &[u64]| {
        run(client.change_voters(add.iter().copied(), remove.iter().copied(), Duration::ZERO)).expect_err("refused")
    };
    cluster.eventually("known nodes", || {
        let status = cluster.status(leader);
        status.members.iter().all(|member| !member.client_address.is_empty()).then_some(())
    });

    refused(change(&[9], &[]), ErrorReason::MemberNotFound, "node 9");
    refused(change(&[], &[9]), ErrorReason::MemberNotFound, "node 9");
    refused(change(&[], &[1, 2, 3]), ErrorReason::MembershipRefused, "no voter would remain");
    refused(change(&[1], &[1]), ErrorReason::MembershipRefused, "at once");
    let error = run(client.transfer_leader(9)).expect_err("refused");
    refused(error, ErrorReason::MemberNotFound, "node 9");
    for (node_id, address) in [(0, "n4:7421"), (4, "n4"), (4, ""), (4, "n4:port"), (4, "n 4:7421")] {
        let error = run(client.add_learner(node_id, address)).expect_err("refused");
        assert_eq!(error.reason(), Some(ErrorReason::InvalidArgument), "{error}");
    }
    let error = run(client.add_learner(1, peer(4))).expect_err("refused");
    refused(error, ErrorReason::MembershipRefused, "a member already");
    let error = run(client.add_learner(4, peer(4))).expect_err("nobody is there");
    refused(error, ErrorReason::MembershipNotReady, "--join");
    let error = run(client.add_learner(4, peer(1))).expect_err("that is node 1");
    refused(error, ErrorReason::MembershipNotReady, "node 1");

    // A node that was removed does not come back: not with its data, and not without.
    cluster.join(4, |_| ()).expect("it starts");
    run(client.add_learner(4, peer(4))).expect("added");
    let error = run(client.transfer_leader(4)).expect_err("a learner");
    refused(error, ErrorReason::MembershipRefused, "promote it first");
    run(client.change_voters([], [4], Duration::ZERO)).expect("removed");
    let error = run(client.add_learner(4, peer(4))).expect_err("used before");
    refused(error, ErrorReason::MembershipRefused, "never reused");
    cluster.stop(4);
    wipe(&cluster.data_dir(4));
    cluster.boot(4).expect("it starts");
    let error = run(client.add_learner(4, peer(4))).expect_err("used before");
    refused(error, ErrorReason::MembershipRefused, "never reused");

    // A node of another cluster is not taken in.
    let mut other = Cluster::prepare(0, |_| ());
    other.join(5, |config| config.initial_members = [(5, peer(5))].into()).expect("it starts");
    other.leader();
    cluster.eventually("its cluster", || (!other.status(5).cluster_id.is_empty()).then_some(()));
    cluster.adopt(&other, 5, 5);
    let error = run(client.add_learner(5, peer(5))).expect_err("another cluster's");
    refused(error, ErrorReason::MembershipRefused, "belongs to cluster");
    assert_eq!(cluster.status(leader).members.len(), 3);
}

#[test]
fn a_node_that_has_not_caught_up_gets_no_vote_yet() {
    let mut cluster = Cluster::start(1, |_| ());
    cluster.leader();
    let client = cluster.client([1]).with_deadline(Duration::from_secs(2));
    run(async { client.append(Append::to("orders").field("number", "0")).await.expect("appended") });
    cluster.join(2, |_| ()).expect("it starts");
    run(client.add_learner(2, peer(2))).expect("added");
    cluster.eventually("the learner's address", || {
        let members = cluster.status(1).members;
        members.iter().all(|member| !member.client_address.is_empty()).then_some(())
    });
    cluster.kill(2);
    // With a vote of an absent node, this would be the last write.
    let patient = cluster.client([1]);
    run(async {
        let writes = (0..2_100).map(|number| patient.append(Append::to("orders").field("number", number.to_string())));
        for write in futures::future::join_all(writes).await {
            write.expect("appended");
        }
    });
    let error = run(client.change_voters([2], [], Duration::ZERO)).expect_err("it is behind");
    refused(error, ErrorReason::MembershipNotReady, "entries behind");
    cluster.boot(2).expect("it starts");
    run(client.change_voters([2], [], Duration::from_secs(20))).expect("promoted");
    // And back to one, which is the other.
    run(client.transfer_leader(2)).expect("transferred");
    let client = cluster.client([1, 2]);
    run(client.change_voters([], [1], Duration::ZERO)).expect("removed");
    run(async { client.append(Append::to("orders").field("number", "1")).await.expect("appended") });
}

/// The peer address of a member, as a node sees it.
fn address(cluster: &Cluster, at: u64, of: u64) -> Option<String> {
    let members = cluster.status(at).members;
    members.into_iter().find(|member| member.node_id == of).map(|member| member.peer_address)
}

fn move_to(cluster: &mut Cluster, id: u64, address: &str) {
    let config = cluster.configs.get_mut(&id).expect("configured");
    (config.peer_listen, config.peer_advertise) = (address.to_owned(), address.to_owned());
}

#[test]
fn a_node_that_has_moved_is_found() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    run(async { client.append(Append::to("orders").field("number", "0")).await.expect("appended") });
    let moved = if leader == 3 { 2 } else { 3 };
    cluster.stop(moved);
    move_to(&mut cluster, moved, "elsewhere:7421");
    cluster.boot(moved).expect("it starts");
    cluster.eventually("the new address", || {
        let known =
            cluster.running().iter().all(|id| address(&cluster, *id, moved).as_deref() == Some("elsewhere:7421"));
        known.then_some(())
    });
    run(async { client.append(Append::to("orders").field("number", "1")).await.expect("appended") });
    cluster.converged();
    // It is as good a member as before.
    run(client.transfer_leader(moved)).expect("transferred");
    run(async { client.append(Append::to("orders").field("number", "2")).await.expect("appended") });

    // A node that says it is where another is stays where it was.
    let liar = cluster.running().into_iter().find(|id| *id != moved).expect("three run");
    let before = address(&cluster, moved, liar);
    cluster.stop(liar);
    cluster.configs.get_mut(&liar).expect("configured").peer_advertise = "elsewhere:7421".into();
    cluster.boot(liar).expect("it starts");
    run(async { client.append(Append::to("orders").field("number", "3")).await.expect("appended") });
    cluster.converged();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(address(&cluster, moved, liar), before);
}

#[test]
fn a_lone_node_can_be_told_where_it_is() {
    let mut cluster = Cluster::prepare(1, |config| {
        (config.peer_listen, config.peer_advertise) = ("127.0.0.1:7421".into(), "127.0.0.1:7421".into());
        config.initial_members = [(1, "127.0.0.1:7421".into())].into();
    });
    cluster.boot(1).expect("it starts");
    cluster.leader();
    let client = cluster.client([1]);
    run(async { client.append(Append::to("orders").field("number", "0")).await.expect("appended") });
    assert_eq!(address(&cluster, 1, 1).as_deref(), Some("127.0.0.1:7421"));
    cluster.stop(1);
    move_to(&mut cluster, 1, &peer(1));
    cluster.boot(1).expect("it starts");
    cluster.eventually("the new address", || (address(&cluster, 1, 1) == Some(peer(1))).then_some(()));
    // So that others can follow it, and ask it.
    cluster.join(2, |_| ()).expect("it starts");
    run(client.add_learner(2, peer(2))).expect("added");
    run(client.change_voters([2], [], Duration::from_secs(30))).expect("promoted");
    run(async { cluster.client([2]).append(Append::to("orders").field("number", "1")).await.expect("appended") });
    cluster.converged();
}

#[test]
fn a_node_that_never_came_leaves_and_does_not_come_back() {
    let mut cluster = Cluster::prepare(3, |_| ());
    cluster.boot(1).expect("it starts");
    cluster.boot(2).expect("it starts");
    let leader = cluster.leader();
    let client = cluster.client([1, 2]);
    cluster.eventually("known nodes", || {
        let known = cluster.status(leader).members.iter().filter(|member| !member.client_address.is_empty()).count();
        (known == 2).then_some(())
    });
    // Whoever removes itself can put nobody on record.
    let error = run(client.change_voters([], [leader, 3], Duration::ZERO)).expect_err("refused");
    refused(error, ErrorReason::MembershipRefused, "second call");
    let members = run(client.change_voters([], [3], Duration::ZERO)).expect("removed");
    assert_eq!(members.len(), 2, "{members:?}");
    run(client.change_voters([], [3], Duration::ZERO)).expect("a repeat does no harm");
    cluster.join(3, |_| ()).expect("it starts");
    let error = run(client.add_learner(3, peer(3))).expect_err("used before");
    refused(error, ErrorReason::MembershipRefused, "never reused");
}
