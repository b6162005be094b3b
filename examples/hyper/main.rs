//! hyper without a framework. hyper-util's `GracefulShutdown` ends each connection after its current
//! request.
//!
//! ```sh
//! cargo run --example hyper
//! ```

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("hyper").install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    // The server ends by itself once the token is cancelled. This phase limits how long it may take.
    guard.phase("drain", async |cx| cx.service_ended().await).timeout(Duration::from_secs(30));
    let server = accept(listener, guard.token());
    Ok(guard.run(server).await)
}

/// Accepts until `stop` is cancelled, then waits for the open connections.
async fn accept(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted?.0,
        };
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        let watched = connections.watch(connection);
        tokio::spawn(async move {
            // An error means that the client has left.
            let _ = watched.await;
        });
    }
    // No other client can connect while the open connections end.
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

/// `/slow` takes a second.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(Response::new("ok\n".to_owned()))
}
