//! `/readyz` and `/livez` for the kubelet, as an axum router.
//!
//! Readiness says whether to send traffic: it fails from the stop's first moment on, which is what a
//! [lead](crate::Builder::lead) waits for others to notice. Liveness says whether to kill: it is
//! answered by the runtime alone, also during the teardown, as a service that is stopping is not to
//! be killed for it. Where the server itself closes its listener during the drain, serve the probes
//! on a port of their own if something else than the kubelet asks (the kubelet asks a pod that it is
//! terminating for its readiness only).

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::ShutdownGuard;
use crate::readiness::Readiness;

/// `GET /readyz`: 200 `ready`; 503 `starting` or `stopping`. `GET /livez`: 200 `alive`.
///
/// Holds no clone of the guard, so it keeps none alive. To be merged into the service's own router:
///
/// ```
/// use axum::Router;
/// use forensics_tokio::{ShutdownGuard, probes};
///
/// fn app(guard: &ShutdownGuard) -> Router {
///     Router::new().merge(probes::routes(guard))
/// }
/// # let _ = app;
/// ```
pub fn routes(guard: &ShutdownGuard) -> Router {
    let readiness = guard.shared_readiness();
    Router::new()
        .route("/readyz", get(move || std::future::ready(readyz(&readiness))))
        .route("/livez", get(|| async { "alive\n" }))
}

fn readyz(readiness: &Arc<Readiness>) -> (StatusCode, &'static str) {
    match () {
        () if readiness.is_over() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        () if *readiness.watch().borrow() => (StatusCode::OK, "ready\n"),
        () => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}
