//! The bytes of one connection: requests in, replies out, both within bounds.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reply::{Reply, Version};
use super::request::{Bounds, Parser, ProtocolError};
use crate::world::BoxedIo;

/// First read of an idle connection, in bytes: what one costs while it waits.
const READ_MIN: usize = 4 << 10;
/// Reads of a busy one.
const READ_MAX: usize = 64 << 10;
/// Replies are sent once they have so many bytes; and when there is no other request.
const WRITE: usize = 64 << 10;
/// Bytes that may arrive while a request is being answered. One that waits reads on, or it would not notice that its client
/// has gone.
const AHEAD_MAX: usize = 64 << 10;

pub(super) struct Wire {
    io: BoxedIo,
    parser: Parser,
    input: BytesMut,
    output: BytesMut,
    write_time_max: Duration,
}

impl Wire {
    pub(super) fn new(io: BoxedIo, bounds: Bounds, write_time_max: Duration) -> Self {
        Self { io, parser: Parser::new(bounds), input: BytesMut::new(), output: BytesMut::new(), write_time_max }
    }

    /// The next request, if it has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        self.parser.next(&mut self.input)
    }

    /// Waits for more bytes; false: there will be none. May be given up: what has arrived stays.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        if self.input.is_empty() && READ_MIN < self.input.capacity() {
            self.input = BytesMut::new();
        }
        // Grows with what arrives, never with what is announced.
        let more = if self.input.len() < READ_MIN { READ_MIN } else { READ_MAX };
        self.input.reserve(more);
        Ok(0 < self.io.read_buf(&mut self.input).await?)
    }

    /// Whether more may arrive before what is here has been answered.
    pub(super) fn has_room(&self) -> bool {
        self.input.len() < AHEAD_MAX
    }

    /// Bytes that have arrived and nobody has looked at.
    pub(super) fn ahead(&self) -> usize {
        self.input.len()
    }

    /// Bytes that it keeps of what has arrived and of what is to be sent.
    pub(super) fn held(&self) -> usize {
        // What is empty goes before the next read.
        let input = if self.input.is_empty() { 0 } else { self.input.capacity() };
        input + self.parser.held() + self.output.capacity()
    }

    /// Adds a reply; it is sent with others.
    pub(super) fn put(&mut self, reply: &Reply, version: Version) {
        reply.encode(version, &mut self.output);
    }

    /// Sends what has come together, if it is much.
    pub(super) async fn send_much(&mut self) -> io::Result<()> {
        if WRITE <= self.output.len() { self.send().await } else { Ok(()) }
    }

    /// Sends all replies. A client that reads them too slowly is given up.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        let mib = u32::try_from(self.output.len() >> 20).unwrap_or(u32::MAX);
        let deadline = tokio::time::Instant::now() + self.write_time_max + mib * Duration::from_secs(1);
        while !self.output.is_empty() {
            let writing = tokio::time::timeout_at(deadline, self.io.write_buf(&mut self.output));
            if writing.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if READ_MIN < self.output.capacity() {
            self.output = BytesMut::new();
        }
        self.io.flush().await
    }
}
