//! Work that may block forever, on separate threads.
//!
//! A subscriber, a disk, or a file of /proc that a FUSE server serves may block without limit. Work
//! on these goes through this module, which limits how long the caller waits.
//!
//! tokio's `spawn_blocking` is not used, because it panics or leaves the work in its queue if no
//! thread can be started.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::oneshot;

use crate::lock::lock;
use crate::low_latency;

/// How long the thread of a queue waits for another job before it ends.
const LINGER: Duration = Duration::from_secs(1);

/// Starts a thread and does not wait for it.
///
/// A write to a pipe without a reader fails on this thread, even if SIGPIPE has its default action,
/// which would end the process. So a log line of ours never ends it.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn spawn_detached(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    let work = move || {
        low_latency::request_for_own_thread();
        // This cannot fail, because the arguments are valid.
        let _ = SigSet::from(Signal::SIGPIPE).thread_block();
        work();
    };
    thread.spawn(work).map(drop)
}

/// Runs `work` on a thread and returns its result. Returns `None` if it takes longer than `limit`,
/// if it panics, or if no thread can be started. Blocks for at most `limit`. Work that takes longer
/// continues on its thread.
pub(crate) fn run_with_timeout<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn_detached("shutdown-work", move || drop(sender.send(work()))).ok()?;
    receiver.recv_timeout(limit).ok()
}

/// Runs `work` on a thread and waits for it for at most `limit`. If no thread can be started, runs
/// it on the calling thread, for as long as it takes. This is for work that must be done in any
/// case.
pub(crate) fn run_with_timeout_or_here(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let queue = WorkQueue::new("shutdown-work");
    queue.push(work);
    queue.start();
    queue.flush(limit);
}

/// Runs `work` on a thread and returns its result, without blocking the runtime. Cancel safe: if
/// the future is dropped, the work continues.
///
/// # Errors
/// If no thread can be started, or if `work` panics.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    // The result cannot be sent if the caller no longer waits.
    spawn_detached("shutdown-work", move || drop(sender.send(work())))
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start a thread: {e}")))?;
    receiver.await.map_err(|_| io::Error::other("it panicked"))
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that are done one after another on one thread. Clones share one queue.
///
/// The thread starts with the first job and ends a second after the last, so that an idle guard has
/// no thread. If no thread can be started, [`start`](Self::start) does the jobs itself.
#[derive(Clone)]
pub(crate) struct WorkQueue(Arc<Inner>);

struct Inner {
    thread_name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// How many jobs were ever pushed, and how many of them are done.
    pushed: u64,
    done: u64,
    /// Whether the queue has a thread that does the jobs.
    has_worker: bool,
}

impl WorkQueue {
    pub(crate) fn new(thread_name: &'static str) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Inner { thread_name, state, changed }))
    }

    /// Adds a job, which is done after a call of [`start`](Self::start). Returns its number. Never
    /// blocks.
    pub(crate) fn push(&self, job: impl FnOnce() + Send + 'static) -> u64 {
        let mut state = lock(&self.0.state);
        state.waiting.push_back(Box::new(job));
        state.pushed += 1;
        state.pushed
    }

    /// Starts the thread that does the jobs, or wakes it. If no thread can be started, does the
    /// jobs itself, and blocks until they are done.
    pub(crate) fn start(&self) {
        if lock(&self.0.state).waiting.is_empty() {
            return;
        }
        if !self.claim() {
            return self.0.changed.notify_all();
        }
        let queue = self.clone();
        if spawn_detached(self.0.thread_name, move || queue.work()).is_err() {
            // No thread can be started. The jobs are done here, because they must not be lost.
            self.do_waiting(lock(&self.0.state)).has_worker = false;
        }
    }

    /// The number of the job that was pushed last. It is 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        lock(&self.0.state).pushed
    }

    /// Whether the job of this number, and all before it, are done.
    pub(crate) fn has_done(&self, number: u64) -> bool {
        lock(&self.0.state).done >= number
    }

    /// Waits until all jobs pushed so far are done, for `limit` at most. Returns whether they are.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let state = lock(&self.0.state);
        let last = state.pushed;
        let behind = |state: &mut State| state.done < last;
        let waited = self.0.changed.wait_timeout_while(state, limit, behind);
        waited.unwrap_or_else(PoisonError::into_inner).0.done >= last
    }

    /// Makes the calling thread the thread of this queue, if the queue has none. If this returns
    /// `true`, the caller must call [`work`](Self::work) or [`release`](Self::release) afterwards.
    pub(crate) fn claim(&self) -> bool {
        !std::mem::replace(&mut lock(&self.0.state).has_worker, true)
    }

    pub(crate) fn release(&self) {
        lock(&self.0.state).has_worker = false;
    }

    /// Does the jobs. Returns when there has been no job for a second.
    pub(crate) fn work(&self) {
        let mut state = lock(&self.0.state);
        loop {
            state = self.do_waiting(state);
            let idle = |state: &mut State| state.waiting.is_empty();
            let waited = self.0.changed.wait_timeout_while(state, LINGER, idle);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.waiting.is_empty() {
                state.has_worker = false;
                return;
            }
        }
    }

    fn do_waiting<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(job) = state.waiting.pop_front() {
            drop(state);
            // A job that panics must not stop the other jobs.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = lock(&self.0.state);
            state.done += 1;
            self.0.changed.notify_all();
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn work_that_blocks_is_left_behind() {
        assert_eq!(run_with_timeout(LONG, || 7), Some(7));
        let (_never, blocks) = mpsc::channel::<()>();
        assert_eq!(run_with_timeout(Duration::from_millis(1), move || blocks.recv()), None);
        let panics = || std::panic::resume_unwind(Box::new(1));
        assert_eq!(run_with_timeout::<()>(LONG, panics), None);
        let (_never, blocks) = mpsc::channel::<()>();
        run_with_timeout_or_here(Duration::from_millis(1), move || {
            let _ = blocks.recv();
        });
    }

    #[tokio::test]
    async fn work_off_the_runtime_is_waited_for() {
        assert_eq!(off_runtime(|| 7).await.unwrap(), 7);
        assert!(off_runtime(|| std::panic::resume_unwind(Box::new(1))).await.is_err());
    }

    #[test]
    fn jobs_are_done_in_their_order_and_a_panic_loses_no_other() {
        let queue = WorkQueue::new("test");
        let (done, dones) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            queue.push(move || {
                assert_ne!(n, 50, "one that panics");
                done.send(n).unwrap();
            });
        }
        queue.start();
        assert!(queue.flush(LONG) && queue.has_done(100));
        let expected: Vec<i32> = (0..100).filter(|n| *n != 50).collect();
        assert_eq!(dones.try_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_job_that_blocks_holds_up_those_behind_it_and_no_caller() {
        let queue = WorkQueue::new("test");
        let (release, blocks) = mpsc::channel::<()>();
        queue.push(move || {
            let _ = blocks.recv();
        });
        let (done, dones) = mpsc::channel();
        let second = queue.push(move || done.send(()).unwrap());
        queue.start();
        assert!(!queue.flush(Duration::from_millis(1)) && !queue.has_done(second));
        release.send(()).unwrap();
        dones.recv_timeout(LONG).unwrap();
        assert!(queue.flush(LONG) && queue.has_done(second));
    }
}
