//! How do I wait for tasks that come and go?
//!
//! A `TaskTracker` counts them. The phase waits until none is left. If that takes longer than its
//! timeout, the log says how many were left.
//!
//! ```sh
//! cargo run -p forensics-example-numbered --example 02_task_tracker   # press Ctrl-C
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let guard = ShutdownGuard::builder("task_tracker").install()?;
    let tasks = TaskTracker::new();
    let service = start_tasks(tasks.clone(), guard.token());
    guard
        .phase("tasks", async move |cx| {
            cx.service_ended().await; // From now on no task is started.
            tasks.close();
            while !tasks.is_empty() {
                cx.record("tasks_left", tasks.len());
                tokio::select! {
                    () = tasks.wait() => {}
                    () = sleep(Duration::from_secs(1)) => {}
                }
            }
            cx.record("tasks_left", 0);
        })
        .timeout(guard.drain_timeout());
    println!("working; pid {}", std::process::id());
    Ok(guard.run(service).await)
}

/// Starts a task every 20 ms until it should stop. Each takes 200 ms, and continues during the teardown.
async fn start_tasks(tasks: TaskTracker, stop: CancellationToken) {
    for number in 1.. {
        tasks.spawn(async move {
            println!("task {number} starts");
            sleep(Duration::from_millis(200)).await;
            println!("task {number} is done");
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(Duration::from_millis(20)) => {}
        }
    }
}
