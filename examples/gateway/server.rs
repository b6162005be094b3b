//! Serves connections until the stop, and then all it was sent until then.
//!
//! A request is ours once its bytes are in a socket of ours, read or not: then the client's kernel
//! has been told that they arrived. `axum::serve` with its graceful shutdown keeps what a handler
//! has begun; it loses what still lies in the kernel: connections in the listener's queue, and
//! requests to a connection that looked idle. So this accepts by itself, and gives up each socket in
//! a way that loses nothing: the listener in `listening`, a connection in `wire`.

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

/// Returns once `stop` is cancelled and every request received by then is answered, however long
/// that takes: it is the drain's to be impatient.
///
/// # Errors
/// Where the listening socket cannot be given up.
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

/// One connection, from its first request to its end.
async fn converse(socket: TcpStream, app: Router, stop: CancellationToken) {
    let wire = TokioIo::new(Wire::new(socket, stop));
    let connection = http1::Builder::new()
        // A client that has sent its request and closed its side still wants the answer. The price:
        // one that has left altogether is noticed only when it is answered.
        .half_close(true)
        .serve_connection(wire, TowerToHyperService::new(app))
        .without_shutdown();
    // An error is a client that has gone, or speaks no HTTP.
    if let Ok(ended) = connection.await {
        ended.io.into_inner().close().await;
    }
}
