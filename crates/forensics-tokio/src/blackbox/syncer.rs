//! A thread that waits for the disk, so that nobody else has to.
//!
//! It is woken after each event and syncs once for all that came meanwhile. It ends with its
//! [`Syncer`], or stays behind where the disk hangs.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::task;

/// How long the end waits for the disk.
const FINISH_LIMIT: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct State {
    /// How many events were ever written, and how many of them are on the disk.
    written: u64,
    synced: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Syncer(Arc<Inner>);

impl Syncer {
    /// Starts the thread, which calls `sync` for what was written before, and whenever it is woken.
    pub(crate) fn start(sync: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inner = Arc::new(Inner::default());
        let theirs = inner.clone();
        task::thread("shutdown-sync", move || run(&theirs, sync))?;
        let syncer = Self(inner);
        syncer.wake();
        Ok(syncer)
    }

    /// Something was written.
    pub(crate) fn wake(&self) {
        self.0.lock().written += 1;
        self.0.changed.notify_all();
    }

    /// Waits until all that was written is on the disk; not past [`FINISH_LIMIT`].
    pub(crate) fn finish(&self) {
        let behind = |state: &mut State| state.synced < state.written;
        // Whoever is late is late; there is nothing more to be done.
        let _ = self.0.changed.wait_timeout_while(self.0.lock(), FINISH_LIMIT, behind);
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(inner: &Inner, sync: impl Fn()) {
    let mut state = inner.lock();
    loop {
        if state.synced < state.written {
            let written = state.written;
            drop(state);
            sync();
            state = inner.lock();
            state.synced = written;
            inner.changed.notify_all();
        } else if state.ended {
            return;
        } else {
            state = inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn all_that_was_written_is_synced_before_the_end_and_several_at_once() {
        let (synced, count) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let syncer = Syncer::start(move || {
            wait.recv().unwrap();
            synced.send(()).unwrap();
        })
        .unwrap();
        // While the first is waited for, ten more are written: one more sync is for all of them.
        for _ in 0..10 {
            syncer.wake();
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        while syncer.0.lock().synced < 11 {
            thread::yield_now();
        }
        assert!((1..=2).contains(&count.try_iter().count()));
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_for_long() {
        let (_never, hangs) = mpsc::channel::<()>();
        let syncer = Syncer::start(move || hangs.recv().unwrap_or_default()).unwrap();
        syncer.wake();
        // It returns at all; the limit is only for where it does not.
        let (done, wait) = mpsc::channel();
        thread::spawn(move || {
            syncer.finish();
            done.send(()).unwrap();
        });
        wait.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
