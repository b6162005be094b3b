//! How do I wait for a set of tasks, and see their errors?
//!
//! A phase returns the results of all tasks. It has failed if one of them has, and its line in the log
//! shows every error.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 01_join_set           # press Ctrl-C
//! cargo run -p forensics-example-numbered --example 01_join_set -- fail   # one of the tasks fails
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("join_set").install()?;
    let mut workers = JoinSet::new();
    for number in 1..=3 {
        workers.spawn(work(number, guard.token()));
    }
    guard
        .phase("workers", async move |cx| {
            cx.record("workers", workers.len());
            // Not `join_all`: it panics if a task has, and drops the others.
            let mut results = Vec::new();
            while let Some(result) = workers.join_next().await {
                results.push(result);
            }
            results
        })
        .timeout(guard.drain_timeout());
    println!("working; pid {}", std::process::id());
    let stop = guard.token();
    Ok(guard.run(stop.cancelled_owned()).await)
}

/// A worker. When it should stop, it finishes what it does.
async fn work(number: u32, stop: CancellationToken) -> io::Result<()> {
    stop.cancelled().await;
    tokio::task::yield_now().await; // A stand-in for the rest of its work.
    if number == 3 && std::env::args().any(|argument| argument == "fail") {
        return Err(io::Error::other("worker 3: queue not flushed"));
    }
    println!("worker {number} has finished");
    Ok(())
}
