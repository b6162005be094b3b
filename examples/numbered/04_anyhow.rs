//! How do I return errors of anyhow?
//!
//! From `main`, from a phase, and from the service. The log shows an error with all its causes.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 04_anyhow -- /tmp/snapshot      # press Ctrl-C
//! cargo run -p forensics-example-numbered --example 04_anyhow -- /missing/snapshot  # the phase fails
//! ```

#![forbid(unsafe_code)]

use anyhow::Context;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<ShutdownReport> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let file = std::env::args().nth(1).context("usage: 04_anyhow FILE")?;
    let guard = ShutdownGuard::builder("anyhow").install()?;
    guard.phase("snapshot", async move |_| -> anyhow::Result<()> {
        std::fs::write(&file, "state\n").context("the snapshot is lost")
    });
    println!("working; pid {}", std::process::id());
    let service = serve(guard.token());
    Ok(guard.run(service).await)
}

/// A stand-in for a server.
async fn serve(stop: CancellationToken) -> anyhow::Result<()> {
    stop.cancelled().await;
    Ok(())
}
