//! How do I return errors of eyre?
//!
//! From `main`, from a phase, and from the service. The log shows an error with all its causes.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 05_eyre -- /tmp/snapshot      # press Ctrl-C
//! cargo run -p forensics-example-numbered --example 05_eyre -- /missing/snapshot  # the phase fails
//! ```

#![forbid(unsafe_code)]

use eyre::{OptionExt, WrapErr};
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> eyre::Result<ShutdownReport> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let file = std::env::args().nth(1).ok_or_eyre("usage: 05_eyre FILE")?;
    let guard = ShutdownGuard::builder("eyre").install()?;
    guard.phase("snapshot", async move |_| -> eyre::Result<()> {
        std::fs::write(&file, "state\n").wrap_err("the snapshot is lost")
    });
    println!("working; pid {}", std::process::id());
    let service = serve(guard.token());
    Ok(guard.run(service).await)
}

/// A stand-in for a server.
async fn serve(stop: CancellationToken) -> eyre::Result<()> {
    stop.cancelled().await;
    Ok(())
}
