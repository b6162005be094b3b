//! A guarded program that stands still at the edges of its life, for tests to signal it there.
//!
//! `edges before`: between `install()` and `run()`. `edges after`: after `run()`. In both it says
//! `here` and waits for a line on stdin, so that its test decides when it goes on.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::BufRead;

use forensics_tokio::{ShutdownGuard, ShutdownReport, logging};

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    logging::init();
    let edge = std::env::args().nth(1).unwrap_or_default();
    tokio::runtime::Runtime::new()?.block_on(async {
        let guard = ShutdownGuard::builder("edges").install()?;
        guard.phase("db_close", async |_| {});
        if edge == "before" {
            stand_still()?;
        } else {
            guard.handle().request_shutdown("to get to its end");
        }
        let service = guard.token().cancelled_owned();
        let report = guard.run(service).await;
        if edge == "after" {
            stand_still()?;
        }
        Ok(report)
    })
}

fn stand_still() -> std::io::Result<()> {
    println!("here");
    std::io::stdin().lock().read_line(&mut String::new()).map(drop)
}
