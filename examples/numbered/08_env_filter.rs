//! My filter shows only my own crate. How do I still see why the service stopped?
//!
//! Add `shutdown=info` to the filter. Without it `install()` writes one line about it to stderr, and the
//! lines of the stop go to stderr as well.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 08_env_filter                              # press Ctrl-C
//! RUST_LOG=08_env_filter=debug cargo run -p forensics-example-numbered --example 08_env_filter  # without it
//! ```

#![forbid(unsafe_code)]

use std::error::Error;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("08_env_filter=debug,shutdown=info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let guard = ShutdownGuard::builder("env_filter").install()?;
    guard.phase("flush", async |_| tracing::debug!("flushing"));
    tracing::debug!("working");
    let stop = guard.token();
    Ok(guard.run(stop.cancelled_owned()).await)
}
