//! A connection's socket as hyper sees it, which decides when an idle one has ended.
//!
//! An HTTP/1.1 client may send its next request whenever it likes, also while its idle connection is
//! being closed. hyper's own graceful shutdown closes such a connection at once, and also a new one
//! that has not been read yet. Here each has its last call first, and then its end is read to hyper
//! as if the client had closed it: by then the door is shut and nothing lies behind it unread, so no
//! request is both received and unanswered.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::door;

/// How long after the stop an idle connection may still send a request: one that was sent at that
/// moment arrives within half a round trip.
const LAST_CALL: Duration = Duration::from_millis(200);

/// How long a client that has been answered for the last time has to close its side.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) struct Wire {
    socket: TcpStream,
    stop: CancellationToken,
    /// Bytes came in and none have gone out since: a request is under way, or a part of one.
    asked: bool,
    /// Ends with the last call. Absent while there is something to read.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Idle to the end: the door is shut.
    shut: bool,
}

impl Wire {
    pub(crate) fn new(socket: TcpStream, stop: CancellationToken) -> Self {
        Self { socket, stop, asked: false, idle: None, shut: false }
    }

    /// Whether the client has had its last call and has not sent a byte.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stop = &self.stop;
        let idle = self.idle.get_or_insert_with(|| Box::pin(last_call(stop.clone())));
        ready!(idle.as_mut().poll(cx));
        self.idle = None;
        door::shut(&self.socket);
        if door::is_empty(&self.socket) {
            self.shut = true;
            return Poll::Ready(());
        }
        // It came just in time, and the socket wakes us for it.
        door::open(&self.socket);
        Poll::Pending
    }

    /// Closes the connection in the stages of RFC 9112, section 9.6: whatever a client sends to a
    /// socket that is closed altogether is answered by a reset, which can destroy the answer that it
    /// has not read yet. So our side is closed first, and the client has a while to close its own.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.shutdown().await;
        if self.shut {
            // No answer is on its way. What comes now comes after our end, and may be reset.
            return;
        }
        let mut rest = [0; 1024];
        let closed = async { while matches!(self.socket.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(LINGER, closed).await;
    }
}

impl Drop for Wire {
    /// The client's word that it has our end must come in, or the kernel would go on saying it. A request
    /// must not, even now: until the socket is closed, its client would be told that it arrived.
    fn drop(&mut self) {
        if self.shut {
            door::shut_to_bytes(&self.socket);
        }
    }
}

async fn last_call(stop: CancellationToken) {
    stop.cancelled().await;
    sleep(LAST_CALL).await;
}

impl AsyncRead for Wire {
    /// hyper reads where it waits for a request, and (as half-closed connections are allowed) not
    /// while it answers one.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut wire.socket).poll_read(cx, buffer) {
            wire.asked = true;
            wire.idle = None;
            return Poll::Ready(read);
        }
        if wire.asked {
            return Poll::Pending;
        }
        wire.poll_ended(cx).map(Ok)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.asked = false;
        Pin::new(&mut wire.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.asked = false;
        Pin::new(&mut wire.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
