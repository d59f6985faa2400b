//! Snapshots under load: one is enough, and a crash at any step leaves a usable node.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use millstream_client::{Append, Client, Freshness, Range};
use millstream_node::config::{Config, Engine};
use support::{Cluster, peer, run};

/// Clients that append entries until there are enough or they are told to stop, and note how long each took.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<Duration>>>,
}

impl Load {
    fn start(clients: Vec<Client>, entries: u64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = clients.into_iter().map(|client| {
            let (stop, written) = (stop.clone(), written.clone());
            std::thread::spawn(move || {
                let mut times = Vec::new();
                run(async {
                    while !stop.load(Ordering::Relaxed) && written.load(Ordering::Relaxed) < entries {
                        let begun = Instant::now();
                        let append = Append::to("load").field("f", vec![7; LOAD_ENTRY_BYTES]);
                        client.append(append).await.expect("appended");
                        times.push(begun.elapsed());
                        written.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                });
                times
            })
        });
        let threads = threads.collect();
        Self { stop, written, threads }
    }

    fn stop(self) -> (u64, Vec<Duration>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut times: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().expect("appended")).collect();
        times.sort_unstable();
        (self.written.load(Ordering::Relaxed), times)
    }
}

/// How many snapshots a node has installed since its data directory was made: each is a generation of the state.
fn installed(cluster: &Cluster, id: u64) -> u64 {
    let current = fs::read_to_string(cluster.data_dir(id).join("state/CURRENT")).expect("readable");
    let generation: u64 = current.split(' ').next().expect("a word").trim().parse().expect("a number");
    generation - 1
}

/// Bytes of log kept for a node that is sent a snapshot.
const TRANSFER_BYTES_KEPT: u64 = 12 << 20;
/// Bytes of an entry of the load.
const LOAD_ENTRY_BYTES: usize = 4 << 10;
/// Entries of a load, at most: half of what is kept, so that one snapshot has to be enough.
const LOAD_ENTRIES: u64 = TRANSFER_BYTES_KEPT / 2 / LOAD_ENTRY_BYTES as u64;

/// Small bounds, so that a small state is large.
fn small(config: &mut Config) {
    config.checkpoint.log_bytes = 2 << 20;
    config.checkpoint.interval = Duration::from_millis(20);
    config.log.segment_bytes = 256 << 10;
    config.log.bytes_kept = 1 << 20;
    // More than is written during a transfer, however slow the machine is; and so little that a node that is down does
    // not hold the log for a minute.
    config.log.bytes_kept_for_transfer = TRANSFER_BYTES_KEPT;
    config.raft.heartbeat_ms = 50;
    config.raft.election_ms_min = 150;
    config.raft.election_ms_max = 300;
}

async fn fill(client: &Client, entries: usize, bytes: usize) {
    let appends = (0..entries).map(|_| client.append(Append::to("large").field("f", vec![7; bytes])));
    let appends = futures::stream::iter(appends.map(Ok::<_, millstream_client::Error>));
    appends.try_for_each_concurrent(64, async |append| append.await.map(drop)).await.expect("appended");
}

async fn length(client: &Client, stream: &str) -> u64 {
    client.get_stream(stream).await.expect("described").length
}

#[test]
fn a_node_that_joins_under_load_needs_one_snapshot() {
    let wanted: Option<usize> = std::env::var("MILLSTREAM_TEST_MB").ok().and_then(|mb| mb.parse().ok());
    let megabytes = wanted.unwrap_or(16);
    // A measurement wants load all the time.
    let entries = if wanted.is_some() { u64::MAX } else { LOAD_ENTRIES };
    let mut cluster = Cluster::start(3, small);
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    run(fill(&client, megabytes * 16, 64 << 10));
    cluster.eventually("a purged log", || (1 < cluster.status(leader).first_log_index).then_some(()));

    let clients = || (0..4).map(|_| cluster.client([1, 2, 3])).collect();
    let tell = |when: &str, times: &[Duration]| {
        let at = |permille: usize| times[(times.len() - 1) * permille / 1_000];
        eprintln!("appends {when}: p50 {:?}, p99 {:?}, most {:?}", at(500), at(990), at(1_000));
    };
    // Only a measurement wants to know what it was like before.
    let before = wanted.map_or(0, |_| {
        let load = Load::start(clients(), entries);
        std::thread::sleep(Duration::from_secs(2));
        let (before, times) = load.stop();
        tell("before", &times);
        before
    });
    let load = Load::start(clients(), entries);
    cluster.join(4, small).expect("it starts");
    let begun = Instant::now();
    run(client.add_learner(4, peer(4))).expect("added");
    run(client.with_deadline(Duration::from_secs(60)).change_voters([4], [], Duration::from_secs(30)))
        .expect("promoted");
    let caught_up = begun.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let (written, times) = load.stop();
    cluster.converged();
    assert_eq!(installed(&cluster, 4), 1, "one snapshot, and the rest from the log");
    let local = cluster.client([4]).with_freshness(Freshness::Local);
    assert_eq!(run(length(&local, "large")), megabytes as u64 * 16);
    assert_eq!(run(length(&local, "load")), before + written);
    eprintln!("{megabytes} MB: caught up in {caught_up:?}");
    tell("meanwhile", &times);

    // One that was down for long needs one as well.
    let behind = if leader == 2 { 3 } else { 2 };
    let had = cluster.status(behind).last_log_index;
    cluster.stop(behind);
    run(fill(&cluster.client([leader]), (TRANSFER_BYTES_KEPT >> 16) as usize + 32, 64 << 10));
    cluster.eventually("a purged log", || (had + 1 < cluster.status(leader).first_log_index).then_some(()));
    let load = Load::start(vec![cluster.client([leader])], LOAD_ENTRIES);
    cluster.boot(behind).expect("it starts");
    cluster.eventually("a follower near the end", || {
        (cluster.status(leader).last_log_index < cluster.status(behind).applied_index + 50).then_some(())
    });
    load.stop();
    cluster.converged();
    assert_eq!(installed(&cluster, behind), 1);
}

/// Flips a byte in the middle of a file.
fn spoil(path: &Path) {
    let mut content = fs::read(path).expect("readable");
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    fs::write(path, content).expect("written");
}

#[test]
fn a_node_that_has_lost_its_state_fetches_another_before_it_takes_part() {
    let memory = |config: &mut Config| {
        small(config);
        config.engine = Engine::Memory;
    };
    let mut cluster = Cluster::start(3, memory);
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    run(fill(&client, 96, 64 << 10));
    cluster.converged();
    let broken = if leader == 1 { 2 } else { 1 };
    cluster.eventually("a purged log", || (1 < cluster.status(broken).first_log_index).then_some(()));
    cluster.stop(broken);
    let state = cluster.data_dir(broken).join("state");
    let generation = fs::read_to_string(state.join("CURRENT")).expect("readable");
    let directory = state.join(generation.split(' ').next().expect("a word")).join("memory");
    for file in fs::read_dir(directory).expect("readable") {
        let path = file.expect("readable").path();
        if 100 < path.metadata().expect("there").len() {
            spoil(&path);
        }
    }
    run(fill(&client, 10, 1 << 10));

    cluster.boot(broken).expect("it gets another state");
    cluster.converged();
    let local = cluster.client([broken]).with_freshness(Freshness::Local);
    let entries: Vec<_> = run(async { local.range_all(Range::of("large")).try_collect().await.expect("readable") });
    assert_eq!(entries.len(), 106);
    // And it is there to stay.
    cluster.kill(broken);
    cluster.boot(broken).expect("it starts");
    cluster.converged();
}

#[test]
fn a_transfer_that_is_cut_short_anywhere_leaves_a_usable_node() {
    let mut cluster = Cluster::start(3, |config| {
        small(config);
        config.engine = Engine::Memory;
    });
    let leader = cluster.leader();
    let behind = if leader == 1 { 2 } else { 1 };
    let client = cluster.client([leader]);
    run(fill(&client, 10, 64 << 10));
    cluster.converged();
    cluster.kill(behind);
    run(fill(&client, 16 * 12, 64 << 10));
    cluster.eventually("a purged log", || (100 < cluster.status(leader).first_log_index).then_some(()));

    // Killed again and again, a little later each time: while the other end copies, sends, while it builds, installs.
    let mut pause = Duration::ZERO;
    while installed(&cluster, behind) == 0 {
        cluster.boot(behind).expect("a usable node");
        let begun = Instant::now();
        while begun.elapsed() < pause && installed(&cluster, behind) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        cluster.kill(behind);
        pause = (pause * 3 / 2).max(Duration::from_millis(50));
        assert!(pause < Duration::from_secs(20), "it never gets there");
    }
    // What a crash in the middle may leave, on top of what the attempts have left.
    let data_dir = cluster.data_dir(behind);
    fs::create_dir_all(data_dir.join("spool")).expect("made");
    fs::write(data_dir.join("spool/incoming-x"), b"half of it").expect("written");
    let stray = data_dir.join(format!("state/{}", installed(&cluster, behind) + 2));
    fs::create_dir_all(stray.join("memory")).expect("made");
    fs::write(stray.join("memory/rows"), b"half of them").expect("written");
    cluster.boot(behind).expect("a usable node");
    assert!(!data_dir.join("spool/incoming-x").exists() && !stray.exists(), "what was left is removed at once");
    cluster.converged();
    // Nothing is left of the attempts that came to nothing.
    let spooled = fs::read_dir(cluster.data_dir(behind).join("spool")).expect("readable").count();
    let generations = fs::read_dir(cluster.data_dir(behind).join("state")).expect("readable");
    let generations = generations
        .filter(|entry| entry.as_ref().expect("readable").file_name().to_string_lossy().parse::<u64>().is_ok());
    assert_eq!((spooled, generations.count()), (0, 1));

    // The sender dies while it sends: the next leader sends its own.
    cluster.kill(behind);
    run(fill(&cluster.client(cluster.running()), 16 * 8, 64 << 10));
    cluster.boot(behind).expect("a usable node");
    std::thread::sleep(Duration::from_millis(400));
    let leader = cluster.eventually("a leader", || {
        let leaders = cluster.running().into_iter().filter_map(|id| cluster.status(id).leader_id);
        leaders.into_iter().find(|id| cluster.running().contains(id))
    });
    cluster.kill(leader);
    cluster.boot(leader).expect("it starts");
    cluster.leader();
    cluster.converged();
    let local = cluster.client([behind]).with_freshness(Freshness::Local);
    assert_eq!(run(length(&local, "large")), 10 + 16 * 20);
}
