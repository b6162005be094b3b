//! hyper without a framework, behind the accept loop of `forensics_tokio::serve`.
//!
//! ```sh
//! cargo run --example hyper
//! ```

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use forensics_tokio::connections::Connections;
use forensics_tokio::serve::{self, RequestBody, serve};
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use http::{Request, Response};
use tower::service_fn;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("hyper").install()?;
    let listener = serve::Listener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    let connections = Connections::new();
    guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());
    let server = serve(listener, service_fn(answer), &connections, guard.token());
    Ok(guard.run(server).await)
}

/// `/slow` takes a second.
async fn answer(request: Request<RequestBody>) -> Result<Response<String>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(Response::new("ok\n".to_owned()))
}
