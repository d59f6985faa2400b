//! One channel to one peer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use millstream_proto::internal::v1::raft_service_client::RaftServiceClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{NetworkOptions, PeerError};
use crate::world::World;

/// HTTP/2 frame size: 256 KiB. With the default of 16 KiB a batch of entries is cut into a hundred pieces.
pub(super) const FRAME_BYTES: u32 = 256 << 10;

/// What a channel is for. Separate connections, so that a heartbeat waits for no batch and no batch for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Append,
    Control,
    Snapshot,
    /// What clients ask of this node and only the leader can do.
    Commands,
}

/// A channel, and when it last proved to be alive.
pub(super) struct Link {
    pub(super) address: String,
    client: RaftServiceClient<Channel>,
    heard: Mutex<Instant>,
}

impl Link {
    /// Connects when first used. Must be called within tokio.
    pub(super) fn new(world: &World, address: &str, options: &NetworkOptions) -> Result<Self, PeerError> {
        let bad_address = |error| PeerError::Unreachable(format!("{address:?} is not an address: {error}"));
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(bad_address)?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(options.keep_alive_interval)
            .keep_alive_timeout(options.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(options.stream_window_bytes)
            .initial_connection_window_size(options.connection_window_bytes)
            .max_frame_size(FRAME_BYTES);
        let net = world.net.clone();
        let dialled = address.to_owned();
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connect = net.connect(&dialled);
            async move { connect.await.map(TokioIo::new) }
        }));
        let client = RaftServiceClient::new(channel)
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(options.message_bytes_max);
        Ok(Self { address: address.to_owned(), client, heard: Mutex::new(Instant::now()) })
    }

    pub(super) fn client(&self) -> RaftServiceClient<Channel> {
        self.client.clone()
    }

    /// An answer came.
    pub(super) fn touch(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the last answer; without one, since the link was made.
    pub(super) fn silence(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
