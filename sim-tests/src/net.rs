//! The simulated network: turmoil's TCP, with the refusals and silences of a real one.
//!
//! turmoil breaks links, but a connection attempt over a broken link fails there at once, and one to a crashed host
//! waits until that host is back. A real one waits for its timeout in both cases, and is refused only by a living
//! machine that runs no such process. [`Faults`] knows which it is, and [`SimNet`] behaves accordingly.

use std::collections::{BTreeMap, BTreeSet};
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
    links: Links,
    /// Machines without power: silent.
    off: BTreeSet<String>,
    /// Machines that run, but not the node's process: they refuse.
    stopped: BTreeSet<String>,
}

/// What is wrong with links. Two of these add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Links that carry nothing, from one host to another. What is under way is lost.
    cut: BTreeSet<(String, String)>,
    /// Pairs of hosts, in order, between which everything is late: it waits.
    held: BTreeSet<(String, String)>,
    /// Pairs of hosts, in order, between which a segment may be under way so long.
    slow: BTreeMap<(String, String), Duration>,
}

/// What is wrong between two hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// Nothing gets from the first to the second.
    pub cut_there: bool,
    /// Nothing gets from the second to the first.
    pub cut_back: bool,
    /// Everything waits.
    pub held: bool,
    /// Longest time under way; `None`: the usual one.
    pub slow: Option<Duration>,
}

impl Links {
    /// Nothing gets from `from` to `to`.
    pub fn cut(&mut self, from: &str, to: &str) {
        self.cut.insert((from.into(), to.into()));
    }

    /// What the two send each other waits.
    pub fn hold(&mut self, a: &str, b: &str) {
        self.held.insert(pair(a, b));
    }

    /// What the two send each other may take as long as this.
    pub fn slow(&mut self, a: &str, b: &str, latency: Duration) {
        let slow = self.slow.entry(pair(a, b)).or_default();
        *slow = latency.max(*slow);
    }

    /// These faults as well.
    pub fn add(&mut self, more: &Links) {
        self.cut.extend(more.cut.iter().cloned());
        self.held.extend(more.held.iter().cloned());
        for ((a, b), latency) in &more.slow {
            self.slow(a, b, *latency);
        }
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a < b { (a.into(), b.into()) } else { (b.into(), a.into()) }
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
    /// Says what is wrong with links, instead of what was.
    pub fn set_links(&self, links: Links) {
        self.lock().links = links;
    }

    /// What is wrong between two hosts.
    pub fn between(&self, a: &str, b: &str) -> Between {
        let broken = self.lock();
        Between {
            cut_there: !broken.carries(a, b),
            cut_back: !broken.carries(b, a),
            held: broken.links.held.contains(&pair(a, b)),
            slow: broken.links.slow.get(&pair(a, b)).copied(),
        }
    }

    /// Says whether a machine has power.
    pub fn set_power(&self, host: &str, on: bool) {
        set(&mut self.lock().off, host, !on);
    }

    /// Says whether a machine runs its process.
    pub fn set_running(&self, host: &str, running: bool) {
        set(&mut self.lock().stopped, host, !running);
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
        let is_cut = self.links.cut.contains(&(from.to_owned(), to.to_owned()));
        !is_cut && !self.off.contains(from) && !self.off.contains(to)
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
        let mut links = Links::default();
        links.cut("a", "b");
        faults.set_links(links.clone());
        // Without an answer nobody is connected.
        assert_eq!((faults.reach("a", "b"), faults.reach("b", "a")), (Reach::Silent, Reach::Silent));
        assert_eq!(faults.between("b", "a"), Between { cut_back: true, ..Between::default() });
        assert_eq!(faults.reach("a", "c"), Reach::Open);
        links.hold("c", "a");
        links.slow("a", "c", Duration::from_millis(3));
        let mut more = Links::default();
        more.slow("c", "a", Duration::from_millis(5));
        links.add(&more);
        faults.set_links(links);
        let slow = Some(Duration::from_millis(5));
        assert_eq!(faults.between("a", "c"), Between { held: true, slow, ..Between::default() });
        faults.set_links(Links::default());
        faults.set_running("b", false);
        assert_eq!(faults.reach("a", "b"), Reach::Refused);
        assert_eq!(faults.between("a", "b"), Between::default());
        faults.set_power("b", false);
        assert_eq!(faults.reach("a", "b"), Reach::Silent);
        faults.set_power("b", true);
        faults.set_running("b", true);
        assert_eq!(faults.reach("a", "b"), Reach::Open);
    }
}
