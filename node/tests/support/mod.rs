//! Whole nodes in one process, on real files and a network of channels: no ports, and a node can be cut off or killed.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_client::{Client, ClientOptions};
use millstream_node::config::Config;
use millstream_node::replica::Status;
use millstream_node::server::{Server, StartError};
use millstream_node::world::{Abort, BoxedIo, Connect, Fs, Incoming, Net, ProcessAbort, World};
use tokio::sync::mpsc;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes in flight on one connection.
const PIPE_BYTES: usize = 256 << 10;

/// A network of channels. Each node sees it through its own [`Port`].
#[derive(Default)]
pub(crate) struct Network {
    listeners: Mutex<BTreeMap<String, mpsc::UnboundedSender<BoxedIo>>>,
}

impl Network {
    pub(crate) fn connect(&self, address: &str) -> io::Result<tokio::io::DuplexStream> {
        let listeners = self.listeners.lock().expect("no panic under this lock");
        let listener = listeners.get(address).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        listener.send(BoxedIo::new(far)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

struct Port(Arc<Network>);

/// Ends the tests if a node must not go on; but not because it is being killed, which cancels its jobs under its hands.
struct UnlessKilled(Arc<AtomicBool>);

impl Abort for UnlessKilled {
    fn abort(&self, reason: &str) {
        if !self.0.load(Ordering::SeqCst) {
            ProcessAbort.abort(reason);
        }
    }
}

impl Net for Port {
    fn listen(&self, address: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let mut listeners = self.0.listeners.lock().expect("no panic under this lock");
        let taken = listeners.get(address).is_some_and(|listener| !listener.is_closed());
        if !taken {
            listeners.insert(address.to_owned(), sender);
        }
        Box::pin(async move {
            if taken {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let incoming = futures::stream::poll_fn(move |cx| accepted.poll_recv(cx).map(|io| io.map(Ok)));
            Ok(Box::pin(incoming) as Incoming)
        })
    }

    fn connect(&self, address: &str) -> Connect {
        let connected = self.0.connect(address).map(BoxedIo::new);
        Box::pin(async move { connected })
    }
}

/// A cluster of nodes, each with a runtime and a directory of its own.
pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) configs: BTreeMap<u64, Config>,
    disks: BTreeMap<u64, Arc<dyn Fs>>,
    running: BTreeMap<u64, Running>,
}

struct Running {
    runtime: tokio::runtime::Runtime,
    server: Server,
    killed: Arc<AtomicBool>,
}

impl Cluster {
    /// Starts `nodes` nodes, after `adjust` has had a look at each configuration.
    pub(crate) fn start(nodes: u64, adjust: impl Fn(&mut Config)) -> Self {
        Self::start_on(nodes, adjust, |_| World::real().fs)
    }

    /// The same, each node with a file system of its own.
    pub(crate) fn start_on(nodes: u64, adjust: impl Fn(&mut Config), disk: impl Fn(u64) -> Arc<dyn Fs>) -> Self {
        let mut cluster = Self::prepare_on(nodes, adjust, disk);
        for id in 1..=nodes {
            cluster.boot(id).expect("the node starts");
        }
        cluster
    }

    /// Nodes that are not started yet.
    pub(crate) fn prepare(nodes: u64, adjust: impl Fn(&mut Config)) -> Self {
        Self::prepare_on(nodes, adjust, |_| World::real().fs)
    }

    fn prepare_on(nodes: u64, adjust: impl Fn(&mut Config), disk: impl Fn(u64) -> Arc<dyn Fs>) -> Self {
        // `MILLSTREAM_LOG=debug cargo test … -- --nocapture` shows what the nodes say.
        let filter = tracing_subscriber::EnvFilter::from_env("MILLSTREAM_LOG");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let directory = tempfile::tempdir().expect("a directory");
        let members: BTreeMap<u64, String> = (1..=nodes).map(|id| (id, peer(id))).collect();
        let mut cluster = Self {
            network: Arc::default(),
            directory,
            configs: BTreeMap::new(),
            disks: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for id in 1..=nodes {
            let mut config = cluster.config(id);
            config.initial_members = members.clone();
            adjust(&mut config);
            cluster.configs.insert(id, config);
            cluster.disks.insert(id, disk(id));
        }
        cluster
    }

    fn config(&self, id: u64) -> Config {
        let mut config = Config::single_node();
        config.node_id = id;
        config.data_dir = self.data_dir(id);
        (config.listen, config.advertise) = (client_address(id), client_address(id));
        (config.peer_listen, config.peer_advertise) = (peer(id), peer(id));
        config.log.segment_bytes = 1 << 20;
        config
    }

    /// Starts a node that waits to be added.
    pub(crate) fn join(&mut self, id: u64, adjust: impl Fn(&mut Config)) -> Result<(), StartError> {
        let mut config = self.config(id);
        config.initial_members = BTreeMap::new();
        adjust(&mut config);
        self.configs.insert(id, config);
        self.boot(id)
    }

    /// Makes a node of another cluster reachable under the addresses of node `name` of this one.
    pub(crate) fn adopt(&mut self, other: &Self, id: u64, name: u64) {
        let theirs = other.network.listeners.lock().expect("no panic under this lock");
        let mut ours = self.network.listeners.lock().expect("no panic under this lock");
        for (from, to) in [(peer(id), peer(name)), (client_address(id), client_address(name))] {
            if let Some(listener) = theirs.get(&from) {
                ours.insert(to, listener.clone());
            }
        }
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.directory.path().join(format!("node-{id}"))
    }

    /// Starts a node that is not running.
    pub(crate) fn boot(&mut self, id: u64) -> Result<(), StartError> {
        assert!(!self.running.contains_key(&id), "node {id} runs");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let killed = Arc::new(AtomicBool::new(false));
        let abort = Arc::new(UnlessKilled(killed.clone()));
        let (net, fs) = (Arc::new(Port(self.network.clone())), self.disks.get(&id).cloned());
        let real = World::real();
        let world = World { net, fs: fs.unwrap_or_else(|| real.fs.clone()), abort, ..real };
        let server = runtime.block_on(Server::start(world, self.configs[&id].clone()));
        match server {
            Ok(server) => {
                self.running.insert(id, Running { runtime, server, killed });
                Ok(())
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Ends a node without a word, as `kill -9` does: no checkpoint, no farewell.
    pub(crate) fn kill(&mut self, id: u64) {
        let Running { runtime, server, killed } = self.running.remove(&id).expect("it runs");
        killed.store(true, Ordering::SeqCst);
        runtime.shutdown_timeout(PATIENCE);
        drop(server);
    }

    /// Stops a node in good order.
    pub(crate) fn stop(&mut self, id: u64) {
        let Running { runtime, server, killed } = self.running.remove(&id).expect("it runs");
        runtime.block_on(server.shutdown()).expect("it stops in good order");
        killed.store(true, Ordering::SeqCst);
        runtime.shutdown_timeout(PATIENCE);
    }

    pub(crate) fn running(&self) -> BTreeSet<u64> {
        self.running.keys().copied().collect()
    }

    pub(crate) fn server(&self, id: u64) -> &Server {
        &self.running[&id].server
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.server(id).replica().status()
    }

    /// Waits until the running nodes agree on a leader that is one of them, and says which.
    pub(crate) fn leader(&self) -> u64 {
        self.eventually("a leader", || {
            let leaders: BTreeSet<_> = self.running.keys().map(|id| self.status(*id).leader_id).collect();
            match leaders.iter().copied().collect::<Vec<_>>()[..] {
                [Some(leader)] if self.running.contains_key(&leader) => Some(leader),
                _ => None,
            }
        })
    }

    /// Waits until the running nodes have applied the same log, and gives its last index.
    pub(crate) fn converged(&self) -> u64 {
        self.eventually("equal states", || {
            let states: BTreeSet<_> = self
                .running
                .keys()
                .map(|id| {
                    let status = self.status(*id);
                    (status.applied_index, status.last_log_index, status.state_digest)
                })
                .collect();
            match states.iter().collect::<Vec<_>>()[..] {
                [(applied, last, _)] if applied == last => Some(*applied),
                _ => None,
            }
        })
    }

    /// Polls until there is an answer.
    pub(crate) fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = std::time::Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if PATIENCE <= start.elapsed() {
                for id in self.running.keys() {
                    eprintln!("{:#?}", self.status(*id));
                }
                panic!("no {what} in time");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client that starts with these nodes.
    pub(crate) fn client(&self, nodes: impl IntoIterator<Item = u64>) -> Client {
        let network = self.network.clone();
        let connector = move |address: String| {
            let connected = network.connect(&address);
            async move { connected }
        };
        let mut options = ClientOptions::new(nodes.into_iter().map(client_address));
        options.connector = Arc::new(connector);
        options.deadline = PATIENCE;
        Client::connect(options).expect("sound options")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.running() {
            self.kill(id);
        }
    }
}

pub(crate) fn client_address(id: u64) -> String {
    format!("n{id}:7420")
}

pub(crate) fn peer(id: u64) -> String {
    format!("n{id}:7421")
}

/// Runs a client's work.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(2 * PATIENCE, work).await.expect("done in time") })
}

/// Removes a directory and all that is in it.
pub(crate) fn wipe(path: &Path) {
    std::fs::remove_dir_all(path).expect("removable");
}

/// The files below a directory, with their contents.
pub(crate) fn image(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("lists") {
            let found = entry.expect("lists").path();
            if found.is_dir() {
                directories.push(found);
            } else {
                let name = found.strip_prefix(path).expect("is below").to_owned();
                files.insert(name, std::fs::read(&found).expect("reads"));
            }
        }
    }
    files
}

/// Writes them to a directory.
pub(crate) fn write_image(path: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, content) in files {
        let file = path.join(name);
        std::fs::create_dir_all(file.parent().expect("has one")).expect("creates");
        std::fs::write(file, content).expect("writes");
    }
}
