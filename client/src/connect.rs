//! How connections are made, below HTTP/2.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// One connection, of whatever kind.
pub struct BoxedIo(Box<dyn Io>);

impl BoxedIo {
    /// Wraps a connection.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(io))
    }
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

/// A connection being made.
pub type Connect = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;

/// Makes connections. A function `Fn(String) -> impl Future<Output = io::Result<impl AsyncRead + AsyncWrite>>` is one.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `address` (`host:port`). Names are resolved at each call, so a node may move. The caller bounds the
    /// time.
    fn connect(&self, address: &str) -> Connect;
}

impl<F, C, I> Connector for F
where
    F: Fn(String) -> C + Send + Sync + 'static,
    C: Future<Output = io::Result<I>> + Send + 'static,
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn connect(&self, address: &str) -> Connect {
        let connecting = self(address.to_owned());
        Box::pin(async move { connecting.await.map(BoxedIo::new) })
    }
}

/// TCP, with Nagle's algorithm off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: &str) -> Connect {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            // Only latency is lost if the option cannot be set.
            let _ = stream.set_nodelay(true);
            Ok(BoxedIo::new(stream))
        })
    }
}
