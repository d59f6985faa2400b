//! Full disks: what makes the state larger is refused in time, the rest goes on, nobody ends, and all is well again when
//! there is room.

mod support;
mod wal_support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_client::{Append, Client, CreateGroup, EntryId, Error, ErrorReason, GroupPosition, ReadGroup, Trim};
use millstream_node::storage::{Wal, WalOptions};
use millstream_node::world::{File, Fs, OpenMode, RealFs, World};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use support::{Cluster, run};
use wal_support::{Disk, entries, log_id, segments, small, world};

/// The machine's files, on a disk of which so many bytes are free: writing behind the end of a file takes from them,
/// and a removed or overwritten file gives back.
#[derive(Clone)]
struct Quota {
    free: Arc<AtomicU64>,
}

impl Quota {
    fn new(free: u64) -> Self {
        Self { free: Arc::new(AtomicU64::new(free)) }
    }

    /// Somebody else fills the disk, or cleans up.
    fn set_free(&self, free: u64) {
        self.free.store(free, Ordering::SeqCst);
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(bytes));
        taken.map(drop).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
    }

    fn give_back(&self, path: &Path) {
        if let Ok(metadata) = std::fs::metadata(path) {
            self.free.fetch_add(metadata.len(), Ordering::SeqCst);
        }
    }
}

struct QuotaFile(Arc<dyn File>, Quota);

impl File for QuotaFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.1.take((offset + buf.len() as u64).saturating_sub(self.0.len()?))?;
        self.0.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.take(len.saturating_sub(self.0.len()?))?;
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Fs for Quota {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(QuotaFile(RealFs.open(path, mode)?, self.clone())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealFs.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFs.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.give_back(to);
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.give_back(path);
        RealFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(path)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealFs.lock(path)
    }
}

const MIB: u64 = 1 << 20;
/// What the nodes of these tests keep free: full at 8 MiB, with segments of 1 MiB.
const RESERVE: u64 = 32 * MIB;
const PLENTY: u64 = 1 << 30;
/// Longer than a node takes to look at its disk and tell the others.
const NOTICED: Duration = Duration::from_secs(3);

async fn append(client: &Client) -> Result<EntryId, Error> {
    let entry = Append::to("s").field("f", vec![7; 1000]);
    client.with_deadline(Duration::from_millis(300)).append(entry).await.map(|appended| appended.id)
}

fn is_refused<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable { reason: Some(ErrorReason::DiskFull), .. }))
}

/// Appends until the disks are found full.
async fn until_refused(client: &Client) {
    let start = std::time::Instant::now();
    while !is_refused(&append(client).await) {
        assert!(start.elapsed() < support::PATIENCE, "never refused");
    }
}

async fn until_served(client: &Client) {
    let start = std::time::Instant::now();
    while append(client).await.is_err() {
        assert!(start.elapsed() < support::PATIENCE, "never served again");
    }
}

/// All that must still work.
async fn shrink(client: &Client, ids: &[EntryId]) {
    let acked = client.ack("s", "g", ids[..5].iter().copied()).await.expect("acknowledged");
    assert_eq!(acked.acknowledged, 5);
    let trimmed = client.trim("s", Trim::max_length(ids.len() as u64 - 5)).await.expect("trimmed");
    assert!(5 <= trimmed.trimmed);
    client.delete_stream("other").await.expect("deleted");
    client.delete_group("s", "h").await.expect("deleted");
}

async fn prepare(client: &Client) -> Vec<EntryId> {
    for group in ["g", "h"] {
        let create = CreateGroup::new("s", group, GroupPosition::After(EntryId::MIN)).create_stream();
        client.create_group(create).await.expect("created");
    }
    client.append(Append::to("other").field("f", "v")).await.expect("appended");
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client.append(Append::to("s").field("f", "v")).await.expect("appended").id);
    }
    let read = ReadGroup::new("g", "ada").new_entries("s").count(10);
    client.read_group(read).await.expect("delivered");
    ids
}

#[test]
fn a_single_node_refuses_growth_and_serves_the_rest() {
    let disk = Quota::new(PLENTY);
    let cluster =
        Cluster::start_on(1, |config| config.log.reserve_bytes = RESERVE, |_| Arc::new(disk.clone()) as Arc<dyn Fs>);
    let client = cluster.client([1]);
    run(async {
        let ids = prepare(&client).await;
        assert!(cluster.status(1).nodes_without_room.is_empty());
        disk.set_free(RESERVE - 1);
        until_refused(&client).await;
        assert_eq!(cluster.status(1).nodes_without_room, [1]);
        let refused = client.with_deadline(Duration::from_millis(300));
        let create = CreateGroup::new("s", "new", GroupPosition::After(EntryId::MIN));
        assert!(is_refused(&refused.create_group(create).await));
        assert!(is_refused(&refused.read_group(ReadGroup::new("g", "ada").new_entries("s")).await));
        shrink(&client, &ids).await;
        disk.set_free(PLENTY);
        until_served(&client).await;
        assert!(cluster.status(1).nodes_without_room.is_empty());
    });
}

#[test]
fn a_node_without_any_room_ends_neither_at_work_nor_at_the_start() {
    let disk = Quota::new(PLENTY);
    let mut cluster =
        Cluster::start_on(1, |config| config.log.reserve_bytes = RESERVE, |_| Arc::new(disk.clone()) as Arc<dyn Fs>);
    let client = cluster.client([1]);
    let ids = run(async {
        let ids = prepare(&client).await;
        disk.set_free(0);
        until_refused(&client).await;
        ids
    });
    // The restart itself needs no room but what the next segment gives back.
    cluster.kill(1);
    disk.set_free(4 * MIB);
    cluster.boot(1).expect("the node starts");
    run(async {
        cluster.leader();
        until_refused(&client).await;
        shrink(&client, &ids).await;
        disk.set_free(PLENTY);
        until_served(&client).await;
    });
}

#[test]
fn three_nodes_go_on_while_two_have_room() {
    let disks = [(); 3].map(|()| Quota::new(PLENTY));
    let cluster = Cluster::start_on(
        3,
        |config| config.log.reserve_bytes = RESERVE,
        |id| Arc::new(disks[id as usize - 1].clone()) as Arc<dyn Fs>,
    );
    let disk = |id: u64| &disks[id as usize - 1];
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let client = cluster.client([1, 2, 3]);
    run(async {
        let ids = prepare(&client).await;
        // One full follower: it stops, the others go on.
        disk(others[0]).set_free(MIB);
        tokio::time::sleep(NOTICED).await;
        let before = cluster.status(others[0]).last_log_index;
        for _ in 0..50 {
            client.append(Append::to("s").field("f", "v")).await.expect("appended");
        }
        assert_eq!(cluster.status(leader).nodes_without_room, [others[0]]);
        assert_eq!(cluster.status(others[0]).last_log_index, before, "a full follower takes nothing");
        assert_eq!(cluster.status(others[0]).leader_id, Some(leader), "and still follows");

        // A second one on its reserve: no majority has room.
        disk(others[1]).set_free(RESERVE - 1);
        until_refused(&client).await;
        shrink(&client, &ids).await;
        assert_eq!(cluster.status(others[0]).last_log_index, before);

        // Room again: the full one catches up by itself.
        disk(others[0]).set_free(PLENTY);
        until_served(&client).await;
        disk(others[1]).set_free(PLENTY);
    });
    cluster.converged();
}

#[test]
fn a_full_leader_hands_over() {
    let disks = [(); 3].map(|()| Quota::new(PLENTY));
    let cluster = Cluster::start_on(
        3,
        |config| config.log.reserve_bytes = RESERVE,
        |id| Arc::new(disks[id as usize - 1].clone()) as Arc<dyn Fs>,
    );
    let leader = cluster.leader();
    let client = cluster.client([1, 2, 3]);
    run(async {
        prepare(&client).await;
        disks[leader as usize - 1].set_free(0);
    });
    cluster.eventually("another leader", || Some(cluster.leader()).filter(|now| *now != leader));
    run(async {
        for _ in 0..20 {
            client.append(Append::to("s").field("f", "v")).await.expect("appended");
        }
        disks[leader as usize - 1].set_free(PLENTY);
    });
    cluster.converged();
}

// --- the log alone ---

fn quota_world(disk: &Quota, threads: bool) -> (World, Arc<wal_support::Aborts>) {
    let (world, aborts) = world(&Disk::default(), threads);
    (World { fs: Arc::new(disk.clone()), ..world }, aborts)
}

#[test]
fn a_log_that_cannot_have_its_next_segment_waits_for_room() {
    for threads in [false, true] {
        wal_support::run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Quota::new(PLENTY);
            let (world, aborts) = quota_world(&disk, threads);
            let wal = Wal::open(&world, directory.path(), WalOptions { spares_max: 0, ..small() }).expect("opens");
            let mut log = wal.group(0);
            wal_support::append(&mut log, entries(1, 0..5, 100)).await;
            log.barrier().await.expect("flushes");
            disk.set_free(1000);
            let mut flushing = Box::pin(async {
                for first in (5..105).step_by(5) {
                    wal_support::append(&mut log.clone(), entries(1, first..first + 5, 100)).await;
                    log.barrier().await.expect("flushes");
                }
            });
            tokio::time::timeout(Duration::from_millis(700), &mut flushing).await.expect_err("there is no room");
            assert!(wal.group(0).waits_for_room() && aborts.0.lock().expect("not poisoned").is_empty());
            disk.set_free(PLENTY);
            flushing.await;
            assert!(!log.waits_for_room() && aborts.0.lock().expect("not poisoned").is_empty());
            wal.close().await;
            drop((wal, log));
            assert!(segments(directory.path()).iter().all(|name| name.ends_with(".wal")));
            let wal = Wal::open(&world, directory.path(), small()).expect("opens");
            assert_eq!(wal.group(0).try_get_log_entries(..).await.expect("reads"), entries(1, 0..105, 100));
            wal.close().await;
        });
    }
}

#[test]
fn a_log_that_waits_for_room_can_be_closed() {
    for threads in [false, true] {
        wal_support::run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Quota::new(PLENTY);
            let (world, aborts) = quota_world(&disk, threads);
            let wal = Wal::open(&world, directory.path(), small()).expect("opens");
            let mut log = wal.group(0);
            wal_support::append(&mut log, entries(1, 0..5, 100)).await;
            log.barrier().await.expect("flushes");
            disk.set_free(0);
            wal_support::append(&mut log, entries(1, 5..6, 9000)).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert!(log.waits_for_room());
            tokio::time::timeout(Duration::from_secs(10), wal.close()).await.expect("closes");
            assert!(aborts.0.lock().expect("not poisoned").is_empty());
            log.barrier().await.expect_err("is closed");
            drop((wal, log));
            disk.set_free(PLENTY);
            let wal = Wal::open(&world, directory.path(), small()).expect("opens");
            assert_eq!(wal.group(0).get_log_state().await.expect("reads").last_log_id, Some(log_id(1, 4)));
            wal.close().await;
        });
    }
}
