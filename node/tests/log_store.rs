//! The log behaves as openraft demands, and is the same after it was opened again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use millstream_node::storage::{LogStore, Wal, WalOptions};
use millstream_node::types::{
    CommittedLeaderId, LogEntry, LogId, LogPayload, Membership, PeerNode, Proposal, SnapshotMeta, StoredMembership,
    TypeConfig, Vote,
};
use millstream_node::world::World;
use openraft::storage::{EntryResponder, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use openraft::{RaftLogReader, RaftSnapshotBuilder};
use proptest::prelude::*;

// --- openraft's own suite ---

/// The least state machine that passes.
#[derive(Clone, Default)]
struct Machine {
    covers: SnapshotMeta,
    snapshot: Option<SnapshotMeta>,
}

type TestSnapshot = openraft::alias::SnapshotOf<TypeConfig, ()>;

/// Shares its state with the builders it hands out.
#[derive(Clone, Default)]
struct Shared(Arc<std::sync::Mutex<Machine>>);

impl RaftSnapshotBuilder<TypeConfig> for Shared {
    type SnapshotData = ();
    async fn build_snapshot(&mut self) -> io::Result<TestSnapshot> {
        let mut machine = self.0.lock().expect("not poisoned");
        machine.snapshot = Some(machine.covers.clone());
        Ok(TestSnapshot { meta: machine.covers.clone(), snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Shared {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.0.lock().expect("not poisoned");
        Ok((machine.covers.last_log_id, machine.covers.last_membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut machine = self.0.lock().expect("not poisoned");
            machine.covers.last_log_id = Some(entry.log_id);
            if let LogPayload::Membership(membership) = entry.payload {
                machine.covers.last_membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(None);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> io::Result<()> {
        let mut machine = self.0.lock().expect("not poisoned");
        machine.covers = meta.clone();
        machine.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TestSnapshot>> {
        let snapshot = self.0.lock().expect("not poisoned").snapshot.clone();
        Ok(snapshot.map(|meta| TestSnapshot { meta, snapshot: () }))
    }
}

struct OnDisk {
    options: WalOptions,
}

impl StoreBuilder<TypeConfig, LogStore, Shared, (tempfile::TempDir, Wal)> for OnDisk {
    async fn build(&self) -> Result<((tempfile::TempDir, Wal), LogStore, Shared), openraft::StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let wal = Wal::open(&World::real(), &directory.path().join("wal"), self.options.clone()).expect("opens");
        let log = wal.group(0);
        Ok(((directory, wal), log, Shared::default()))
    }
}

/// Segments small enough that many are needed, and hardly any memory, so that entries are read from files.
fn tight() -> WalOptions {
    WalOptions { segment_bytes: 2048, flush_bytes_max: 512, tail_bytes_max: 0, ..WalOptions::default() }
}

#[test]
fn openraft_suite_from_memory() {
    run(async {
        let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
        Suite::test_all(OnDisk { options }).await.expect("the suite passes");
    });
}

#[test]
fn openraft_suite_from_files() {
    run(async { Suite::test_all(OnDisk { options: tight() }).await.expect("the suite passes") });
}

// --- reopening ---

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term, term % 3), index }
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let payload = match bytes {
        0 => LogPayload::Blank,
        1 => {
            let peer_address = format!("host-{index}:{term}");
            let nodes = BTreeMap::from([(1, PeerNode::default()), (2, PeerNode { peer_address })]);
            LogPayload::Membership(Membership::new(vec![[1].into(), [1, 2].into()], nodes).expect("valid"))
        }
        _ => LogPayload::Normal(Proposal(Bytes::from(vec![index as u8; bytes]))),
    };
    LogEntry { log_id: log_id(term, index), payload }
}

/// Everything that can be seen of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    first: u64,
    durable: u64,
    entries: Vec<LogEntry>,
    leaders: Vec<LogId>,
}

async fn look(log: &mut LogStore) -> Seen {
    log.barrier().await.expect("flushes");
    let state = log.get_log_state().await.expect("has a state");
    let entries = log.try_get_log_entries(..).await.expect("reads");
    let streamed: Vec<_> = log.entries_stream(..).await.try_collect().await.expect("streams");
    assert_eq!(entries, streamed);
    let leaders = match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => log.get_key_log_ids(first.log_id..=last.log_id).await.expect("known"),
        _ => Vec::new(),
    };
    let expected: Vec<_> = entries
        .iter()
        .enumerate()
        .filter(|(at, entry)| entries.get(at + 1).is_none_or(|next| next.log_id.leader_id != entry.log_id.leader_id))
        .map(|(_, entry)| entry.log_id)
        .collect();
    assert_eq!(leaders, expected, "the last entry of each leader");
    Seen {
        vote: log.read_vote().await.expect("reads"),
        committed: log.read_committed().await.expect("reads"),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        first: log.first_index(),
        durable: log.durable_index(),
        entries,
        leaders,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { term_up: u64, sizes: Vec<usize> },
    Truncate { back: u64 },
    Purge { ahead: u64 },
    Install { beyond: u64 },
    Vote,
    Commit,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop::collection::vec(prop_oneof![Just(0), Just(1), 2..200_usize, Just(3000)], 1..6);
    prop_oneof![
        6 => (0..2_u64, sizes).prop_map(|(term_up, sizes)| Step::Append { term_up, sizes }),
        2 => (0..8_u64).prop_map(|back| Step::Truncate { back }),
        2 => (0..8_u64).prop_map(|ahead| Step::Purge { ahead }),
        1 => (1..5_u64).prop_map(|beyond| Step::Install { beyond }),
        1 => Just(Step::Vote),
        2 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    term: u64,
    entries: Vec<LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last().map_or(0, |log_id| log_id.index + 1)
    }
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }
}

async fn take(step: &Step, model: &mut Model, log: &mut LogStore) {
    match step {
        Step::Append { term_up, sizes } => {
            model.term += term_up;
            let next = model.next();
            let entries: Vec<_> =
                sizes.iter().zip(next..).map(|(bytes, index)| entry(model.term, index, *bytes)).collect();
            model.entries.extend(entries.iter().cloned());
            log.append(entries.clone(), openraft::storage::IOFlushed::noop()).await.expect("appends");
            let read = log.try_get_log_entries(next..).await.expect("reads");
            assert_eq!(read, entries, "readable at once");
        }
        Step::Truncate { back } => {
            let keep = model.entries.len().saturating_sub(*back as usize);
            // Nothing that is committed is ever truncated.
            let committed = model.committed.map_or(0, |log_id| log_id.index + 1);
            let keep = keep.max(model.entries.iter().take_while(|entry| entry.log_id.index < committed).count());
            model.entries.truncate(keep);
            model.term += 1;
            log.truncate_after(model.last()).await.expect("truncates");
        }
        Step::Purge { ahead } => {
            let gone = (*ahead as usize).min(model.entries.len());
            if let Some(last) = model.entries.drain(..gone).next_back() {
                model.purged = Some(last.log_id);
                log.purge(last.log_id).await.expect("purges");
            }
        }
        Step::Install { beyond } => {
            let last = log_id(model.term, model.next() + beyond);
            model.entries.clear();
            model.purged = Some(last);
            model.committed = Some(last);
            log.save_committed(Some(last)).await.expect("saves");
            log.purge(last).await.expect("purges");
        }
        Step::Vote => {
            model.term += 1;
            let vote = Vote::new(model.term, model.term % 3);
            model.vote = Some(vote);
            log.save_vote(&vote).await.expect("saves");
        }
        Step::Commit => {
            model.committed = model.last();
            log.save_committed(model.committed).await.expect("saves");
        }
        Step::Reopen => {}
    }
}

fn check(model: &Model, seen: &Seen) {
    assert_eq!(seen.entries, model.entries);
    assert_eq!((seen.purged, seen.last), (model.purged, model.last()));
    assert_eq!((seen.vote, seen.committed), (model.vote, model.committed));
    assert_eq!(seen.durable, model.next().saturating_sub(1), "all is durable after a barrier");
}

async fn reopen(wal: Wal, path: &Path, options: &WalOptions) -> (Wal, LogStore) {
    wal.close().await;
    drop(wal);
    let wal = Wal::open(&World::real(), path, options.clone()).expect("opens again");
    let log = wal.group(0);
    (wal, log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn every_state_is_the_same_after_reopening(steps in prop::collection::vec(step(), 1..40)) {
        run(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("wal");
            for options in [tight(), WalOptions { tail_bytes_max: 1000, ..tight() }] {
                let path = path.join(options.tail_bytes_max.to_string());
                let mut wal = Wal::open(&World::real(), &path, options.clone()).expect("opens");
                let (mut log, mut model) = (wal.group(0), Model::default());
                for step in &steps {
                    take(step, &mut model, &mut log).await;
                    if matches!(step, Step::Reopen) {
                        let before = look(&mut log).await;
                        check(&model, &before);
                        (wal, log) = reopen(wal, &path, &options).await;
                        assert_eq!(look(&mut log).await, before);
                    }
                }
                let before = look(&mut log).await;
                check(&model, &before);
                let (_wal, mut log) = reopen(wal, &path, &options).await;
                assert_eq!(look(&mut log).await, before);
            }
        });
    }
}
