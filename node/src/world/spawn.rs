//! Where the log's flusher and blocking work run.

use std::future::Future;
use std::pin::Pin;

/// The log's flusher, to be run in one of two ways.
pub trait FlushTask: Send + 'static {
    /// Waits for work and flushes it, until the log is closed. Blocks: wants a thread of its own.
    fn run(self: Box<Self>);
    /// The same as a future, for a world without threads.
    fn run_async(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A closure that blocks on files.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// Runs the flusher and blocking jobs.
pub trait Spawn: Send + Sync + 'static {
    /// Starts the flusher.
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> std::io::Result<()>;
    /// Runs a job that may block on files, and resolves when it has returned. A panic in the job ends the returned
    /// future without running what follows it.
    fn blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Threads: one for the flusher, tokio's pool for the rest.
pub struct ThreadSpawn;

impl Spawn for ThreadSpawn {
    fn spawn_flusher(&self, task: Box<dyn FlushTask>) -> std::io::Result<()> {
        std::thread::Builder::new().name("wal-flusher".into()).spawn(move || task.run()).map(drop)
    }

    fn blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if let Err(failed) = tokio::task::spawn_blocking(job).await {
                tracing::error!(%failed, "a blocking job did not finish");
            }
        })
    }
}
