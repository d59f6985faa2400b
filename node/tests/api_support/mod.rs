//! One node behind its real front door, on a network of channels, and bare gRPC clients to call it with.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use millstream_node::config::Config;
use millstream_node::replica::{Leadership, Status as ReplicaStatus};
use millstream_node::server::Server;
use millstream_node::world::{BoxedIo, Connect, Incoming, Net, World};
use millstream_proto::admin::v1::cluster_service_client::ClusterServiceClient;
use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_service_client::BatchServiceClient;
use millstream_proto::v1::consumer_group_service_client::ConsumerGroupServiceClient;
use millstream_proto::v1::session_service_client::SessionServiceClient;
use millstream_proto::v1::stream_service_client::StreamServiceClient;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A network of channels.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<BoxedIo>>>>);

impl Net for Network {
    fn listen(&self, address: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
        let (sender, mut accepted) = mpsc::unbounded_channel();
        self.0.lock().expect("no panic under this lock").insert(address.to_owned(), sender);
        let incoming = futures::stream::poll_fn(move |cx| accepted.poll_recv(cx).map(|io| io.map(Ok)));
        Box::pin(async move { Ok(Box::pin(incoming) as Incoming) })
    }

    fn connect(&self, address: &str) -> Connect {
        let listeners = self.0.lock().expect("no panic under this lock");
        let (near, far) = tokio::io::duplex(256 << 10);
        let is_sent = listeners.get(address).is_some_and(|listener| listener.send(BoxedIo::new(far)).is_ok());
        let connected = if is_sent { Ok(BoxedIo::new(near)) } else { Err(io::ErrorKind::ConnectionRefused.into()) };
        Box::pin(async move { connected })
    }
}

/// Bare clients of one node. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    pub channel: Channel,
    pub streams: StreamServiceClient<Channel>,
    pub groups: ConsumerGroupServiceClient<Channel>,
    pub sessions: SessionServiceClient<Channel>,
    pub batches: BatchServiceClient<Channel>,
    pub cluster: ClusterServiceClient<Channel>,
}

impl Clients {
    pub fn connect(network: &Network, address: &str) -> Self {
        let (network, address) = (network.clone(), address.to_owned());
        let endpoint = Endpoint::try_from(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let connecting = network.connect(&address);
            async move { connecting.await.map(TokioIo::new) }
        }));
        Self {
            streams: StreamServiceClient::new(channel.clone()),
            groups: ConsumerGroupServiceClient::new(channel.clone()),
            sessions: SessionServiceClient::new(channel.clone()),
            batches: BatchServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Appends an entry with one field and returns its id.
    pub async fn append(&self, stream: &str, value: &str) -> pb::EntryId {
        let request = pb::AppendRequest { fields: vec![field("value", value)], ..append_to(stream) };
        self.streams.clone().append(request).await.expect("appended").into_inner().id.expect("an id")
    }

    /// Delivers all new entries to a consumer, and returns their ids.
    pub async fn deliver(&self, group: &str, consumer: &str, stream: &str) -> Vec<pb::EntryId> {
        let read = new_entries(group, consumer, stream);
        let answer = self.groups.clone().read_group(read).await.expect("delivered").into_inner();
        delivered_ids(&answer)
    }

    /// The ids of all entries of a stream.
    pub async fn ids(&self, stream: &str) -> Vec<pb::EntryId> {
        let range = pb::RangeRequest { stream: stream.into(), ..Default::default() };
        let page = self.streams.clone().range(range).await.expect("a page").into_inner();
        page.entries.iter().filter_map(|entry| entry.id).collect()
    }

    /// Describes a stream.
    pub async fn info(&self, stream: &str) -> pb::GetStreamResponse {
        let get = pb::GetStreamRequest { stream: stream.into(), options: None };
        self.streams.clone().get_stream(get).await.expect("described").into_inner()
    }

    /// Opens a session.
    pub async fn session(&self) -> u64 {
        self.sessions.clone().open_session(pb::OpenSessionRequest {}).await.expect("opened").into_inner().session_id
    }

    /// Creates a group that starts before the first entry, and its stream.
    pub async fn create_group(&self, stream: &str, group: &str) {
        let position = pb::group_position::Position::After(pb::EntryId { ms: 0, seq: 0 });
        let request = pb::CreateGroupRequest {
            stream: stream.into(),
            group: group.into(),
            position: Some(pb::GroupPosition { position: Some(position) }),
            create_stream: true,
            ..Default::default()
        };
        self.groups.clone().create_group(request).await.expect("created");
    }
}

/// A cluster of one.
pub struct Node {
    pub server: Server,
    pub network: Network,
    pub clients: Clients,
    _directory: tempfile::TempDir,
}

impl Node {
    /// Starts it and waits until it leads and is known to itself, so that the log holds still.
    pub async fn start(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(World::real(), adjust).await
    }

    /// The same in a world that is not quite the machine's.
    pub async fn start_in(world: World, adjust: impl FnOnce(&mut Config)) -> Self {
        let node = Self::start_alone(world, adjust).await;
        eventually("a leader that has introduced itself", || {
            let leads = matches!(node.server.replica().leadership(), Leadership::Leader { .. });
            leads && node.status().members.iter().all(|member| !member.client_address.is_empty())
        })
        .await;
        node
    }

    /// Starts it and waits for nothing.
    pub async fn start_alone(world: World, adjust: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let network = Network::default();
        let mut config = Config::single_node();
        config.data_dir = directory.path().join("data");
        adjust(&mut config);
        let address = config.advertise.clone();
        let world = World { net: Arc::new(network.clone()), ..world };
        let server = Server::start(world, config).await.expect("the node starts");
        let clients = Clients::connect(&network, &address);
        Self { server, network, clients, _directory: directory }
    }

    pub fn status(&self) -> ReplicaStatus {
        self.server.replica().status()
    }

    /// How far the log goes, and the digest of what it did.
    pub fn trace(&self) -> (u64, u128) {
        let status = self.status();
        (status.applied_index, status.state_digest)
    }

    /// Waits until so many places to wait are taken.
    pub async fn waiting(&self, places: usize) {
        let watch = self.server.replica().watch();
        eventually(&format!("{places} places taken"), || watch.places_taken() == places).await;
    }
}

/// Polls until it is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn field(name: &str, value: &str) -> pb::Field {
    pb::Field { name: name.to_owned().into(), value: value.to_owned().into() }
}

/// An append that lacks only fields.
pub fn append_to(stream: &str) -> pb::AppendRequest {
    pb::AppendRequest { stream: stream.into(), ..Default::default() }
}

pub fn id(ms: u64, seq: u64) -> pb::EntryId {
    pb::EntryId { ms, seq }
}

pub fn seconds(seconds: u64) -> Option<prost_types::Duration> {
    millis(seconds * 1_000)
}

pub fn millis(millis: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
}

/// A group read of new entries.
pub fn new_entries(group: &str, consumer: &str, stream: &str) -> pb::ReadGroupRequest {
    pb::ReadGroupRequest {
        group: group.into(),
        consumer: consumer.into(),
        streams: vec![pb::GroupReadPosition {
            stream: stream.into(),
            position: Some(pb::group_read_position::Position::NewEntries(true)),
        }],
        ..Default::default()
    }
}

/// A group read of a consumer's own pending entries.
pub fn history(group: &str, consumer: &str, stream: &str) -> pb::ReadGroupRequest {
    let mut request = new_entries(group, consumer, stream);
    request.streams[0].position = Some(pb::group_read_position::Position::PendingAfter(id(0, 0)));
    request
}

pub fn delivered_ids(response: &pb::ReadGroupResponse) -> Vec<pb::EntryId> {
    response.streams.iter().flat_map(|s| &s.entries).filter_map(|e| e.entry.as_ref()?.id).collect()
}

/// One operation of a batch.
pub fn op(operation: pb::batch_operation::Operation) -> pb::BatchOperation {
    pb::BatchOperation { operation: Some(operation) }
}

/// The reason and the facts of an error. Every error has them.
pub fn facts(status: &Status) -> (String, BTreeMap<String, String>) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?} has no reason"));
    assert_eq!(info.domain, "millstream");
    (info.reason, info.metadata.into_iter().collect())
}

#[track_caller]
pub fn check_refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str, expected: &[(&str, &str)]) {
    let status = answer.expect_err(reason);
    let (found, metadata) = facts(&status);
    assert_eq!(found, reason, "{status:?}");
    let traits = millstream_proto::reasons::by_name(reason).expect("in the table");
    assert_eq!(status.code() as i32, traits.code, "{reason}");
    for (key, value) in expected {
        assert_eq!(metadata.get(*key).map(String::as_str), Some(*value), "{reason}: {key}");
    }
}
