//! What a node is handed: file system, clock, randomness, spawning, network, abort, and who watches it.
//!
//! The server names none of the process's own resources; it takes a [`World`]. Production builds one from the machine
//! ([`World::real`]), the simulator from a seed. Nothing here is process-global, so many nodes live in one process.
//!
//! Two things are not seams: openraft and tonic sleep and spawn through tokio, whose time the simulator owns as a whole.

mod abort;
mod clock;
mod fs;
mod net;
mod probe;
mod random;
mod rpc;
mod spawn;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use abort::{Abort, ProcessAbort};
pub use clock::{Clock, SystemClock};
pub use fs::{File, Fs, OpenMode, RealFs};
pub use net::{BoxedIo, Connect, Incoming, Net, TcpNet};
pub use probe::{Look, MARKS, NoProbe, Probe};
pub use random::{OsRandom, Random};
pub use rpc::{NoTap, OnAnswer, OnRequest, RpcKind, RpcTap};
pub use spawn::{FlushTask, Job, Spawn, ThreadSpawn};

/// Everything a node takes from outside. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Files and directories.
    pub fs: Arc<dyn Fs>,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable numbers: incarnations and cluster ids.
    pub random: Arc<dyn Random>,
    /// Where the log's flusher and blocking work run.
    pub spawn: Arc<dyn Spawn>,
    /// Listening and connecting.
    pub net: Arc<dyn Net>,
    /// What befalls calls to peers.
    pub rpc: Arc<dyn RpcTap>,
    /// How a node dies of a fault it must not survive.
    pub abort: Arc<dyn Abort>,
    /// Who watches.
    pub probe: Arc<dyn Probe>,
}

impl World {
    /// The machine itself.
    pub fn real() -> Self {
        Self {
            fs: Arc::new(RealFs),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            spawn: Arc::new(ThreadSpawn),
            net: Arc::new(TcpNet),
            rpc: Arc::new(NoTap),
            abort: Arc::new(ProcessAbort),
            probe: Arc::new(NoProbe),
        }
    }

    /// Runs a job that may block on files where that is allowed, and gives its result. Resolves never if the job was
    /// given up before it began: this node is being dropped then, and that is no failure of the job.
    pub async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, result) = tokio::sync::oneshot::channel();
        let began = Arc::new(AtomicBool::new(false));
        let begins = began.clone();
        let run = move || {
            begins.store(true, Ordering::Release);
            // Whoever asked may be gone.
            drop(answer.send(job()));
        };
        self.spawn.blocking(Box::new(run)).await;
        match result.await {
            Ok(result) => result,
            Err(_) if began.load(Ordering::Acquire) => Err(io::Error::other("a job on files panicked")),
            Err(_) => std::future::pending().await,
        }
    }
}
