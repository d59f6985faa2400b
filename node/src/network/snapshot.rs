//! What the network needs to know of a snapshot: how to read it, and where to write it.

use std::any::Any;
use std::io;

use crate::world::World;

/// A snapshot as openraft hands it around. The state machine's `SnapshotData` is a box of this.
#[tonic::async_trait]
pub trait SnapshotSource: Send + Sync + 'static {
    /// Lays the snapshot out as bytes that do not change while they are sent.
    async fn spool(&self) -> io::Result<Box<dyn SnapshotBytes>>;
    /// For the state machine, which knows what it is.
    fn as_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// The bytes of a snapshot.
pub trait SnapshotBytes: Send + Sync {
    /// How many.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buf` from `offset` on. Blocks.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Where a snapshot goes as it arrives. Dropped unfinished, it must leave nothing behind.
pub trait SnapshotSink: Send {
    /// Takes the next bytes. Blocks.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;
    /// All bytes were written: puts them on stable storage. Blocks.
    fn finish(&mut self) -> io::Result<()>;
    /// For the replica, which knows what it is.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// Runs a job that blocks on files, and gives its result.
pub(super) async fn blocking<T: Send + 'static>(
    world: &World,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    // Nobody may be listening any more: the transfer was cancelled.
    world.spawn.blocking(Box::new(move || drop(done.send(job())))).await;
    result.await.unwrap_or_else(|_| Err(io::Error::other("the job did not finish")))
}
