//! Listening and connecting, below gRPC.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// One connection, of whatever kind.
pub struct BoxedIo(Box<dyn Io>, Option<SocketAddr>);

impl BoxedIo {
    /// Wraps a connection.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(io), None)
    }

    /// The same, of somebody whose address is known.
    #[must_use]
    pub fn from_peer(self, peer: SocketAddr) -> Self {
        Self(self.0, Some(peer))
    }

    /// Who is at the other end, if that is known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.1
    }
}

impl Connected for BoxedIo {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for BoxedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoxedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// After a failed accept: long enough not to spin while the machine is out of files.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Accepted connections.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<BoxedIo>> + Send>>;

/// A connection being made.
pub type Connect = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;

/// Listens and connects.
pub trait Net: Send + Sync + 'static {
    /// Listens at `address` (`host:port`). Fails if the address is taken.
    fn listen(&self, address: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>>;
    /// Connects to `address` (`host:port`). Names are resolved at each call, so a peer may move.
    fn connect(&self, address: &str) -> Connect;
}

/// TCP, with Nagle's algorithm off.
pub struct TcpNet;

impl Net for TcpNet {
    fn listen(&self, address: &str) -> Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>> {
        let address = address.to_owned();
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(&address).await?;
            let incoming = futures::stream::unfold(listener, |listener| async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, peer)) => {
                            // Only latency is lost if the option cannot be set.
                            let _ = stream.set_nodelay(true);
                            return Some((Ok(BoxedIo::new(stream).from_peer(peer)), listener));
                        }
                        // One lost connection, or too many open files: the listener itself is sound.
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            });
            Ok(Box::pin(incoming) as Incoming)
        })
    }

    fn connect(&self, address: &str) -> Connect {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            let _ = stream.set_nodelay(true);
            Ok(BoxedIo::new(stream))
        })
    }
}
