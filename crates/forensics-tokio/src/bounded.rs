//! Work that can hang, done where a hang harms nobody.
//!
//! A channel is compiled for each type that goes through it, to some 15 KiB. So what is awaited here is
//! the end of the work, and its result lies beside.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::task;

/// The result of `work`, or `None` where it takes longer than `limit`, panics, or no thread can be
/// had. Runs on a thread of its own, which is left behind if it hangs. Blocks for `limit` at most.
pub(crate) fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    start(work).ok()?.result_within(limit)
}

/// Does `work` likewise, for what must not be left undone: where no thread can be had it is done
/// here, and a hang holds the caller. A panic of it ends here.
pub(crate) fn bounded_or_here(limit: Duration, work: impl FnOnce() + Send + 'static) {
    boxed_or_here(limit, Box::new(work));
}

fn boxed_or_here(limit: Duration, work: Box<dyn FnOnce() + Send>) {
    // A thread that could not be started has dropped what it was given; so it is given a share.
    let work = Arc::new(Mutex::new(Some(work)));
    let theirs = work.clone();
    match start(move || do_once(&theirs)) {
        Ok(done) => drop(done.result_within(limit)),
        Err(_) => do_once(&work),
    }
}

fn do_once(work: &Mutex<Option<Box<dyn FnOnce() + Send>>>) {
    let work = lock(work).take();
    if let Some(work) = work {
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

/// The result of `work`, from a thread of its own that is left behind if it hangs.
///
/// Not tokio's `spawn_blocking`: where no thread can be had that panics, or leaves the work in a
/// queue for good. Cancel safe: dropped, it leaves the work to itself.
///
/// # Errors
/// Where no thread can be had, and where `work` panics.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    // Nobody listens any more where it took too long.
    spawn(move || drop(sender.send(work())))
        .map_err(|e| io::Error::new(e.kind(), format!("no thread is to be had: {e}")))?;
    receiver.await.map_err(|_| io::Error::other("it panicked"))
}

/// Begins such work, for who has something else to do meanwhile.
///
/// # Errors
/// Where no thread can be had.
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Started<T>> {
    let result = Arc::new(Mutex::new(None));
    let theirs = result.clone();
    let end = start_boxed(Box::new(move || {
        let done = work();
        *lock(&theirs) = Some(done);
    }))?;
    Ok(Started { end, result })
}

fn start_boxed(work: Box<dyn FnOnce() + Send>) -> io::Result<Arc<End>> {
    let end = Arc::<End>::default();
    let told = ToldAtEnd(end.clone());
    spawn(move || {
        work();
        drop(told);
    })?;
    Ok(end)
}

/// Work that goes on elsewhere.
pub(crate) struct Started<T> {
    end: Arc<End>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Started<T> {
    /// Its result, once; `None` where it takes longer than `limit` from now, or panics.
    pub(crate) fn result_within(&self, limit: Duration) -> Option<T> {
        self.end.wait(limit);
        lock(&self.result).take()
    }
}

#[derive(Default)]
struct End {
    has_come: Mutex<bool>,
    comes: Condvar,
}

impl End {
    fn wait(&self, limit: Duration) {
        let is_to_come = |has_come: &mut bool| !*has_come;
        drop(self.comes.wait_timeout_while(lock(&self.has_come), limit, is_to_come));
    }
}

/// Also where the work panics.
struct ToldAtEnd(Arc<End>);

impl Drop for ToldAtEnd {
    fn drop(&mut self) {
        *lock(&self.0.has_come) = true;
        self.0.comes.notify_all();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    task::thread("forensics-probe", work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_hangs_is_left_behind() {
        assert_eq!(bounded(Duration::from_secs(60), || 7), Some(7));
        let (_never, hangs) = mpsc::channel::<()>();
        assert_eq!(bounded(Duration::from_millis(1), move || hangs.recv()), None);
        assert_eq!(
            bounded::<()>(Duration::from_secs(60), || std::panic::resume_unwind(Box::new(1))),
            None
        );
        let (_never, hangs) = mpsc::channel::<()>();
        bounded_or_here(Duration::from_millis(1), move || hangs.recv().unwrap_or_default());
    }

    #[tokio::test]
    async fn what_is_done_apart_is_waited_for() {
        assert_eq!(apart(|| 7).await.unwrap(), 7);
        assert!(apart(|| std::panic::resume_unwind(Box::new(1))).await.is_err());
    }
}
