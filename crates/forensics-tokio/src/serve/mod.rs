//! An accept loop for HTTP that answers every request that was received before the stop.
//!
//! A request is received when its bytes are in one of our sockets, even if nothing has read them: the
//! client's kernel has then been told that they arrived. The graceful shutdown of `axum::serve` and of
//! hyper answers what a handler has begun. It loses what is still in the kernel: connections in the queue
//! of the listener, and requests on a connection that looked idle. [`serve`] loses none of these.
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use std::error::Error;
//!
//! use axum::Router;
//! use axum::routing::get;
//! use forensics_tokio::connections::Connections;
//! use forensics_tokio::serve::{self, serve};
//! use forensics_tokio::{ShutdownGuard, ShutdownReport};
//!
//! #[tokio::main]
//! async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
//!     let guard = ShutdownGuard::builder("gateway").install()?;
//!     let connections = Connections::new();
//!     guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());
//!
//!     let app = Router::new().route("/", get(async || "ok\n"));
//!     let listener = serve::Listener::bind("127.0.0.1:8080").await?;
//!     let server = serve(listener, app, &connections, guard.token());
//!     Ok(guard.run(server).await)
//! }
//! ```
//!
//! The feature `serve` supports HTTP/1 and HTTP/2 (without TLS: a client that starts with the preface of
//! HTTP/2). `serve-http1` is the same without HTTP/2, and has fewer dependencies.
//!
//! # What happens at a stop
//!
//! - The connections in the queue of the listener are accepted, and the listener is closed. A listener
//!   that [`inherited`] returned stays open: what waits in its queue is left to the next process.
//! - An idle connection has 200 ms for a last request. Then it is closed. No request is received and left
//!   unanswered, if the process may set a socket filter. Some kernels require CAP_NET_ADMIN for that. Without
//!   it, a request is lost that arrives in the microseconds before the close.
//! - Answers of HTTP/1 have the header `Connection: close`. Clients of HTTP/2 receive a GOAWAY.
//! - Requests that are pipelined on a connection of HTTP/1 are all answered. Only the last answer has the
//!   header.
//! - A connection whose client is silent in the middle of a request is closed after a limit
//!   ([`Connections::with_silence_limit`]).
//! - An upgraded connection counts until it is dropped. [`Streams`](crate::streams::Streams) asks it to
//!   end.

mod filter;
mod listener;
mod queue;
mod service;
mod wire;

use std::error::Error;
use std::io;

use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use self::listener::Accepted;
pub use self::listener::{Listener, inherited};
pub use self::service::RequestBody;
use self::service::{HttpService, TrackedService};
use self::wire::Wire;
use crate::connections::{Connections, Protocol};

type BoxError = Box<dyn Error + Send + Sync>;

/// Serves connections until `stop` is cancelled, then answers every request that was received by then.
/// See the [module](self).
///
/// The service is a tower service, such as an axum `Router`, tonic's `Routes`, or `tower::service_fn`.
/// It is cloned for each request.
///
/// Returns when every connection has ended. That can take long. The timeout of the phase
/// [`drain_phase`](Connections::drain_phase) limits it.
///
/// Not cancel safe: the listener is closed, and connections continue as tasks of the runtime.
///
/// # Errors
/// If the listening socket cannot be taken from the runtime.
pub async fn serve<S, B>(
    mut listener: Listener,
    service: S,
    connections: &Connections,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    connections.count_requests();
    let tracker = TaskTracker::new();
    let begin = |(socket, peer): Accepted| {
        let tracked = connections.track_as(socket, peer, Protocol::Served);
        let connection = tracked.registered.connection.clone();
        let wire = Wire::new(tracked, stop.clone(), tracker.token());
        let service = TrackedService::new(service.clone(), connections, connection, stop.clone());
        tracker.spawn(serve_connection(wire, service, stop.clone()));
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => begin(accepted),
        };
    }
    listener.close(begin).await?;
    tracker.close();
    tokio::select! {
        () = tracker.wait() => {}
        () = connections.keep_closing_silent() => {}
    }
    Ok(())
}

/// Serves one connection until it ends. An error means that the client has left, was silent, or does not
/// speak HTTP.
async fn serve_connection<S: HttpService>(
    wire: Wire,
    service: TrackedService<S>,
    stop: CancellationToken,
) {
    #[cfg(feature = "serve")]
    let wire = {
        let mut wire = wire;
        match wire.speaks_http2().await {
            Ok(true) => return serve_http2(wire, service, stop).await,
            Ok(false) => wire,
            Err(_) => return,
        }
    };
    // Not needed for HTTP/1: `Wire` ends an idle connection at the stop.
    drop(stop);
    let connection = http1::Builder::new()
        // A client that has closed its side after the request still wants the answer. The price is that
        // a client that has left is noticed only when it is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let _ = connection.await;
}

/// Serves one connection of HTTP/2. At the stop its client is told which of its requests will be answered,
/// so none is lost.
#[cfg(feature = "serve")]
async fn serve_http2<S: HttpService>(
    wire: Wire,
    service: TrackedService<S>,
    stop: CancellationToken,
) {
    use hyper_util::rt::TokioExecutor;

    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
    tokio::select! {
        _ = &mut connection => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
