//! The front door: the public gRPC services.
//!
//! A call is decoded and checked ([`convert`]), proposed or read ([`crate::front`]), and answered ([`reply`], [`errors`]). Nothing
//! that a client sends is trusted further than that, and what is refused here has left no trace.
//!
//! - [`streams`], [`groups`], [`sessions`], [`cluster`]: one handler for each rpc.
//! - [`batch`]: the one whose operations are the requests of the others, and whose results are their answers.
//! - [`read`] and [`read_group`]: the two that may wait.
//! - [`forward`] stands before the services: a follower hands mutating calls on to the leader, over a [`link`].
//! - [`health`] tells load balancers whether calls are welcome.
//!
//! What is absent: no consensus, no storage, no state of a call that outlives it. Time is tokio's.

mod batch;
mod cluster;
mod convert;
mod errors;
mod forward;
mod groups;
mod health;
mod link;
mod read;
mod read_group;
mod reply;
mod sessions;
mod streams;

use std::sync::Arc;

use millstream_proto::admin::v1::cluster_service_server::{self, ClusterServiceServer};
use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_service_server::{self, BatchServiceServer};
use millstream_proto::v1::consumer_group_service_server::{self, ConsumerGroupServiceServer};
use millstream_proto::v1::session_service_server::{self, SessionServiceServer};
use millstream_proto::v1::stream_service_server::{self, StreamServiceServer};
use millstream_streams::{Command, Entry, EntryPage, EntryPlan, Reply, RequestId, State};
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::front::{self, EntryBounds, Front};
use crate::replica::Freshness;
use crate::world::World;
use convert::Result;
use forward::{Forwarded, Forwarder};

/// Bytes of a request beside its entry: 10,000 ids or 16,384 field headers fit easily.
const REQUEST_OVERHEAD_BYTES: usize = 2 << 20;
/// gRPC's own default for the size of a message.
const REQUEST_BYTES_MIN: usize = 4 << 20;

/// The services for clients, with health and reflection. A follower forwards over `world.net`.
pub(crate) fn services(front: Front, world: World) -> std::result::Result<Routes, String> {
    let (replica, limits) = (front.replica.clone(), &front.limits);
    let request_bytes_max = REQUEST_BYTES_MIN.max(limits.entry_bytes_max + REQUEST_OVERHEAD_BYTES);
    let (health, reporter) = health::service();
    health::follow(replica.clone(), reporter);
    let forwarder = Arc::new(Forwarder::new(replica, world, limits, request_bytes_max));
    let api = Arc::new(Api { front });

    let streams = StreamServiceServer::from_arc(api.clone()).max_decoding_message_size(request_bytes_max);
    let groups = ConsumerGroupServiceServer::from_arc(api.clone()).max_decoding_message_size(request_bytes_max);
    let batches = BatchServiceServer::from_arc(api.clone()).max_decoding_message_size(request_bytes_max);
    let sessions = SessionServiceServer::from_arc(api.clone()).max_decoding_message_size(request_bytes_max);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(millstream_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(stream_service_server::SERVICE_NAME)
        .with_service_name(consumer_group_service_server::SERVICE_NAME)
        .with_service_name(batch_service_server::SERVICE_NAME)
        .with_service_name(session_service_server::SERVICE_NAME)
        .with_service_name(cluster_service_server::SERVICE_NAME)
        .with_service_name(health::SERVICE_NAME)
        .with_service_name(tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME)
        .build_v1()
        .map_err(|error| error.to_string())?;
    Ok(Routes::new(Forwarded::new(streams, forwarder.clone()))
        .add_service(Forwarded::new(groups, forwarder.clone()))
        .add_service(Forwarded::new(batches, forwarder.clone()))
        .add_service(Forwarded::new(sessions, forwarder.clone()))
        .add_service(Forwarded::new(ClusterServiceServer::from_arc(api), forwarder))
        .add_service(health)
        .add_service(reflection)
        .prepare())
}

/// What tonic wants of a handler.
type Answer<T> = std::result::Result<Response<T>, Status>;

/// What every handler works with.
pub(crate) struct Api {
    front: Front,
}

/// A command that was accepted.
struct Done {
    reply: Reply,
    receipt: Option<pb::Receipt>,
    /// What the ids of the reply name, in its order; `None`: no longer in the stream.
    entries: Vec<Option<Entry>>,
}

impl Api {
    /// Checks a command, proposes it and waits for its reply.
    async fn execute(&self, request: Option<RequestId>, command: impl Into<Command>) -> Result<Done> {
        Ok(self.front.execute(request, command.into()).await?.into())
    }

    /// Waits until this node's state is as fresh as asked.
    async fn barrier(&self, freshness: Freshness) -> Result<()> {
        Ok(self.front.barrier(freshness).await?)
    }

    /// Who answers, and from how new a state.
    fn header(&self) -> Option<pb::ResponseHeader> {
        reply::header(&self.front.replica.position())
    }

    /// Looks at the state and reads the entries that `look` has planned for, within `bounds`.
    fn entries<T>(
        &self,
        bounds: EntryBounds,
        look: impl Fn(&State) -> Result<(T, Vec<EntryPlan>)>,
    ) -> Result<(T, Vec<EntryPage>)> {
        self.front.entries(bounds, look)
    }
}

impl From<front::Done> for Done {
    fn from(done: front::Done) -> Self {
        let front::Done { reply, entries, log_index, term } = done;
        Self { reply, entries, receipt: Some(receipt(log_index, term)) }
    }
}

fn receipt(log_index: u64, term: u64) -> pb::Receipt {
    pb::Receipt { log_index, term, group_id: 0 }
}
