//! A client of the Redis door, at any node.
//!
//! It is of our own making, and small: a client of others would bring its own retries and its own reading of errors,
//! and what is wanted here is exactly one attempt for each call and all that the reply says. What clients of others
//! make of the door is seen with real processes (docs/redis.md).
//!
//! One connection to one node, until that node does not answer, or says that it cannot serve; then the next one's turn
//! comes.

mod commands;
mod wire;

use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use self::wire::{Reply, Request};
use crate::entropy::Rng;
use crate::history::{Action, Outcome};
use crate::marks::Marks;
use crate::net::{SimNet, TracedStream};

/// Where a node's door is.
pub(crate) const PORT: u16 = 7379;
/// A client goes to another node of its own accord after so many calls, on average.
const MOVE_ONE_IN: u64 = 60;
/// After so many changes it asks whether followers have them, on average.
const WAIT_ONE_IN: u64 = 25;

/// A client of the door.
pub(super) struct DoorClient {
    net: SimNet,
    /// `host:port` of the doors that it knows.
    doors: Vec<String>,
    /// Which of them is its own now.
    at: usize,
    /// How long it bears with one call.
    patience: Duration,
    rng: Rng,
    marks: Marks,
    connection: Option<Connection>,
}

struct Connection {
    stream: TracedStream,
    input: Vec<u8>,
}

/// Why there is no reply.
enum Lost {
    /// The request has not left.
    NotSent(String),
    /// It may have arrived.
    Open(String),
    /// What came is no reply, or nobody has asked for it.
    Senseless(String),
}

impl DoorClient {
    /// A client of the nodes that serve gRPC at these endpoints. It is not connected yet.
    pub(super) fn new(net: SimNet, endpoints: &[String], mut rng: Rng, patience: Duration, marks: Marks) -> Self {
        let host = |endpoint: &String| endpoint.split(':').next().unwrap_or_default().to_owned();
        let doors: Vec<_> = endpoints.iter().map(|endpoint| format!("{}:{PORT}", host(endpoint))).collect();
        let at = rng.below(doors.len().max(1) as u64) as usize;
        Self { net, doors, at, patience, rng, marks, connection: None }
    }

    /// The action as this client can ask for it; `None`: it cannot.
    pub(super) fn suited(action: &Action) -> Option<Action> {
        commands::suited(action)
    }

    /// Asks for it once. May be dropped: then the connection is gone as well.
    pub(super) async fn perform(&mut self, action: &Action) -> Outcome {
        if self.rng.one_in(MOVE_ONE_IN) {
            self.go_on();
        }
        let connection = self.connection.take();
        let deadline = Instant::now() + self.patience;
        let outcome = match self.ask(connection, deadline, &commands::requests(action)).await {
            Ok(reply) => commands::outcome(action, reply),
            Err(Lost::NotSent(problem)) => Outcome::NothingChanged { reason: String::new(), text: problem },
            Err(Lost::Open(problem)) => Outcome::Unknown(problem),
            Err(Lost::Senseless(what)) => commands::senseless(&what),
        };
        if !action.is_question() && !outcome.is_nothing() && self.rng.one_in(WAIT_ONE_IN) {
            self.wait(deadline).await;
        }
        let reason = match &outcome {
            Outcome::NothingChanged { reason, .. } => reason.as_str(),
            Outcome::Unknown(_) => "UNKNOWN",
            _ => "",
        };
        self.marks.mark(match reason {
            "NO_LEADER" => "door_clusterdown",
            "OVERLOADED" => "door_tryagain",
            "NOT_READY" => "door_loading",
            "DISK_FULL" => "door_oom",
            "UNKNOWN" => "door_outcome_unknown",
            _ if outcome.is_nothing() => "door_refused",
            _ => "door_answered",
        });
        if self.connection.is_none() || ["NO_LEADER", "NOT_READY"].contains(&reason) {
            self.go_on();
        }
        outcome
    }

    /// Asks whether followers have stored what was just written, which every write that was answered is; how many the
    /// leader knows of, and whether it can be asked, is another matter.
    async fn wait(&mut self, deadline: Instant) {
        let connection = self.connection.take();
        if connection.is_none() {
            return;
        }
        match self.ask(connection, deadline, &[Request::of("WAIT 1 200")]).await {
            Ok(Reply::Integer(1..)) => self.marks.mark("door_wait_confirmed"),
            Ok(Reply::Integer(0)) => self.marks.mark("door_wait_in_vain"),
            _ => self.marks.mark("door_wait_failed"),
        }
    }

    /// To the next node.
    fn go_on(&mut self) {
        self.connection = None;
        self.at = (self.at + 1) % self.doors.len().max(1);
    }

    /// Sends the requests at once, and waits for the last reply. The connection is kept if that came.
    async fn ask(
        &mut self,
        connection: Option<Connection>,
        deadline: Instant,
        requests: &[Request],
    ) -> Result<Reply, Lost> {
        let connection = connection.map(Connection::still_there).transpose()?.flatten();
        let mut connection = match connection {
            Some(connection) => connection,
            None => {
                let stream = tokio::time::timeout_at(deadline, self.net.open(&self.doors[self.at])).await;
                let stream = stream.map_err(|_| Lost::NotSent("no connection in time".into()))?;
                let stream = stream.map_err(|error| Lost::NotSent(error.to_string()))?;
                Connection { stream, input: Vec::new() }
            }
        };
        let exchange = tokio::time::timeout_at(deadline, connection.exchange(requests)).await;
        let reply = exchange.unwrap_or_else(|_| Err(Lost::Open("no reply in time".into())))?;
        self.connection = Some(connection);
        Ok(reply)
    }
}

impl Connection {
    /// The connection, unless the node is known to have closed it.
    fn still_there(mut self) -> Result<Option<Self>, Lost> {
        match self.stream.read_buf(&mut self.input).now_or_never() {
            None => Ok(Some(self)),
            Some(Ok(0) | Err(_)) => Ok(None),
            Some(Ok(_)) => Err(self.unasked()),
        }
    }

    /// Nothing has been asked, and something has come.
    fn unasked(&self) -> Lost {
        Lost::Senseless(format!("nobody has asked for {}", String::from_utf8_lossy(&self.input)))
    }

    async fn exchange(&mut self, requests: &[Request]) -> Result<Reply, Lost> {
        let words = |error: std::io::Error| Lost::Open(error.to_string());
        let mut out = Vec::new();
        requests.iter().for_each(|request| request.encode(&mut out));
        self.stream.write_all(&out).await.map_err(words)?;
        let (mut left, mut complaint) = (requests.len(), None);
        loop {
            while let Some((reply, length)) = wire::decode(&self.input).map_err(Lost::Senseless)? {
                self.input.drain(..length);
                left = left.saturating_sub(1);
                match reply {
                    // Why EXEC refuses.
                    Reply::Error(text) if 0 < left => complaint = complaint.or(Some(text)),
                    _ if left == 0 && !self.input.is_empty() => return Err(self.unasked()),
                    reply if left == 0 => return Ok(complaint.map_or(reply, Reply::Error)),
                    _ => {}
                }
            }
            if self.stream.read_buf(&mut self.input).await.map_err(words)? == 0 {
                return Err(Lost::Open("the node has closed the connection".into()));
            }
        }
    }
}
