//! How do I run several services in one process?
//!
//! With one guard, because a process ends once. The services watch the same token. If one of them ends,
//! it asks for a stop, and the others finish their work.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 03_several_services            # press Ctrl-C
//! cargo run -p forensics-example-numbered --example 03_several_services -- admin   # this one fails
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownHandle, ShutdownReport, diagnostic, logging};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("several").install()?;
    guard.phase("drain", async |cx| cx.service_ended().await).timeout(guard.drain_timeout());
    guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(5));
    let (api, admin) = (run("api", guard.handle()), run("admin", guard.handle()));
    println!("working; pid {}", std::process::id());
    // Not `try_join!`: it would drop the others at the first error.
    Ok(guard.run(async { tokio::join!(api, admin) }).await)
}

/// Runs a service. Its end is a request to stop all of them.
async fn run(name: &str, handle: ShutdownHandle) -> io::Result<()> {
    let result = serve(name, handle.token()).await;
    handle.request_shutdown(format!("{name} has ended"));
    result
}

/// A stand-in for a server.
async fn serve(name: &str, stop: CancellationToken) -> io::Result<()> {
    if std::env::args().any(|argument| argument == name) {
        return Err(io::Error::other(format!("{name}: accept failed")));
    }
    stop.cancelled().await;
    println!("{name} has finished");
    Ok(())
}
