//! How do I log a stop as JSON?
//!
//! With the feature `json` of tracing-subscriber. Each fact is a field.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 07_json   # press Ctrl-C
//! ```

#![forbid(unsafe_code)]

use std::error::Error;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    tracing_subscriber::fmt().json().init();
    let guard = ShutdownGuard::builder("json").install()?;
    guard.phase("flush", async |_| tracing::info!(rows = 7, "flushing"));
    tracing::info!(pid = std::process::id(), "working");
    let stop = guard.token();
    Ok(guard.run(stop.cancelled_owned()).await)
}
