//! What a node is told when it starts. Every knob: unit, default, what it trades.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::NodeId;

/// The configuration of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's id: never 0, never reused, also not after its data were lost.
    pub node_id: NodeId,
    /// Where the node keeps its log and state.
    pub data_dir: PathBuf,
    /// `host:port` to listen at for clients.
    pub listen: String,
    /// `host:port` to listen at for other nodes.
    pub peer_listen: String,
    /// Where clients reach this node; followers forward to it and hints name it.
    pub advertise: String,
    /// Where other nodes reach this node.
    pub peer_advertise: String,
    /// The first members and their peer addresses. Only read while the data directory is new; the lowest id forms the
    /// cluster, the others wait for it. Empty: the node waits until it is added to a cluster.
    pub initial_members: BTreeMap<NodeId, String>,
    /// Which engine holds the state.
    pub engine: Engine,
    /// Bounds on what clients may ask of this node.
    pub limits: Limits,
    /// Raft's clockwork.
    pub raft: RaftTimes,
    /// The log on disk.
    pub log: LogOptions,
    /// When to write a checkpoint.
    pub checkpoint: CheckpointOptions,
    /// How a node looks after what it has stored.
    pub checks: CheckOptions,
    /// The door for clients of Redis.
    pub resp: RespOptions,
}

/// The engine below the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// redb 4. What a node uses unless it is told otherwise; docs/storage.md says why.
    #[default]
    Redb,
    /// sled 0.34.
    Sled,
    /// Everything in memory, and one file rewritten at each checkpoint: for tests and simulation.
    Memory,
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "redb" => Ok(Self::Redb),
            "sled" => Ok(Self::Sled),
            "memory" => Ok(Self::Memory),
            _ => Err("expected redb, sled or memory".into()),
        }
    }
}

/// Bounds that a node enforces before a command is proposed. They may differ between nodes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of names and values of one entry: 1 MiB. At most [`millstream_streams::limits::ENTRY_BYTES_MAX`].
    pub entry_bytes_max: usize,
    /// Bytes of entries in one answer: 2 MiB, plus one entry. Below gRPC's 4 MiB default on every client.
    pub response_bytes_max: usize,
    /// Calls that may wait at once (blocking reads): 10,000. Each holds a few hundred bytes.
    pub waiters_max: usize,
    /// Mutating calls that may be under way at once at this node: 8,192. More are answered OVERLOADED.
    pub proposals_max: usize,
    /// Bytes of those calls: 64 MiB. More are answered OVERLOADED.
    pub proposal_bytes_max: usize,
    /// How long a call may take when the client gives no deadline: 30 s, plus what it asks to wait.
    pub call_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry_bytes_max: 1 << 20,
            response_bytes_max: 2 << 20,
            waiters_max: 10_000,
            proposals_max: 8_192,
            proposal_bytes_max: 64 << 20,
            call_time_max: Duration::from_secs(30),
        }
    }
}

/// Raft's clockwork, in milliseconds. Shorter times mean faster failover and more false alarms: an fsync stall longer
/// than the election timeout costs an election. Failover takes up to about twice `election_ms_max`.
#[derive(Debug, Clone)]
pub struct RaftTimes {
    /// Between heartbeats: 150. Should be several times the usual fsync.
    pub heartbeat_ms: u64,
    /// Shortest election timeout: 800.
    pub election_ms_min: u64,
    /// Longest election timeout, and the leader's lease: 1,600.
    pub election_ms_max: u64,
}

impl Default for RaftTimes {
    fn default() -> Self {
        Self { heartbeat_ms: 150, election_ms_min: 800, election_ms_max: 1_600 }
    }
}

/// The log on disk.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size of a segment file in bytes: 64 MiB. Disk space is returned segment by segment.
    pub segment_bytes: u64,
    /// Entries kept in memory for followers and apply, in bytes: 32 MiB.
    pub tail_bytes_max: usize,
    /// Bytes of log kept for followers that fall behind: 512 MiB. A follower further behind gets a snapshot.
    pub bytes_kept: u64,
    /// Entries kept at most, behind the newest checkpoint: 10 million. Bounds the memory that finding them takes.
    pub entries_kept: u64,
    /// Bytes of log kept at most for a follower that is being sent a snapshot, or catches up: 4 GiB. More than is written
    /// during a transfer, or it needs another snapshot at its end.
    pub bytes_kept_for_transfer: u64,
    /// Bytes of disk kept free for what makes the state smaller: 256 MiB. With less, this node has no room for more; with
    /// less than a quarter of it, it takes no entries at all. 0: no guard.
    pub reserve_bytes: u64,
    /// How long a simulated sync takes. Only read by a flusher that runs as a task.
    pub simulated_sync: Option<Duration>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail_bytes_max: 32 << 20,
            bytes_kept: 512 << 20,
            entries_kept: 10_000_000,
            bytes_kept_for_transfer: 4 << 30,
            reserve_bytes: 256 << 20,
            simulated_sync: None,
        }
    }
}

/// When to write a checkpoint: at whichever comes first. Each node takes 0.75 to 1.25 of these bounds, by its id.
#[derive(Debug, Clone)]
pub struct CheckpointOptions {
    /// After this many entries were applied: 250,000. Bounds the replay after a restart.
    pub entries: u64,
    /// After this many bytes of log: 64 MiB. Bounds the replay as well.
    pub log_bytes: u64,
    /// When this much state has changed, in bytes: 32 MiB. Bounds memory.
    pub dirty_bytes: u64,
    /// When this much has changed and is not stored yet, in bytes: 96 MiB. Then applying waits for a checkpoint, and
    /// calls back up behind it. Bounds memory where the disk is slow; not less than `dirty_bytes`.
    pub dirty_bytes_max: u64,
    /// How often to look: 250 ms.
    pub interval: Duration,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self {
            entries: 250_000,
            log_bytes: 64 << 20,
            dirty_bytes: 32 << 20,
            dirty_bytes_max: 96 << 20,
            interval: Duration::from_millis(250),
        }
    }
}

/// How a node looks after what it has stored.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Bytes of store and log that are read again in a second, round and round: 4 MiB. 0: none. What is damaged is found
    /// within the time of a round; the reads compete with those of clients.
    pub scrub_bytes_per_second: u64,
    /// How often the leader compares the replicas' digests: 10 s. Zero: never.
    pub compare_interval: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { scrub_bytes_per_second: 4 << 20, compare_interval: Duration::from_secs(10) }
    }
}

/// The door for clients of Redis.
#[derive(Debug, Clone)]
pub struct RespOptions {
    /// `host:port` to listen at; `None`: nowhere.
    pub listen: Option<String>,
    /// How long a command waits for a leader, or for the answer of one: 4 s. An election takes about 3, and clients that wait
    /// for an answer for 5 s (redis-py does) must hear that it may be tried again.
    pub wait: Duration,
    /// Connections at once: 10,000. Each idle one costs a few KiB.
    pub connections_max: usize,
    /// Arguments of a request: 1,048,576, as in Redis.
    pub arguments_max: usize,
    /// Bytes of one argument, and of all arguments of a request: 4 MiB. What cannot be an entry is refused before it is read.
    pub argument_bytes_max: usize,
    /// Bytes of one reply: 64 MiB. Redis's replies have no bound; a larger one is refused, not cut.
    pub reply_bytes_max: usize,
    /// Bytes of requests and replies that all connections may hold together: 512 MiB. Beyond it those that hold most are
    /// closed. 0: no bound.
    pub clients_bytes_max: usize,
    /// How long a client may take to read a reply: 60 s, and 1 s for each MiB. Then its connection is closed.
    pub write_time_max: Duration,
}

impl Default for RespOptions {
    fn default() -> Self {
        Self {
            listen: None,
            wait: Duration::from_secs(4),
            connections_max: 10_000,
            arguments_max: 1 << 20,
            argument_bytes_max: 4 << 20,
            reply_bytes_max: 64 << 20,
            clients_bytes_max: 512 << 20,
            write_time_max: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// A one-member cluster on loopback with data under `./millstream-data`: what a node is without any flag.
    pub fn single_node() -> Self {
        Self {
            node_id: 1,
            data_dir: PathBuf::from("./millstream-data"),
            listen: "127.0.0.1:7420".into(),
            peer_listen: "127.0.0.1:7421".into(),
            advertise: "127.0.0.1:7420".into(),
            peer_advertise: "127.0.0.1:7421".into(),
            initial_members: BTreeMap::from([(1, "127.0.0.1:7421".into())]),
            engine: Engine::default(),
            limits: Limits::default(),
            raft: RaftTimes::default(),
            log: LogOptions::default(),
            checkpoint: CheckpointOptions::default(),
            checks: CheckOptions::default(),
            resp: RespOptions::default(),
        }
    }
}
