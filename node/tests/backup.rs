//! Backups of a live cluster, and the new clusters made of them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use millstream_client::{Append, Client, CreateGroup, EntryId, ErrorReason, GroupPosition, Range, ReadGroup};
use millstream_node::config::Engine;
use millstream_node::replica::{Restore, restore};
use millstream_node::world::World;
use support::{Cluster, peer, run};

async fn append(client: &Client, stream: &str, number: usize) -> EntryId {
    client.append(Append::to(stream).field("number", number.to_string())).await.expect("appended").id
}

async fn entries(client: &Client, stream: &str) -> Vec<(EntryId, Vec<u8>)> {
    let entries: Vec<_> = client.range_all(Range::of(stream)).try_collect().await.expect("readable");
    entries.iter().map(|entry| (entry.id, entry.get("number").expect("the field").to_vec())).collect()
}

/// Writes a backup to a file, and returns its log index.
async fn back_up(client: &Client, path: &Path) -> u64 {
    let mut backup = client.backup().await.expect("begun");
    let mut bytes = Vec::new();
    while let Some(piece) = backup.next().await.expect("goes on") {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, backup.length);
    fs::write(path, bytes).expect("written");
    backup.log_index
}

fn restore_to(file: &Path, data_dir: PathBuf) -> Result<millstream_node::replica::Restored, String> {
    let asked = Restore {
        file: file.to_owned(),
        data_dir,
        node_id: 1,
        peer_advertise: peer(1),
        engine: Engine::default(),
        segment_bytes: 1 << 20,
    };
    run(restore(&World::real(), &asked)).map_err(|error| error.to_string())
}

#[test]
fn a_backup_under_load_becomes_a_new_cluster() {
    let cluster = Cluster::start(3, |config| config.checkpoint.entries = 200);
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");

    // What is acknowledged before the backup, in a session that will go on.
    let (mut ids, group) = (Vec::new(), CreateGroup::new("orders", "billing", GroupPosition::After(EntryId::MIN)));
    run(async {
        client.create_group(group.create_stream()).await.expect("created");
        for number in 0..300 {
            ids.push(append(&client, "orders", number).await);
        }
        let read = ReadGroup::new("billing", "ada").new_entries("orders").count(120);
        client.read_group(read).await.expect("delivered");
        client.ack("orders", "billing", ids[..20].iter().copied()).await.expect("acknowledged");
    });

    // Others write all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, client) = (stop.clone(), cluster.client([1, 2, 3]));
        std::thread::spawn(move || {
            run(async {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    append(&client, "noise", number).await;
                    number += 1;
                }
                number
            })
        })
    };
    std::thread::sleep(Duration::from_millis(300));
    // From a follower as well as from the leader.
    let follower = if leader == 1 { 2 } else { 1 };
    let from_follower = directory.path().join("follower");
    let index = run(async {
        back_up(&cluster.client([follower]), &from_follower).await;
        let last = append(&client, "orders", 300).await;
        ids.push(last);
        back_up(&cluster.client([leader]), &file).await
    });
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("every append succeeded");
    let before = cluster.status(leader).cluster_id.to_string();

    // A new cluster, of one node and then of two, under ids that the old one had.
    let mut new = Cluster::prepare(1, |_| ());
    let restored = restore_to(&file, new.data_dir(1)).expect("restored");
    assert_eq!(restored.log_index, index);
    assert_ne!(restored.cluster_id, before);
    new.boot(1).expect("it starts");
    new.leader();
    let restored_client = new.client([1]);
    let check = async |client: &Client| {
        let numbers: Vec<_> = (0..301).map(|number: usize| number.to_string().into_bytes()).collect();
        let expected: Vec<_> = ids.iter().copied().zip(numbers).collect();
        assert_eq!(entries(client, "orders").await, expected);
        let noise = entries(client, "noise").await.len();
        assert!(0 < noise && noise <= written, "{noise} of {written}");
        let pending = client.get_pending("orders", "billing").await.expect("summarised");
        assert_eq!((pending.count, pending.min_id, pending.max_id), (100, Some(ids[20]), Some(ids[119])));
    };
    run(check(&restored_client));
    let status = new.status(1);
    assert_eq!(*status.cluster_id, restored.cluster_id);
    assert!(index < status.last_log_index && status.members.len() == 1, "{status:?}");
    assert!(run(append(&restored_client, "orders", 301)) > *ids.last().expect("some"), "ids go on");

    new.join(2, |_| ()).expect("it starts");
    run(restored_client.add_learner(2, peer(2))).expect("added");
    run(restored_client.change_voters([2], [], Duration::from_secs(30))).expect("promoted");
    new.converged();
    // And after a restart of all.
    new.kill(1);
    new.kill(2);
    new.boot(1).expect("it starts");
    new.boot(2).expect("it starts");
    new.leader();
    assert_eq!(run(entries(&new.client([2]), "orders")).len(), 302);

    // The follower's is as good.
    let other = Cluster::prepare(1, |_| ());
    let restored = restore_to(&from_follower, other.data_dir(1)).expect("restored");
    assert!(restored.log_index < index);
}

#[test]
fn what_is_not_a_whole_backup_is_refused_and_leaves_nothing() {
    let cluster = Cluster::start(1, |_| ());
    cluster.leader();
    let client = cluster.client([1]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    run(async {
        for number in 0..50 {
            append(&client, "orders", number).await;
        }
        back_up(&client, &file).await;
    });
    let whole = fs::read(&file).expect("readable");
    let refused = |bytes: &[u8], what: &str| {
        let (bad, target) = (directory.path().join("bad"), directory.path().join("target"));
        fs::write(&bad, bytes).expect("written");
        let problem = restore_to(&bad, target.clone()).expect_err(what);
        assert!(problem.contains("cannot be restored"), "{what}: {problem}");
        assert!(!target.exists(), "{what}");
    };
    refused(&[], "an empty file");
    refused(b"orders", "another file");
    for cut in [8, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..cut], "a cut file");
    }
    refused(&[&whole[..], &[0]].concat(), "a longer file");
    for at in (0..whole.len()).step_by(1 + whole.len() / 200) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refused(&flipped, "a flipped byte");
    }

    // Neither is a directory that has something in it, or a file that is not there.
    let used = directory.path().join("used");
    fs::create_dir(&used).expect("created");
    fs::write(used.join("orders"), "1").expect("written");
    let problem = restore_to(&file, used.clone()).expect_err("not empty");
    assert!(problem.contains("not empty"), "{problem}");
    assert_eq!(fs::read_dir(&used).expect("readable").count(), 1);
    restore_to(&directory.path().join("nowhere"), directory.path().join("target")).expect_err("no file");

    // An empty one will do, and what an attempt that was cut short has left is removed.
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).expect("created");
    fs::create_dir(directory.path().join("empty.restoring")).expect("created");
    fs::write(directory.path().join("empty.restoring/identity"), "half").expect("written");
    restore_to(&file, empty.clone()).expect("restored");
    assert!(empty.join("identity").exists() && !directory.path().join("empty.restoring").exists());
}

#[test]
fn a_directory_that_is_there_is_filled_and_not_replaced() {
    use std::os::unix::fs::MetadataExt;

    let cluster = Cluster::start(1, |_| ());
    cluster.leader();
    let client = cluster.client([1]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    run(async {
        append(&client, "orders", 0).await;
        back_up(&client, &file).await;
    });

    // A mount point can be neither removed nor replaced.
    let mut new = Cluster::prepare(1, |_| ());
    let target = new.data_dir(1);
    fs::create_dir_all(target.join("lost+found")).expect("created");
    let before = fs::metadata(&target).expect("there").ino();
    // A restore was cut short in the middle of its last step.
    fs::create_dir_all(target.join(".restoring/state")).expect("created");
    fs::write(target.join(".restoring/identity"), "half").expect("written");
    fs::create_dir(target.join("wal")).expect("created");
    fs::write(target.join("wal/1.wal"), "half").expect("written");
    new.boot(1).expect_err("it is no node's yet");
    restore_to(&file, target.clone()).expect("restored");
    assert_eq!(fs::metadata(&target).expect("there").ino(), before);
    assert!(target.join("lost+found").exists() && !target.join(".restoring").exists());
    restore_to(&file, target.clone()).expect_err("a node's");
    new.boot(1).expect("it starts");
    new.leader();
    assert_eq!(run(entries(&new.client([1]), "orders")).len(), 1);

    // One that was cut short before that is as good as empty to a new node.
    let mut fresh = Cluster::prepare(1, |_| ());
    let target = fresh.data_dir(1);
    fs::create_dir_all(target.join(".restoring/wal")).expect("created");
    fresh.boot(1).expect("it starts");
    fresh.leader();
    assert!(!target.join(".restoring").exists());
}

#[test]
fn a_node_without_a_leader_makes_no_backup() {
    let mut cluster = Cluster::start(3, |_| ());
    let leader = cluster.leader();
    let left = if leader == 1 { 2 } else { 1 };
    for id in [1, 2, 3] {
        if id != left {
            cluster.kill(id);
        }
    }
    let client = cluster.client([left]).with_deadline(Duration::from_secs(2));
    let error = run(client.backup()).expect_err("nothing tells how new the state must be");
    assert!(matches!(error.reason(), Some(ErrorReason::NoLeader | ErrorReason::NotReady)), "{error}");
}
