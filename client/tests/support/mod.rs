//! A cluster of fakes in this process: each node answers as its script says, and remembers what it was asked. The
//! network is made of pipes, so that time can be paused and connections cut.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_client::proto as pb;
use millstream_client::{Client, ClientOptions, ErrorReason};
use millstream_proto::v1::batch_service_server::{BatchService, BatchServiceServer};
use millstream_proto::v1::consumer_group_service_server::{ConsumerGroupService, ConsumerGroupServiceServer};
use millstream_proto::v1::session_service_server::{SessionService, SessionServiceServer};
use millstream_proto::v1::stream_service_server::{StreamService, StreamServiceServer};
use millstream_proto::{admin, reasons};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What a node does with a call.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Answers it.
    Answer,
    /// Answers it and names the leader.
    AnswerAndName(&'static str),
    /// Answers with an error of the contract.
    Refuse(ErrorReason, &'static [(&'static str, &'static str)]),
    /// Answers with a status of something else's.
    Foreign(Code),
    /// Cuts the connections of the node, without an answer.
    Cut,
    /// Never answers.
    Hang,
}

/// A call as a node saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) node: &'static str,
    pub(crate) call: &'static str,
    pub(crate) identity: Option<pb::RequestIdentity>,
    pub(crate) wait: Option<Duration>,
}

#[derive(Default)]
struct World {
    listeners: HashMap<&'static str, mpsc::UnboundedSender<DuplexStream>>,
    scripts: BTreeMap<(&'static str, &'static str), VecDeque<Step>>,
    wires: Vec<(&'static str, AbortHandle)>,
    connects: Vec<String>,
    seen: Vec<Seen>,
    entries: u64,
    sessions: u64,
}

/// The cluster.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<Mutex<World>>);

impl Cluster {
    pub(crate) fn new(nodes: &[&'static str]) -> Self {
        let cluster = Self::default();
        nodes.iter().for_each(|node| cluster.start(node));
        cluster
    }

    /// A node at `address`. Nodes that are not started refuse connections.
    pub(crate) fn start(&self, address: &'static str) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.world().listeners.insert(address, sender);
        self.serve(
            address,
            futures::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|io| io.map(io::Result::Ok))),
        );
    }

    /// A node named `tcp` that processes can reach; returns its address.
    pub(crate) async fn start_tcp(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        self.serve("tcp", tokio_stream::wrappers::TcpListenerStream::new(listener));
        address
    }

    fn serve<I>(&self, address: &'static str, incoming: impl futures::Stream<Item = io::Result<I>> + Send + 'static)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + tonic::transport::server::Connected + Unpin + Send + 'static,
    {
        let node = Node { cluster: self.clone(), address };
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(StreamServiceServer::new(node.clone()))
                .add_service(ConsumerGroupServiceServer::new(node.clone()))
                .add_service(BatchServiceServer::new(node.clone()))
                .add_service(SessionServiceServer::new(node.clone()))
                .add_service(admin::v1::cluster_service_server::ClusterServiceServer::new(node))
                .serve_with_incoming(incoming),
        );
    }

    /// What the next calls of this name at `node` get. Later ones are answered.
    pub(crate) fn script(&self, node: &'static str, call: &'static str, steps: impl IntoIterator<Item = Step>) {
        self.world().scripts.entry((node, call)).or_default().extend(steps);
    }

    pub(crate) fn seen(&self, call: &str) -> Vec<Seen> {
        self.world().seen.iter().filter(|seen| seen.call == call).cloned().collect()
    }

    /// `node:session/sequence<completed_below` of each call of this name.
    pub(crate) fn told(&self, call: &str) -> Vec<String> {
        let identity = |identity: pb::RequestIdentity| {
            format!("{}/{}<{}", identity.session_id, identity.sequence, identity.completed_below)
        };
        let tell = |seen: Seen| format!("{}:{}", seen.node, seen.identity.map_or("-".to_owned(), identity));
        self.seen(call).into_iter().map(tell).collect()
    }

    pub(crate) fn connects(&self) -> Vec<String> {
        self.world().connects.clone()
    }

    pub(crate) fn options(&self, endpoints: &[&str]) -> ClientOptions {
        let cluster = self.clone();
        let connector = move |address: String| {
            let cluster = cluster.clone();
            async move { cluster.dial(&address) }
        };
        ClientOptions {
            connector: Arc::new(connector),
            random: Arc::new(|| 0),
            ..ClientOptions::new(endpoints.iter().copied())
        }
    }

    pub(crate) fn client(&self, endpoints: &[&str]) -> Client {
        Client::connect(self.options(endpoints)).expect("valid endpoints")
    }

    pub(crate) fn client_without_sessions(&self, endpoints: &[&str]) -> Client {
        Client::connect(ClientOptions { sessions: false, ..self.options(endpoints) }).expect("valid endpoints")
    }

    /// Ends every connection to `node` as a crash would.
    pub(crate) fn cut(&self, node: &str) {
        self.world().wires.iter().filter(|(address, _)| *address == node).for_each(|(_, wire)| wire.abort());
    }

    fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let mut world = self.world();
        world.connects.push(address.to_owned());
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (&address, listener) = world.listeners.get_key_value(address).ok_or_else(refused)?;
        let (client, mut near) = tokio::io::duplex(1 << 16);
        let (mut far, server) = tokio::io::duplex(1 << 16);
        listener.send(server).map_err(|_| refused())?;
        let wire = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        world.wires.push((address, wire.abort_handle()));
        Ok(client)
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while holding it")
    }
}

#[derive(Clone)]
struct Node {
    cluster: Cluster,
    address: &'static str,
}

impl Node {
    fn saw(&self, call: &'static str, identity: Option<pb::RequestIdentity>, wait: Option<prost_types::Duration>) {
        let wait = wait.and_then(|wait| wait.try_into().ok());
        self.cluster.world().seen.push(Seen { node: self.address, call, identity, wait });
    }

    async fn step<T: Default>(
        &self,
        call: &'static str,
        identity: Option<pb::RequestIdentity>,
        wait: Option<prost_types::Duration>,
        answer: impl FnOnce(&mut World) -> T,
    ) -> Result<Response<T>, Status> {
        self.saw(call, identity, wait);
        let step = {
            let mut world = self.cluster.world();
            world.scripts.get_mut(&(self.address, call)).and_then(VecDeque::pop_front).unwrap_or(Step::Answer)
        };
        match step {
            Step::Answer => Ok(Response::new(answer(&mut self.cluster.world()))),
            Step::AnswerAndName(leader) => {
                let mut response = Response::new(answer(&mut self.cluster.world()));
                response.metadata_mut().insert("millstream-leader", leader.parse().expect("ascii"));
                Ok(response)
            }
            Step::Refuse(reason, metadata) => Err(refusal(reason, metadata)),
            Step::Foreign(code) => Err(Status::new(code, "not by a node")),
            Step::Cut => {
                self.cluster.cut(self.address);
                std::future::pending().await
            }
            Step::Hang => std::future::pending().await,
        }
    }
}

/// An error as servers send it.
pub(crate) fn refusal(reason: ErrorReason, metadata: &[(&str, &str)]) -> Status {
    let traits = reasons::traits(reason).expect("a reason that is sent");
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let details = ErrorDetails::with_error_info(traits.name, reasons::DOMAIN, metadata);
    Status::with_error_details(Code::from(traits.code), format!("because of {}", traits.name), details)
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Methods of a service: those with a body are scripted, the others are missing.
macro_rules! methods {
    ($($name:ident($request:ident) -> $response:ident $(= |$world:ident| $answer:expr; $($field:ident)*)?),+ $(,)?) => {$(
        fn $name<'a, 'b>(&'a self, request: Request<pb::$request>) -> Answer<'b, pb::$response>
        where
            'a: 'b,
            Self: 'b,
        {
            let _ = &request;
            methods!(@body self request $name $(|$world| $answer; $($field)*)?)
        }
    )+};
    (@body $self:ident $request:ident $name:ident |$world:ident| $answer:expr; request wait) => {
        Box::pin(async move {
            let request = $request.into_inner();
            $self.step(stringify!($name), request.request, request.wait, |$world| $answer).await
        })
    };
    (@body $self:ident $request:ident $name:ident |$world:ident| $answer:expr; request) => {
        Box::pin(async move { $self.step(stringify!($name), $request.into_inner().request, None, |$world| $answer).await })
    };
    (@body $self:ident $request:ident $name:ident |$world:ident| $answer:expr; wait) => {
        Box::pin(async move { $self.step(stringify!($name), None, $request.into_inner().wait, |$world| $answer).await })
    };
    (@body $self:ident $request:ident $name:ident |$world:ident| $answer:expr;) => {
        Box::pin(async move { $self.step(stringify!($name), None, None, |$world| $answer).await })
    };
    (@body $self:ident $request:ident $name:ident) => {
        Box::pin(async move {
            $self.saw(stringify!($name), None, None);
            Err(Status::unimplemented("not faked"))
        })
    };
}

/// A new entry, one that is delivered again, and one that is no longer in the stream.
fn delivery() -> pb::ReadGroupResponse {
    let entry = |seq, fields: &[&'static str]| {
        let fields = fields.iter().map(|name| pb::Field { name: (*name).into(), value: "1".into() }).collect();
        Some(pb::Entry { id: Some(pb::EntryId { ms: 1, seq }), fields })
    };
    let delivered = |idle_ms, delivery_count| Some(pb::Redelivery { idle_ms, delivery_count });
    let entries = vec![
        pb::DeliveredEntry { entry: entry(2, &["n"]), deleted: false, redelivery: delivered(300, 2) },
        pb::DeliveredEntry { entry: entry(1, &[]), deleted: true, redelivery: None },
        pb::DeliveredEntry { entry: entry(3, &["n"]), deleted: false, redelivery: delivered(0, 0) },
    ];
    let streams = vec![pb::StreamDelivery { stream: "orders".to_owned(), entries }];
    pb::ReadGroupResponse { streams, more: true, ..Default::default() }
}

/// Two streams; of the first there is more.
fn reading() -> pb::ReadResponse {
    let entry = pb::Entry { id: Some(pb::EntryId { ms: 1, seq: 1 }), fields: Vec::new() };
    let read = |stream: &str, entries: Vec<pb::Entry>, more| {
        let next_after = Some(pb::EntryId { ms: 1, seq: 1 });
        pb::StreamEntries { stream: stream.to_owned(), entries, next_after, more }
    };
    let streams = vec![read("orders", vec![entry], true), read("refunds", Vec::new(), false)];
    pb::ReadResponse { streams, ..Default::default() }
}

/// A stream with settings, and a group with an entry that was given back.
fn details() -> pb::InspectStreamResponse {
    let id = Some(pb::EntryId { ms: 1, seq: 1 });
    let retention = pb::Retention { max_age_ms: Some(60_000), references: 3, ..Default::default() };
    let config = pb::StreamConfig { idempotency_duration_s: 100, idempotency_keys_max: 50, retention: Some(retention) };
    let stream = pb::GetStreamResponse {
        stream: "orders".to_owned(),
        length: 1,
        last_id: id,
        bytes: 21,
        last_change_index: 9,
        config: Some(config),
        ..Default::default()
    };
    let pending = pb::PendingDetails { id, consumer: None, delivered_ms: 0, delivery_count: 4 };
    let consumer = pb::ConsumerDetails { consumer: "ada".to_owned(), seen_ms: 5, ..Default::default() };
    let group = pb::GroupDetails {
        group: "g".to_owned(),
        last_delivered_id: id,
        lag: Some(0),
        pending_count: 1,
        released_count: 1,
        pending: vec![pending],
        consumers: vec![consumer],
        ..Default::default()
    };
    let field = pb::Field { name: "n".into(), value: "1".into() };
    let entries = vec![pb::Entry { id, fields: vec![field] }];
    pb::InspectStreamResponse { stream: Some(stream), entries, groups: vec![group], truncated: true }
}

impl StreamService for Node {
    methods! {
        append(AppendRequest) -> AppendResponse = |world| {
            world.entries += 1;
            let receipt = pb::Receipt { log_index: world.entries + 10, term: 1, group_id: 0 };
            pb::AppendResponse { id: Some(pb::EntryId { ms: 1, seq: world.entries }), receipt: Some(receipt), ..Default::default() }
        }; request,
        read(ReadRequest) -> ReadResponse = |_world| reading(); wait,
        delete_entries(DeleteEntriesRequest) -> DeleteEntriesResponse = |_world| pb::DeleteEntriesResponse {
            deleted: 1,
            results: [pb::Removal::Deleted, pb::Removal::NotFound, pb::Removal::Referenced].map(Into::into).to_vec(),
            ..Default::default()
        }; request,
        trim(TrimRequest) -> TrimResponse,
        inspect_stream(InspectStreamRequest) -> InspectStreamResponse = |_world| details();,
        set_last_id(SetLastIdRequest) -> SetLastIdResponse,
        configure_stream(ConfigureStreamRequest) -> ConfigureStreamResponse,
        record_idempotency(RecordIdempotencyRequest) -> RecordIdempotencyResponse,
        delete_all(DeleteAllRequest) -> DeleteAllResponse,
        list_streams(ListStreamsRequest) -> ListStreamsResponse,
        delete_stream(DeleteStreamRequest) -> DeleteStreamResponse,
        get_stream(GetStreamRequest) -> GetStreamResponse = |_world| pb::GetStreamResponse::default();,
    }

    /// Five entries, 1-1 to 1-5, at most two of them in a page.
    fn range<'a, 'b>(&'a self, request: Request<pb::RangeRequest>) -> Answer<'b, pb::RangeResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let request = request.into_inner();
            let inside = |seq: &u64| {
                use pb::id_bound::Bound::{Exclusive, Inclusive};
                let low = request.start.and_then(|start| start.bound).is_none_or(|bound| match bound {
                    Inclusive(id) => (id.ms, id.seq) <= (1, *seq),
                    Exclusive(id) => (id.ms, id.seq) < (1, *seq),
                });
                let high = request.end.and_then(|end| end.bound).is_none_or(|bound| match bound {
                    Inclusive(id) => (1, *seq) <= (id.ms, id.seq),
                    Exclusive(id) => (1, *seq) < (id.ms, id.seq),
                });
                low && high
            };
            let mut ids: Vec<u64> = (1..=5).filter(inside).collect();
            if request.reverse {
                ids.reverse();
            }
            let count = if request.count == 0 { 2 } else { request.count.min(2) as usize };
            let more = count < ids.len();
            let field = |seq: u64| pb::Field {
                name: "n".into(),
                value: if seq == 5 { vec![0xff, 0].into() } else { seq.to_string().into() },
            };
            let entry = |seq: u64| pb::Entry { id: Some(pb::EntryId { ms: 1, seq }), fields: vec![field(seq)] };
            let entries = ids.into_iter().take(count).map(entry).collect();
            self.step("range", None, None, |_| pb::RangeResponse { header: None, entries, more }).await
        })
    }
}

impl ConsumerGroupService for Node {
    methods! {
        create_group(CreateGroupRequest) -> CreateGroupResponse,
        set_group_position(SetGroupPositionRequest) -> SetGroupPositionResponse,
        delete_group(DeleteGroupRequest) -> DeleteGroupResponse,
        create_consumer(CreateConsumerRequest) -> CreateConsumerResponse,
        delete_consumer(DeleteConsumerRequest) -> DeleteConsumerResponse,
        read_group(ReadGroupRequest) -> ReadGroupResponse = |_world| delivery(); request wait,
        ack(AckRequest) -> AckResponse = |_world| pb::AckResponse::default(); request,
        ack_and_delete(AckAndDeleteRequest) -> AckAndDeleteResponse,
        nack(NackRequest) -> NackResponse = |_world| pb::NackResponse { released: 2, ..Default::default() }; request,
        claim(ClaimRequest) -> ClaimResponse = |_world| pb::ClaimResponse {
            entries: vec![pb::Entry { id: Some(pb::EntryId { ms: 1, seq: 1 }), fields: Vec::new() }],
            more: true,
            ..Default::default()
        }; request,
        auto_claim(AutoClaimRequest) -> AutoClaimResponse,
        get_pending(GetPendingRequest) -> GetPendingResponse = |_world| pb::GetPendingResponse {
            count: 3,
            min_id: Some(pb::EntryId { ms: 1, seq: 1 }),
            max_id: Some(pb::EntryId { ms: 1, seq: 9 }),
            consumers: vec![pb::ConsumerPending { consumer: "ada".to_owned(), count: 2 }],
            more_consumers: true,
            ..Default::default()
        };,
        list_consumers(ListConsumersRequest) -> ListConsumersResponse,
    }

    /// 1-1, then a long way without any that is idle for long enough, then 1-9.
    fn list_pending<'a, 'b>(&'a self, request: Request<pb::ListPendingRequest>) -> Answer<'b, pb::ListPendingResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        use pb::id_bound::Bound::{Exclusive, Inclusive};
        Box::pin(async move {
            let id = |seq| Some(pb::EntryId { ms: 1, seq });
            let pending = |seq| pb::PendingEntry { id: id(seq), delivery_count: seq, ..Default::default() };
            let answer = match request.into_inner().start.and_then(|start| start.bound) {
                None => pb::ListPendingResponse { entries: vec![pending(1)], more: true, ..Default::default() },
                Some(Exclusive(pb::EntryId { ms: 1, seq: 1 })) => {
                    pb::ListPendingResponse { more: true, next_start: id(5), ..Default::default() }
                }
                Some(Inclusive(pb::EntryId { ms: 1, seq: 5 })) => {
                    pb::ListPendingResponse { entries: vec![pending(9)], ..Default::default() }
                }
                Some(start) => panic!("no page ends before {start:?}"),
            };
            self.step("list_pending", None, None, |_| answer).await
        })
    }

    /// Three groups, 0 to 2, each on a page of its own.
    fn list_groups<'a, 'b>(&'a self, request: Request<pb::ListGroupsRequest>) -> Answer<'b, pb::ListGroupsResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let number = request.into_inner().page_token.first().map_or(0, |token| *token);
            let info = pb::GroupInfo { group: number.to_string(), released: 1, ..Default::default() };
            let next_page_token = if number < 2 { vec![number + 1].into() } else { Default::default() };
            let answer = pb::ListGroupsResponse { header: None, groups: vec![info], next_page_token };
            self.step("list_groups", None, None, |_| answer).await
        })
    }
}

/// Appends are done, streams described; whatever else a batch holds is refused.
impl BatchService for Node {
    fn batch<'a, 'b>(&'a self, request: Request<pb::BatchRequest>) -> Answer<'b, pb::BatchResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        use pb::batch_operation::Operation;
        use pb::batch_result::Result;
        Box::pin(async move {
            let request = request.into_inner();
            let operations = request.operations;
            let done = |(operation, seq): (pb::BatchOperation, u64)| match operation.operation {
                Some(Operation::Append(_)) => {
                    let id = Some(pb::EntryId { ms: 1, seq });
                    Result::Append(pb::AppendResponse { id, ..Default::default() })
                }
                Some(Operation::GetStream(get)) => {
                    Result::GetStream(pb::GetStreamResponse { stream: get.stream, ..Default::default() })
                }
                _ => Result::Error(pb::OperationError {
                    reason: ErrorReason::GroupNotFound.into(),
                    message: "no such group".to_owned(),
                    metadata: [("group".to_owned(), "g".to_owned())].into(),
                }),
            };
            let results = operations.into_iter().zip(1..).map(done);
            let results = results.map(|result| pb::BatchResult { result: Some(result) }).collect();
            let receipt = Some(pb::Receipt { log_index: 17, term: 3, group_id: 0 });
            let answer = pb::BatchResponse { header: None, results, receipt };
            self.step("batch", request.request, None, |_| answer).await
        })
    }
}

impl SessionService for Node {
    methods! {
        open_session(OpenSessionRequest) -> OpenSessionResponse = |world| {
            world.sessions += 1;
            pb::OpenSessionResponse { session_id: 100 * world.sessions, idle_ms_max: 3_600_000, ..Default::default() }
        };,
        close_session(CloseSessionRequest) -> CloseSessionResponse = |_world| pb::CloseSessionResponse::default();,
    }
}

impl admin::v1::cluster_service_server::ClusterService for Node {
    fn get_status<'a, 'b>(&'a self, _: Request<admin::v1::GetStatusRequest>) -> Answer<'b, admin::v1::GetStatusResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let status = admin::v1::GetStatusResponse {
                node_id: 1,
                role: admin::v1::NodeRole::Leader.into(),
                term: 3,
                applied_index: 42,
                state_digest: "abc".to_owned(),
                ..Default::default()
            };
            self.step("get_status", None, None, |_| status).await
        })
    }

    type BackupStream = futures::stream::Iter<std::vec::IntoIter<Result<admin::v1::BackupResponse, Status>>>;

    fn backup<'a, 'b>(&'a self, _: Request<admin::v1::BackupRequest>) -> Answer<'b, Self::BackupStream>
    where
        'a: 'b,
        Self: 'b,
    {
        use admin::v1::backup_response::Part;
        Box::pin(async move {
            self.step("backup", None, None, |_| ()).await?;
            let chunk = |offset: u64, data: &'static [u8]| {
                Part::Chunk(admin::v1::BackupChunk { offset, crc32c: crc32c::crc32c(data), data: data.into() })
            };
            let header =
                Part::Header(admin::v1::BackupHeader { cluster_id: "abc".to_owned(), log_index: 42, length: 8 });
            let mut parts = vec![Part::Preparing(true), header, chunk(0, b"back"), chunk(4, b"ed u")];
            // The second backup lacks its end.
            if self.cluster.seen("backup").len() < 2 {
                parts.push(Part::End(admin::v1::BackupEnd { length: 8 }));
            }
            let parts = parts.into_iter().map(|part| Ok(admin::v1::BackupResponse { part: Some(part) }));
            Ok(Response::new(futures::stream::iter(parts.collect::<Vec<_>>())))
        })
    }

    fn add_learner<'a, 'b>(
        &'a self,
        request: Request<admin::v1::AddLearnerRequest>,
    ) -> Answer<'b, admin::v1::AddLearnerResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let admin::v1::AddLearnerRequest { node_id, peer_address } = request.into_inner();
            let members = vec![admin::v1::Member { node_id, peer_address, ..Default::default() }];
            self.step("add_learner", None, None, |_| admin::v1::AddLearnerResponse { members }).await
        })
    }

    fn change_voters<'a, 'b>(
        &'a self,
        request: Request<admin::v1::ChangeVotersRequest>,
    ) -> Answer<'b, admin::v1::ChangeVotersResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let admin::v1::ChangeVotersRequest { add_node_ids, remove_node_ids: _, wait } = request.into_inner();
            let member = |node_id| admin::v1::Member { node_id, voter: true, ..Default::default() };
            let members = add_node_ids.into_iter().map(member).collect();
            self.step("change_voters", None, wait, |_| admin::v1::ChangeVotersResponse { members }).await
        })
    }

    fn transfer_leader<'a, 'b>(
        &'a self,
        _: Request<admin::v1::TransferLeaderRequest>,
    ) -> Answer<'b, admin::v1::TransferLeaderResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.step("transfer_leader", None, None, |_| admin::v1::TransferLeaderResponse { term: 4 }).await
        })
    }
}
