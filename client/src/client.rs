//! The handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::admin::v1 as admin;
use millstream_proto::v1 as pb;
use tokio::time::Instant;

use crate::endpoints::{self, Endpoints};
use crate::session::Lane;
use crate::transport::Pool;
use crate::{Connector, Error, Freshness, NodeStatus, Rpc, TcpConnector};

/// How many sessions one call may lose before the refusal is its answer. A store that forgets a session as soon as it
/// has opened it would otherwise be asked for ever.
const SESSIONS_LOST_MAX: u32 = 3;

/// A source of random numbers, for the spacing of repeats.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How to reach a cluster. Start from [`ClientOptions::new`] or the default and set what differs.
#[derive(Clone)]
pub struct ClientOptions {
    /// Some nodes as `host:port`; one that answers is enough to find the others. Default: `127.0.0.1:7420`.
    pub endpoints: Vec<String>,
    /// How long a call may take with all its repeats, beyond the time it was asked to wait for entries. Longer rides
    /// out slower elections; shorter fails sooner. Default: 10 seconds.
    pub deadline: Duration,
    /// How long making a connection may take before another node is tried. Default: 1 second.
    pub connect_timeout: Duration,
    /// Whether changing calls carry numbers in a session, so that they can be repeated safely. Costs a command when the
    /// client first changes something. Default: true.
    pub sessions: bool,
    /// Makes connections. Default: TCP.
    pub connector: Arc<dyn Connector>,
    /// Draws the spacing of repeats. Default: the thread's generator.
    pub random: Random,
}

impl ClientOptions {
    /// The defaults, for these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:7420".to_owned()],
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            sessions: true,
            connector: Arc::new(TcpConnector),
            random: Arc::new(rand::random),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, deadline, connect_timeout, sessions, connector: _, random: _ } = self;
        f.debug_struct("ClientOptions")
            .field("endpoints", endpoints)
            .field("deadline", deadline)
            .field("connect_timeout", connect_timeout)
            .field("sessions", sessions)
            .finish_non_exhaustive()
    }
}

/// A handle to a cluster. Clones share connections, sessions and what is known of the leader.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Duration,
    pub(crate) freshness: Freshness,
}

pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    pub(crate) pool: Pool,
    pub(crate) sessions: bool,
    /// For calls that answer at once.
    pub(crate) quick: Lane,
    /// For calls that wait, which would hold back the others' session.
    pub(crate) waiting: Lane,
    pub(crate) random: Random,
}

impl Client {
    /// Checks the options. Nothing is sent yet: connections and sessions are opened by the calls that need them.
    pub fn connect(options: ClientOptions) -> Result<Self, Error> {
        let ClientOptions { endpoints, deadline, connect_timeout, sessions, connector, random } = options;
        let shared = Shared {
            endpoints: Endpoints::new(&endpoints)?,
            pool: Pool::new(connector, connect_timeout),
            sessions,
            quick: Lane::default(),
            waiting: Lane::default(),
            random,
        };
        Ok(Self { shared: Arc::new(shared), deadline, freshness: Freshness::default() })
    }

    /// The same client with another deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same client whose reads are this fresh.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self { freshness, ..self.clone() }
    }

    /// The endpoints it was given, as `host:port`.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.shared.endpoints.list().iter().map(|address| &**address)
    }

    /// The address of the leader, as far as it is known.
    pub fn leader(&self) -> Option<String> {
        self.shared.endpoints.leader().map(|address| address.to_string())
    }

    /// Sends `request` and returns its answer, after as many repeats as that takes within the deadline. The client adds
    /// the request identity and the freshness: what `request` holds there is replaced, unless sessions are off.
    pub async fn call<R: Rpc>(&self, mut request: R) -> Result<R::Response, Error> {
        let wait = request.wait().and_then(|wait| *wait).and_then(|wait| Duration::try_from(wait).ok());
        let deadline = Instant::now() + self.deadline + wait.unwrap_or_default();
        if let Some(options) = request.options() {
            *options = Some(self.freshness.into());
        }
        let mut request = Arc::new(request);
        if !R::MUTATES || !self.shared.sessions {
            return self.exchange(&mut request, deadline).await;
        }
        let lane = if wait.is_some() { &self.shared.waiting } else { &self.shared.quick };
        let mut sessions_lost = 0;
        loop {
            let ticket = self.begin(lane, deadline).await?;
            if let Some(identity) = Arc::make_mut(&mut request).identity() {
                *identity = Some(ticket.identity());
            }
            match self.exchange(&mut request, deadline).await {
                // Nothing of this call has been applied, or the outcome would be unknown: it starts over.
                Err(Error::Refused { reason: pb::ErrorReason::SessionNotFound, .. })
                    if sessions_lost < SESSIONS_LOST_MAX =>
                {
                    sessions_lost += 1;
                    lane.forget(ticket.session());
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks one node for its view of the cluster, once: no other node is asked in its place.
    pub async fn status(&self, endpoint: &str) -> Result<NodeStatus, Error> {
        let address = endpoints::parse(endpoint)?;
        self.ask_once(&address, admin::GetStatusRequest {}, Instant::now() + self.deadline).await
    }

    /// Closes the sessions of this client and its clones, so that the cluster need not remember them until they expire.
    /// Later calls open new ones; calls in flight may end with an error.
    pub async fn close(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.deadline;
        for lane in [&self.shared.quick, &self.shared.waiting] {
            for session_id in lane.take() {
                self.exchange(&mut Arc::new(pb::CloseSessionRequest { session_id }), deadline).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.shared.endpoints.list()).finish_non_exhaustive()
    }
}
