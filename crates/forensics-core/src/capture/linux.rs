//! The system calls of the capture that only Linux has.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, sched_attr};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes the reader: an eventfd, which holds any number of wake-ups.
pub(super) struct Waker(EventFd);

impl Waker {
    pub(super) fn new() -> nix::Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).map(Self)
    }

    /// The handler writes to this. It would block only with 2^64 - 2 unread wake-ups.
    pub(super) fn write_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn read_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sleeps until woken. Returns `false` if a signal interrupted the sleep.
    pub(super) fn sleep(&self) -> bool {
        self.0.read().is_ok()
    }
}

/// The signal that this thread asked for when its parent dies, or 0.
pub(super) fn parent_death_signal() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: PR_GET_PDEATHSIG stores an int through the pointer, which is valid for one.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// Keeps this process from dumping core, also through a pipe to a program, which `RLIMIT_CORE` does
/// not prevent (core(5)).
pub(super) fn forbid_core_dump() {
    // It can only fail for another value.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Sends this process the signal 0. The kernel's audit log shows all four arguments of kill(2), which
/// itself has only two, so `label` becomes visible there.
pub(crate) fn signal_itself(label: [u32; 2]) {
    let (pid, [third, fourth]) = (nix::unistd::getpid().as_raw(), label);
    // SAFETY: kill(2) takes no pointer, and the kernel ignores further arguments. It fails only if a
    // seccomp filter refuses the call.
    unsafe { libc::syscall(libc::SYS_kill, pid, 0, third, fourth) };
}

/// How many packets the other side of a TCP connection has not acknowledged yet. For a listening socket: how
/// many connections wait in its queue.
pub fn tcp_unacknowledged(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (fd, name) = (socket.as_raw_fd(), libc::TCP_INFO);
    // SAFETY: The kernel writes at most `size` bytes through the first pointer, which is valid for them.
    let done = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, name, info.as_mut_ptr().cast(), &raw mut size)
    };
    Errno::result(done)?;
    // SAFETY: It consists of integers, for which zeros are valid, too.
    Ok(unsafe { info.assume_init() }.tcpi_unacked)
}

/// Whether a seccomp filter applies to this thread.
pub(super) fn has_seccomp_filter() -> bool {
    // SAFETY: PR_GET_SECCOMP takes no further arguments.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) == libc::SECCOMP_MODE_FILTER as c_int }
}

/// Whether this program has rights that its caller lacks: it is set-user-ID or set-group-ID, or its
/// file has capabilities. ld.so(8) calls this the secure-execution mode.
pub(super) fn is_secure_execution() -> bool {
    // SAFETY: getauxval(3) only looks up a number that the kernel has passed to this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The size of `struct sched_attr`, by which the kernel recognizes its version; see sched_setattr(2).
const SCHED_ATTR_SIZE: u32 = size_of::<sched_attr>() as u32;

/// Requests a time slice of `slice_ns` nanoseconds for the thread `tid`, and keeps its policy and
/// nice value. What the thread starts gets it only if it `is_inherited`. Does not change threads
/// with another policy: real-time threads have no slice of this kind, and for `SCHED_DEADLINE` the
/// same field means something else.
pub(super) fn request_slice(tid: c_int, slice_ns: u64, is_inherited: bool) -> nix::Result<()> {
    let mut attr = attributes(tid)?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&attr.sched_policy.cast_signed()) {
        return Ok(());
    }
    attr.size = SCHED_ATTR_SIZE;
    attr.sched_runtime = slice_ns;
    if !is_inherited && attr.sched_nice >= 0 {
        attr.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    }
    // SAFETY: the pointer is valid for `attr.size` bytes, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attr, 0) };
    Errno::result(result).map(drop)
}

/// The scheduling attributes of the thread `tid`. For an ordinary thread `sched_runtime` is the slice
/// in nanoseconds, since Linux 6.12; 0 before.
pub(super) fn attributes(tid: c_int) -> nix::Result<sched_attr> {
    let mut attr = MaybeUninit::<sched_attr>::zeroed();
    let (call, to) = (libc::SYS_sched_getattr, attr.as_mut_ptr());
    // SAFETY: the pointer is valid for SCHED_ATTR_SIZE bytes, the size that the kernel is given.
    Errno::result(unsafe { libc::syscall(call, tid, to, SCHED_ATTR_SIZE, 0) })?;
    // SAFETY: all zeros is valid, and so is what the kernel has stored.
    Ok(unsafe { attr.assume_init() })
}
