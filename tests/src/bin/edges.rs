//! A guarded program that waits before or after `run()`, so that tests can send it signals there.
//!
//! `edges before` waits between `install()` and `run()`, `edges after` waits after `run()`. It
//! prints `here` and waits for a line on stdin, so that the test decides when it continues. `edges
//! request` requests a stop itself, and has a phase that never ends.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::BufRead;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, logging};

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    logging::init();
    let edge = std::env::args().nth(1).unwrap_or_default();
    tokio::runtime::Runtime::new()?.block_on(async {
        let guard = ShutdownGuard::builder("edges").install()?;
        if edge == "request" {
            guard.phase("drain", async |_| std::future::pending::<()>().await);
        }
        guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(1));
        if edge == "before" {
            wait_for_test()?;
        } else {
            guard.handle().request_shutdown("to get to its end");
        }
        let service = guard.token().cancelled_owned();
        let report = guard.run(service).await;
        if edge == "after" {
            wait_for_test()?;
        }
        Ok(report)
    })
}

fn wait_for_test() -> std::io::Result<()> {
    println!("here");
    std::io::stdin().lock().read_line(&mut String::new()).map(drop)
}
