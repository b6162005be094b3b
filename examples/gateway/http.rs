//! The HTTP routes, and the sessions: answers that last until one side ends them.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use forensics_tokio::streams::Streams;

/// The routes.
pub(crate) fn routes(sessions: Streams, probes: Router) -> Router {
    Router::new()
        .route("/", get(|| async { "ok\n" }))
        .route("/slow", get(slow))
        .route("/session", get(session))
        .with_state(sessions)
        .merge(probes)
}

/// Answers after the number of milliseconds in the query `ms=N`.
async fn slow(uri: Uri) -> Result<String, StatusCode> {
    let ms = uri.query().map_or(Some("0"), |query| query.strip_prefix("ms="));
    let ms = ms.and_then(|ms| ms.parse().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(format!("slept {ms} ms\n"))
}

/// A stream with a line every second, until the server asks the sessions to end.
async fn session(State(sessions): State<Streams>) -> Response {
    let (mut writer, reader) = tokio::io::duplex(64);
    tokio::spawn(sessions.run(async move |goodbye| {
        use tokio::io::AsyncWriteExt;
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            let line = tokio::select! {
                _ = beat.tick() => &b"tick\n"[..],
                () = goodbye.cancelled() => b"goodbye\n",
            };
            // An error means that the client has left.
            if writer.write_all(line).await.is_err() || goodbye.is_cancelled() {
                return;
            }
        }
    }));
    Response::new(Body::from_stream(tokio_util::io::ReaderStream::new(reader)))
}
