//! Registering the handler, and putting back what was there before.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;

use super::handler;
use crate::signal::Signal;

/// Why the capture could not be armed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// SIGKILL and SIGSTOP cannot be caught, and after SIGILL, SIGFPE or SIGSEGV a program cannot
    /// go on; signal-hook-registry refuses these.
    #[error("{0} cannot be handled: leave it out of the signals to listen for")]
    Forbidden(Signal),
    /// sigaction(2) refused: no such signal.
    #[error("cannot handle {signal}: {source}")]
    Refused {
        /// The signal.
        signal: Signal,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is no descriptor for the eventfd, or on other Unix for the pipe.
    #[error("cannot create what wakes the keeper, an eventfd or a pipe: {0}")]
    // Not nix's, which brings a table of all errors' names with each `Debug` of this.
    EventFd(#[source] std::io::Error),
}

/// Keeps the capture of some signals alive; dropped, it gives them back.
///
/// When the last `Armed` for a signal goes, what was installed before the first of them is put
/// back: usually the default action, so that SIGTERM ends the process again. A signal that was
/// ignored before gets the default action, too: nothing is left that swallows it.
#[derive(Debug)]
#[must_use = "the signals are given back as soon as this is dropped"]
pub struct Armed {
    signals: Vec<Signal>,
}

/// How one signal stands in this process.
struct Registration {
    signal: Signal,
    /// How many `Armed` want it.
    wanted: usize,
    /// What was installed before the registry's handler.
    before: libc::sigaction,
    /// The registry's handler, while it is taken off.
    taken_off: Option<libc::sigaction>,
}

static REGISTRATIONS: Mutex<Vec<Registration>> = Mutex::new(Vec::new());

/// Captures `signals` from now on, until the returned [`Armed`] is dropped.
///
/// Call it before the first `tokio::signal` for them: handlers run in the order in which they were
/// registered, and only one that runs first has its capture published when tokio's task wakes.
///
/// # Errors
/// Where a signal cannot be handled, or no descriptor is free. Nothing is armed then.
pub fn arm(signals: &[Signal]) -> Result<Armed, ArmError> {
    for &signal in signals {
        if signal_hook_registry::FORBIDDEN.contains(&signal.as_raw()) {
            return Err(ArmError::Forbidden(signal));
        }
    }
    handler::prepare().map_err(|errno| ArmError::EventFd(errno.into()))?;
    // From here on a failure drops `armed`, which gives back what it had got so far.
    let mut armed = Armed { signals: Vec::with_capacity(signals.len()) };
    let mut registrations = registrations();
    for &signal in signals {
        if let Err(source) = want(&mut registrations, signal) {
            drop(registrations);
            return Err(ArmError::Refused { signal, source });
        }
        armed.signals.push(signal);
    }
    drop(registrations);
    Ok(armed)
}

/// Whether this process ignores `signal`, as one that was started by nohup(1) does SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    current_action(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

impl Drop for Armed {
    fn drop(&mut self) {
        let mut registrations = registrations();
        for signal in &self.signals {
            if let Some(known) = registrations.iter_mut().find(|known| known.signal == *signal) {
                known.wanted -= 1;
                if known.wanted == 0 {
                    known.taken_off = exchange_action(*signal, &known.before).ok();
                }
            }
        }
    }
}

fn want(registrations: &mut Vec<Registration>, signal: Signal) -> std::io::Result<()> {
    if let Some(known) = registrations.iter_mut().find(|known| known.signal == signal) {
        if let Some(handler) = &known.taken_off {
            known.before = not_ignored(exchange_action(signal, handler)?);
            known.taken_off = None;
        }
        known.wanted += 1;
        return Ok(());
    }
    let before = not_ignored(current_action(signal)?);
    // SAFETY: `on_signal` is async-signal-safe, does not panic and does not block; that is what
    // the module `handler` is written for.
    unsafe { signal_hook_registry::register_sigaction(signal.as_raw(), handler::on_signal) }?;
    registrations.push(Registration { signal, wanted: 1, before, taken_off: None });
    Ok(())
}

/// The action to put back for one that was installed.
///
/// We may be started with a signal ignored, as a shell's background job is with SIGINT. Whoever
/// arms it wants to be stopped by it, and to put the ignoring back would swallow it.
fn not_ignored(mut action: libc::sigaction) -> libc::sigaction {
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action
}

/// A panic while the lock was held cannot have left the table half changed: every change is one
/// assignment after the call that can fail.
fn registrations() -> MutexGuard<'static, Vec<Registration>> {
    REGISTRATIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn current_action(signal: Signal) -> std::io::Result<libc::sigaction> {
    let mut current = MaybeUninit::uninit();
    // SAFETY: a null new action asks only; the old one is stored through a pointer valid for it.
    let done = unsafe { libc::sigaction(signal.as_raw(), ptr::null(), current.as_mut_ptr()) };
    Errno::result(done)?;
    // SAFETY: the call succeeded, so the kernel has stored the action.
    Ok(unsafe { current.assume_init() })
}

/// Installs `action` and returns what was installed.
fn exchange_action(signal: Signal, action: &libc::sigaction) -> std::io::Result<libc::sigaction> {
    let mut old = MaybeUninit::uninit();
    // SAFETY: `action` came out of sigaction(2) for the same signal, so its handler is one that
    // this process had installed; code is never unloaded. Both pointers are valid for the call.
    let done = unsafe { libc::sigaction(signal.as_raw(), action, old.as_mut_ptr()) };
    Errno::result(done)?;
    // SAFETY: the call succeeded, so the kernel has stored the old action.
    Ok(unsafe { old.assume_init() })
}
