//! The HTTP routes, and the requests and sessions in flight.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use forensics_tokio::inflight::InFlight;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The requests in flight. A session is a request that lasts until one side ends it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) requests: InFlight,
    sessions: TaskTracker,
    goodbye: CancellationToken,
}

impl Traffic {
    /// Asks the sessions to end, and returns how many there are.
    pub(crate) fn say_goodbye(&self) -> usize {
        self.goodbye.cancel();
        self.sessions.len()
    }
}

/// The routes. Once `stop` is cancelled, each answer has the header `Connection: close`. Requests to the
/// probes are not counted.
pub(crate) fn routes(traffic: Arc<Traffic>, probes: Router, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", get(|| async { "ok\n" }))
        .route("/slow", get(slow))
        .route("/session", get(session))
        .layer(middleware::from_fn_with_state(stop, say_close))
        .layer(traffic.requests.http_layer())
        .with_state(traffic)
        .merge(probes)
}

async fn say_close(
    State(stop): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if stop.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers after the number of milliseconds in the query `ms=N`.
async fn slow(uri: Uri) -> Result<String, StatusCode> {
    let ms = uri.query().map_or(Some("0"), |query| query.strip_prefix("ms="));
    let ms = ms.and_then(|ms| ms.parse().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(format!("slept {ms} ms\n"))
}

/// A stream with a line every second, until the server asks the sessions to end.
async fn session(State(traffic): State<Arc<Traffic>>) -> Response {
    let (mut say, hear) = tokio::io::duplex(64);
    let goodbye = traffic.goodbye.clone();
    traffic.sessions.spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            let line = tokio::select! {
                _ = beat.tick() => &b"tick\n"[..],
                () = goodbye.cancelled() => b"goodbye\n",
            };
            // An error means that the client has left.
            if say.write_all(line).await.is_err() || goodbye.is_cancelled() {
                return;
            }
        }
    });
    Response::new(Body::from_stream(tokio_util::io::ReaderStream::new(hear)))
}
