//! A guarded program that runs for only some milliseconds, for tests that signal it at any moment.
//!
//! `short_lived [RECORDS]`. It prints `ready` once its guard is installed. Then its service ends by
//! itself.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, logging};
use tokio::time::sleep;

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    logging::init();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut builder = ShutdownGuard::builder("short_lived");
        if let Some(records) = std::env::args_os().nth(1) {
            builder = builder.record_dir(records);
        }
        let guard = builder.install()?;
        for name in ["drain", "db_close"] {
            guard.phase(name, |_| sleep(Duration::from_millis(3)));
        }
        println!("ready");
        Ok(guard.run(sleep(Duration::from_millis(10))).await)
    })
}
