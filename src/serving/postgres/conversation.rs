//! One client's connection, from its first byte to its last, with messages of bounded size.
//!
//! `pgwire::tokio::process_socket` with one difference: that accepts messages of up to 1 GiB, also from a client that has not proved who
//! it is, and holds each in memory as it comes.

use futures::StreamExt;
use pgwire::api::{ClientInfo, NoopHandler, PgWireConnectionState};
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::TlsAcceptor;
use pgwire::tokio::server::{MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, FramedParts};

use super::errors;
use super::extended::{Extended, Prepared};
use super::simple::Simple;
use super::startup::Startups;
use crate::serving::refusal::Refusal;

/// Time from the first byte until a client is let in.
const STARTUP: Duration = Duration::from_secs(60);

/// Bytes of a message before a client is let in, at most. PostgreSQL accepts start-up packets of up to 10,000.
const UNPROVED_BYTES_MAX: usize = 64 << 10;

/// Bytes of a message after that; gRPC has the same limit.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Time for which the rest of a message that is too large is read and dropped. A client that still sends does not read why.
const REST: Duration = Duration::from_secs(5);

/// Handlers of the messages of all connections.
pub(super) struct Handlers {
    pub(super) startups: Startups,
    pub(super) simple: Arc<Simple>,
    pub(super) extended: Arc<Extended>,
}

type Socket<S> = Framed<S, PgWireMessageServerCodec<Prepared>>;

/// Answers a client until it leaves, breaks the protocol or sends a message that is too large.
pub(super) async fn answer(socket: TcpStream, tls: Option<TlsAcceptor>, handlers: &Handlers) -> io::Result<()> {
    let startup = tokio::time::sleep(STARTUP);
    tokio::pin!(startup);
    let negotiated = tokio::select! {
        () = &mut startup => return Ok(()),
        negotiated = negotiate_tls(socket, tls) => negotiated?,
    };
    // A client that wants TLS from a server without it.
    let Some(socket) = negotiated else { return Ok(()) };
    let mut socket: Socket<Bounded<MaybeTls>> = bounded(socket);
    let startup_handler = Arc::new(handlers.startups.one());
    loop {
        let is_let_in = !matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let bytes_max = if is_let_in { MESSAGE_BYTES_MAX } else { UNPROVED_BYTES_MAX };
        socket.get_mut().next_message(bytes_max);
        let message = tokio::select! {
            () = &mut startup, if !is_let_in => return Ok(()),
            message = socket.next() => message,
        };
        let message = match message {
            Some(Ok(PgWireFrontendMessage::Terminate(_))) | None => return Ok(()),
            Some(Ok(message)) => message,
            Some(Err(_)) if socket.get_ref().is_exceeded() => return refuse_too_large(socket, bytes_max).await,
            // Bytes that are no message: nothing that follows can be read.
            Some(Err(error)) => return Err(error.into()),
        };
        let is_extended = match socket.state() {
            PgWireConnectionState::CopyInProgress(is_extended) => is_extended,
            _ => message.is_extended_query(),
        };
        let done = process_message(
            message,
            &mut socket,
            Arc::clone(&startup_handler),
            Arc::clone(&handlers.simple),
            Arc::clone(&handlers.extended),
            Arc::new(NoopHandler),
            Arc::clone(&handlers.startups.connections),
        );
        if let Err(error) = done.await {
            process_error(&mut socket, error, is_extended).await?;
        }
    }
}

/// Counts what is read from a socket.
fn bounded(socket: Socket<MaybeTls>) -> Socket<Bounded<MaybeTls>> {
    let parts = socket.into_parts();
    let io = Bounded { inner: parts.io, bytes: 0, bytes_max: UNPROVED_BYTES_MAX };
    let mut counted = FramedParts::new(io, parts.codec);
    (counted.read_buf, counted.write_buf) = (parts.read_buf, parts.write_buf);
    Framed::from_parts(counted)
}

/// Tells a client that its message is too large, and ends its connection.
async fn refuse_too_large(mut socket: Socket<Bounded<MaybeTls>>, bytes_max: usize) -> io::Result<()> {
    let error = errors::fatal(Refusal::TOO_LARGE, format!("a message: expected at most {bytes_max} bytes, got more"));
    process_error(&mut socket, error, false).await?;
    let mut rest = socket.into_parts().io.inner;
    // A client that has gone meanwhile needs no answer.
    tokio::time::timeout(REST, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await.ok();
    Ok(())
}

/// A stream of which only so many bytes are read for each message.
struct Bounded<S> {
    inner: S,
    /// Bytes read since the last message was complete. A part of the next message may have come with it.
    bytes: usize,
    bytes_max: usize,
}

impl<S> Bounded<S> {
    fn next_message(&mut self, bytes_max: usize) {
        (self.bytes, self.bytes_max) = (0, bytes_max);
    }

    fn is_exceeded(&self) -> bool {
        self.bytes > self.bytes_max
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.bytes += buffer.filled().len() - before;
        match self.is_exceeded() {
            true => Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
            false => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
