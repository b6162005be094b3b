//! A service on a current-thread runtime. A single blocking call stops everything in it.
//!
//! ```sh
//! cargo run --example current_thread            # press Ctrl-C
//! cargo run --example current_thread -- block   # the same, with a phase that blocks
//! ```
//!
//! With `block` nothing async can run, neither the timeout nor the next phase. The guard's own thread
//! logs this with the state of each thread, and ends the process at the deadline.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let blocks = std::env::args().nth(1).as_deref() == Some("block");
    let guard =
        ShutdownGuard::builder("current_thread").deadline(Duration::from_secs(3)).install()?;
    guard
        .phase("flush", async move |_| {
            if blocks {
                loop {
                    std::thread::park();
                }
            }
        })
        .timeout(Duration::from_secs(1));
    guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(1));

    println!("working; pid {}", std::process::id());
    let service = guard.token().cancelled_owned();
    Ok(guard.run(service).await)
}
