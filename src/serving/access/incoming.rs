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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections that are ready and not taken yet.
const READY_MAX: usize = 64;

/// Connections whose handshake is done. Those above the limit are closed.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<Transport>,
    local: SocketAddr,
}

impl Incoming {
    /// Accepts until `stopping`. A client that takes its time for the handshake keeps no other waiting.
    pub(crate) fn new(
        protocol: &'static str,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        connections_max: usize,
        stopping: CancellationToken,
    ) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let (accepted, ready) = mpsc::channel(READY_MAX);
        let places = Arc::new(Semaphore::new(connections_max));
        tokio::spawn(async move {
            loop {
                let (socket, address) = tokio::select! {
                    () = stopping.cancelled() => return,
                    next = listener.accept() => match next {
                        Ok(next) => next,
                        Err(error) => {
                            // Such as too many open files, which closing connections ends.
                            tracing::warn!("{protocol}: no connection accepted: {error}");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(
                        "{protocol}: {address} refused: {connections_max} connections are open (serve.connections_max)"
                    );
                    continue;
                };
                let (accepted, tls) = (accepted.clone(), tls.clone());
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
                    // The server may be gone.
                    accepted.send(Transport { stream, address, _place: place }).await.unwrap_or_default();
                });
            }
        });
        Ok(Self { ready, local })
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

impl axum::serve::Listener for Incoming {
    type Io = Transport;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Transport, SocketAddr) {
        let transport = self.next().await;
        let address = transport.address;
        (transport, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
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
    _place: OwnedSemaphorePermit,
}

impl Connected for Transport {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.address) }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
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
