//! Installing the handler, and restoring what was there before.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
/// that was ignored before gets the default action as well, because ignoring it again would
/// lose it. An action that the program has installed over ours in the meantime stays.
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
    /// The action before ours was installed.
    before: libc::sigaction,
}

/// The action that signal-hook-registry installs, which is the same for all signals. Unset while
/// every signal that we cover was already registered by other users of the registry, such as tokio.
static OURS: OnceLock<libc::sigaction> = OnceLock::new();

static REGISTRATIONS: Mutex<Vec<Registration>> = Mutex::new(Vec::new());

/// Captures `signals` until the returned [`HandlerGuard`] is dropped.
///
/// Call this before the first `tokio::signal` for the same signals. Handlers run in the order in
/// which they were registered, and a signal must be captured before tokio's task wakes.
///
/// A handler that another library has installed before still runs, before ours. One that was installed
/// over an earlier [`HandlerGuard`] or `tokio::signal` does not run while the new guard lives.
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
    let mut add = |signal| {
        add_guard(&mut registrations, signal)?;
        guard.signals.push(signal);
        io::Result::Ok(())
    };
    let failed = signals.iter().find_map(|&signal| Some((signal, add(signal).err()?)));
    // After all are registered, because the first that is new to the registry shows its action.
    let mut take = |signal| Some((signal, take_over(&mut registrations, signal).err()?));
    let failed = failed.or_else(|| signals.iter().find_map(|&signal| take(signal)));
    // Dropping `guard` takes this lock.
    drop(registrations);
    match failed {
        Some((signal, source)) => Err(HandlerError::Refused { signal, source }),
        None => Ok(guard),
    }
}

/// What this process does with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Disposition {
    /// Our handler runs.
    Ours,
    /// The default action.
    Default,
    /// It is ignored.
    Ignored,
    /// Another handler runs, at this address.
    Other(usize),
}

/// What this process does with `signal` at the moment. `None` if there is no such signal.
#[doc(hidden)]
pub fn disposition(signal: Signal) -> Option<Disposition> {
    let action = sigaction(signal, None).ok()?;
    Some(match action.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignored,
        _ if is_ours(&action) => Disposition::Ours,
        address => Disposition::Other(address),
    })
}

/// Ignores SIGPIPE if it has its default action, as Rust does before `main`. A write to a pipe without
/// a reader then fails, and does not end the process.
#[doc(hidden)]
pub fn survive_broken_pipes() {
    let pipe = Signal::from_raw(libc::SIGPIPE);
    if let Ok(mut action) = sigaction(pipe, None)
        && action.sa_sigaction == libc::SIG_DFL
    {
        action.sa_sigaction = libc::SIG_IGN;
        // This cannot fail, because the call above has not.
        let _ = sigaction(pipe, Some(&action));
    }
}

/// The number of the next action in the registry. tokio::signal and signal-hook register theirs in the same
/// one, so a difference shows whether they have registered another. `None` if it is not known.
///
/// Registers an action for `signal`, which must be captured, and removes it.
#[doc(hidden)]
pub fn next_action(signal: Signal) -> Option<u128> {
    // SAFETY: an action that does nothing is async-signal-safe.
    let id = unsafe { signal_hook_registry::register(signal.as_raw(), || {}) }.ok()?;
    signal_hook_registry::unregister(id);
    // The registry tells the number only this way: `SigId { signal: 2, action: ActionId(7) }`.
    let shown = format!("{id:?}");
    shown.rsplit('(').next()?.trim_end_matches([')', '}', ' ']).parse().ok()
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        let mut registrations = registrations();
        for signal in &self.signals {
            if let Some(known) = registrations.iter_mut().find(|known| known.signal == *signal) {
                known.guards -= 1;
                if known.guards == 0 && sigaction(*signal, None).is_ok_and(|now| is_ours(&now)) {
                    // This cannot fail, because the call above has not.
                    let _ = sigaction(*signal, Some(&known.before));
                }
            }
        }
    }
}

fn add_guard(registrations: &mut Vec<Registration>, signal: Signal) -> io::Result<()> {
    if let Some(known) = registrations.iter_mut().find(|known| known.signal == signal) {
        known.guards += 1;
        return Ok(());
    }
    let before = sigaction(signal, None)?;
    handler::set_default(signal, before.sa_sigaction == libc::SIG_DFL);
    // SAFETY: `on_signal` is async-signal-safe, does not panic and does not block, as the module
    // `handler` documents.
    unsafe { signal_hook_registry::register_sigaction(signal.as_raw(), handler::on_signal) }?;
    let now = sigaction(signal, None)?;
    if now.sa_sigaction != before.sa_sigaction {
        // Set already if this is not the first signal.
        let _ = OURS.set(now);
    }
    registrations.push(Registration { signal, guards: 1, before: not_ignored(before) });
    Ok(())
}

/// Installs our action, if it is not installed: because the last guard has restored the previous one,
/// or because the program has installed another one since the registry's was.
fn take_over(registrations: &mut [Registration], signal: Signal) -> io::Result<()> {
    let now = sigaction(signal, None)?;
    if let Some(ours) = OURS.get()
        && !is_ours(&now)
        && let Some(known) = registrations.iter_mut().find(|known| known.signal == signal)
    {
        handler::set_default(signal, now.sa_sigaction == libc::SIG_DFL);
        sigaction(signal, Some(ours))?;
        known.before = not_ignored(now);
    }
    Ok(())
}

/// Whether this is the registry's action. If that is not known, it is assumed.
fn is_ours(action: &libc::sigaction) -> bool {
    OURS.get().is_none_or(|ours| ours.sa_sigaction == action.sa_sigaction)
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
    // SAFETY: `new` is null, which changes nothing, or its handler is SIG_DFL, SIG_IGN, the registry's,
    // which may be installed for any signal that is registered, or it was returned by sigaction(2) for
    // the same signal: then it was installed in this process before, and code is never unloaded. Both
    // pointers are valid for the call.
    let result = unsafe { libc::sigaction(signal.as_raw(), new, old.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the call succeeded, so the kernel has stored the old action.
    Ok(unsafe { old.assume_init() })
}
