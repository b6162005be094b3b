//! The least that a service needs. Run it, then press Ctrl-C:
//!
//! ```sh
//! cargo run --example minimal
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, diagnostic, logging};
use tokio_util::sync::CancellationToken;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child(); // First of all: in the diagnostic's process this does not return.
    logging::init();
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("minimal").deadline(Duration::from_secs(10)).install()?;
    guard.phase("drain", |cx| async move { cx.service_ended().await });
    guard
        .phase("db_close", |_| async { Ok::<(), std::io::Error>(()) })
        .reserve(Duration::from_secs(1));
    Ok(guard.run(server(guard.token())).await.exit_code())
}

/// Stands for your service: it works until the token is cancelled, then finishes and returns.
async fn server(stop: CancellationToken) {
    println!("working; pid {}", std::process::id());
    stop.cancelled().await;
}
