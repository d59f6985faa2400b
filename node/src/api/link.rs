//! The connection over which a follower hands calls to the leader: one at a time, made when first needed.
//!
//! It speaks HTTP/2 through hyper rather than `tonic::transport::Channel` for one fact that a channel does not tell:
//! whether a call that failed had left. If it had not, nothing was proposed and the client may simply try again; if it
//! had, nobody knows. It also spares each call a queue and a task switch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;

use crate::world::Net;

/// Making a connection takes longer only if the leader is gone.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);
/// A leader that lost power says nothing: it is asked for a sign of life this often while calls are under way,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// and given up after this long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2's default of 64 KiB would let one large entry wait for a round trip.
const WINDOW_BYTES: u32 = 4 << 20;

/// A call that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It has not left this node.
    NotSent(String),
    /// It may have arrived.
    Lost(String),
}

#[derive(Clone)]
struct Connection {
    send: http2::SendRequest<Body>,
    authority: Authority,
}

type Connecting = Shared<BoxFuture<'static, Result<Connection, String>>>;

/// The connection to the leader.
pub(super) struct Link {
    net: Arc<dyn Net>,
    // A std mutex: it is held for a look and never across an await.
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Tells apart a connection from those before it.
    number: u64,
    current: Option<(String, Connecting)>,
}

impl Link {
    pub(super) fn new(net: Arc<dyn Net>) -> Self {
        Self { net, slot: Mutex::default() }
    }

    /// Sends a call to the node at `address` (`host:port`). Answers may take as long as they take: the deadline is the
    /// caller's business.
    pub(super) async fn send(
        &self,
        address: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let (number, mut connection) = self.connection(address).await.map_err(Unanswered::NotSent)?;
        *request.uri_mut() = forwarded_uri(request.uri(), connection.authority.clone()).map_err(Unanswered::NotSent)?;
        let sent = connection.send.try_send_request(request).await;
        sent.map_err(|mut failed| {
            self.discard(number);
            // Handed back only if nothing of it has left.
            let not_sent = failed.take_message().is_some();
            let problem = with_causes(failed.error());
            if not_sent { Unanswered::NotSent(problem) } else { Unanswered::Lost(problem) }
        })
    }

    /// Calls that come while the connection is being made share the attempt and its failure.
    async fn connection(&self, address: &str) -> Result<(u64, Connection), String> {
        loop {
            let (number, connecting) = self.current(address);
            let connected = connecting.await;
            let is_usable = connected.as_ref().is_ok_and(|connection| !connection.send.is_closed());
            if !is_usable {
                self.discard(number);
            }
            match connected {
                // Closed since it was last used: make another.
                Ok(_) if !is_usable => {}
                connected => return connected.map(|connection| (number, connection)),
            }
        }
    }

    fn current(&self, address: &str) -> (u64, Connecting) {
        let mut slot = self.slot();
        if let Some((to, connecting)) = &slot.current
            && to == address
        {
            return (slot.number, connecting.clone());
        }
        let connecting = connect(self.net.clone(), address.to_owned()).boxed().shared();
        slot.number += 1;
        slot.current = Some((address.to_owned(), connecting.clone()));
        (slot.number, connecting)
    }

    /// The next call makes another connection, unless that has happened already. Calls on the old one go on.
    fn discard(&self, number: u64) {
        let mut slot = self.slot();
        if slot.number == number {
            slot.current = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(net: Arc<dyn Net>, address: String) -> Result<Connection, String> {
    let failed = |problem: String| format!("cannot connect to the leader at {address}: {problem}");
    let authority = Authority::try_from(address.as_str()).map_err(|error| failed(error.to_string()))?;
    let connecting = async {
        let io = net.connect(&address).await.map_err(|error| failed(error.to_string()))?;
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| failed(with_causes(&error)))
    };
    let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
    let (send, connection) = connected.unwrap_or_else(|_| Err(failed("no answer".to_owned())))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the leader ended");
        }
    });
    Ok(Connection { send, authority })
}

/// The same method, at another node.
fn forwarded_uri(uri: &http::Uri, authority: Authority) -> Result<http::Uri, String> {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    uri.map_err(|error| error.to_string())
}

/// hyper's messages leave the cause to `source()`.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, DuplexStream};

    use crate::world::{BoxedIo, Connect, Incoming};

    /// What the other side does with a connection.
    type Peer = fn(DuplexStream);

    struct FakeNet {
        peer: Option<Peer>,
        connections: AtomicUsize,
    }

    impl Net for FakeNet {
        fn listen(&self, _: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn connect(&self, _: &str) -> Connect {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let Some(peer) = self.peer else {
                return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
            };
            let (near, far) = tokio::io::duplex(64 << 10);
            peer(far);
            Box::pin(async move { Ok(BoxedIo::new(near)) })
        }
    }

    fn link(peer: Option<Peer>) -> (Link, Arc<FakeNet>) {
        let net = Arc::new(FakeNet { peer, connections: AtomicUsize::new(0) });
        (Link::new(net.clone()), net)
    }

    fn request() -> Request<Body> {
        Request::builder().uri("http://follower:1/millstream.v1.StreamService/Append").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn who_cannot_be_reached_got_nothing() {
        let (link, net) = link(None);
        for attempts in 1..=2 {
            let answer = link.send("leader:7420", request()).await;
            assert!(matches!(answer, Err(Unanswered::NotSent(_))), "{answer:?}");
            assert_eq!(net.connections.load(Ordering::Relaxed), attempts, "each call tries anew");
        }
        let answer = link.send("not an address", request()).await;
        assert!(matches!(answer, Err(Unanswered::NotSent(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_accepts_got_nothing() {
        struct Silent;
        impl Net for Silent {
            fn listen(&self, _: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
                Box::pin(std::future::pending())
            }
            fn connect(&self, _: &str) -> Connect {
                Box::pin(std::future::pending())
            }
        }
        let answer = Link::new(Arc::new(Silent)).send("leader:7420", request()).await;
        assert!(matches!(answer, Err(Unanswered::NotSent(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn who_goes_away_after_the_call_may_have_acted_on_it() {
        // Reads the call's headers, which come behind the preface and the settings, and is gone.
        let peer: Peer = |mut io| {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(5).any(|window| window == b"\x01\x05\0\0\0" || window == b"\x01\x04\0\0\0") {
                    io.read_buf(&mut seen).await.unwrap();
                }
            });
        };
        let (link, net) = link(Some(peer));
        for attempts in 1..=2 {
            let answer = link.send("leader:7420", request()).await;
            assert!(matches!(answer, Err(Unanswered::Lost(_))), "{answer:?}");
            assert_eq!(net.connections.load(Ordering::Relaxed), attempts, "a broken connection is not used again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_given_up() {
        // Swallows everything, as a machine without power seems to.
        let peer: Peer = |mut io| {
            tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                while io.read(&mut buffer).await.is_ok_and(|read| 0 < read) {}
            });
        };
        let (link, _) = link(Some(peer));
        let started = tokio::time::Instant::now();
        let answer = link.send("leader:7420", request()).await;
        assert!(matches!(answer, Err(Unanswered::Lost(_))), "{answer:?}");
        assert!(started.elapsed() <= 2 * KEEPALIVE_TIMEOUT);
    }
}
