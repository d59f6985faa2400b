//! The end of a node that must not go on.

/// Ends this node. After a failed fsync, an undecodable command or a dead Raft core the node may not answer anything:
/// it stops and recovers from what is on disk.
pub trait Abort: Send + Sync + 'static {
    /// Stops the node because of `reason`. In production it does not return; in simulation it marks the host as dead
    /// and returns, so the caller must give up as well (by an error or by never answering).
    fn abort(&self, reason: &str);
}

/// Ends the process at once, without destructors.
pub struct ProcessAbort;

impl Abort for ProcessAbort {
    fn abort(&self, reason: &str) {
        tracing::error!(reason, "this node cannot go on and stops");
        eprintln!("millstream-node: fatal: {reason}");
        std::process::abort();
    }
}
