//! A listener whose connections are counted, for the HTTP servers of other crates.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::{Connections, Protocol, Tracked};

impl Connections {
    /// Wraps the listener of an HTTP server of another crate. Each connection counts until the server
    /// drops it.
    ///
    /// With axum, and the features `axum` and `tower`:
    ///
    #[cfg_attr(all(feature = "axum", feature = "tower"), doc = "```no_run")]
    #[cfg_attr(not(all(feature = "axum", feature = "tower")), doc = "```ignore")]
    /// use std::error::Error;
    /// use axum::Router;
    /// use forensics_tokio::connections::Connections;
    /// use forensics_tokio::{ShutdownGuard, ShutdownReport};
    /// use tokio::net::TcpListener;
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    ///     let guard = ShutdownGuard::builder("gateway").install()?;
    ///     let connections = Connections::new();
    ///     guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());
    ///
    ///     let listener = connections.listener(TcpListener::bind("127.0.0.1:8080").await?);
    ///     let app = Router::new().layer(connections.http_layer()); // around all routes
    ///     let stop = guard.token().cancelled_owned();
    ///     let server = axum::serve(listener, app).with_graceful_shutdown(stop);
    ///     Ok(guard.run(async move { server.await }).await)
    /// }
    /// ```
    ///
    /// With tonic and the feature `tonic`, pass the listener to `serve_with_incoming_shutdown`, and
    /// `http_layer()` to `Server::builder().layer`.
    ///
    /// With this layer around all routes, a drain closes a connection whose client has been silent for
    /// the limit while no request is in flight. Without the layer, it closes only a connection on
    /// which no request has begun.
    pub fn listener(&self, listener: TcpListener) -> TrackedListener {
        TrackedListener { listener, connections: self.clone() }
    }
}

/// A TCP listener whose connections are counted. See [`Connections::listener`].
#[derive(Debug)]
pub struct TrackedListener {
    listener: TcpListener,
    connections: Connections,
}

impl TrackedListener {
    /// Accepts a connection. Waits if no file descriptor is free.
    ///
    /// Cancel safe.
    pub async fn accept(&mut self) -> (Tracked<TcpStream>, SocketAddr) {
        let (stream, peer) = accept(&self.listener).await;
        (self.wrap(stream, peer), peer)
    }

    fn wrap(&self, stream: TcpStream, peer: SocketAddr) -> Tracked<TcpStream> {
        self.connections.track_as(stream, peer, Protocol::Http)
    }

    /// Returns the local address of the listener.
    ///
    /// # Errors
    /// If the operating system does not report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Accepts a connection. An error of one connection is skipped. Waits if no descriptor is free.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    /// How long to wait until a descriptor may be free.
    const RETRY: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) => match e.kind() {
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset => {}
                _ => sleep(RETRY).await,
            },
        }
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for TrackedListener {
    type Io = Tracked<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        TrackedListener::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TrackedListener::local_addr(self)
    }
}

#[cfg(feature = "tonic")]
impl futures_core::Stream for TrackedListener {
    type Item = io::Result<Tracked<TcpStream>>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        // The server itself skips errors of one connection.
        let accepted = std::task::ready!(self.listener.poll_accept(cx));
        std::task::Poll::Ready(Some(accepted.map(|(stream, peer)| self.wrap(stream, peer))))
    }
}
