//! The socket of a connection as hyper sees it. It decides when an idle connection ends.
//!
//! An HTTP/1.1 client can send its next request at any time, also while its idle connection is being
//! closed. hyper's own graceful shutdown closes an idle connection at once, and also a new one that has
//! not been read yet. Here a client has a moment to send a last request. Then the socket stops receiving
//! (see `door`), and if nothing is left to read, hyper reads the end of the stream, as if the client had
//! closed the connection. So no request is received and left unanswered.

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

/// How long after the stop an idle connection can still send a request. A request that was sent at
/// the moment of the stop arrives within half a round trip.
const LAST_CALL: Duration = Duration::from_millis(200);

/// How long a client has to close its side after its last answer.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) struct Wire {
    socket: TcpStream,
    stop: CancellationToken,
    /// Bytes were read, and nothing was written since: a request or a part of one is not answered
    /// yet.
    asked: bool,
    /// Ends [`LAST_CALL`] after the stop. `None` while there is something to read.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The socket receives nothing more. It was idle when that was set.
    shut: bool,
}

impl Wire {
    pub(crate) fn new(socket: TcpStream, stop: CancellationToken) -> Self {
        Self { socket, stop, asked: false, idle: None, shut: false }
    }

    /// Ready once [`LAST_CALL`] is over and the client has sent nothing.
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
        // A request arrived in time. The socket wakes the task for it.
        door::open(&self.socket);
        Poll::Pending
    }

    /// Closes the connection in the steps of RFC 9112, section 9.6. If the client sends something to a
    /// closed socket, the kernel answers with a reset, which can destroy an answer that the client has
    /// not read yet. So our side is closed first, and the client has some time to close its own.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.shutdown().await;
        if self.shut {
            // The client has read every answer. What it sends now may be reset.
            return;
        }
        let mut rest = [0; 1024];
        let closed = async { while matches!(self.socket.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(LINGER, closed).await;
    }
}

impl Drop for Wire {
    /// The client's acknowledgement of our end must be received; otherwise the kernel would keep sending
    /// it. A request must not be received, because it would be acknowledged until the socket is closed.
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
    /// hyper reads while it waits for a request. It does not read while it answers one, because
    /// half-closed connections are allowed.
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
