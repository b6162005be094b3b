//! A service whose first phase ends at once, hangs, or blocks its thread, and with it the runtime: as
//! its one argument says.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, diagnostic, logging};
use tokio_util::sync::CancellationToken;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<ExitCode, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("service").deadline(Duration::from_secs(60)).install()?;
    match std::env::args().nth(1).as_deref() {
        Some("hang") => guard.phase("drain", |_| {
            println!("draining");
            std::future::pending::<()>()
        }),
        Some("block") => guard.phase("drain", |_| async {
            loop {
                std::thread::park();
            }
        }),
        _ => guard.phase("drain", |cx| async move { cx.service_ended().await }),
    };
    guard.phase("db_close", |_| async {}).reserve(Duration::from_secs(1));
    Ok(guard.run(server(guard.token())).await.exit_code())
}

async fn server(stop: CancellationToken) {
    println!("working");
    stop.cancelled().await;
}
