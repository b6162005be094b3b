//! A queue worker. Jobs that are not done in time are handed back, so that the next worker does them
//! and none is lost.
//!
//! ```sh
//! mkdir -p /tmp/queue && echo 500 >/tmp/queue/mail.job    # a job of 500 ms
//! cargo run --example worker -- /tmp/queue
//! ```
//!
//! The queue is a folder. A job is a file in it, which contains its length in milliseconds. A worker
//! takes `NAME.job` by renaming it to `NAME.taken`, which only one worker can do. When it is done it
//! renames it to `NAME.done`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long running jobs may continue after a request to stop.
const FINISH: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let queue = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: worker QUEUE")?);
    let guard = ShutdownGuard::builder("worker").install()?;
    let jobs = TaskTracker::new();
    // Not the guard's token, because jobs continue after the first signal.
    let enough = CancellationToken::new();

    let (running, soon) = (jobs.clone(), enough.clone());
    guard
        .phase("finish", async move |cx| {
            running.close();
            cx.record("jobs_at_start", running.len());
            // Not the timeout of the phase: it would drop the phase, and the code below would not
            // run.
            let _ = timeout(FINISH, running.wait()).await;
            cx.record("jobs_left", running.len());
            soon.cancel();
        })
        .timeout(FINISH * 2);
    // The reserve gives it time, even if the phase before it takes too long.
    let (left, now) = (jobs.clone(), enough.clone());
    guard
        .phase("hand_back", async move |_| {
            now.cancel();
            left.wait().await;
        })
        .reserve(Duration::from_secs(1));

    println!("working; pid {}", std::process::id());
    let worker = take_jobs(queue, jobs, guard.token(), enough);
    Ok(guard.run(worker).await)
}

/// Takes jobs from the queue until `stop` is cancelled.
async fn take_jobs(
    queue: PathBuf,
    jobs: TaskTracker,
    stop: CancellationToken,
    enough: CancellationToken,
) -> io::Result<()> {
    while !stop.is_cancelled() {
        for job in fs::read_dir(&queue)? {
            let job = job?.path();
            let taken = job.with_extension("taken");
            // Another worker may have been faster.
            if job.extension() == Some(OsStr::new("job")) && fs::rename(&job, &taken).is_ok() {
                jobs.spawn(do_or_hand_back(taken, enough.clone()));
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(Duration::from_millis(50)) => {}
        }
    }
    Ok(())
}

async fn do_or_hand_back(taken: PathBuf, enough: CancellationToken) {
    println!("took {}", name(&taken));
    let (extension, what) = tokio::select! {
        () = do_it(&taken) => ("done", "done with"),
        () = enough.cancelled() => ("job", "handed back"),
    };
    match fs::rename(&taken, taken.with_extension(extension)) {
        Ok(()) => println!("{what} {}", name(&taken)),
        Err(e) => eprintln!("{what} {}, but: {e}", name(&taken)),
    }
}

/// A stand-in for a job.
async fn do_it(job: &Path) {
    let length = fs::read_to_string(job).ok().and_then(|text| text.trim().parse().ok());
    sleep(Duration::from_millis(length.unwrap_or(0))).await;
}

fn name(job: &Path) -> String {
    job.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
