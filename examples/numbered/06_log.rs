//! How do I see a stop in a logger of the crate `log`?
//!
//! Set the logger up before the guard, as always. Here it is env_logger; with simplelog or fern it is the
//! same. If it has a filter, the filter must include `shutdown=info`.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 06_log                     # press Ctrl-C
//! RUST_LOG=warn cargo run -p forensics-example-numbered --example 06_log       # says what is hidden
//! RUST_LOG=warn,shutdown=info cargo run -p forensics-example-numbered --example 06_log
//! ```

#![forbid(unsafe_code)]

use std::error::Error;

use env_logger::Env;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    // By itself env_logger shows only errors.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let guard = ShutdownGuard::builder("log").install()?;
    guard.phase("flush", async |_| log::info!("flushing"));
    println!("working; pid {}", std::process::id());
    let stop = guard.token();
    Ok(guard.run(stop.cancelled_owned()).await)
}
