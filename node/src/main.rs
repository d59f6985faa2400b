//! `millstream-node`: one node of a Millstream cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millstream_node::config::{
    CheckOptions, CheckpointOptions, Config, Engine, Limits, LogOptions, RaftTimes, RespOptions,
};
use millstream_node::offline::{self, Tool};
use millstream_node::server::Server;
use millstream_node::world::World;
use tokio::signal::unix::{SignalKind, signal};

/// Half of what a full node does is to allocate in one thread and free in another. With the C library's allocator the bench
/// of bounds took 1.6 times the CPU for an entry, and what had been freed stayed resident. The program's choice, not the
/// library's: simulations keep the system's, which reads no clock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One node of a Millstream cluster. Without any flag: a cluster of one on loopback.
#[derive(Parser)]
#[command(name = "millstream-node", version)]
struct Arguments {
    /// Something to do with the data directory of a node that does not run [default: run the node]
    #[command(subcommand)]
    tool: Option<Tool>,
    /// This node's id: at least 1, and never reused, also not after its data were lost
    #[arg(long, env = "MILLSTREAM_NODE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Where the node keeps its log and state
    #[arg(long, env = "MILLSTREAM_DATA_DIR", default_value = "./millstream-data", global = true)]
    data_dir: PathBuf,
    /// Where to listen for clients
    #[arg(long, env = "MILLSTREAM_LISTEN", default_value = "127.0.0.1:7420", value_parser = address)]
    listen: String,
    /// Where to listen for other nodes
    #[arg(long, env = "MILLSTREAM_PEER_LISTEN", default_value = "127.0.0.1:7421", value_parser = address)]
    peer_listen: String,
    /// Where to listen for clients of Redis Streams; none: nowhere
    #[arg(long, env = "MILLSTREAM_RESP_LISTEN", default_value = "127.0.0.1:7379", value_parser = address_or_none)]
    resp_listen: Listen,
    /// Milliseconds that a command from there waits for a leader, before it is answered CLUSTERDOWN
    #[arg(long, env = "MILLSTREAM_RESP_WAIT_MS", default_value_t = RespOptions::default().wait.as_millis() as u64)]
    resp_wait_ms: u64,
    /// Bytes of requests and replies that all connections there may hold; beyond it those that hold most are closed. 0: any number
    #[arg(long, env = "MILLSTREAM_RESP_CLIENTS_BYTES_MAX", default_value_t = RespOptions::default().clients_bytes_max)]
    resp_clients_bytes_max: usize,
    /// Where clients reach this node [default: the address it listens at]
    #[arg(long, env = "MILLSTREAM_ADVERTISE", value_parser = address)]
    advertise: Option<String>,
    /// Where other nodes reach this node [default: the address it listens at]
    #[arg(long, env = "MILLSTREAM_PEER_ADVERTISE", value_parser = address)]
    peer_advertise: Option<String>,
    /// The first members and their peer addresses, the same list on each: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    /// [default: this node alone]
    #[arg(long, env = "MILLSTREAM_INITIAL_MEMBERS", value_delimiter = ',', value_parser = member)]
    initial_members: Vec<(u64, String)>,
    /// Wait to be added to a running cluster (`millstream cluster add`) instead of forming one
    #[arg(long, env = "MILLSTREAM_JOIN", conflicts_with = "initial_members")]
    join: bool,
    /// The engine that holds the state: redb, sled, or memory (rewrites one file at each checkpoint; small data only)
    #[arg(long, env = "MILLSTREAM_ENGINE", default_value = "redb")]
    engine: Engine,
    /// Largest entry in bytes, names and values together
    #[arg(long, env = "MILLSTREAM_ENTRY_BYTES_MAX", default_value_t = 1 << 20, value_parser = entry_bytes)]
    entry_bytes_max: usize,
    /// Milliseconds between heartbeats
    #[arg(long, env = "MILLSTREAM_HEARTBEAT_MS", default_value_t = RaftTimes::default().heartbeat_ms)]
    heartbeat_ms: u64,
    /// Shortest and longest election timeout in milliseconds: MIN-MAX
    #[arg(long, env = "MILLSTREAM_ELECTION_MS", default_value = "800-1600", value_parser = range)]
    election_ms: (u64, u64),
    /// Commands applied between checkpoints, at most
    #[arg(long, env = "MILLSTREAM_CHECKPOINT_ENTRIES", default_value_t = CheckpointOptions::default().entries)]
    checkpoint_entries: u64,
    /// Bytes of log between checkpoints, at most
    #[arg(long, env = "MILLSTREAM_CHECKPOINT_LOG_BYTES", default_value_t = CheckpointOptions::default().log_bytes)]
    checkpoint_log_bytes: u64,
    /// Bytes of changed state that start a checkpoint
    #[arg(long, env = "MILLSTREAM_CHECKPOINT_DIRTY_BYTES", default_value_t = CheckpointOptions::default().dirty_bytes)]
    checkpoint_dirty_bytes: u64,
    /// Bytes of changed state that is not stored yet, at most; commands wait for a checkpoint beyond it
    #[arg(
        long,
        env = "MILLSTREAM_CHECKPOINT_DIRTY_BYTES_MAX",
        default_value_t = CheckpointOptions::default().dirty_bytes_max
    )]
    checkpoint_dirty_bytes_max: u64,
    /// Applied commands kept in the log for nodes that fall behind
    #[arg(long, env = "MILLSTREAM_LOG_ENTRIES_KEPT", default_value_t = LogOptions::default().entries_kept)]
    log_entries_kept: u64,
    /// Bytes of a segment of the log
    #[arg(long, env = "MILLSTREAM_LOG_SEGMENT_BYTES", default_value_t = LogOptions::default().segment_bytes)]
    log_segment_bytes: u64,
    /// Bytes of log kept behind a checkpoint for nodes that fall behind
    #[arg(long, env = "MILLSTREAM_LOG_BYTES_KEPT", default_value_t = LogOptions::default().bytes_kept)]
    log_bytes_kept: u64,
    /// Bytes of log kept at most for a node that is being sent a snapshot or catches up
    #[arg(
        long,
        env = "MILLSTREAM_LOG_BYTES_KEPT_FOR_TRANSFER",
        default_value_t = LogOptions::default().bytes_kept_for_transfer
    )]
    log_bytes_kept_for_transfer: u64,
    /// Bytes of disk kept free for what makes the data smaller; growth is refused below it
    #[arg(long, env = "MILLSTREAM_LOG_RESERVE_BYTES", default_value_t = LogOptions::default().reserve_bytes)]
    log_reserve_bytes: u64,
    /// Bytes of stored data read again in a second in search of damage; 0: none
    #[arg(long, env = "MILLSTREAM_SCRUB_BYTES", default_value_t = CheckOptions::default().scrub_bytes_per_second)]
    scrub_bytes_per_second: u64,
    /// Milliseconds between comparisons of the nodes' states by the leader; 0: none
    #[arg(
        long,
        env = "MILLSTREAM_COMPARE_INTERVAL_MS",
        default_value_t = CheckOptions::default().compare_interval.as_millis() as u64
    )]
    compare_interval_ms: u64,
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT".into()),
    }
}

/// Where to listen, if anywhere.
#[derive(Debug, Clone)]
struct Listen(Option<String>);

fn address_or_none(text: &str) -> Result<Listen, String> {
    match text {
        "none" => Ok(Listen(None)),
        _ => address(text).map(|address| Listen(Some(address))).map_err(|error| error + ", or none"),
    }
}

fn member(text: &str) -> Result<(u64, String), String> {
    let (id, peer) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    match id.parse() {
        Ok(id) if 0 < id => Ok((id, address(peer)?)),
        _ => Err("a node's id is a number from 1".into()),
    }
}

fn entry_bytes(text: &str) -> Result<usize, String> {
    let max = millstream_streams::limits::ENTRY_BYTES_MAX;
    match text.parse() {
        Ok(bytes) if (1..=max).contains(&bytes) => Ok(bytes),
        _ => Err(format!("expected 1 to {max}")),
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    match text.split_once('-').map(|(min, max)| (min.parse(), max.parse())) {
        Some((Ok(min), Ok(max))) if min < max => Ok((min, max)),
        _ => Err("expected MIN-MAX".into()),
    }
}

impl Arguments {
    fn config(self) -> Result<Config, String> {
        let peer_advertise = self.peer_advertise.unwrap_or_else(|| self.peer_listen.clone());
        let mut initial_members = BTreeMap::new();
        for (id, peer) in self.initial_members {
            if initial_members.insert(id, peer).is_some() {
                return Err(format!("node {id} is named twice in --initial-members"));
            }
        }
        if initial_members.is_empty() && !self.join {
            initial_members.insert(self.node_id, peer_advertise.clone());
        }
        Ok(Config {
            node_id: self.node_id,
            data_dir: self.data_dir,
            advertise: self.advertise.unwrap_or_else(|| self.listen.clone()),
            listen: self.listen,
            peer_listen: self.peer_listen,
            peer_advertise,
            initial_members,
            engine: self.engine,
            limits: Limits { entry_bytes_max: self.entry_bytes_max, ..Limits::default() },
            raft: RaftTimes {
                heartbeat_ms: self.heartbeat_ms,
                election_ms_min: self.election_ms.0,
                election_ms_max: self.election_ms.1,
            },
            log: LogOptions {
                segment_bytes: self.log_segment_bytes,
                entries_kept: self.log_entries_kept,
                bytes_kept: self.log_bytes_kept,
                bytes_kept_for_transfer: self.log_bytes_kept_for_transfer,
                reserve_bytes: self.log_reserve_bytes,
                ..LogOptions::default()
            },
            checkpoint: CheckpointOptions {
                entries: self.checkpoint_entries,
                log_bytes: self.checkpoint_log_bytes,
                dirty_bytes: self.checkpoint_dirty_bytes,
                dirty_bytes_max: self.checkpoint_dirty_bytes_max,
                ..CheckpointOptions::default()
            },
            checks: CheckOptions {
                scrub_bytes_per_second: self.scrub_bytes_per_second,
                compare_interval: Duration::from_millis(self.compare_interval_ms),
            },
            resp: RespOptions {
                listen: self.resp_listen.0,
                wait: Duration::from_millis(self.resp_wait_ms),
                clients_bytes_max: self.resp_clients_bytes_max,
                // An entry that is too large is told so, as long as it is not much too large.
                argument_bytes_max: RespOptions::default().argument_bytes_max.max(2 * self.entry_bytes_max),
                ..RespOptions::default()
            },
        })
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    match arguments.tool.take() {
        Some(tool) => offline::run(&World::real(), &arguments.data_dir, tool),
        None => serve(arguments),
    }
}

#[tokio::main]
async fn serve(arguments: Arguments) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLSTREAM_LOG")
        // openraft and sled are talkative at info.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn,sled=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    // Without more of them, connections are refused earlier; a node serves all the same.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("millstream-node: {sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let config = arguments.config()?;
    let (node_id, listen, peer_listen) = (config.node_id, config.listen.clone(), config.peer_listen.clone());
    let resp_listen = config.resp.listen.clone().unwrap_or_else(|| "none".into());
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;

    let server = Server::start(World::real(), config).await.map_err(|error| error.to_string())?;
    tracing::info!(node_id, listen, peer_listen, resp_listen, "millstream-node is up");

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        sentence = server.failed() => Some(sentence),
    };
    tracing::info!("stopping");
    let stopped = server.shutdown().await.map_err(|error| format!("did not stop in good order: {error}"));
    failure.map_or(stopped, Err)
}
