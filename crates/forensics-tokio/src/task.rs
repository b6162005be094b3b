//! Starting tasks and threads.
//!
//! The machinery of either, some 8 KiB for a task and 3 for a thread, is compiled for each type of what
//! it runs. So ours have one type each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread;

use tokio::task::JoinHandle;

use crate::low_latency;

/// As [`tokio::spawn`].
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    tokio::spawn(work)
}

/// Starts a thread of that name, and leaves it to itself.
///
/// # Errors
/// Where none can be had.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    start(name, Box::new(work))
}

fn start(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let work = move || {
        low_latency::request_for_own_thread();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
