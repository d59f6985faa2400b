//! The simulated network: turmoil's TCP, with the refusals and silences of a real one.
//!
//! turmoil breaks links, but a connection attempt over a broken link fails there at once, and one to a crashed host
//! waits until that host is back. A real one waits for its timeout in both cases, and is refused only by a living
//! machine that runs no such process. [`Faults`] knows which it is, and [`SimNet`] behaves accordingly.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use millstream_node::world::{BoxedIo, Connect, Incoming, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::{Trace, fingerprint};

/// How long a connection attempt that nobody answers lasts. Callers have shorter timeouts of their own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refusal takes to come back.
const ROUND_TRIP: Duration = Duration::from_millis(2);

/// What is broken at present. The driver writes it, connection attempts read it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Broken>>);

#[derive(Default)]
struct Broken {
    /// Links that carry nothing, by direction.
    cut: BTreeSet<(String, String)>,
    /// Machines without power: silent.
    off: BTreeSet<String>,
    /// Machines that run, but not the node's process: they refuse.
    stopped: BTreeSet<String>,
}

/// What becomes of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It gets there.
    Open,
    /// Nobody answers.
    Silent,
    /// The machine answers that nobody listens.
    Refused,
}

impl Faults {
    /// Cuts the link between two hosts, both ways.
    pub fn cut(&self, a: &str, b: &str) {
        let mut broken = self.lock();
        broken.cut.insert((a.into(), b.into()));
        broken.cut.insert((b.into(), a.into()));
    }

    /// Mends every link that was cut.
    pub fn mend_all(&self) {
        self.lock().cut.clear();
    }

    /// Says whether a machine has power.
    pub fn set_power(&self, host: &str, on: bool) {
        set(&mut self.lock().off, host, !on);
    }

    /// Says whether a machine runs its process.
    pub fn set_running(&self, host: &str, running: bool) {
        set(&mut self.lock().stopped, host, !running);
    }

    /// Whether a segment gets from one host to another.
    pub fn carries(&self, from: &str, to: &str) -> bool {
        self.lock().carries(from, to)
    }

    /// What becomes of a connection attempt.
    pub fn reach(&self, from: &str, to: &str) -> Reach {
        let broken = self.lock();
        // The answer has to come back.
        if !broken.carries(from, to) || !broken.carries(to, from) {
            Reach::Silent
        } else if broken.stopped.contains(to) {
            Reach::Refused
        } else {
            Reach::Open
        }
    }

    fn lock(&self) -> MutexGuard<'_, Broken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broken {
    fn carries(&self, from: &str, to: &str) -> bool {
        !self.off.contains(from) && !self.off.contains(to) && !self.cut.contains(&(from.to_owned(), to.to_owned()))
    }
}

fn set(hosts: &mut BTreeSet<String>, host: &str, member: bool) {
    if member {
        hosts.insert(host.to_owned());
    } else {
        hosts.remove(host);
    }
}

/// The network as one host sees it. Cheap to clone.
#[derive(Clone)]
pub struct SimNet {
    host: Arc<str>,
    faults: Faults,
    trace: Trace,
    /// Numbers the connections of the simulation.
    connections: Arc<AtomicU64>,
}

impl SimNet {
    /// The network of a simulation, seen from nowhere yet; see [`SimNet::at`].
    pub fn new(faults: Faults, trace: Trace) -> Self {
        Self { host: "".into(), faults, trace, connections: Arc::default() }
    }

    /// The same network, seen from `host`.
    pub fn at(&self, host: &str) -> Self {
        Self { host: host.into(), ..self.clone() }
    }

    /// Connects to `address` (`host:port`).
    pub async fn open(&self, address: &str) -> io::Result<TracedStream> {
        let (peer, port) = split(address)?;
        match self.faults.reach(&self.host, peer) {
            Reach::Silent => {
                tokio::time::sleep(CONNECT_TIMEOUT).await;
                Err(timed_out(address))
            }
            // turmoil would leak a port, and there are only so many.
            Reach::Refused => {
                tokio::time::sleep(ROUND_TRIP).await;
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{address} refuses connections")))
            }
            Reach::Open => {
                let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
                match tokio::time::timeout_at(deadline, TcpStream::connect((peer, port))).await {
                    Ok(Ok(stream)) => Ok(self.traced(stream, format_args!("to {address}"))),
                    // The link broke under the attempt: turmoil fails at once, a real network says nothing.
                    Ok(Err(_)) if self.faults.reach(&self.host, peer) == Reach::Silent => {
                        tokio::time::sleep_until(deadline).await;
                        Err(timed_out(address))
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(timed_out(address)),
                }
            }
        }
    }

    fn traced(&self, stream: TcpStream, what: std::fmt::Arguments<'_>) -> TracedStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let stream = TracedStream { stream, host: self.host.clone(), number, trace: self.trace.clone() };
        stream.note("open", what);
        stream
    }
}

fn timed_out(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not host:port")))
}

impl Net for SimNet {
    fn listen(&self, address: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
        let net = self.clone();
        let port = split(address).map(|(_, port)| port);
        Box::pin(async move {
            // turmoil binds to the whole host only.
            let listener = TcpListener::bind(("0.0.0.0", port?)).await?;
            let incoming = futures::stream::unfold((net, listener), |(net, listener)| async move {
                let accepted = listener
                    .accept()
                    .await
                    .map(|(stream, peer)| BoxedIo::new(net.traced(stream, format_args!("from {peer}"))));
                Some((accepted, (net, listener)))
            });
            Ok(Box::pin(incoming) as Incoming)
        })
    }

    fn connect(&self, address: &str) -> Connect {
        let net = self.clone();
        let address = address.to_owned();
        Box::pin(async move { net.open(&address).await.map(BoxedIo::new) })
    }
}

/// A connection whose bytes go into the trace, at both ends.
pub struct TracedStream {
    stream: TcpStream,
    host: Arc<str>,
    number: u64,
    trace: Trace,
}

impl TracedStream {
    fn note(&self, verb: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line("io", format_args!("{} #{} {verb} {what}", self.host, self.number));
    }

    fn note_bytes(&self, verb: &str, bytes: &[u8]) {
        self.note(verb, format_args!("{} {:016x}", bytes.len(), fingerprint(bytes)));
    }
}

impl AsyncRead for TracedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match &result {
            Ok(()) => self.note_bytes("read", &buf.filled()[before..]),
            Err(error) => self.note("read", format_args!("fails: {}", error.kind())),
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        match &result {
            Ok(written) => self.note_bytes("write", &buf[..*written]),
            Err(error) => self.note("write", format_args!("fails: {}", error.kind())),
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for TracedStream {
    fn drop(&mut self) {
        self.note("close", format_args!(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_links_and_dead_machines_are_silent_and_dead_processes_refuse() {
        let faults = Faults::default();
        assert_eq!(faults.reach("a", "b"), Reach::Open);
        faults.cut("a", "b");
        assert_eq!((faults.reach("a", "b"), faults.reach("b", "a")), (Reach::Silent, Reach::Silent));
        assert_eq!(faults.reach("a", "c"), Reach::Open);
        faults.mend_all();
        faults.set_running("b", false);
        assert_eq!(faults.reach("a", "b"), Reach::Refused);
        assert!(faults.carries("a", "b"));
        faults.set_power("b", false);
        assert_eq!(faults.reach("a", "b"), Reach::Silent);
        faults.set_power("b", true);
        faults.set_running("b", true);
        assert_eq!(faults.reach("a", "b"), Reach::Open);
    }
}
