//! `/readyz` and `/livez` for the kubelet, as an axum router.
//!
//! Readiness says whether to send traffic. It fails as soon as a stop begins. The
//! [pre-stop delay](crate::Builder::pre_stop_delay) gives others time to notice that.
//!
//! Liveness says whether to kill the process. It succeeds as long as the runtime answers, also during
//! the teardown: a service must not be killed because it is stopping.
//!
//! The server may close its listener during the drain. The kubelet queries only the readiness of a
//! pod that is terminating. If anything else queries the probes, serve them on a separate port.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::ShutdownGuard;

/// Returns a router for the probes. `GET /readyz`: 200 `ready`; 503 `starting` or `stopping`. `GET
/// /livez`: 200 `alive`.
///
/// The router does not keep the guard alive. Merge it into the service's own router:
///
/// ```no_run
/// use std::error::Error;
/// use axum::Router;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport, probes};
/// use tokio::net::TcpListener;
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("gateway").install()?;
///     let app = Router::new().merge(probes::router(&guard));
///     let listener = TcpListener::bind("127.0.0.1:8080").await?;
///     let stop = guard.token().cancelled_owned();
///     let server = axum::serve(listener, app).with_graceful_shutdown(stop);
///     Ok(guard.run(async move { server.await }).await)
/// }
/// ```
pub fn router(guard: &ShutdownGuard) -> Router {
    let shutdown = Arc::downgrade(guard.shutdown());
    let readyz = async move || match shutdown.upgrade() {
        Some(shutdown) if *shutdown.ready.borrow() => (StatusCode::OK, "ready\n"),
        Some(shutdown) if shutdown.machine().is_running() => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    };
    Router::new().route("/readyz", get(readyz)).route("/livez", get(async || "alive\n"))
}
