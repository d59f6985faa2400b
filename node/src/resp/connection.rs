//! One connection: requests in the order in which they come, replies in the same order.
//!
//! Writes that stand one after the other in a pipeline go into one entry of the log and share its commit. Everything else is
//! done by itself, and nothing is begun before what stands before it has ended.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use millstream_streams::{Command, Entry, Guard, Outcome, Query, Reply as Done, State};
use tokio::sync::watch;

use super::arguments::Complaint;
use super::clients::{Client, Connected};
use super::dispatch::{self, Action, Found};
use super::door::Door;
use super::ops::{self, Ops};
use super::reply::{Reply, Version, Written};
use super::request::Bounds;
use super::streams;
use super::wire::Wire;
use crate::front::{self, Denied};
use crate::world::BoxedIo;

/// Commands of one pipeline that share an entry of the log, at most.
const RUN_MAX: usize = 256;
/// Bytes of requests that do.
const RUN_BYTES_MAX: usize = 1 << 20;
/// What an argument takes beside its bytes.
pub(super) const ARGUMENT_BYTES: usize = 32;
/// Arguments of requests that do, most of which may be ids: a batch has a bound on those.
const RUN_ARGUMENTS_MAX: usize = 50_000;

/// Which replies are sent (CLIENT REPLY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// All but the next.
    Skip,
}

/// What MULTI has begun.
#[derive(Debug, Default)]
pub(super) struct Multi {
    pub(super) queued: Vec<(Found, Vec<Bytes>)>,
    pub(super) bytes: usize,
    /// A command could not be queued: EXEC will refuse all.
    pub(super) is_broken: bool,
}

pub(super) struct Connection {
    pub(super) door: Arc<Door>,
    pub(super) client: Arc<Client>,
    _connected: Connected,
    pub(super) wire: Wire,
    pub(super) version: Version,
    pub(super) replies: Replies,
    pub(super) multi: Option<Multi>,
    /// What WATCH has seen.
    pub(super) watched: Vec<Guard>,
    /// Log index of the last write of this connection: what WAIT is about.
    pub(super) last_write: u64,
    pub(super) closing: bool,
    /// About how many bytes that take which it is at: requests that are being done, replies that come together.
    pub(super) at: usize,
}

/// Requests of a pipeline that are answered together.
#[derive(Default)]
struct Run {
    waiting: Vec<Waiting>,
    commands: usize,
    bytes: usize,
    arguments: usize,
    /// Whether they make the state larger.
    grows: bool,
}

enum Waiting {
    Ready(Reply),
    Ops(Ops),
}

/// Serves a connection until it ends.
pub(super) async fn serve(door: Arc<Door>, mut io: BoxedIo, stop: watch::Receiver<bool>) {
    let options = &door.options;
    let Some(connected) = door.clients.connect(io.peer(), options.connections_max) else {
        door.count(&door.refused_connections);
        // It is told why, if it listens.
        let refusal = tokio::io::AsyncWriteExt::write_all(&mut io, b"-ERR max number of clients reached\r\n");
        let _ = tokio::time::timeout(options.write_time_max, refusal).await;
        return;
    };
    let bounds = Bounds {
        arguments_max: options.arguments_max,
        argument_bytes_max: options.argument_bytes_max,
        request_bytes_max: options.argument_bytes_max,
    };
    let wire = Wire::new(io, bounds, options.write_time_max);
    let mut connection = Connection {
        client: connected.client.clone(),
        _connected: connected,
        wire,
        version: Version::Two,
        replies: Replies::On,
        multi: None,
        watched: Vec::new(),
        last_write: 0,
        closing: false,
        at: 0,
        door,
    };
    let client = connection.client.clone();
    tokio::select! {
        biased;
        // In the midst of whatever it does: a client that does not read its replies holds them.
        () = client.killed.notified() => {}
        ended = connection.run(stop) => if let Err(error) = ended {
            tracing::debug!(client = client.id, %error, "a connection of the Redis door broke off");
        }
    }
}

impl Connection {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        loop {
            self.all_that_arrived().await?;
            self.wire.send().await?;
            if self.closing {
                return Ok(());
            }
            self.weigh();
            tokio::select! {
                biased;
                // The sender is gone only when the whole node is.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                more = self.wire.fill() => if !more? { return Ok(()) },
            }
            self.weigh();
        }
    }

    async fn all_that_arrived(&mut self) -> io::Result<()> {
        let mut run = Run::default();
        while !self.closing {
            match self.wire.next() {
                // Boxed: an idle connection need not be as large as the largest command.
                Ok(Some(request)) => Box::pin(self.request(request, &mut run)).await?,
                Ok(None) => break,
                Err(error) => {
                    self.finish(&mut run).await?;
                    self.reply(&Reply::Error(format!("ERR Protocol error: {error}")));
                    self.closing = true;
                }
            }
        }
        self.finish(&mut run).await
    }

    /// Does one request, or puts it off to be done with those that follow.
    async fn request(&mut self, request: Vec<Bytes>, run: &mut Run) -> io::Result<()> {
        self.door.count(&self.door.commands);
        let found = match dispatch::find(&request) {
            Ok(found) => found,
            Err(Complaint(text)) => {
                let text = self.not_a_request(&request, text);
                return self.put(run, Reply::Error(text)).await;
            }
        };
        let names = (found.command.name, found.subcommand.map(|subcommand| subcommand.name));
        self.client.facts(|facts| (facts.command, facts.last_used) = (names, Some(tokio::time::Instant::now())));
        if self.multi.is_some() && !found.command.ends_multi() {
            let reply = self.queue(found, request);
            return self.put(run, reply).await;
        }
        let bytes = request.iter().map(Bytes::len).sum::<usize>();
        match self.action(found, &request) {
            Err(Complaint(text)) => self.put(run, Reply::Error(text)).await,
            Ok(Action::Reply(reply)) => self.put(run, reply).await,
            Ok(Action::Ops(ops)) if ops.can_share() => {
                let count = ops.commands.len();
                // What makes room must not be refused together with what needs it.
                let grows = ops.commands.iter().any(Command::grows);
                let is_full = RUN_MAX < run.commands + count
                    || RUN_BYTES_MAX < run.bytes + bytes
                    || RUN_ARGUMENTS_MAX < run.arguments + request.len();
                if 0 < run.commands && (is_full || grows != run.grows) {
                    self.finish(run).await?;
                }
                (run.commands, run.bytes, run.grows) = (run.commands + count, run.bytes + bytes, grows);
                run.arguments += request.len();
                run.waiting.push(Waiting::Ops(ops));
                self.at = run.bytes + run.arguments * ARGUMENT_BYTES;
                self.weigh();
                Ok(())
            }
            Ok(action) => {
                self.finish(run).await?;
                self.at = bytes + request.len() * ARGUMENT_BYTES;
                self.weigh();
                if found.command.has("blocking") {
                    // Nobody knows how long it takes, and what stands before it has been answered.
                    self.wire.send().await?;
                }
                let reply = match action {
                    Action::Reply(reply) => Some(reply),
                    Action::Ops(ops) if ops.only_asks() => Some(self.ask(ops).await),
                    Action::Ops(ops) => self.write(vec![ops]).await.pop(),
                    Action::Range(query, count) => Some(self.range(query, count).await),
                    Action::Read(read, wait) => self.read(read, wait).await,
                    Action::ReadGroup(read, wait) => self.read_group(read, wait).await,
                    Action::Here => self.here(found, &request, true).await,
                };
                if let Some(reply) = reply {
                    self.reply(&reply);
                }
                self.at = 0;
                self.wire.send_much().await
            }
        }
    }

    /// What a request means, within this node's bounds.
    pub(super) fn action(&self, found: Found, request: &[Bytes]) -> Result<Action, Complaint> {
        let action = dispatch::action(found, request)?;
        let bytes_max = self.door.front().limits.entry_bytes_max;
        if let Action::Ops(ops) = &action
            && let Some(Command::Append(append)) = ops.commands.first()
            && bytes_max < append.fields.byte_len()
        {
            return Err(Complaint::err(format!("an entry may have {bytes_max} bytes at most")));
        }
        Ok(action)
    }

    /// Answers after what is still to be done before it.
    async fn put(&mut self, run: &mut Run, reply: Reply) -> io::Result<()> {
        if run.waiting.is_empty() {
            self.reply(&reply);
            return self.wire.send_much().await;
        }
        run.waiting.push(Waiting::Ready(reply));
        // Not without end: what is ready takes room, too.
        if 2 * RUN_MAX < run.waiting.len() { self.finish(run).await } else { Ok(()) }
    }

    /// Does what was put off, and answers it.
    async fn finish(&mut self, run: &mut Run) -> io::Result<()> {
        let Run { waiting, .. } = std::mem::take(run);
        if waiting.is_empty() {
            return Ok(());
        }
        let is_ready = |waiting: &Waiting| matches!(waiting, Waiting::Ready(_));
        let ready: Vec<bool> = waiting.iter().map(is_ready).collect();
        let (mut replies, mut all) = (Vec::new(), Vec::new());
        for waiting in waiting {
            match waiting {
                Waiting::Ready(reply) => replies.push(reply),
                Waiting::Ops(ops) => all.push(ops),
            }
        }
        let mut written = self.write(all).await.into_iter();
        self.at = 0;
        let mut replies = replies.into_iter();
        for is_ready in ready {
            let reply = if is_ready { replies.next() } else { written.next() };
            if let Some(reply) = reply {
                self.reply(&reply);
            }
        }
        self.wire.send_much().await
    }

    /// Answers, unless the client does not want to be.
    pub(super) fn reply(&mut self, reply: &Reply) {
        if matches!(reply, Reply::Error(_)) {
            self.door.count(&self.door.errors);
        }
        match self.replies {
            Replies::On => {
                self.wire.put(reply, self.version);
                self.weigh();
            }
            Replies::Off => {}
            Replies::Skip => self.replies = Replies::On,
        }
    }

    /// Notes how many bytes it holds: what waits to be read, done or sent, and what it is at.
    pub(super) fn weigh(&self) {
        self.door.clients.hold(&self.client, self.held());
    }

    fn held(&self) -> usize {
        self.wire.held() + self.multi.as_ref().map_or(0, |multi| multi.bytes) + self.at
    }

    /// Does all of these as one entry of the log, and tells what came of each.
    async fn write(&mut self, all: Vec<Ops>) -> Vec<Reply> {
        let mut batch = ops::batch(&all, Vec::new());
        let results = match batch.operations.len() {
            0 | 1 => match batch.operations.pop() {
                Some(one) => self.perform(one).await.map(|result| vec![result]),
                None => Ok(Vec::new()),
            },
            _ => match self.perform(batch.into()).await {
                Ok((Ok(Done::Batched(batched)), entries)) => Ok(ops::apart(&all, batched.results, entries)),
                Ok((Err(refusal), _)) => Err(refusal.into()),
                Ok(_) => Err(Denied::Broken("the reply does not fit the command")),
                Err(denied) => Err(denied),
            },
        };
        match results {
            Ok(results) => {
                let mut results = results.into_iter();
                let tell = |ops: Ops| {
                    let mine = results.by_ref().take(ops.commands.len()).collect();
                    ops.tell(mine)
                };
                all.into_iter().map(tell).collect()
            }
            Err(denied) => all.iter().map(|_| self.door.denied(&denied)).collect(),
        }
    }

    /// Does a command, wherever the leader is. A refusal is an outcome.
    pub(super) async fn perform(&mut self, command: Command) -> front::Result<ops::Result> {
        let (outcome, entries): (Outcome, _) = match self.door.anywhere.perform(command, self.door.patience()).await {
            Ok(done) => {
                self.last_write = self.last_write.max(done.log_index);
                (Ok(done.reply), done.entries)
            }
            Err(Denied::Refused(refusal)) => (Err(refusal), Vec::new()),
            Err(denied) => return Err(denied),
        };
        Ok((outcome, entries))
    }

    /// Answers questions from this node's state.
    async fn ask(&mut self, ops: Ops) -> Reply {
        if let Err(denied) = self.door.barrier().await {
            return self.door.denied(&denied);
        }
        if ops.is_about_presence() {
            let there = |state: &State| ops.commands.iter().map(|command| is_there(state, command)).collect();
            let there = self.door.front().replica.with_state(there);
            return ops.tell_presence(there);
        }
        let mut results = Vec::with_capacity(ops.commands.len());
        for command in &ops.commands {
            let Command::Query(query) = command else { continue };
            results.push(match self.answer(query) {
                Ok(result) => result,
                Err(denied) => return self.door.denied(&denied),
            });
        }
        ops.tell(results)
    }

    fn answer(&self, query: &Query) -> front::Result<ops::Result> {
        match self.door.front().ask(query, self.door.options.reply_bytes_max) {
            Ok(answered) => Ok((Ok(Done::Answer(answered.answer)), answered.entries)),
            Err(Denied::Refused(refusal)) => Ok((Err(refusal), Vec::new())),
            Err(denied) => Err(denied),
        }
    }

    async fn range(&mut self, query: millstream_streams::RangeQuery, count: Option<u64>) -> Reply {
        if let Err(denied) = self.door.barrier().await {
            return self.door.denied(&denied);
        }
        let bytes_max = self.door.options.reply_bytes_max;
        let (door, client, held) = (self.door.clone(), self.client.clone(), self.held());
        let mut written = Written::new(self.version);
        let take = |entries: &[Entry]| {
            entries.iter().for_each(|entry| written.push(&streams::tell::entry(entry)));
            door.clients.hold(&client, held + written.held());
            if bytes_max < written.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match door.front().whole_range(query, count, take).await {
            Ok(ControlFlow::Continue(())) => Reply::Written(written),
            Ok(ControlFlow::Break(())) => {
                Reply::Error(format!("ERR the reply would have more than {bytes_max} bytes; use COUNT"))
            }
            Err(denied) => self.door.denied(&denied),
        }
    }

    /// How many connections there are, and have ever been refused.
    pub(super) fn refused_connections(&self) -> u64 {
        self.door.refused_connections.load(Ordering::Relaxed)
    }
}

/// Whether there is the stream, or the group, that a question is about.
fn is_there(state: &State, command: &Command) -> bool {
    match command {
        Command::Query(Query::Stream(stream)) => state.last_change_index(stream).is_some(),
        Command::Query(Query::PendingSummary { stream, group }) => state.group_has_new(stream, group).is_ok(),
        _ => false,
    }
}
