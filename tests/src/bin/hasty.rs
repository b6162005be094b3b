//! A guarded program that lives for some milliseconds, to be signalled at any of them.
//!
//! `hasty [RECORDS]`. It says `ready` once its signals are its own; its service then ends by itself.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, logging};
use tokio::time::sleep;

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    logging::init();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut builder = ShutdownGuard::builder("hasty");
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
