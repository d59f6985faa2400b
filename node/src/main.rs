//! `millstream-node`: one node of a Millstream cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millstream_node::config::{CheckpointOptions, Config, Engine, Limits, LogOptions, RaftTimes};
use millstream_node::server::Server;
use millstream_node::world::World;
use tokio::signal::unix::{SignalKind, signal};

/// One node of a Millstream cluster. Without any flag: a cluster of one on loopback.
#[derive(Parser)]
#[command(name = "millstream-node", version)]
struct Arguments {
    /// This node's id: at least 1, and never reused, also not after its data were lost
    #[arg(long, env = "MILLSTREAM_NODE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Where the node keeps its log and state
    #[arg(long, env = "MILLSTREAM_DATA_DIR", default_value = "./millstream-data")]
    data_dir: PathBuf,
    /// Where to listen for clients
    #[arg(long, env = "MILLSTREAM_LISTEN", default_value = "127.0.0.1:7420", value_parser = address)]
    listen: String,
    /// Where to listen for other nodes
    #[arg(long, env = "MILLSTREAM_PEER_LISTEN", default_value = "127.0.0.1:7421", value_parser = address)]
    peer_listen: String,
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
    /// The engine that holds the state: sled, or memory (rewrites one file at each checkpoint; small data only)
    #[arg(long, env = "MILLSTREAM_ENGINE", default_value = "sled", value_parser = engine)]
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
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT".into()),
    }
}

fn member(text: &str) -> Result<(u64, String), String> {
    let (id, peer) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    match id.parse() {
        Ok(id) if 0 < id => Ok((id, address(peer)?)),
        _ => Err("a node's id is a number from 1".into()),
    }
}

fn engine(text: &str) -> Result<Engine, String> {
    match text {
        "sled" => Ok(Engine::Sled),
        "memory" => Ok(Engine::Memory),
        _ => Err("expected sled or memory".into()),
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
        if initial_members.is_empty() {
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
            log: LogOptions::default(),
            checkpoint: CheckpointOptions::default(),
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLSTREAM_LOG")
        // openraft and sled are talkative at info.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn,sled=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

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
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;

    let server = Server::start(World::real(), config).await.map_err(|error| error.to_string())?;
    tracing::info!(node_id, listen, peer_listen, "millstream-node is up");

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        sentence = server.failed() => Some(sentence),
    };
    tracing::info!("stopping");
    let stopped = server.shutdown().await.map_err(|error| format!("did not stop in good order: {error}"));
    failure.map_or(stopped, Err)
}
