//! A short time slice for threads that have to react soon on a busy host.
//!
//! On a busy host, a thread that wakes up waits until the running thread has used up its slice of
//! some 1.5 to 3 ms, depending on the number of processors. Since Linux 6.12 the scheduler (EEVDF)
//! lets a thread ask for a shorter slice, and in return schedules the thread sooner. The share of
//! the processor stays the same: a thread that computes for long is only switched more often.
//!
//! Threads and child processes inherit the slice, across exec(2) as well. So if a thread starts the
//! user's threads or processes, the request sets `SCHED_FLAG_RESET_ON_FORK`. This flag would also
//! raise a negative nice value of the children to 0, and only a privileged process can clear it
//! again, so it is not set for a thread with a negative nice value. Threads and processes started
//! by such a thread inherit the slice.

use super::os;
use crate::process::own_pid;

/// The shortest slice that the kernel grants, in nanoseconds.
pub(super) const SLICE_NS: u64 = 100_000;

/// Requests a time slice of 100 µs for the calling thread and for all threads and processes that it
/// starts. A new thread could make the request itself, but would first have to wait to be
/// scheduled.
///
/// This has no effect before Linux 6.12, and for threads with another policy than `SCHED_OTHER` or
/// `SCHED_BATCH`. Check [`may_be_killed_for_short_slice`] first, unless the operator asked for it.
///
/// # Errors
/// `EPERM` or another error if a seccomp filter refuses it; `ENOSYS` on other Unix.
pub fn request_short_slice() -> nix::Result<()> {
    // 0 is the calling thread.
    os::request_slice(0, SLICE_NS, true)
}

/// Requests the same for the main thread, on which signal handlers usually run, but not for the
/// threads and processes that it starts. The handler then runs sooner, and can still read more of
/// the senders that exit at once.
///
/// # Errors
/// As [`request_short_slice`].
pub fn request_short_slice_for_main_thread() -> nix::Result<()> {
    os::request_slice(own_pid(), SLICE_NS, false)
}

/// Whether a request may end the process with SIGSYS, because systemd started it with a seccomp
/// filter.
///
/// `SystemCallFilter=~@resources`, which many hardened units have, kills a process that calls
/// `sched_setattr(2)`, unless `SystemCallErrorNumber=` is set. A process cannot read its filters. It
/// can only tell that there is one, and that systemd started it (`INVOCATION_ID`). The default
/// filters of container runtimes let the call pass or return an error.
pub fn may_be_killed_for_short_slice() -> bool {
    os::has_seccomp_filter() && std::env::var_os("INVOCATION_ID").is_some()
}
