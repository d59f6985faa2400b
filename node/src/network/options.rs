//! The clockwork and the bounds of the network between nodes.

use std::time::Duration;

/// How the network behaves. The defaults suit nodes within a few milliseconds of each other.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// How long a connection may take to be made: 500 ms.
    pub connect_timeout: Duration,
    /// Between the pings of an HTTP/2 connection, idle or not: 1 s.
    pub keep_alive_interval: Duration,
    /// How long a ping may stay unanswered before the connection is given up: 1 s.
    pub keep_alive_timeout: Duration,
    /// How long a channel may give no answer at all before a timed-out call condemns it: 500 ms. Shorter finds dead
    /// connections earlier; but a heartbeat also times out because the peer's disk is slow, and a new connection does
    /// not help then.
    pub silence_max: Duration,
    /// How long an answer on the replication stream may take while requests are outstanding: 2 s. It waits for the
    /// peer's fsync, so it must be well above a bad one.
    pub answer_timeout: Duration,
    /// Deadline of a call for which openraft gives none (read index, register): 1 s.
    pub call_timeout: Duration,
    /// HTTP/2 flow control window of a stream, in bytes: 4 MiB. Bounds what is on its way unread, and so the throughput
    /// over a long line.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow control window of a connection, in bytes: 8 MiB.
    pub connection_window_bytes: u32,
    /// Largest message, in bytes: 32 MiB. The log reader hands out far less than this at a time.
    pub message_bytes_max: usize,
    /// Bytes of a snapshot in one message: 512 KiB. Kept within 1 byte and 1 MiB, which is what a receiver takes.
    pub snapshot_chunk_bytes: usize,
    /// How long the other end of a snapshot transfer may be silent: 10 s. There is no bound on the whole.
    pub snapshot_idle_timeout: Duration,
    /// How long a peer that is asked for a snapshot may say that it is being made without any progress: 2 minutes. It may
    /// have to write a checkpoint first, on a slow disk, and that is seen only when it is done.
    pub snapshot_stall_timeout: Duration,
    /// At most one warning about the same peer's identity in this time: 10 s.
    pub warning_interval: Duration,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(1),
            silence_max: Duration::from_millis(500),
            answer_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(1),
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 8 << 20,
            message_bytes_max: 32 << 20,
            snapshot_chunk_bytes: 512 << 10,
            snapshot_idle_timeout: Duration::from_secs(10),
            snapshot_stall_timeout: Duration::from_secs(120),
            warning_interval: Duration::from_secs(10),
        }
    }
}
