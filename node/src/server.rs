//! A whole node: data directory, log, replica, and the two listeners.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::Router;

use crate::config::Config;
use crate::front::{Front, Leading};
use crate::network::{NetworkOptions, raft_service, server_builder};
use crate::replica::{self, Replica, ReplicaParts};
use crate::storage::{DataDir, DataDirError, Wal, WalError, WalOptions};
use crate::watch::Watch;
use crate::world::{Incoming, World};

/// A silent connection is asked for a sign of life after this long, and closed if none comes: a peer that lost power
/// says nothing.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// HTTP/2 windows: a batch of large entries must not wait for credit.
const WINDOW_BYTES: u32 = 4 << 20;
/// Calls under way on one connection. Bounded elsewhere; this only keeps a client from being refused before that.
const STREAMS_MAX: u32 = 16_384;
/// How long calls under way may take to end when the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is in use, another node's, or not ours at all.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be recovered.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The replica cannot start.
    #[error(transparent)]
    Replica(#[from] replica::StartError),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {error}; choose another address or stop what uses it")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The services cannot be put together.
    #[error("the services cannot be put together: {0}; this is a fault of the program, please report it")]
    Services(String),
}

/// A running node.
pub struct Server {
    replica: Replica,
    wal: Wal,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a node and returns once it listens; it may not have a leader yet.
    pub async fn start(world: World, config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&world, &config.data_dir, config.node_id)?;
        // Listening first: whoever has the address may be another node with the same configuration.
        let clients = listen(&world, &config.listen).await?;
        let peers = listen(&world, &config.peer_listen).await?;
        let resp_options = config.resp.clone();
        let resp = match &resp_options.listen {
            Some(address) => Some(listen(&world, address).await?),
            None => None,
        };

        let options = WalOptions {
            segment_bytes: config.log.segment_bytes,
            tail_bytes_max: config.log.tail_bytes_max,
            must_exist: data_dir.identity().has_log,
            simulated_sync_latency: config.log.simulated_sync,
            ..WalOptions::default()
        };
        let wal = Wal::open(&world, &data_dir.wal_path(), options)?;
        data_dir.set_has_log()?;
        let watch = Watch::new(config.limits.waiters_max);
        let limits = config.limits.clone();
        let parts = ReplicaParts { world: world.clone(), config, data_dir, log: wal.group(0), watch };
        let replica = match Replica::start(parts).await {
            Ok(replica) => replica,
            Err(error) => {
                // Whoever tries again must find nobody at work on the files.
                wal.close().await;
                return Err(error.into());
            }
        };

        let (stop, stopping) = watch::channel(false);
        let options = NetworkOptions::default();
        let front = Front::new(replica.clone(), limits);
        let commands = Arc::new(Leading(front.clone()));
        let raft = raft_service(world.clone(), replica.calls(), commands, replica.peer_context(), options.clone());
        let peer_router = server_builder(&options).add_service(raft);
        let door = resp
            .map(|incoming| crate::resp::serve(front.clone(), world.clone(), resp_options, incoming, stopping.clone()));
        let client_service = crate::api::services(front, world).map_err(StartError::Services)?;
        let client_router = client_builder().add_routes(client_service);
        let mut listeners = vec![
            serve("peers", peer_router, peers, stopping.clone()),
            serve("clients", client_router, clients, stopping),
        ];
        listeners.extend(door);
        Ok(Self { replica, wal, stop, listeners })
    }

    /// The node's replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Resolves with a sentence for the operator when the node must stop.
    pub async fn failed(&self) -> String {
        self.replica.failed().await
    }

    /// Stops in good order: no new calls, leadership handed over, a checkpoint, the log flushed.
    pub async fn shutdown(self) -> io::Result<()> {
        let stopped = self.replica.shutdown().await;
        self.stop.send_replace(true);
        for listener in self.listeners {
            let abort = listener.abort_handle();
            // Connections that stay open (a client's idle channel) are cut off.
            if tokio::time::timeout(DRAIN, listener).await.is_err() {
                abort.abort();
            }
        }
        self.wal.close().await;
        stopped
    }
}

async fn listen(world: &World, address: &str) -> Result<Incoming, StartError> {
    let listening = world.net.listen(address).await;
    listening.map_err(|error| StartError::Listen { address: address.to_owned(), error })
}

fn client_builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(Some(STREAMS_MAX))
}

fn serve(who: &'static str, router: Router, incoming: Incoming, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let signal = async move {
            // The sender is gone only when the whole node is.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, signal).await {
            tracing::error!(%error, "the listener for {who} has stopped");
        }
    })
}
