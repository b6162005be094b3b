//! Readiness and liveness over HTTP, from before the service is up until it stops.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::net::SocketAddr;

use forensics_tokio::{ShutdownGuard, probes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_probes_report_starting_ready_and_stopping() {
    let builder = ShutdownGuard::builder("test").signals([]).auto_ready(false);
    let guard = builder.install().unwrap();
    // A separate server, which a stop does not close.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, probes::router(&guard)).into_future());

    assert_eq!(get(address, "/readyz").await, (503, "starting\n".to_owned()));
    assert_eq!(get(address, "/livez").await, (200, "alive\n".to_owned()));
    guard.handle().ready();
    assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));

    guard.phase("drain", async move |_| {
        assert_eq!(get(address, "/readyz").await, (503, "stopping\n".to_owned()));
        assert_eq!(get(address, "/livez").await, (200, "alive\n".to_owned()));
    });
    guard.handle().request_shutdown("test");
    assert_eq!(get(address, "/readyz").await, (503, "stopping\n".to_owned()));
    let service = guard.token().cancelled_owned();
    let report = guard.run(service).await;
    assert_eq!(report.exit_status, 0, "{report:?}");
    server.abort();
}
