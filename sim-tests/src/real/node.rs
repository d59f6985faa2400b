//! A node as a process.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use millstream_client::{Client, ClientOptions, NodeRole, NodeStatus};

use super::{LOOK_EVERY, Outcome, wait_for};

/// The ports of every node; nodes differ in their addresses.
const CLIENT_PORT: u16 = 7420;
const PEER_PORT: u16 = 7421;
const RESP_PORT: u16 = 7379;
/// How much of a node's log a failure shows, in bytes.
const LOG_SHOWN: u64 = 3_000;

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// The program.
    pub program: PathBuf,
    /// The node's id.
    pub id: u64,
    /// Where it listens; see [`loopback`](super::loopback).
    pub address: Ipv4Addr,
    /// Its data.
    pub data_dir: PathBuf,
    /// The first members; empty: this node alone.
    pub members: Vec<(u64, Ipv4Addr)>,
    /// `sled` and the like.
    pub engine: String,
    /// More arguments.
    pub arguments: Vec<String>,
    /// What it writes to standard error is appended here.
    pub log: PathBuf,
}

impl NodeSpec {
    /// Where clients reach it, as `host:port`.
    pub fn endpoint(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.address)
    }

    /// Where clients of Redis reach it, as `host:port`.
    pub fn resp_address(&self) -> String {
        format!("{}:{RESP_PORT}", self.address)
    }

    /// Where other nodes reach it, as `host:port`.
    pub fn peer_address(&self) -> String {
        format!("{}:{PEER_PORT}", self.address)
    }

    /// Starts the process. From the main thread only: the kernel ends a node when the thread that started it ends.
    pub fn start(&self) -> io::Result<NodeProcess> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let peer = self.peer_address();
        let mut command = Command::new(&self.program);
        command.arg("--node-id").arg(self.id.to_string()).arg("--data-dir").arg(&self.data_dir);
        command.args(["--listen", &self.endpoint(), "--peer-listen", &peer, "--engine", &self.engine]);
        command.args(["--resp-listen", &self.resp_address()]);
        if !self.members.is_empty() {
            let members = self.members.iter().map(|(id, address)| format!("{id}={address}:{PEER_PORT}"));
            command.arg("--initial-members").arg(members.collect::<Vec<_>>().join(","));
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env("NO_COLOR", "1");
        // SAFETY: prctl is async-signal-safe and touches nothing but this process's own attributes.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(NodeProcess { child: command.spawn()?, spec: self.clone(), started: Instant::now() })
    }
}

/// The program of a node: `given`, or the one beside this executable.
pub fn program(given: Option<&Path>) -> Outcome<PathBuf> {
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("millstream-node"));
    let path = given.map_or_else(beside, |given| Ok(given.to_owned()))?;
    if path.is_file() {
        return Ok(path);
    }
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    Err(format!("{} is missing: cargo build{profile} -p millstream-node, or name it with --node", path.display())
        .into())
}

/// A running node, killed when it is dropped.
pub struct NodeProcess {
    child: Child,
    spec: NodeSpec,
    started: Instant,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// The most that ever was.
    pub peak: u64,
}

impl NodeProcess {
    /// How it was started.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Ends it at once (SIGKILL) and waits for the end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Sends SIGKILL without waiting for the end.
    pub fn strike(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Asks it to stop (SIGTERM) and waits for the end, at most `patience`.
    pub async fn stop(&mut self, patience: Duration) -> Outcome<()> {
        // SAFETY: a plain system call; the process is our child and not yet waited for, so the id is its own.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let start = Instant::now();
        while start.elapsed() < patience {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None => tokio::time::sleep(LOOK_EVERY / 4).await,
            }
        }
        Err(format!("node {} did not stop within {} s", self.spec.id, patience.as_secs()).into())
    }

    /// An error if it has ended, with the last it said.
    pub fn check(&mut self) -> Outcome<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> Box<dyn std::error::Error + Send + Sync> {
        format!("node {} has ended ({status}); the end of its log:\n{}", self.spec.id, self.log_tail()).into()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.spec.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }

    /// Its memory.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        match (bytes("VmRSS:"), bytes("VmHWM:")) {
            (Some(now), Some(peak)) => Ok(Memory { now, peak }),
            _ => Err(io::Error::other("the kernel does not tell the memory of a process")),
        }
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // After the name in parentheses, which may hold anything: fields 14 and 15 of proc(5), in ticks of 10 ms.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum::<u64>();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// Waits until it serves: it knows a leader and answers a read that needs one.
    pub async fn ready(&mut self, patience: Duration) -> Outcome<Duration> {
        let client = client(&[self.spec.endpoint()], Duration::from_secs(1))?;
        loop {
            self.check()?;
            if client.list_streams("no such stream", None).await.is_ok() {
                return Ok(self.started.elapsed());
            }
            if patience < self.started.elapsed() {
                return Err(format!("node {} does not serve after {} s", self.spec.id, patience.as_secs()).into());
            }
            tokio::time::sleep(LOOK_EVERY / 4).await;
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of these endpoints.
pub fn client(endpoints: &[String], deadline: Duration) -> Outcome<Client> {
    Ok(Client::connect(ClientOptions { deadline, ..ClientOptions::new(endpoints) })?)
}

/// The endpoint of the node that leads.
pub async fn leader(endpoints: &[String], patience: Duration) -> Outcome<(String, NodeStatus)> {
    let client = client(endpoints, Duration::from_secs(1))?;
    wait_for("a leader", patience, async || {
        for endpoint in endpoints {
            if let Ok(status) = client.status(endpoint).await
                && status.role() == NodeRole::Leader
            {
                return Ok(Some((endpoint.clone(), status)));
            }
        }
        Ok(None)
    })
    .await
}

/// Waits until all these nodes have applied the same log, and returns its index. The same log and different states are
/// an error at once.
pub async fn agreed(endpoints: &[String], patience: Duration) -> Outcome<u64> {
    let client = client(endpoints, Duration::from_secs(1))?;
    wait_for("agreement of the nodes", patience, async || {
        let mut first: Option<NodeStatus> = None;
        for endpoint in endpoints {
            let Ok(status) = client.status(endpoint).await else { return Ok(None) };
            let first = first.get_or_insert_with(|| status.clone());
            if status.applied_index != first.applied_index || status.leader_id == 0 {
                return Ok(None);
            }
            if status.state_digest != first.state_digest || status.state_digest.is_empty() {
                let (index, ours, theirs) = (status.applied_index, &first.state_digest, &status.state_digest);
                let nodes = (first.node_id, status.node_id);
                return Err(
                    format!("at index {index} the nodes {nodes:?} have the digests {ours:?}, {theirs:?}").into()
                );
            }
        }
        Ok(first.map(|status| status.applied_index))
    })
    .await
}
