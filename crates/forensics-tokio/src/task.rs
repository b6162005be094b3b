//! Starting tasks.
//!
//! tokio's machinery for a task is compiled for each type of future, some 8 KiB each. So ours have
//! one type.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinHandle;

/// As [`tokio::spawn`].
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    tokio::spawn(work)
}
