//! One HTTP/2 connection per address, made when first needed and replaced after a failure.
//!
//! This speaks to hyper itself rather than through `tonic::transport::Channel`, for one fact that a channel does not
//! tell: whether a request that failed had left. Only then may a call without a request identity be repeated. It also
//! saves the channel's queue and its task switch on every call. What is given up: balancing, TLS and reconnection in
//! the background.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use http::header::{HeaderValue, USER_AGENT};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::Connector;
use crate::endpoints::Address;

/// How often a connection is probed. With the timeout below, a node that vanished without a word is noticed within
/// four seconds, about as long as an election may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a probe may go unanswered; a loaded node answers late.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2's default of 64 KiB would let one page of entries wait for a round trip.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const AGENT: &str = concat!("millstream-client/", env!("CARGO_PKG_VERSION"));

/// A failure below gRPC.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TransportError {
    /// The request has not left this machine.
    #[error("{0}")]
    NotSent(String),
    /// The connection failed after the request may have left.
    #[error("{0}")]
    Lost(String),
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    send: http2::SendRequest<tonic::body::Body>,
    origin: http::Uri,
    number: u64,
}

impl Connection {
    /// The scheme and authority of requests.
    pub(crate) fn origin(&self) -> http::Uri {
        self.origin.clone()
    }

    /// Distinguishes this connection from earlier and later ones of its pool.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        // A closed connection hands the request back, which says more than an error here.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let sending = self.send.try_send_request(request);
        Box::pin(async move {
            sending.await.map_err(|mut failed| {
                let not_sent = failed.take_message().is_some();
                let message = with_causes(failed.error());
                if not_sent { TransportError::NotSent(message) } else { TransportError::Lost(message) }
            })
        })
    }
}

type Connecting = Shared<BoxFuture<'static, Result<Connection, TransportError>>>;

/// The connections of a client.
pub(crate) struct Pool {
    connector: Arc<dyn Connector>,
    timeout: Duration,
    // A std mutex: it is held for a look-up and never across an await.
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_address: BTreeMap<Address, (u64, Connecting)>,
    last_number: u64,
}

impl Pool {
    /// `timeout` bounds the making of a connection.
    pub(crate) fn new(connector: Arc<dyn Connector>, timeout: Duration) -> Self {
        Self { connector, timeout, slots: Mutex::default() }
    }

    /// The connection to `address`. Calls that arrive while it is being made share the attempt and its failure.
    pub(crate) async fn get(&self, address: &Address) -> Result<Connection, TransportError> {
        loop {
            let (number, connecting) = self.slot(address);
            let connected = connecting.await;
            let closed = connected.as_ref().is_ok_and(|connection| connection.send.is_closed());
            if closed || connected.is_err() {
                self.discard(address, number);
            }
            if !closed {
                return connected;
            }
        }
    }

    fn slot(&self, address: &Address) -> (u64, Connecting) {
        let mut slots = self.slots();
        if let Some(slot) = slots.by_address.get(address) {
            return slot.clone();
        }
        slots.last_number += 1;
        let number = slots.last_number;
        let connecting = connect(self.connector.clone(), address.clone(), number, self.timeout).boxed().shared();
        slots.by_address.insert(address.clone(), (number, connecting.clone()));
        (number, connecting)
    }

    /// The next call makes a new connection, unless that has happened already. Calls on the old one go on.
    pub(crate) fn discard(&self, address: &Address, number: u64) {
        let mut slots = self.slots();
        if slots.by_address.get(address).is_some_and(|(current, _)| *current == number) {
            slots.by_address.remove(address);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(
    connector: Arc<dyn Connector>,
    address: Address,
    number: u64,
    timeout: Duration,
) -> Result<Connection, TransportError> {
    let failed = |problem: String| TransportError::NotSent(format!("cannot connect to {address}: {problem}"));
    let connecting = async {
        let io = connector.connect(&address).await.map_err(|error| failed(error.to_string()))?;
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| failed(with_causes(&error)))
    };
    let made = tokio::time::timeout(timeout, connecting).await;
    let (send, connection) = made.unwrap_or_else(|_| Err(failed(format!("no answer within {timeout:?}"))))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    let origin = http::Uri::builder().scheme("http").authority(&*address).path_and_query("/").build();
    let origin = origin.map_err(|error| TransportError::NotSent(format!("{address} is not an address: {error}")))?;
    Ok(Connection { send, origin, number })
}

/// hyper's messages leave the cause to `source()`.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
