//! XREAD and XREADGROUP, which may wait: until there is something, the time is over, the client is gone, or somebody says so.

use std::future::Future;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use millstream_streams::{Delivered, Delivery, Found, ReadGroup, ReadStreams, Refusal, Reply as Done};
use tokio::time::Instant;

use super::clients::{Blocked, Unblock};
use super::connection::Connection;
use super::reply::Reply;
use super::streams::{Wait, tell};
use crate::front::{Denied, EntryBounds, StreamPage};
use crate::replica::Freshness;

/// For ever, as clocks go: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

fn deadline(wait: Wait) -> Instant {
    let now = Instant::now();
    let most = now + FOREVER;
    match wait {
        Wait::Forever => most,
        Wait::For(wait) => now.checked_add(wait).map_or(most, |end| end.min(most)),
    }
}

/// What CLIENT UNBLOCK ERROR tells the one that waited.
fn unblocked() -> Reply {
    Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())
}

impl Connection {
    /// XREAD. `None`: the client is gone.
    pub(super) async fn read(&mut self, read: ReadStreams, wait: Option<Wait>) -> Option<Reply> {
        if let Err(refusal) = millstream_streams::Command::from(millstream_streams::Query::Read(read.clone())).check() {
            return Some(Reply::Error(format!("ERR {refusal}")));
        }
        let door = self.door.clone();
        let front = door.front();
        let total_max = if read.total_max == 0 { usize::MAX } else { read.total_max as usize };
        let bytes_max = usize::try_from(read.bytes_max).unwrap_or(usize::MAX);
        let bytes_max = if bytes_max == 0 { usize::MAX } else { bytes_max }.min(front.limits.response_bytes_max);
        let bounds = EntryBounds::new(bytes_max, total_max);
        let deadline = wait.map(deadline);
        if let Err(denied) = self.door.barrier().await {
            return Some(door.denied(&denied));
        }
        let client = self.client.clone();
        // Whoever sees that this client waits must be able to rely on its position.
        let blocked: OnceLock<Blocked<'_>> = OnceLock::new();
        let waits = || {
            blocked.get_or_init(|| Blocked::new(&door.clients, &client));
        };
        // Another barrier is not needed: the one before was asked for after the request had come.
        let fresh = Freshness::Local { min_applied_index: 0 };
        let reading = front.read(fresh, read.streams.clone(), read.count, bounds, deadline, waits);
        let enough = async {
            loop {
                client.unblocked.notified().await;
                // Not for a wait before this one.
                if let Some(how) = blocked.get().and_then(Blocked::ended) {
                    return how;
                }
            }
        };
        let found = tokio::select! {
            biased;
            found = self.while_there(reading) => found?,
            how = enough => match how {
                Unblock::Error => return Some(unblocked()),
                Unblock::Timeout => Ok(Vec::new()),
            }
        };
        Some(match found {
            Ok(pages) => told(&read, pages),
            Err(denied) => door.denied(&denied),
        })
    }

    /// XREADGROUP. `None`: the client is gone; what is being delivered then stays pending, as in Redis.
    pub(super) async fn read_group(&mut self, read: ReadGroup, wait: Option<Wait>) -> Option<Reply> {
        let (door, client) = (self.door.clone(), self.client.clone());
        let blocked: OnceLock<Blocked<'_>> = OnceLock::new();
        let waits = || {
            blocked.get_or_init(|| Blocked::new(&door.clients, &client));
        };
        let enough = async {
            loop {
                client.unblocked.notified().await;
                // Not for a wait before this one.
                if blocked.get().and_then(Blocked::ended).is_some() {
                    return;
                }
            }
        };
        let deadline = wait.map_or_else(Instant::now, deadline);
        let reading = door.anywhere.read_group(read.clone(), deadline, door.patience(), enough, &waits);
        let done = self.while_there(reading).await?;
        Some(match done {
            Ok(Some(done)) => {
                self.last_write = self.last_write.max(done.log_index);
                match done.reply {
                    Done::Delivered(delivered) => tell::read_group(&read, &delivered, &mut done.entries.into_iter()),
                    _ => door.denied(&Denied::Broken("the reply does not fit the command")),
                }
            }
            Ok(None) if blocked.get().and_then(Blocked::ended) == Some(Unblock::Error) => unblocked(),
            Ok(None) => {
                let nothing = Delivery { ids: Vec::new(), claimed: Vec::new() };
                let streams = read.streams.iter().map(|_| nothing.clone()).collect();
                let delivered = Delivered { streams, more: false };
                tell::read_group(&read, &delivered, &mut Vec::new().into_iter())
            }
            Err(Denied::Refused(Refusal::GroupNotFound { stream, .. } | Refusal::StreamNotFound { stream })) => {
                Reply::Error(format!(
                    "NOGROUP No such key '{stream}' or consumer group '{}' in XREADGROUP with GROUP option",
                    read.group
                ))
            }
            Err(denied) => door.denied(&denied),
        })
    }

    /// Does something, and gives it up if the client goes away while it waits. What the client sends meanwhile is kept, within
    /// bounds; one that has said all it has to say is answered.
    pub(super) async fn while_there<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let client = self.client.clone();
        let waits = || client.facts(|facts| facts.blocked);
        let ahead_max = self.door.options.argument_bytes_max;
        let mut work = std::pin::pin!(work);
        let mut said_all = false;
        loop {
            // While it waits all is read, or nobody would notice that the client has gone.
            let has_room = self.wire.has_room() || waits();
            if ahead_max < self.wire.ahead() {
                tracing::debug!(client = client.id, "a client that waits has sent too much meanwhile");
                break;
            }
            // Whether it waits is known only once it has been polled.
            let working = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if (said_all || !has_room) && waits() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                biased;
                done = working => match done {
                    Some(done) => return Some(done),
                    None if said_all => break,
                    None => {}
                },
                more = self.wire.fill(), if has_room && !said_all => said_all = !more.unwrap_or(false),
            }
            self.weigh();
        }
        self.closing = true;
        None
    }
}

fn told(read: &ReadStreams, pages: Vec<StreamPage>) -> Reply {
    let found: Vec<Found> = pages
        .iter()
        .map(|StreamPage { next_after, page, .. }| Found {
            ids: page.entries.iter().map(|entry| entry.id).collect(),
            next_after: *next_after,
            more: page.more,
        })
        .collect();
    if found.is_empty() {
        return Reply::NullArray;
    }
    let payloads: Vec<_> = pages.into_iter().flat_map(|page| page.page.entries).map(Some).collect();
    tell::read(read, &found, &mut payloads.into_iter())
}
