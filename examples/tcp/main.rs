//! A gateway of raw TCP sessions that last until one side ends them, counted by a `TaskTracker`.
//!
//! ```sh
//! cargo run --example tcp      # then, from another terminal: nc 127.0.0.1 PORT
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, diagnostic, logging};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("tcp").install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);

    let sessions = TaskTracker::new();
    let goodbye = CancellationToken::new();
    let (told, say) = (sessions.clone(), goodbye.clone());
    guard.phase("goodbye", move |cx| async move {
        cx.record("sessions_told", told.len());
        say.cancel();
    });
    // Each may finish the line that it is at. Who does not is cut by the timeout, and the number of
    // sessions left is in the log, the report and the record.
    let left = sessions.clone();
    guard
        .phase("sessions", move |cx| async move {
            left.close();
            while !left.is_empty() {
                cx.record("sessions_left", left.len());
                tokio::select! {
                    () = left.wait() => {}
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                }
            }
            cx.record("sessions_left", 0);
        })
        .timeout(Duration::from_secs(3));
    Ok(guard.run(accept(listener, sessions, guard.token(), goodbye)).await.exit_code())
}

/// Accepts until `stop` is cancelled. The sessions there are go on.
async fn accept(
    listener: TcpListener,
    sessions: TaskTracker,
    stop: CancellationToken,
    goodbye: CancellationToken,
) -> io::Result<()> {
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?.0,
        };
        let goodbye = goodbye.clone();
        sessions.spawn(async move {
            // A client that left is no concern of ours.
            let _ = session(stream, goodbye).await;
        });
    }
}

/// Answers each line with itself, until the client leaves or `goodbye` is cancelled between two.
async fn session(mut stream: TcpStream, goodbye: CancellationToken) -> io::Result<()> {
    let (read, mut write) = stream.split();
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
