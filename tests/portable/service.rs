//! A service whose argument selects its first phase: `hang` never ends, `block` blocks its thread
//! and so the runtime, and any other phase ends at once.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    let guard = ShutdownGuard::builder("service").deadline(Duration::from_secs(60)).install()?;
    match std::env::args().nth(1).as_deref() {
        Some("hang") => guard.phase("drain", |_| {
            println!("draining");
            std::future::pending::<()>()
        }),
        Some("block") => guard.phase("drain", async |_| {
            loop {
                std::thread::park();
            }
        }),
        _ => guard.phase("drain", async |cx| cx.service_ended().await),
    };
    guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(1));
    let server = server(guard.token());
    Ok(guard.run(server).await)
}

async fn server(stop: CancellationToken) {
    println!("working");
    stop.cancelled().await;
}
