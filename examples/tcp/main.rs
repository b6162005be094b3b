//! A server of raw TCP sessions, which `Connections` counts.
//!
//! ```sh
//! cargo run --example tcp      # then, from another terminal: nc 127.0.0.1 PORT
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::time::Duration;

use forensics_tokio::connections::{Connections, Tracked};
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("tcp").drain_timeout(Duration::from_secs(3)).install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);

    let connections = Connections::new();
    let goodbye = CancellationToken::new();
    let (told, say) = (connections.clone(), goodbye.clone());
    guard.phase("goodbye", async move |cx| {
        cx.record("sessions_told", told.open());
        say.cancel();
    });
    // Each session may finish its current line. The timeout ends the others. The log, the report and the
    // record say how many, and with whom.
    let left = connections.clone();
    guard
        .phase("sessions", async move |cx| left.wait_closed(&cx).await)
        .timeout(guard.drain_timeout());
    let server = accept(listener, connections, guard.token(), goodbye);
    Ok(guard.run(server).await)
}

/// Accepts until `stop` is cancelled. The open sessions continue.
async fn accept(
    listener: TcpListener,
    connections: Connections,
    stop: CancellationToken,
    goodbye: CancellationToken,
) -> io::Result<()> {
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        let (stream, goodbye) = (connections.track(stream, peer), goodbye.clone());
        tokio::spawn(async move {
            // An error means that the client has left.
            let _ = session(stream, goodbye).await;
        });
    }
}

/// Sends each line back, until the client leaves or `goodbye` is cancelled between two lines.
async fn session(stream: Tracked<TcpStream>, goodbye: CancellationToken) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    let mut told = false;
    loop {
        if told && line.is_empty() {
            return write.write_all(b"goodbye\n").await;
        }
        tokio::select! {
            read = read.read_until(b'\n', &mut line) => {
                read?;
                if !line.ends_with(b"\n") {
                    return Ok(()); // The client has left.
                }
                write.write_all(&line).await?;
                line.clear();
            }
            // What has been read of a line stays in `line`.
            () = goodbye.cancelled(), if !told => told = true,
        }
    }
}
