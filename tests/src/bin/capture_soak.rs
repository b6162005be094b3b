//! Names the sender of each SIGTERM twice: from what the handler read, and from what a task reads
//! that `tokio::signal` has woken, as a program without the capture would. Both use the pid from
//! the handler, because tokio does not provide it.
//!
//! Prints `ready PID`, then a line of JSON for each signal. Runs until it is killed. With `--fast`
//! its main thread asks for a short time slice, as `low_latency_capture` does.

#![forbid(unsafe_code)]

use std::error::Error;

use forensics_tokio::core::capture;
use forensics_tokio::core::capture::Signal;
use forensics_tokio::core::context::{ShutdownContext, StartupInfo, Trigger};
use forensics_tokio::core::process::ProcessSummary;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let _guard = capture::install(&[Signal::TERM])?;
    if std::env::args().nth(1).as_deref() == Some("--fast") {
        capture::request_short_slice_for_main_thread()?;
    }
    let startup = StartupInfo::collect();
    let mut terminated = signal(SignalKind::terminate())?;
    println!("ready {}", std::process::id());
    for trial in 0.. {
        terminated.recv().await;
        // Our handler was registered first, so the capture is complete when the task wakes.
        let captured =
            capture::drain().pop().ok_or("the task woke before the capture was there")?;
        let by_task = ProcessSummary::read_stat(captured.pid.ok_or("a signal without a sender")?);
        let trigger = Trigger::Signal { signal: captured.signal };
        let context = ShutdownContext::capture(&startup, trigger, Some(&captured));
        let sender = context.sender.ok_or("a signal without a sender")?;
        println!(
            "{}",
            json!({
                "trial": trial,
                "sender": sender,
                "by_task": by_task,
                "took_us": captured.took_ns / 1000,
            })
        );
    }
    Ok(())
}
