//! A node without Raft: it writes down what it is told and answers by rote.

use std::any::Any;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use millstream_node::network::{
    CommandCalls, Execute, Executed, IdentityError, NetworkOptions, NotExecuted, PeerContext, RaftCalls,
    ReadIndexRefused, Reception, RegisterOutcome, SnapshotBytes, SnapshotOffer, SnapshotSink, SnapshotSource,
    StateDigest, Stored, raft_service, server_builder,
};
use millstream_node::types::{
    CommittedLeaderId, LogEntry, LogId, LogPayload, NodeId, Proposal, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
use millstream_node::world::World;
use millstream_proto::internal::v1 as pb;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

pub fn entry(term: u64, index: u64, proposal: Bytes) -> LogEntry {
    LogEntry { log_id: log_id(term, index), payload: LogPayload::Normal(Proposal(proposal)) }
}

pub fn meta() -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(log_id(2, 40)), last_membership: StoredMembership::default() }
}

/// A node's idea of itself. Node `n` is known to have incarnation `100 + n`.
#[derive(Clone)]
pub struct Me {
    pub id: NodeId,
    pub cluster: &'static str,
    pub incarnation: u64,
    /// Believes everything.
    pub gullible: bool,
}

impl Me {
    pub fn new(id: NodeId) -> Self {
        Self { id, cluster: "cluster", incarnation: 100 + id, gullible: false }
    }

    pub fn to(&self, to: NodeId) -> pb::Envelope {
        pb::Envelope {
            cluster_id: self.cluster.to_owned(),
            group_id: 0,
            from: self.id,
            to,
            from_incarnation: self.incarnation,
            no_room: false,
        }
    }
}

impl PeerContext for Me {
    fn envelope(&self, to: NodeId) -> pb::Envelope {
        self.to(to)
    }

    fn check(&self, envelope: Option<&pb::Envelope>, from: Option<NodeId>) -> Result<(), IdentityError> {
        if self.gullible {
            return Ok(());
        }
        let envelope = envelope.ok_or_else(|| IdentityError::new("not signed"))?;
        if envelope.to != self.id {
            return Err(IdentityError::misdirected("for another node"));
        }
        if envelope.cluster_id != self.cluster {
            return Err(IdentityError::new("another cluster"));
        }
        if from.is_some_and(|from| from != envelope.from) || envelope.from_incarnation != 100 + envelope.from {
            return Err(IdentityError::new("another node"));
        }
        Ok(())
    }
}

/// What a fake does, and what it has seen.
#[derive(Default)]
pub struct Fake {
    /// On a replication stream, how many requests it waits for before it answers the first.
    pub hold_back: usize,
    /// On a replication stream, the index at which it answers with an error.
    pub refuse: Option<(u64, StreamAppendError<TypeConfig>)>,
    /// Does not lead.
    pub follows: AtomicBool,
    pub received: Mutex<Vec<LogEntry>>,
    pub streams: AtomicUsize,
    pub appends: AtomicUsize,
    pub small_calls: AtomicUsize,
    pub stream_ended: Notify,
    pub registered: Mutex<Vec<(NodeId, u64, String, String)>>,
    pub sinks: AtomicUsize,
    pub sink_written: Notify,
    pub sink_dropped: Notify,
    /// What a transfer that broke off has left, under its id.
    pub kept: Mutex<Option<(u64, Vec<u8>)>>,
    /// Where each transfer began.
    pub resumed: Mutex<Vec<usize>>,
    pub install_time: Duration,
    pub installed: Mutex<Vec<(SnapshotMeta, Vec<u8>)>>,
    /// How often it gets further with a snapshot that it is asked for, and how long that takes each time.
    pub copying: (u32, Duration),
    /// Then it gets no further.
    pub stuck: bool,
    pub copied: AtomicU64,
    /// The length of the snapshot that it hands out; [`FETCHED`] if absent.
    pub fetched: Option<u64>,
    /// Which snapshots it was asked for.
    pub wanted: Mutex<Vec<u64>>,
}

impl Fake {
    /// Calls of any kind.
    pub fn heard(&self) -> usize {
        [&self.streams, &self.appends, &self.small_calls, &self.sinks].iter().map(|n| n.load(Ordering::SeqCst)).sum()
    }
}

/// The calls of a shared fake.
struct Served(Arc<Fake>);

#[tonic::async_trait]
impl RaftCalls for Served {
    async fn append(&self, _: AppendEntriesRequest<TypeConfig>) -> Result<AppendEntriesResponse<TypeConfig>, String> {
        self.0.appends.fetch_add(1, Ordering::SeqCst);
        Ok(AppendEntriesResponse::Success)
    }

    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>> {
        let fake = self.0.clone();
        fake.streams.fetch_add(1, Ordering::SeqCst);
        let (send, answers) = tokio::sync::mpsc::unbounded_channel();
        // Like openraft: a task of its own reads the requests.
        tokio::spawn(async move {
            let mut requests = requests;
            let mut held = Vec::new();
            while let Some(request) = requests.next().await {
                let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                fake.received.lock().unwrap().extend(request.entries);
                held.push(match &fake.refuse {
                    Some((index, error)) if last.is_some_and(|last| last.index == *index) => Err(error.clone()),
                    _ => Ok(last),
                });
                if fake.hold_back <= fake.received.lock().unwrap().len() {
                    held.drain(..).for_each(|answer| drop(send.send(Ok(answer))));
                }
            }
            fake.stream_ended.notify_one();
        });
        Box::pin(stream::unfold(answers, |mut answers| async move { Some((answers.recv().await?, answers)) }))
    }

    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        Ok(VoteResponse::new(request.vote, request.last_log_id, true))
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, String> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        Ok(VoteResponse::new(request.vote, request.last_log_id, false))
    }

    async fn transfer_leader(&self, request: TransferLeaderRequest<TypeConfig>) -> Result<bool, String> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        Ok(*request.to_node_id() == 2 && request.last_log_id().is_some_and(|last| last.index <= 40))
    }

    fn receive_snapshot(&self, offer: &SnapshotOffer) -> Result<Reception, String> {
        self.0.sinks.fetch_add(1, Ordering::SeqCst);
        // Of an earlier attempt with the same bytes.
        let kept = self.0.kept.lock().unwrap().take().filter(|(id, _)| *id == offer.id);
        let bytes = kept.map(|(_, bytes)| bytes).unwrap_or_default();
        self.0.resumed.lock().unwrap().push(bytes.len());
        Ok(Reception::Wanted(Box::new(Sink { id: offer.id, bytes, fake: self.0.clone() })))
    }

    fn install_snapshot(
        &self,
        offer: SnapshotOffer,
        sink: Box<dyn SnapshotSink>,
    ) -> BoxFuture<'static, Result<Vote, String>> {
        let fake = self.0.clone();
        Box::pin(async move {
            let mut sink = sink.into_any().downcast::<Sink>().map_err(|_| "not our sink")?;
            tokio::time::sleep(fake.install_time).await;
            fake.installed.lock().unwrap().push((offer.meta, std::mem::take(&mut sink.bytes)));
            Ok(offer.vote)
        })
    }

    async fn newest_snapshot(&self, wanted: u64) -> Result<(SnapshotMeta, Box<dyn SnapshotBytes>), String> {
        self.0.wanted.lock().unwrap().push(wanted);
        let (steps, step) = self.0.copying;
        for _ in 0..steps {
            tokio::time::sleep(step).await;
            self.0.copied.fetch_add(1_000, Ordering::SeqCst);
        }
        if self.0.stuck {
            std::future::pending::<()>().await;
        }
        Ok((meta(), Box::new(Source { length: self.0.fetched.unwrap_or(FETCHED) })))
    }

    fn snapshot_progress(&self) -> u64 {
        self.0.copied.load(Ordering::SeqCst)
    }

    async fn compare_digest(&self, agreed: Vec<StateDigest>) -> Vec<StateDigest> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        agreed
    }

    async fn read_index(&self, _: NodeId, _: u64) -> Result<LogId, ReadIndexRefused> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        match self.0.follows.load(Ordering::SeqCst) {
            true => Err(ReadIndexRefused::NotLeader { leader_id: Some(5) }),
            false => Ok(log_id(3, 99)),
        }
    }

    async fn register(
        &self,
        node_id: NodeId,
        incarnation: u64,
        peer_address: String,
        client_address: String,
    ) -> Result<RegisterOutcome, String> {
        self.0.small_calls.fetch_add(1, Ordering::SeqCst);
        self.0.registered.lock().unwrap().push((node_id, incarnation, peer_address, client_address));
        Ok(RegisterOutcome { recorded: true, leader_id: 2, removed: false })
    }
}

struct Sink {
    id: u64,
    bytes: Vec<u8>,
    fake: Arc<Fake>,
}

impl SnapshotSink for Sink {
    fn received(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(chunk);
        self.fake.sink_written.notify_one();
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        *self.fake.kept.lock().unwrap() = Some((self.id, std::mem::take(&mut self.bytes)));
        self.fake.sink_dropped.notify_one();
    }
}

/// Bytes in memory.
pub struct Plain(pub Vec<u8>);

impl SnapshotSink for Plain {
    fn received(&self) -> u64 {
        self.0.len() as u64
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// The length of the snapshot that a fake hands out.
pub const FETCHED: u64 = (2 << 20) + 5;

/// Byte `i` of every snapshot is the same function of `i`.
pub fn patterned(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64).map(|i| (i % 251) as u8).collect()
}

/// Longer than any test waits.
pub fn endless() -> u64 {
    1 << 50
}

/// A snapshot of the pattern.
pub struct Source {
    pub length: u64,
}

#[tonic::async_trait]
impl SnapshotSource for Source {
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>> {
        Ok(Box::new(Source { length: self.length }))
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl SnapshotBytes for Source {
    fn id(&self) -> u64 {
        self.length + 1
    }

    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&patterned(offset, buf.len()));
        Ok(())
    }
}

/// A fake that listens. It has a runtime of its own, so that stopping it cuts its connections as a crash does.
pub struct Node {
    pub address: String,
    pub fake: Arc<Fake>,
    runtime: Option<Runtime>,
}

impl Node {
    pub async fn start(me: Me, fake: Fake, options: &NetworkOptions) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::start_at(free.to_string(), me, fake, options).await
    }

    pub async fn start_at(address: String, me: Me, fake: Fake, options: &NetworkOptions) -> Self {
        let fake = Arc::new(fake);
        let world = World::real();
        let service =
            raft_service(world.clone(), Arc::new(Served(fake.clone())), Arc::new(Idle), Arc::new(me), options.clone());
        let server = server_builder(options).add_service(service);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = world.net.listen(&address);
        let (ready, listening) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let incoming = listen.await.unwrap();
            ready.send(()).unwrap();
            server.serve_with_incoming(incoming).await.unwrap();
        });
        listening.await.expect("the address is free");
        Self { address, fake, runtime: Some(runtime) }
    }

    /// Stops listening and cuts all connections.
    pub async fn stop(mut self) {
        let runtime = self.runtime.take();
        // Waits until the sockets are closed, which an async test must not do in place.
        tokio::task::spawn_blocking(|| drop(runtime)).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A wire that can be cut without either end being told.
pub struct Wire {
    pub address: String,
    cut: watch::Sender<u32>,
}

impl Wire {
    pub async fn to(node: &Node) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, cuts) = watch::channel(0);
        let far = node.address.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut cuts, far) = (cuts.clone(), far.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(far).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        // Both ends stay open, and nothing passes any more.
                        _ = cuts.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Cuts the connections there are. New ones pass.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

/// Nobody asks these nodes to do anything.
struct Idle;

#[async_trait::async_trait]
impl CommandCalls for Idle {
    async fn execute(&self, _: Execute, _: &(dyn Fn() + Sync)) -> Result<Executed, NotExecuted> {
        Err(NotExecuted::NotReady)
    }

    fn stored(&self, _: u64) -> Option<Stored> {
        None
    }
}
