//! Captures what the kernel says about a signal, in the signal handler itself.
//!
//! # The problem
//!
//! `siginfo_t` identifies the process that sent a signal by its pid. Most senders exit at once:
//! `/bin/kill` does. By the time that a task of an async runtime has been woken, `/proc/PID` still
//! exists in only some 6 % of the cases. While the handler runs, it exists in over 90 %: the sender
//! is still exiting, or is a zombie, whose `stat` can be read. So it must be read in the handler.
//!
//! # What a handler may do
//!
//! A handler interrupts a thread anywhere, for example inside `malloc` or while it holds a lock. It
//! may only call the functions listed in signal-safety(7): here `open`, `read`, `close`, `readlink`,
//! `kill`, `getpid`, `prctl`, `write` and `clock_gettime`. It must not allocate, lock, panic or
//! format. It must return soon, because the interrupted thread is stopped meanwhile, and must not
//! block, because signal-hook-registry spins on running handlers when one is registered.
//!
//! # What we do instead
//!
//! A handler claims one of a fixed number of static slots, fills it, publishes it, and wakes the
//! thread that sleeps in [`wait`], through an eventfd (a pipe on other Unix). [`drain`] copies the
//! published slots out. A slot is never written to while it is unread: if all slots are taken, the
//! signal is counted ([`overflow_count`]) and still wakes the reader. The files that disappear first
//! are read first: `stat` comes before everything else, because it contains the pid of the sender's
//! parent, and with that the shell that ran `kill` can be identified later.
//!
//! # The price
//!
//! Some 20 to 40 µs on the interrupted thread, one descriptor, and 20 KiB of static memory. The
//! measurements are in docs/performance.md. Handlers of different signals can nest (the registry
//! installs them with an empty mask), and each uses its own slot. A forked child that has not called
//! exec inherits the handler; it compares its pid with that of the process that installed it, and
//! does what the signal would have done without the handler.
//!
//! # Uninstalling
//!
//! A signal whose handler has no reader has no effect. So the previous action is restored when the last [`HandlerGuard`] for a signal is dropped. tokio and signal-hook-registry assume that
//! their handlers stay installed forever, so the handler is kept and installed again by the next
//! [`install`].

#![allow(unsafe_code)] // Only in this module; see ARCHITECTURE.md.

mod code;
mod fork;
mod handler;
mod install;
#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod os;
mod raw;
mod signal;
mod slice;
mod slots;
mod sync;
#[cfg(test)]
pub(crate) mod tests;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use code::SiCode;
pub(crate) use fork::NotInChildren;
pub use handler::{drain, overflow_count, wait, wake};
pub use install::{HandlerError, HandlerGuard, install};
pub(crate) use os::signal_itself;
pub use signal::{Signal, UnknownSignal};

#[doc(hidden)]
pub use self::{
    handler::{end_by, exit_now},
    install::{Disposition, disposition, next_action, survive_broken_pipes},
    raw::Bytes,
    slice::{
        may_be_killed_for_short_slice, request_short_slice, request_short_slice_for_main_thread,
    },
};

use crate::clock;

/// Whether this program has rights that its caller lacks: it is set-user-ID or set-group-ID, or its
/// file has capabilities (`AT_SECURE` in getauxval(3)). Its environment and arguments are then not
/// trusted.
#[doc(hidden)]
pub fn is_secure_execution() -> bool {
    os::is_secure_execution()
}

#[doc(hidden)]
pub use os::tcp_unacknowledged;

/// How many signals can wait for [`drain`]. Further ones are only counted.
#[doc(hidden)]
pub const SLOTS: usize = 32;

/// One delivery of a signal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignalInfo {
    /// The signal.
    pub signal: Signal,
    /// How it was sent.
    pub code: SiCode,
    /// `si_pid`, if [`SiCode::has_sender`]: in our pid namespace, 0 for a process outside it.
    pub pid: Option<i32>,
    /// `si_uid`, if [`SiCode::has_sender`].
    pub uid: Option<u32>,
    /// What the handler saw of the sender.
    #[doc(hidden)]
    pub snapshot: SenderSnapshot,
    /// Whether this signal is the one that `PR_SET_PDEATHSIG` requests when the parent dies.
    pub is_parent_death_signal: bool,
    /// The wall clock when the handler began.
    pub wall: SystemTime,
    /// `CLOCK_MONOTONIC` at the same time, in nanoseconds.
    pub mono_ns: u64,
    /// How long the handler took until it published this, in nanoseconds.
    pub took_ns: u64,
}

impl SignalInfo {
    /// A delivery that was just noticed by other means than the handler. It has no sender. The
    /// fields can be set.
    #[doc(hidden)]
    pub fn new(signal: Signal, code: SiCode) -> Self {
        Self {
            signal,
            code,
            pid: None,
            uid: None,
            snapshot: SenderSnapshot::default(),
            is_parent_death_signal: false,
            wall: SystemTime::now(),
            mono_ns: clock::mono_us().saturating_mul(1000),
            took_ns: 0,
        }
    }
}

/// What the handler saw of the sender in `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct SenderSnapshot {
    /// The content of `/proc/PID/stat`, cut if it is longer.
    pub stat: Option<Bytes<512>>,
    /// Why `stat` is absent. `None` as well if there was no sender to look at.
    pub absence: Option<SnapshotError>,
    /// The target of `/proc/PID/exe`, cut if it is longer. Absent for a zombie, and for a process of another user that we
    /// may not inspect.
    pub exe: Option<Bytes<256>>,
    /// `/proc/PID/loginuid`, if the sender belongs to a login session.
    pub login_uid: Option<u32>,
    /// `/proc/PID/sessionid`, if the sender belongs to a login session.
    pub login_session: Option<u32>,
}

/// Why a sender's `/proc/PID/stat` could not be read.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotError {
    /// It had exited and been waited for. Also if its pid now belongs to another user's process.
    Gone,
    /// It exists, but `/proc` does not show it: `hidepid=`, a `/proc` of another pid namespace, or no
    /// `/proc` at all, as on other Unix.
    Hidden,
    /// It is outside our pid namespace.
    Outside,
    /// No descriptor was free, or the read failed otherwise; the errno.
    Unreadable(i32),
}
