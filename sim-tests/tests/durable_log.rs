//! The invariants' reader of durable logs against the node's own.
//!
//! A log does at random what Raft has it do, on a simulated disk, with power losses in between. After every step the small
//! reader reads on; what it then knows must be what the node would find if the power failed now. The two share no code.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use millstream_node::storage::{LogStore, Wal, WalOptions};
use millstream_node::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, Membership, PeerNode, Proposal, Vote};
use millstream_node::world::{FlushTask, Fs, Job, OpenMode, Spawn, World};
use millstream_sim_tests::clock::NodeClock;
use millstream_sim_tests::disk::Disk;
use millstream_sim_tests::entropy::{Rng, SimRandom, Time};
use millstream_sim_tests::invariants::log::{self, DurableLog};
use millstream_sim_tests::invariants::reader::Reader;
use millstream_sim_tests::trace::fingerprint;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::vote::RaftLeaderId;

const LOG: &str = "/log";

/// Tasks instead of threads, and blocking work where it is asked for.
struct Tasks;

impl Spawn for Tasks {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> io::Result<()> {
        tokio::spawn(task.run_async());
        Ok(())
    }
    fn blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { job() })
    }
}

fn world(disk: &Disk) -> World {
    World {
        fs: Arc::new(disk.mount()),
        clock: Arc::new(NodeClock::new(Time::default())),
        random: Arc::new(SimRandom::new(Rng::stream(1, "node"))),
        spawn: Arc::new(Tasks),
        ..World::real()
    }
}

fn open(disk: &Disk) -> (Wal, LogStore) {
    let options = WalOptions { segment_bytes: 4_096, tail_bytes_max: 0, ..WalOptions::default() };
    let wal = Wal::open(&world(disk), Path::new(LOG), options).expect("the log opens");
    let group = wal.group(0);
    (wal, group)
}

fn leader(term: u64) -> CommittedLeaderId {
    CommittedLeaderId::new(term, 1 + term % 3)
}

fn entry(rng: &mut Rng, index: u64, term: u64) -> LogEntry {
    let payload = match rng.below(8) {
        0 => LogPayload::Blank,
        1 => {
            let nodes = (1..=300).step_by(13).map(|id| (id, PeerNode { peer_address: format!("n{id}:1") }));
            let voters = [BTreeSet::from([1, 27]), BTreeSet::from([1, 300 - 300 % 13])];
            let nodes: BTreeMap<_, _> = nodes.collect();
            let voters = voters.map(|set| set.into_iter().filter(|id| nodes.contains_key(id)).collect::<BTreeSet<_>>());
            LogPayload::Membership(Membership::new(voters.to_vec(), nodes).expect("all voters have a node"))
        }
        _ => LogPayload::Normal(Proposal(Bytes::from(vec![rng.next_u64() as u8; rng.below(300) as usize]))),
    };
    LogEntry { log_id: LogId { leader_id: leader(term), index }, payload }
}

/// A log with what Raft would have done to it.
struct Script {
    rng: Rng,
    term: u64,
    next: u64,
    purged: u64,
}

impl Script {
    async fn step(&mut self, log: &mut LogStore) {
        let terms = |log_id: Option<LogId>| log_id.map_or(0, |id| id.leader_id.term);
        match self.rng.below(16) {
            0 | 1 => {
                self.term += 1;
                let vote = Vote { leader_id: leader(self.term), committed: self.rng.one_in(2) };
                log.save_vote(&vote).await.expect("saved");
            }
            2 => {
                let state = log.get_log_state().await.expect("known");
                let from = self.purged.max(self.next.saturating_sub(3)).max(1);
                if terms(state.last_log_id) < self.term && from < self.next {
                    let last = log.try_get_log_entries(from - 1..from).await.expect("read").pop();
                    let last = last.map(|entry| entry.log_id).or(state.last_purged_log_id);
                    log.truncate_after(last).await.expect("truncated");
                    self.next = log.last_index() + 1;
                }
            }
            3 if self.purged + 8 < self.next => {
                let last = self.purged + self.rng.below(self.next - self.purged - 1);
                if let Some(entry) = log.try_get_log_entries(last..last + 1).await.expect("read").pop() {
                    log.purge(entry.log_id).await.expect("purged");
                    self.purged = last + 1;
                }
            }
            4 => {
                let last = log.get_log_state().await.expect("known").last_log_id;
                log.save_committed(last).await.expect("saved");
            }
            5 => log.barrier().await.expect("flushed"),
            _ => {
                let count = 1 + self.rng.below(4);
                let entries: Vec<_> =
                    (self.next..self.next + count).map(|index| entry(&mut self.rng, index, self.term)).collect();
                self.next += count;
                log.append(entries, IOFlushed::noop()).await.expect("appended");
                if self.rng.one_in(2) {
                    log.barrier().await.expect("flushed");
                }
            }
        }
        // Whatever is queued may be flushed now, or later.
        for _ in 0..self.rng.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// What the node would find if the power failed now and kept nothing unsynced.
async fn found_by_the_node(disk: &Disk) -> (Option<Vote>, Option<LogId>, Option<LogId>, u64, Vec<LogEntry>) {
    let copy = Disk::new("copy", Rng::stream(1, "copy"), None);
    let fs = copy.mount();
    fs.create_dir_all(Path::new(LOG)).expect("created");
    for (path, content) in disk.durable_files() {
        let file = fs.open(&path, OpenMode::CreateNew).expect("created");
        file.write_all_at(&content, 0).expect("written");
    }
    let (_wal, mut log) = open(&copy);
    let vote = log.read_vote().await.expect("read");
    let committed = log.read_committed().await.expect("read");
    let entries = log.try_get_log_entries(0..u64::MAX).await.expect("read");
    (vote, log.purged(), committed, log.first_index(), entries)
}

fn log_id(id: &LogId) -> log::LogId {
    log::LogId { leader: log::LeaderId { term: id.leader_id.term, node: id.leader_id.node_id }, index: id.index }
}

async fn compare(disk: &Disk, found: &DurableLog) {
    let (vote, purged, committed, first, entries) = found_by_the_node(disk).await;
    let vote = vote.map(|vote| log::Vote {
        leader: log::LeaderId { term: vote.leader_id.term, node: vote.leader_id.node_id },
        committed: vote.committed,
    });
    assert_eq!(found.vote, vote);
    assert_eq!(found.purged, purged.as_ref().map(log_id));
    if let Some(committed) = committed {
        // The node passes over one that its log does not hold.
        let held = found.committed.filter(|known| found.leader_of(known.index) == Some(known.leader));
        assert!(held.is_none() || held == Some(log_id(&committed)), "{:?} {committed:?}", found.committed);
    }
    assert_eq!(found.next(), first + entries.len() as u64);
    assert!(entries.is_empty() || found.first() == first);
    for (entry, (index, read)) in entries.iter().zip(found.entries()) {
        let id = log_id(&entry.log_id);
        assert_eq!((index, read.leader), (id.index, id.leader));
        let (proposal, voters) = match &entry.payload {
            LogPayload::Blank => (fingerprint(&[]), None),
            LogPayload::Normal(proposal) => (fingerprint(&proposal.0), None),
            LogPayload::Membership(members) => (fingerprint(&[]), Some(members.get_joint_config().clone())),
        };
        assert_eq!(read.proposal, proposal);
        assert_eq!(read.voters.as_deref().cloned(), voters);
    }
}

#[test]
fn both_readers_find_the_same() {
    let (mut rolls, mut losses, mut compared) = (0, 0, 0);
    for seed in 0..25 {
        let disk = Disk::new("n1", Rng::stream(seed, "disk"), None);
        let fs = disk.mount();
        fs.create_dir_all(Path::new(LOG)).expect("created");
        fs.sync_dir(Path::new("/")).expect("synced");
        let mut reader = Reader::new(Path::new(LOG));
        let mut script = Script { rng: Rng::stream(seed, "script"), term: 1, next: 1, purged: 0 };
        for _life in 0..6 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (_wal, mut log) = open(&disk);
                // What was not durable may be gone.
                script.next = log.last_index().max(log.first_index().saturating_sub(1)) + 1;
                script.purged = log.purged().map_or(0, |purged| purged.index + 1);
                for step in 0..40 {
                    script.step(&mut log).await;
                    reader.read(&disk).expect("the durable log makes sense");
                    if step % 4 == 0 {
                        compare(&disk, &reader.log).await;
                        compared += 1;
                    }
                }
            });
            if script.rng.one_in(2) {
                disk.power_loss();
                losses += 1;
            } else {
                disk.kill_process();
            }
        }
        let files = disk.durable_files();
        rolls += files.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "wal")).count();
    }
    assert!(50 < losses && 25 < rolls, "{losses} power losses, {rolls} segments at the end");
    println!("{compared} comparisons");
}
