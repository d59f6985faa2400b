//! The front door: the public gRPC services.
//!
//! A call is decoded and checked ([`convert`]), proposed or read ([`Api`]), and answered ([`reply`], [`errors`]). Nothing
//! that a client sends is trusted further than that, and what is refused here has left no trace.
//!
//! - [`streams`], [`groups`], [`sessions`], [`cluster`]: one handler for each rpc.
//! - [`batch`]: the one whose operations are the requests of the others, and whose results are their answers.
//! - [`read`] and [`read_group`]: the two that may wait. They sleep on [`crate::watch`]; the log never holds a poll.
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
use millstream_streams::{BlockError, Blocks, Command, Entry, EntryPage, EntryPlan, Reply, RequestId, State};
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::config::Limits;
use crate::replica::{Committed, Freshness, Replica, Unavailable};
use crate::world::World;
use convert::Result;
use errors::Failure;
use forward::{Forwarded, Forwarder};

/// Bytes of a request beside its entry: 10,000 ids or 16,384 field headers fit easily.
const REQUEST_OVERHEAD_BYTES: usize = 2 << 20;
/// gRPC's own default for the size of a message.
const REQUEST_BYTES_MIN: usize = 4 << 20;
/// How often a read is planned anew because blocks it wanted were rewritten meanwhile.
const PLANS_MAX: usize = 16;

/// The services for clients, with health and reflection. A follower forwards over `world.net`.
pub fn services(replica: Replica, world: World, limits: Limits) -> std::result::Result<Routes, String> {
    let request_bytes_max = REQUEST_BYTES_MIN.max(limits.entry_bytes_max + REQUEST_OVERHEAD_BYTES);
    let (health, reporter) = health::service();
    health::follow(replica.clone(), reporter);
    let forwarder = Arc::new(Forwarder::new(replica.clone(), world, &limits, request_bytes_max));
    let api = Arc::new(Api { replica, limits });

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
    replica: Replica,
    limits: Limits,
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
        let command = command.into();
        command.check()?;
        self.propose(request, command).await
    }

    /// Proposes a command that has been checked.
    async fn propose(&self, request: Option<RequestId>, command: Command) -> Result<Done> {
        let committed = self.replica.propose(request, command).await?;
        let receipt = Some(receipt(&committed));
        let applied = committed.applied;
        Ok(Done { reply: applied.outcome?, receipt, entries: applied.entries })
    }

    /// Waits until this node's state is as fresh as asked.
    async fn barrier(&self, freshness: Freshness) -> Result<()> {
        match self.replica.read_barrier(freshness).await {
            // Overtaken by an orderly stop: nothing was asked of the log, so nothing is unknown.
            Err(Unavailable::Stopped) if !self.replica.is_ready() => Err(Unavailable::NotReady.into()),
            reached => Ok(reached?),
        }
    }

    /// Who answers, and from how new a state.
    fn header(&self) -> Option<pb::ResponseHeader> {
        reply::header(&self.replica.position())
    }

    /// Looks at the state and reads the entries that `look` has planned for, within `bounds`, but at least one if there is
    /// one. Plans for which nothing is left yield no entries.
    fn entries<T>(
        &self,
        bounds: EntryBounds,
        look: impl Fn(&State) -> Result<(T, Vec<EntryPlan>)>,
    ) -> Result<(T, Vec<EntryPage>)> {
        let blocks = self.replica.blocks();
        let mut missing = None;
        for _ in 0..PLANS_MAX {
            // The lock is released before blocks are read: a cold read must not hold up the log.
            let (found, plans) = self.replica.with_state(&look)?;
            let mut left = bounds;
            let pages = plans.iter().map(|plan| left.run(plan, &*blocks));
            match pages.collect::<std::result::Result<Vec<_>, BlockError>>() {
                Ok(pages) => return Ok((found, pages)),
                Err(BlockError::Missing { key }) => missing = Some(key),
                Err(error) => return Err(error.into()),
            }
        }
        missing.into_iter().for_each(|key| self.replica.lost_block(key));
        Err(Failure::stopped("the state names a block that the store does not have"))
    }
}

/// What an answer may hold.
#[derive(Debug, Clone, Copy)]
struct EntryBounds {
    /// Packed bytes at most, but at least one entry whatever its size.
    bytes: usize,
    /// Entries at most.
    count: usize,
    /// There is one already.
    started: bool,
}

impl EntryBounds {
    fn new(bytes: usize, count: usize) -> Self {
        Self { bytes, count, started: false }
    }

    fn bytes(bytes: usize) -> Self {
        Self::new(bytes, usize::MAX)
    }

    /// Runs a plan within what is left, and takes that off.
    fn run(&mut self, plan: &EntryPlan, blocks: &dyn Blocks) -> std::result::Result<EntryPage, BlockError> {
        let nothing = EntryPage { entries: Vec::new(), more: true, is_full: true };
        if self.count == 0 || (self.started && self.bytes == 0) {
            return Ok(nothing);
        }
        let mut page = plan.run(blocks, self.bytes)?;
        if self.count < page.entries.len() {
            page.entries.truncate(self.count);
            page.more = true;
        }
        let bytes = page.entries.iter().map(|entry| entry.fields.packed_len()).sum();
        // A plan yields its first entry whatever its size. Only the first of all may go.
        if self.started && self.bytes < bytes {
            page = nothing;
        }
        self.started |= !page.entries.is_empty();
        // What comes after the first that does not fit does not fit either, or it would be served out of turn.
        self.bytes = if page.is_full { 0 } else { self.bytes.saturating_sub(bytes) };
        self.count -= page.entries.len();
        Ok(page)
    }
}

fn receipt(committed: &Committed) -> pb::Receipt {
    pb::Receipt { log_index: committed.log_index, term: committed.term, group_id: 0 }
}
