//! The socket of a connection as hyper sees it. It decides when an idle connection ends.
//!
//! An HTTP/1.1 client can send its next request at any time, also while its idle connection is being
//! closed. hyper's own graceful shutdown closes an idle connection at once, and also a new one that has
//! not been read yet. Here a client has a moment to send a last request. Then the socket stops receiving
//! (see `filter`), and if nothing is left to read, hyper reads the end of the stream, as if the client had
//! closed the connection. So no request is received and left unanswered.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::filter;
#[cfg(feature = "serve")]
use crate::connections::HTTP2_PREFACE;
use crate::connections::Tracked;

/// How long after the stop an idle connection can still send a request. A request that was sent at
/// the moment of the stop arrives within half a round trip.
const IDLE_LIMIT: Duration = Duration::from_millis(200);

/// How long a client has to close its side after its last answer.
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Wire {
    socket: Tracked<TcpStream>,
    stop: CancellationToken,
    /// Bytes that were read to find out the version of HTTP. hyper reads them next.
    #[cfg(feature = "serve")]
    replay: Vec<u8>,
    is_http2: bool,
    /// Bytes were read, and nothing was written since: a request or a part of one is not answered
    /// yet.
    unanswered: bool,
    /// Ends [`IDLE_LIMIT`] after the stop. `None` while there is something to read.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The socket receives nothing more. It was idle when that was set.
    shut: bool,
    /// Our side is closed. Ends [`LINGER`] later.
    closing: Option<Pin<Box<Sleep>>>,
    /// The server waits until this is dropped, also if the connection was upgraded.
    _open: TaskTrackerToken,
}

impl Wire {
    pub(super) fn new(
        socket: Tracked<TcpStream>,
        stop: CancellationToken,
        open: TaskTrackerToken,
    ) -> Self {
        Self {
            socket,
            stop,
            #[cfg(feature = "serve")]
            replay: Vec::new(),
            is_http2: false,
            unanswered: false,
            idle: None,
            shut: false,
            closing: None,
            _open: open,
        }
    }

    /// Whether the client speaks HTTP/2: it sends the preface. Waits for the first bytes of the client.
    ///
    /// # Errors
    /// If the connection has ended, or has an error.
    #[cfg(feature = "serve")]
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let mut read = Vec::with_capacity(HTTP2_PREFACE.len());
        while HTTP2_PREFACE.starts_with(&read) && read.len() < HTTP2_PREFACE.len() {
            let missing = (HTTP2_PREFACE.len() - read.len()) as u64;
            if (&mut *self).take(missing).read_buf(&mut read).await? == 0 {
                self.shutdown().await?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.is_http2 = read == HTTP2_PREFACE;
        self.replay = read;
        Ok(self.is_http2)
    }

    fn is_upgraded(&self) -> bool {
        self.socket.registered.connection.is_upgraded()
    }

    /// Ready once [`IDLE_LIMIT`] is over and the client has sent nothing.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stop = &self.stop;
        let idle = self.idle.get_or_insert_with(|| Box::pin(idle_limit(stop.clone())));
        ready!(idle.as_mut().poll(cx));
        self.idle = None;
        filter::shut(self.socket.get_ref());
        if filter::is_empty(self.socket.get_ref()) {
            self.shut = true;
            return Poll::Ready(());
        }
        // A request arrived in time. The socket wakes the task for it.
        filter::open(self.socket.get_ref());
        Poll::Pending
    }

    /// Ready once the client has closed its side, or [`LINGER`] is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = &self.socket.registered.connection;
        let linger = self.closing.get_or_insert_with(|| {
            connection.set_closing();
            Box::pin(sleep(LINGER))
        });
        // Before the socket is read: a client that sends without a pause uses up the task's budget.
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut rest = [MaybeUninit::uninit(); 1024];
        loop {
            let mut rest = ReadBuf::uninit(&mut rest);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Wire {
    /// The client's acknowledgement of our end must be received; otherwise the kernel would keep sending
    /// it. A request must not be received, because it would be acknowledged until the socket is closed.
    fn drop(&mut self) {
        if self.shut {
            filter::shut_to_bytes(self.socket.get_ref());
        }
    }
}

async fn idle_limit(stop: CancellationToken) {
    stop.cancelled().await;
    sleep(IDLE_LIMIT).await;
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
        #[cfg(feature = "serve")]
        if !wire.replay.is_empty() {
            let some = wire.replay.len().min(buffer.remaining());
            buffer.put_slice(&wire.replay[..some]);
            wire.replay.drain(..some);
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(read) = Pin::new(&mut wire.socket).poll_read(cx, buffer) {
            wire.unanswered = true;
            wire.idle = None;
            return Poll::Ready(read);
        }
        if wire.unanswered || wire.is_http2 || wire.is_upgraded() {
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
        wire.unanswered = false;
        Pin::new(&mut wire.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.unanswered = false;
        Pin::new(&mut wire.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    /// Closes the connection in the steps of RFC 9112, section 9.6. If the client sends something to a
    /// closed socket, the kernel answers with a reset, which can destroy an answer that the client has
    /// not read yet. So our side is closed first, and the client has some time to close its own.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.closing.is_none() {
            ready!(Pin::new(&mut wire.socket).poll_shutdown(cx))?;
        }
        // If the socket was shut while it was idle, the client has read every answer. What it sends now
        // may be reset.
        if wire.shut || wire.is_upgraded() {
            return Poll::Ready(Ok(()));
        }
        wire.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::connections::{Connections, Protocol};

    #[tokio::test]
    async fn a_client_that_sends_without_a_pause_does_not_delay_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sending = thread::spawn(move || while client.write_all(&[0; 65536]).is_ok() {});
        let (socket, peer) = listener.accept().await.unwrap();
        let tracked = Connections::new().track_as(socket, peer, Protocol::Served);
        let mut wire = Wire::new(tracked, CancellationToken::new(), TaskTracker::new().token());
        timeout(10 * LINGER, wire.shutdown()).await.unwrap().unwrap();
        drop(wire);
        sending.join().unwrap();
    }
}
