//! Accepts connections, plain or encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Time for a TLS handshake, and then for the first bytes of a client.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections that are ready and not taken yet.
const READY_MAX: usize = 64;

/// Accepts the connections of one protocol, so many at once; those above are closed.
pub(crate) struct Acceptor {
    pub(crate) protocol: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    connections_max: usize,
    stopping: CancellationToken,
}

impl Acceptor {
    pub(crate) fn new(
        protocol: &'static str,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        connections_max: usize,
        stopping: CancellationToken,
    ) -> Self {
        Self { protocol, listener, tls, places: Arc::new(Semaphore::new(connections_max)), connections_max, stopping }
    }

    /// Returns the next connection with its place, which others take once it is dropped; `None` when the server stops.
    pub(crate) async fn next(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let protocol = self.protocol;
        loop {
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as too many open files, which closing connections ends.
                    tracing::warn!("{protocol}: no connection accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => return Some((socket, address, place)),
                Err(_) => tracing::warn!(
                    "{protocol}: {address} refused: {} connections are open (serve.connections_max)",
                    self.connections_max
                ),
            }
        }
    }
}

/// Connections whose handshake is done.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<Transport>,
}

impl Incoming {
    /// Shakes hands with each client in a task of its own, so that one that takes its time keeps no other waiting. A client that does
    /// not send `opening_bytes` soon loses its connection, so that silent ones don't take all places.
    pub(crate) fn new(acceptor: Acceptor, opening_bytes: usize) -> Self {
        let (accepted, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(async move {
            while let Some((socket, address, place)) = acceptor.next().await {
                let (accepted, tls, protocol) = (accepted.clone(), acceptor.tls.clone(), acceptor.protocol);
                tokio::spawn(async move {
                    socket.set_nodelay(true).unwrap_or_default();
                    let stream = match tls {
                        None => Stream::Plain(socket),
                        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
                            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                            Ok(Err(error)) => return tracing::debug!("{protocol}: TLS with {address}: {error}"),
                            Err(_) => return tracing::debug!("{protocol}: TLS with {address} took too long"),
                        },
                    };
                    let opening = Opening { bytes_left: opening_bytes, time: Box::pin(tokio::time::sleep(HANDSHAKE)) };
                    let transport = Transport { stream, address, opening: Some(opening), _place: place };
                    // The server may be gone.
                    accepted.send(transport).await.unwrap_or_default();
                });
            }
        });
        Self { ready }
    }

    /// Returns the next connection; never without one.
    pub(crate) async fn next(&mut self) -> Transport {
        match self.ready.recv().await {
            Some(transport) => transport,
            None => std::future::pending().await,
        }
    }
}

impl futures::Stream for Incoming {
    type Item = io::Result<Transport>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|next| next.map(Ok))
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection of a client.
pub(crate) struct Transport {
    stream: Stream,
    pub(crate) address: SocketAddr,
    /// None once the first bytes have come.
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
}

/// Bytes that a client still has to send within a time.
struct Opening {
    bytes_left: usize,
    time: Pin<Box<Sleep>>,
}

impl Connected for Transport {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.address) }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        let Some(opening) = &mut self.opening else { return read };
        opening.bytes_left = opening.bytes_left.saturating_sub(buffer.filled().len() - before);
        if opening.bytes_left == 0 {
            self.opening = None;
        } else if read.is_pending() && opening.time.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
