//! Serves connections until the stop, then answers every request that was received by then.
//!
//! A request is received when its bytes are in one of our sockets, even if nothing has read them: the
//! client's kernel has then been told that they arrived. The graceful shutdown of `axum::serve` answers
//! what a handler has begun. It loses what is still in the kernel: connections in the queue of the
//! listener, and requests on a connection that looked idle. So this module accepts connections itself,
//! and each socket is closed without losing anything: the listener in `listening`, a connection in
//! `wire`.

use std::io;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::listening::Listening;
use crate::wire::Wire;

/// Returns when `stop` is cancelled and every request received by then is answered. That can take
/// long; the timeout of the phase `drain` limits it.
///
/// # Errors
/// If the listening socket cannot be taken from the runtime.
pub(crate) async fn serve(
    mut listening: Listening,
    app: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let begin = |socket| connections.spawn(converse(socket, app.clone(), stop.clone()));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            socket = listening.accept() => begin(socket),
        };
    }
    for socket in listening.close().await? {
        begin(socket);
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// Serves one connection until it ends.
async fn converse(socket: TcpStream, app: Router, stop: CancellationToken) {
    let wire = TokioIo::new(Wire::new(socket, stop));
    let connection = http1::Builder::new()
        // A client that has closed its side after the request still wants the answer. The price is that
        // a client that has left is noticed only when it is answered.
        .half_close(true)
        .serve_connection(wire, TowerToHyperService::new(app))
        .without_shutdown();
    // An error means that the client has left, or does not speak HTTP.
    if let Ok(ended) = connection.await {
        ended.io.into_inner().close().await;
    }
}
