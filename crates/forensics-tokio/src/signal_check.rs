//! Checks whether the guard's signals reach it, and warns if one does not.
//!
//! It checks at `install()`, when `run()` begins, and one second later, when other libraries have
//! installed their handlers. That is the last time that an idle guard wakes up. Each warning is logged
//! once. docs/reliability.md lists them.
//!
//! A signal that is blocked at `install()` is unblocked in the calling thread, as if the process had
//! not been started with it blocked, unless something else can be seen that takes it. One that is
//! blocked later was blocked by the program, so it stays blocked.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::{Disposition, Signal, disposition};
use forensics_core::process::ProcessSummary;
use forensics_core::unheard::{Obstacle, explain, obstacles, shell_as_init};
use nix::libc;
use nix::sys::signal::{self, SigSet};
use tokio::time::{sleep, timeout};

use crate::blocking::{off_runtime, run_with_timeout};
use crate::events;
use crate::shutdown::Shutdown;

/// How long to wait for `/proc`.
const LIMIT: Duration = Duration::from_millis(200);

/// When to check for the last time, from the beginning of `run()`.
const LAST_CHECK: Duration = Duration::from_secs(1);

/// The signals to check, and what was found.
pub(crate) struct SignalCheck {
    signals: Vec<Signal>,
    reported: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Unheard(Signal, Obstacle),
    /// SIGPIPE has its default action.
    BrokenPipesKill,
}

impl Finding {
    fn log(self) {
        match self {
            Finding::Unheard(signal, obstacle) => events::signal_unheard(signal, &obstacle),
            Finding::BrokenPipesKill => events::broken_pipes_kill(),
        }
    }
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
        check.new_findings(found).into_iter().for_each(Finding::log);
        check
    }

    /// The checks after `run()` has begun.
    pub(crate) async fn go_on(mut self, shutdown: Arc<Shutdown>) {
        self.check(&shutdown).await;
        sleep(LAST_CHECK).await;
        self.check(&shutdown).await;
    }

    async fn check(&mut self, shutdown: &Shutdown) {
        let mut found = obstacles(&self.signals);
        if !found.is_empty() {
            let seen = found.clone();
            if let Ok(Ok(explained)) = timeout(LIMIT, off_runtime(|| explain(seen))).await {
                found = explained;
            }
        }
        for finding in self.new_findings(found) {
            shutdown.log.emit(|| finding.log());
        }
    }

    /// What was not found before.
    fn new_findings(&mut self, unheard: Vec<(Signal, Obstacle)>) -> Vec<Finding> {
        let pipe = disposition(Signal::from_raw(libc::SIGPIPE));
        let kills = (pipe == Some(Disposition::Default)).then_some(Finding::BrokenPipesKill);
        let unheard = unheard.into_iter().map(|(signal, why)| Finding::Unheard(signal, why));
        let is_new = |finding: &Finding| !self.reported.contains(finding);
        let new: Vec<Finding> = unheard.chain(kills).filter(is_new).collect();
        self.reported.extend_from_slice(&new);
        new
    }
}

/// Unblocks the signal in the calling thread, and in the threads that it starts from now on. If it is
/// pending, it arrives now.
fn unblock(signal: Signal) -> nix::Result<()> {
    SigSet::from(signal::Signal::try_from(signal.as_raw())?).thread_unblock()?;
    events::signal_unblocked(signal);
    Ok(())
}
