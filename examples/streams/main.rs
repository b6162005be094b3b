//! WebSockets, server-sent events and long polls, which last until one side ends them. At a stop, each
//! of them is asked to end.
//!
//! ```sh
//! cargo run -p forensics-example-streams --example streams
//! ```

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use forensics_tokio::connections::Connections;
use forensics_tokio::serve::{self, serve};
use forensics_tokio::streams::Streams;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("streams").install()?;
    let listener = serve::Listener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    // Ask the streams to end, and cut those that have not ended after 3 s.
    let streams = Streams::new();
    guard.phase("goodbye", streams.goodbye_phase(Duration::from_secs(3)));
    // Then wait for the other requests, and until every connection is closed.
    let connections = Connections::new();
    guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());

    let app = Router::new()
        .route("/", get(slow))
        .route("/upload", post(upload))
        .route("/big", get(big))
        .route("/ws", get(upgrade))
        .route("/sse", get(events))
        .route("/poll", get(poll))
        .with_state(streams);
    let server = serve(listener, app, &connections, guard.token());
    Ok(guard.run(server).await)
}

/// An ordinary request.
async fn slow() -> &'static str {
    sleep(Duration::from_millis(500)).await;
    "ok\n"
}

async fn upload(body: Bytes) -> String {
    format!("got {} bytes\n", body.len())
}

async fn big() -> Body {
    Body::from(vec![b'x'; 20 << 20])
}

/// The stream counts from here until the connection is dropped.
async fn upgrade(State(streams): State<Streams>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| {
        streams.run(|goodbye| echo(socket, goodbye)).await;
    })
}

/// Sends each message back after half a second of work, until the client leaves or `goodbye` is
/// cancelled. A message that was received is answered first.
async fn echo(mut socket: WebSocket, goodbye: CancellationToken) {
    loop {
        let message = tokio::select! {
            biased;
            message = socket.recv() => message,
            () = goodbye.cancelled() => return say_goodbye(socket).await,
        };
        // An error, or none: the client has left.
        let Some(Ok(message)) = message else { return };
        if let Message::Text(text) = message {
            sleep(Duration::from_millis(500)).await;
            if socket.send(Message::Text(text)).await.is_err() {
                return;
            }
        }
    }
}

/// Closes a WebSocket with 1001, "going away", and waits for the client's answer.
async fn say_goodbye(mut socket: WebSocket) {
    let close = CloseFrame { code: close_code::AWAY, reason: "the service stops".into() };
    if socket.send(Message::Close(Some(close))).await.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// An event every 100 ms. The last one is `goodbye`, so that the client connects again elsewhere.
async fn events(
    State(streams): State<Streams>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (say, hear) = mpsc::channel(1);
    tokio::spawn(streams.run(async move |goodbye| {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            let text = tokio::select! {
                _ = ticks.tick() => "tick",
                () = goodbye.cancelled() => "goodbye",
            };
            let event = Ok(Event::default().data(text));
            // An error means that the client has left.
            if say.send(event).await.is_err() || goodbye.is_cancelled() {
                return;
            }
        }
    }));
    Sse::new(ReceiverStream::new(hear))
}

/// Answers when there are news, which takes a minute, or without news at a stop.
async fn poll(State(streams): State<Streams>) -> Response {
    let news = streams.run(async |goodbye| {
        tokio::select! {
            () = sleep(Duration::from_secs(60)) => "news\n".into_response(),
            () = goodbye.cancelled() => StatusCode::NO_CONTENT.into_response(),
        }
    });
    news.await.unwrap_or(StatusCode::SERVICE_UNAVAILABLE.into_response())
}
