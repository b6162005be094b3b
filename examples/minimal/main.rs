//! The smallest guarded service. Run it, then press Ctrl-C:
//!
//! ```sh
//! cargo run --example minimal
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("minimal").deadline(Duration::from_secs(10)).install()?;
    guard.phase("drain", async |cx| cx.service_ended().await);
    guard.phase("db_close", async |_| { /* pool.close().await */ }).reserve(Duration::from_secs(1));
    let stop = guard.token();
    Ok(guard.run(server(stop)).await)
}

/// A stand-in for your service. It works until the token is cancelled, then finishes and returns.
async fn server(stop: CancellationToken) {
    println!("working; pid {}", std::process::id());
    stop.cancelled().await;
}
