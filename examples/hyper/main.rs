//! hyper without a framework: connections watched by hyper-util, which ends each one after the
//! request that it is at.
//!
//! ```sh
//! cargo run --example hyper
//! ```

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, diagnostic, logging};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("hyper").install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    // The server ends by itself once the token is cancelled; this bounds and names how long.
    guard
        .phase("drain", |cx| async move { cx.service_ended().await })
        .timeout(Duration::from_secs(30));
    Ok(guard.run(accept(listener, guard.token())).await.exit_code())
}

/// Accepts until `stop` is cancelled, then waits for the connections there are.
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
            // A client that left is no concern of ours.
            let _ = watched.await;
        });
    }
    // No other client can connect while the open connections end.
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

/// `/slow` takes a second, anything else no time.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(Response::new("ok\n".to_owned()))
}
