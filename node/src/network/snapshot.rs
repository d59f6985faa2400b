//! What the network needs to know of a snapshot: how to read it, and where to write it.

use std::any::Any;
use std::io;

use futures::future::BoxFuture;

use crate::types::{SnapshotMeta, Vote};

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
    /// Names these bytes: another attempt with the same goes on where the one before broke off.
    fn id(&self) -> u64;
    /// How many.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buf` from `offset` on. Blocks.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A snapshot that somebody wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// Names its bytes.
    pub id: u64,
    /// How many there are.
    pub length: u64,
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The sender's vote.
    pub vote: Vote,
}

/// What becomes of an offered snapshot.
pub enum Reception {
    /// It is to be sent.
    Wanted(Box<dyn SnapshotSink>),
    /// It is here already; resolves with this node's vote when it is installed.
    InHand(BoxFuture<'static, Result<Vote, String>>),
}

/// Where a snapshot goes as it arrives. Dropped unfinished, what has arrived is kept for another attempt.
pub trait SnapshotSink: Send {
    /// How many bytes it has, from this or an earlier attempt.
    fn received(&self) -> u64;
    /// Takes the next bytes. Blocks.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;
    /// For the replica, which knows what it is.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}
