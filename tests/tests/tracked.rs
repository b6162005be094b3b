//! Counting connections and long streams: by state, for other servers, and in a drain.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::routing::{get, post};
use forensics_tests::crowd::Crowd;
use forensics_tests::{until, until_read};
use forensics_tokio::connections::{Connections, State};
use forensics_tokio::inflight::InFlight;
use forensics_tokio::serve::{Listener, RequestBody, serve};
use forensics_tokio::streams::Streams;
use forensics_tokio::testing::TestHarness;
use forensics_tokio::{Outcome, PhaseReport, ShutdownGuard, Signal};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn send(address: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    // The server may reset a connection that it gives up.
    let _ = stream.read_to_end(&mut rest).await;
    String::from_utf8(rest).unwrap()
}

/// Waits until there is one connection, in this state.
async fn until_state(connections: &Connections, state: Option<State>) {
    let (connections, expected) = (connections.clone(), state.map(|state| (state, 1)));
    let wait = move || {
        until(&format!("{expected:?}"), || connections.by_state().into_iter().eq(expected));
    };
    tokio::task::spawn_blocking(wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_serve_is_in_the_state_that_it_is_in() {
    let (listener, address) = listen().await;
    let connections = Connections::new();
    let answer = |request: Request<RequestBody>| async move {
        let upgrade = request.uri().path() == "/upgrade";
        if upgrade {
            let upgraded = hyper::upgrade::on(request);
            tokio::spawn(async move {
                let _upgraded = upgraded.await;
                sleep(SECOND / 2).await;
            });
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer.headers_mut().insert("upgrade", "it".parse().unwrap());
            return Ok::<_, Infallible>(answer);
        }
        axum::body::to_bytes(Body::new(request.into_body()), 100).await.unwrap();
        sleep(SECOND / 2).await;
        Ok(Response::new(Body::empty()))
    };
    let server = Listener::from(listener);
    let (counted, stop) = (connections.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let server =
        tokio::spawn(async move { serve(server, service_fn(answer), &counted, stopped).await });

    let mut client = send(&address, "").await;
    until_state(&connections, Some(State::Idle)).await;
    assert!(connections.to_string().starts_with("0 requests, 1 open connection: no request from"));
    client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\n").await.unwrap();
    until_state(&connections, Some(State::ReadingHead)).await;
    client.write_all(b"Content-Length: 2\r\n\r\n1").await.unwrap();
    until_state(&connections, Some(State::ReadingBody)).await;
    assert_eq!(connections.requests(), 1);
    client.write_all(b"2").await.unwrap();
    until_state(&connections, Some(State::Responding)).await;
    until_state(&connections, Some(State::Idle)).await;
    assert_eq!(connections.requests(), 0);
    client
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: it\r\n\r\n",
        )
        .await
        .unwrap();
    until_state(&connections, Some(State::Upgraded)).await;
    // It counts until it is dropped.
    until_state(&connections, None).await;
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tracked_stream_counts_until_it_is_dropped_and_says_nothing_about_requests() {
    let (listener, address) = listen().await;
    let connections = Connections::new();
    let _client = TcpStream::connect(&address).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let stream = connections.track(stream, peer);
    assert_eq!(connections.to_string(), format!("1 open connection: connection from {peer}"));
    assert_eq!(connections.by_state().into_iter().collect::<Vec<_>>(), [(State::Unknown, 1)]);
    drop(stream);
    assert_eq!(connections.to_string(), "0 open connections");
}

#[test]
fn the_text_names_a_few_connections_and_counts_the_others() {
    let connections = Connections::new();
    let _open: Vec<_> = (1..=5).map(|n| connections.track((), format!("client {n}"))).collect();
    let named: Vec<_> = (1..=3).map(|n| format!("connection from client {n}")).collect();
    let expected = format!("5 open connections: {} and 2 more", named.join(", "));
    assert_eq!(connections.to_string(), expected);
}

/// Stops `axum::serve` with a client that has sent this. Returns what the client received, and the
/// report of the drain.
async fn stop_axum(sent: &str, limit: Duration, is_layered: bool) -> (String, PhaseReport) {
    let (listener, address) = listen().await;
    let builder = ShutdownGuard::builder("test").deadline(20 * SECOND);
    let (harness, guard) = TestHarness::install(builder).unwrap();
    let connections = Connections::with_silence_limit(limit);
    guard.phase("drain", connections.drain_phase()).timeout(3 * SECOND);
    let answer = async |_: Bytes| {
        sleep(SECOND).await;
        "ok\n"
    };
    let mut app = Router::new().route("/", get(answer)).route("/upload", post(answer));
    if is_layered {
        app = app.layer(connections.http_layer());
    }
    let server = axum::serve(connections.listener(listener), app)
        .with_graceful_shutdown(guard.token().cancelled_owned());
    #[expect(clippy::async_yields_async)] // The task may have to be aborted.
    let client = async {
        let client = send(&address, sent).await;
        let address = address.clone();
        let read = tokio::task::spawn_blocking(move || until_read(&address));
        read.await.unwrap();
        harness.signal(Signal::TERM);
        tokio::spawn(rest(client))
    };
    let run = harness.run_to_exit(guard.run(server));
    let (report, client) = tokio::join!(run, client);
    let report = report.unwrap();
    // axum does not close a connection that it still reads.
    if report.timed_out {
        client.abort();
    }
    let got = client.await.unwrap_or_default();
    (got, report.phase("drain").unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_axum_serve_silent_clients_are_closed_and_requests_are_not() {
    let limit = SECOND / 5;
    // Longer in progress than the limit.
    let (got, drain) = stop_axum("GET / HTTP/1.1\r\nHost: h\r\n\r\n", limit, true).await;
    assert!(got.ends_with("ok\n"), "{got}");
    assert_eq!((drain.outcome, drain.values.get("closed")), (Outcome::Ok, None));

    let (got, drain) = stop_axum("GET / HT", limit, true).await;
    assert_eq!((got.as_str(), drain.outcome), ("", Outcome::Ok));
    let closed = drain.values["closed"].as_str().unwrap();
    assert!(closed.starts_with("incomplete request from 127.0.0.1:"), "{closed}");

    // Without the layer it could be a request in progress.
    let (got, drain) = stop_axum("GET / HT", limit, false).await;
    assert_eq!((got.as_str(), drain.outcome), ("", Outcome::TimedOut));
    let why = drain.error.unwrap();
    assert!(why.contains("waited_for=\"1 open connection: connection from 127.0.0.1:"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_closed_without_a_limit() {
    let (got, drain) = stop_axum("GET / HT", Duration::MAX, true).await;
    assert_eq!((got.as_str(), drain.outcome), ("", Outcome::TimedOut));
    let why = drain.error.unwrap();
    assert!(why.contains("0 requests, 1 open connection: incomplete request from"), "{why}");
}

/// Runs a phase while the service never ends. Returns the report of the phase, and how long the whole
/// teardown took.
async fn with_stuck_service(register: impl FnOnce(&ShutdownGuard)) -> (PhaseReport, Duration) {
    let builder = ShutdownGuard::builder("test").deadline(20 * SECOND);
    let (harness, guard) = TestHarness::install(builder).unwrap();
    register(&guard);
    harness.signal(Signal::TERM);
    let report = harness.run_to_exit(guard.run(pending::<()>())).await.unwrap();
    (report.phases[0].clone(), report.total)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_a_drain_has_waited_for_gets_no_further_second() {
    let waits = |guard: &ShutdownGuard| {
        guard.phase("drain", async |cx| cx.service_ended().await).timeout(2 * SECOND);
    };
    let (drain, total) = with_stuck_service(waits).await;
    assert_eq!((drain.outcome, total), (Outcome::TimedOut, 2 * SECOND));
    let does_not = |guard: &ShutdownGuard| drop(guard.phase("drain", async |_| {}));
    let (drain, total) = with_stuck_service(does_not).await;
    assert_eq!((drain.outcome, total), (Outcome::Ok, SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_requests_tells_of_upgraded_connections_and_of_the_service() {
    let in_flight = InFlight::new();
    let upgrade = |()| async {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        Ok::<_, Infallible>(answer)
    };
    let mut service = ServiceBuilder::new().layer(in_flight.http_layer()).service_fn(upgrade);
    drop(service.call(()).await.unwrap());
    let waits = |guard: &ShutdownGuard| {
        guard.phase("drain", in_flight.drain_phase()).timeout(2 * SECOND);
    };
    let (drain, _) = with_stuck_service(waits).await;
    assert_eq!((drain.outcome, &drain.values["upgraded"]), (Outcome::TimedOut, &1.into()));
    let waited_for = drain.values["waited_for"].as_str().unwrap();
    assert!(waited_for.starts_with("the service, which has not ended"), "{waited_for}");
}

#[tokio::test(start_paused = true)]
async fn streams_are_asked_to_end_and_those_that_do_not_are_cut() {
    let streams = Streams::new();
    let polite = tokio::spawn(streams.run(async |goodbye| {
        goodbye.cancelled().await;
        sleep(SECOND).await;
        "goodbye"
    }));
    let stubborn = tokio::spawn(streams.run(|_| pending::<()>()));
    let never_polled = streams.run(|_| async {});
    assert_eq!(streams.count(), 3);
    drop(never_polled);
    let phase =
        |guard: &ShutdownGuard| drop(guard.phase("goodbye", streams.goodbye_phase(5 * SECOND)));
    let (goodbye, _) = with_stuck_service(phase).await;
    assert_eq!((goodbye.outcome, goodbye.duration), (Outcome::Ok, 5 * SECOND));
    let values = ["streams_told", "streams_now", "streams_cut"].map(|key| &goodbye.values[key]);
    assert_eq!(values, [2, 1, 1]);
    assert_eq!(polite.await.unwrap(), Some("goodbye"));
    assert_eq!(stubborn.await.unwrap(), None);
    assert_eq!(streams.count(), 0);
}

/// The load tests of the gateway are about a build without HTTP/2. This server first has to find out
/// which version a client speaks.
#[tokio::test(flavor = "multi_thread")]
async fn with_http2_enabled_no_request_of_http1_is_lost() {
    let slow = async |Query(query): Query<HashMap<String, u64>>| {
        sleep(Duration::from_millis(query["ms"])).await;
        format!("slept {} ms\n", query["ms"])
    };
    let app = Router::new().route("/", get(async || "ok\n")).route("/slow", get(slow));
    for _ in 0..10 {
        let (listener, address) = listen().await;
        let (connections, stop) = (Connections::new(), CancellationToken::new());
        let (app, stopped) = (app.clone(), stop.clone());
        let server = async move { serve(listener.into(), app, &connections, stopped).await };
        let server = tokio::spawn(server);
        let clients = tokio::task::spawn_blocking(move || {
            let crowd = Crowd::start(&address, 4);
            crowd.wait_for_answers(60);
            stop.cancel();
            crowd.refused()
        });
        let account = clients.await.unwrap();
        assert_eq!(account.lost, [""; 0], "{account}");
        server.await.unwrap().unwrap();
    }
}
