//! A service on a runtime of one thread, which a single blocking call stops altogether.
//!
//! ```sh
//! cargo run --example current_thread            # press Ctrl-C
//! cargo run --example current_thread -- block   # the same, with a phase that blocks
//! ```
//!
//! With `block` nothing that is async runs any more, neither a timeout nor the phase after it. The
//! guard's own thread says so, names where each thread waits, and ends the process at the deadline.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, diagnostic, logging};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let blocks = std::env::args().nth(1).as_deref() == Some("block");
    let guard =
        ShutdownGuard::builder("current_thread").deadline(Duration::from_secs(3)).install()?;
    guard
        .phase("flush", move |_| async move {
            if blocks {
                loop {
                    std::thread::park();
                }
            }
        })
        .timeout(Duration::from_secs(1));
    guard.phase("db_close", |_| async {}).reserve(Duration::from_secs(1));

    println!("working; pid {}", std::process::id());
    Ok(guard.run(guard.token().cancelled_owned()).await.exit_code())
}
