//! Workers of apalis. At a stop the jobs that run are finished, and the others stay in the queue.
//!
//! ```sh
//! mkdir -p /tmp/queue && touch /tmp/queue/{a,b,c}.job
//! cargo run -p forensics-example-apalis --example apalis -- /tmp/queue    # press Ctrl-C
//! ```
//!
//! The queue is a folder, which stands for a queue that survives the process. A worker takes `NAME.job` by
//! renaming it to `NAME.taken`, and renames it to `NAME.done` when it is done.

#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apalis::prelude::{
    Monitor, Request, RequestStream, WorkerBuilder, WorkerBuilderExt, WorkerFactoryFn,
};
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let queue = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: apalis QUEUE")?);
    let guard = ShutdownGuard::builder("apalis").install()?;
    // The monitor ends when the last job has ended.
    guard.phase("jobs", async |cx| cx.service_ended().await).timeout(guard.drain_timeout());

    println!("working; pid {}", std::process::id());
    let worker = WorkerBuilder::new("worker")
        .concurrency(2)
        .backend(jobs(queue, guard.token()))
        .build_fn(work);
    let stop = guard.token();
    let monitor = Monitor::new().register(worker).run_with_signal(async move {
        stop.cancelled().await;
        Ok(())
    });
    Ok(guard.run(monitor).await)
}

/// The jobs in the queue, until `stop` is cancelled. This has to end, because apalis takes further jobs as long
/// as one runs, also after its signal.
fn jobs(queue: PathBuf, stop: CancellationToken) -> RequestStream<Request<PathBuf, ()>> {
    let next = async |(queue, stop): (PathBuf, CancellationToken)| {
        while !stop.is_cancelled() {
            if let Some(job) = take(&queue) {
                return Some((Ok(Some(Request::new(job))), (queue, stop)));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
        None
    };
    stream::unfold((queue, stop), next).boxed()
}

fn take(queue: &Path) -> Option<PathBuf> {
    let jobs = fs::read_dir(queue).ok()?.flatten().map(|job| job.path());
    let mut jobs = jobs.filter(|job| job.extension() == Some(OsStr::new("job")));
    // Another worker may be faster.
    jobs.find_map(|job| {
        let taken = job.with_extension("taken");
        fs::rename(job, &taken).ok().map(|()| taken)
    })
}

/// A job takes a second.
async fn work(job: PathBuf) -> io::Result<()> {
    println!("took {}", job.display());
    sleep(Duration::from_secs(1)).await;
    fs::rename(&job, job.with_extension("done"))?;
    println!("done with {}", job.display());
    Ok(())
}
