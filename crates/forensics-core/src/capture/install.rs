//! Installing the handler, and restoring what was there before.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;

use super::Signal;
use super::handler;

/// Why the handler could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// SIGKILL and SIGSTOP cannot be caught, and a program cannot continue after SIGILL, SIGFPE or
    /// SIGSEGV. signal-hook-registry refuses these.
    #[error("{0} cannot be handled: leave it out of the signals to listen for")]
    Forbidden(Signal),
    /// sigaction(2) failed: there is no such signal.
    #[error("cannot handle {signal}")]
    Refused {
        /// The signal.
        signal: Signal,
        /// The kernel's error.
        source: io::Error,
    },
    /// No descriptor was free for the eventfd, or for the pipe on other Unix.
    #[error("cannot create the eventfd or pipe that wakes the shutdown thread")]
    EventFd(#[source] io::Error),
}

/// Keeps the handler of some signals installed. Dropping it restores the previous handlers.
///
/// Several guards may cover the same signal. When the last one is dropped, the action from before
/// the first one is restored: usually the default, so that SIGTERM ends the process again. A signal
/// that was ignored before gets the default action as well, because ignoring it again would swallow
/// it.
#[derive(Debug)]
#[must_use = "dropping the guard restores the previous handlers at once"]
pub struct HandlerGuard {
    signals: Vec<Signal>,
}

/// The state of one signal in this process.
struct Registration {
    signal: Signal,
    /// The number of guards that cover it.
    guards: usize,
    /// The action before the registry's handler was installed.
    before: libc::sigaction,
    /// The registry's handler, while it is not installed.
    uninstalled: Option<libc::sigaction>,
}

static REGISTRATIONS: Mutex<Vec<Registration>> = Mutex::new(Vec::new());

/// Captures `signals` until the returned [`HandlerGuard`] is dropped.
///
/// Call this before the first `tokio::signal` for the same signals. Handlers run in the order in
/// which they were registered, and a signal must be captured before tokio's task wakes.
///
/// # Errors
/// If a signal cannot be handled, or no descriptor is free. Nothing is installed then.
pub fn install(signals: &[Signal]) -> Result<HandlerGuard, HandlerError> {
    for &signal in signals {
        if signal_hook_registry::FORBIDDEN.contains(&signal.as_raw()) {
            return Err(HandlerError::Forbidden(signal));
        }
    }
    handler::prepare().map_err(|errno| HandlerError::EventFd(errno.into()))?;
    // On an error below, dropping `guard` uninstalls the handlers installed so far.
    let mut guard = HandlerGuard { signals: Vec::with_capacity(signals.len()) };
    let mut registrations = registrations();
    for &signal in signals {
        if let Err(source) = add_guard(&mut registrations, signal) {
            // Dropping `guard` takes this lock.
            drop(registrations);
            return Err(HandlerError::Refused { signal, source });
        }
        guard.signals.push(signal);
    }
    drop(registrations);
    Ok(guard)
}

/// Whether this process ignores `signal`, as a process started by nohup(1) ignores SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    sigaction(signal, None).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        let mut registrations = registrations();
        for signal in &self.signals {
            if let Some(known) = registrations.iter_mut().find(|known| known.signal == *signal) {
                known.guards -= 1;
                if known.guards == 0 {
                    known.uninstalled = sigaction(*signal, Some(&known.before)).ok();
                }
            }
        }
    }
}

fn add_guard(registrations: &mut Vec<Registration>, signal: Signal) -> io::Result<()> {
    if let Some(known) = registrations.iter_mut().find(|known| known.signal == signal) {
        if let Some(installed) = &known.uninstalled {
            let before = sigaction(signal, Some(installed))?;
            handler::set_default(signal, before.sa_sigaction == libc::SIG_DFL);
            known.before = not_ignored(before);
            known.uninstalled = None;
        }
        known.guards += 1;
        return Ok(());
    }
    let before = sigaction(signal, None)?;
    handler::set_default(signal, before.sa_sigaction == libc::SIG_DFL);
    let before = not_ignored(before);
    // SAFETY: `on_signal` is async-signal-safe, does not panic and does not block, as the module
    // `handler` documents.
    unsafe { signal_hook_registry::register_sigaction(signal.as_raw(), handler::on_signal) }?;
    registrations.push(Registration { signal, guards: 1, before, uninstalled: None });
    Ok(())
}

/// The action to restore, given the one that was installed.
///
/// A process may be started with a signal ignored, as a shell starts background jobs with SIGINT
/// ignored. A program that installs a handler expects this signal to stop it, so the default action
/// is restored instead.
fn not_ignored(mut action: libc::sigaction) -> libc::sigaction {
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action
}

/// A poisoned lock is fine: every change of the table is a single assignment after the last call
/// that can fail, so a panic cannot leave it half changed.
fn registrations() -> MutexGuard<'static, Vec<Registration>> {
    REGISTRATIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The action for a signal. Installs `new` in its place, if given.
fn sigaction(signal: Signal, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let mut old = MaybeUninit::uninit();
    // SAFETY: `new` is null, which changes nothing, or it was returned by sigaction(2) for the same
    // signal: then its handler was installed in this process before, and code is never unloaded. Both
    // pointers are valid for the call.
    let result = unsafe { libc::sigaction(signal.as_raw(), new, old.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the call succeeded, so the kernel has stored the old action.
    Ok(unsafe { old.assume_init() })
}
