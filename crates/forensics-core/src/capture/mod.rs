//! What the kernel says about a signal, taken down in the OS handler itself.
//!
//! # The problem
//!
//! `siginfo_t` names the process that sent a signal, by pid. Most senders are gone an instant
//! later: `/bin/kill` exits at once, and by the time a task of an async runtime has been woken its
//! `/proc/PID` names it in some 6 % of the cases. While the handler runs it does in over 90 %: the
//! sender is still on its way out, or a zombie, whose `stat` can be read. So it has to be read there.
//!
//! # What a handler may do
//!
//! It interrupts a thread anywhere, in the middle of `malloc` or with any lock held. Only what
//! signal-safety(7) lists is allowed: here `open`, `read`, `close`, `readlink`, `kill`, `getpid`,
//! `prctl`, `write` and `clock_gettime`. No allocation, no lock, no panic, no formatting. It must
//! return soon, as its thread stands still, and must not block, since signal-hook-registry spins
//! on running handlers when one is registered.
//!
//! # What we do instead
//!
//! A handler claims one of a fixed number of static slots, fills it, publishes it, and wakes
//! whoever sleeps in [`wait`] through an eventfd (a pipe on other Unix). [`take`] copies the published slots out. A slot
//! is never written to while it is unread: with all slots taken a signal is counted as dropped and
//! still wakes the reader. The files are read in the order of what is lost first: `stat` before
//! anything else, as with the parent's pid in it the shell that ran `kill` can be named later.
//!
//! # The price
//!
//! Some 20 to 40 µs on the interrupted thread, one descriptor, and 20 KiB of static memory; what
//! was measured is in docs/performance.md. Handlers of different signals nest (the registry installs
//! them with an empty mask), each in its own slot. A forked child that has not called exec inherits
//! the handler; it finds that it is not the process that armed it and leaves at once.
//!
//! # Disarming
//!
//! A registered handler that nobody listens to swallows its signal. [`Armed`] puts back what was
//! there before when the last one for a signal is dropped. tokio and signal-hook-registry believe
//! themselves installed for good, so the handler taken off is kept and put on again by the next
//! [`arm`].

#![allow(unsafe_code)] // The one module that may; see ARCHITECTURE.md.

mod armed;
mod code;
mod handler;
#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod os;
mod raw;
mod slots;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use armed::{ArmError, Armed, arm, is_ignored};
pub use code::SiCode;
pub use handler::{dropped, exit_now, hint_low_latency, take, wait, wake};

use crate::clock;
use crate::signal::Signal;

/// How many signals can be waiting to be read before one is dropped.
pub const SLOTS: usize = 32;

/// One delivery of a signal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignalInfo {
    /// Which signal.
    pub signal: Signal,
    /// How it came about.
    pub code: SiCode,
    /// `si_pid`, where [`SiCode::has_sender`]: in our pid namespace, 0 for a process outside it.
    pub pid: Option<i32>,
    /// `si_uid`, where [`SiCode::has_sender`].
    pub uid: Option<u32>,
    /// What the handler could see of the sender.
    pub snapshot: SenderSnapshot,
    /// Whether this signal is the one that `PR_SET_PDEATHSIG` asks for when the parent dies.
    pub is_parent_death_signal: bool,
    /// Wall clock at the handler's first instruction.
    pub wall: SystemTime,
    /// `CLOCK_MONOTONIC` then, in nanoseconds.
    pub mono_ns: u64,
    /// How long the handler took until it published this, in nanoseconds.
    pub took_ns: u64,
}

impl SignalInfo {
    /// A delivery that was learnt of by other means than the handler, just now: nothing is known of
    /// a sender. The fields can be set.
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

/// What the handler could see of the sender in `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderSnapshot {
    /// The content of `/proc/PID/stat`.
    pub stat: Option<Vec<u8>>,
    /// Why there is none. `None` also where there was no sender to look at.
    pub absence: Option<SnapshotError>,
    /// Where `/proc/PID/exe` leads; absent for a zombie, and for a process of another user that we
    /// may not look into.
    pub exe: Option<Vec<u8>>,
    /// `/proc/PID/loginuid`, where there was a login.
    pub login_uid: Option<u32>,
    /// `/proc/PID/sessionid`, where there was a login.
    pub login_session: Option<u32>,
}

/// Why a sender's `/proc/PID/stat` could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotError {
    /// It had exited and been waited for. Also where what runs under its pid by now is another
    /// user's.
    Gone,
    /// It lives, and `/proc` does not show it: `hidepid=`, or no `/proc` of our pid namespace,
    /// or none at all, as on other Unix.
    Hidden,
    /// It lives outside our pid namespace.
    Outside,
    /// No descriptor was free, or the read failed otherwise; the errno.
    Unreadable(i32),
}
