//! Checks whether the guard's signals reach it, and warns if one does not.
//!
//! It checks at `install()`, when `run()` begins, and one second later, when other libraries have
//! installed their handlers. That is the last time that an idle guard wakes up. There is one warning
//! per signal. docs/reliability.md lists the warnings.
//!
//! The last check also tells whether something else listens for SIGINT through tokio, such as a server that
//! handles signals itself. If a stop begins before that, it is checked then.
//!
//! A signal that is blocked at `install()` is unblocked in the calling thread, because the process was
//! probably started with it blocked. It stays blocked if something else takes it, such as sigwait(3).
//! A signal that is blocked later was blocked by the program, so it stays blocked as well.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::{Disposition, Signal, disposition};
use forensics_core::process::ProcessSummary;
use forensics_core::signal_delivery::{Obstacle, explain, obstacles, shell_as_init};
use nix::libc;
use nix::sys::signal::{self, SigSet};
use tokio::time::{sleep, timeout};

use crate::blocking::{off_runtime, run_with_timeout};
use crate::events;
use crate::listener::{Listeners, listen};
use crate::shutdown::Shutdown;

/// How long to wait for `/proc`.
const LIMIT: Duration = Duration::from_millis(200);

/// When to check for the last time, from the beginning of `run()`.
const LAST_CHECK: Duration = Duration::from_secs(1);

const SIGPIPE: Signal = Signal::from_raw(libc::SIGPIPE);

/// The signals to check, and those that were reported.
pub(crate) struct SignalCheck {
    signals: Vec<Signal>,
    reported: Vec<Signal>,
}

impl SignalCheck {
    /// The check at `install()`, after the handlers are installed.
    pub(crate) fn at_install(signals: Vec<Signal>, parent: Option<&ProcessSummary>) -> Self {
        if let Some(shell) = parent.and_then(shell_as_init) {
            events::shell_is_process_one(shell);
        }
        let mut check = Self { signals, reported: Vec::new() };
        let mut found = obstacles(&check.signals);
        if !found.is_empty() {
            let seen = found.clone();
            if let Some(explained) = run_with_timeout(LIMIT, move || explain(seen)) {
                found = explained;
                found.retain(|(signal, obstacle)| {
                    *obstacle != Obstacle::Blocked || unblock(*signal).is_err()
                });
            }
        }
        check.select_new(found).iter().for_each(log);
        check
    }

    /// The checks after `run()` has begun. Then listens for SIGINT.
    pub(crate) async fn repeat(mut self, shutdown: Arc<Shutdown>) {
        self.check(&shutdown).await;
        sleep(LAST_CHECK).await;
        self.check(&shutdown).await;
        let listeners = listen_late(&shutdown);
        listen(shutdown, listeners).await;
    }

    async fn check(&mut self, shutdown: &Shutdown) {
        let mut found = obstacles(&self.signals);
        if !found.is_empty() {
            let seen = found.clone();
            if let Ok(Ok(explained)) = timeout(LIMIT, off_runtime(|| explain(seen))).await {
                found = explained;
            }
        }
        for finding in self.select_new(found) {
            shutdown.log.emit(move || log(&finding));
        }
    }

    /// What was found about signals that were not reported yet. Adds SIGPIPE if it has its default action.
    fn select_new(&mut self, mut found: Vec<(Signal, Obstacle)>) -> Vec<(Signal, Obstacle)> {
        if disposition(SIGPIPE) == Some(Disposition::Default) {
            found.push((SIGPIPE, Obstacle::Default));
        }
        found.retain(|(signal, _)| !self.reported.contains(signal));
        self.reported.extend(found.iter().map(|(signal, _)| signal));
        found
    }
}

/// Listens for SIGINT, which the guard registers later than its other signals, and warns if something else
/// in this program listens for it. There is at most one warning per process.
pub(crate) fn listen_late(shutdown: &Shutdown) -> Listeners {
    let (listeners, is_shared) = Listeners::register_late(&shutdown.config.signals);
    if is_shared {
        shutdown.log.emit(events::signal_shared);
    }
    listeners
}

fn log((signal, obstacle): &(Signal, Obstacle)) {
    if (*signal, obstacle) == (SIGPIPE, &Obstacle::Default) {
        events::broken_pipes_kill();
    } else {
        events::signal_unheard(*signal, obstacle);
    }
}

/// Unblocks the signal in the calling thread, and in the threads that it starts from now on. If it is
/// pending, it arrives now.
fn unblock(signal: Signal) -> nix::Result<()> {
    SigSet::from(signal::Signal::try_from(signal.as_raw())?).thread_unblock()?;
    events::signal_unblocked(signal);
    Ok(())
}
