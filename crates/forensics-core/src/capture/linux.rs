//! The capture's system calls that only Linux has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// What the handler wakes the reader by: an eventfd, which holds any number of signals.
pub(super) struct Waker(EventFd);

impl Waker {
    pub(super) fn new() -> nix::Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).map(Self)
    }

    /// For the handler to write to. Never blocks it: that would take 2^64 - 2 signals unread.
    pub(super) fn write_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn read_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sleeps until woken; `false` where a signal interrupted that.
    pub(super) fn sleep(&self) -> bool {
        self.0.read().is_ok()
    }
}

/// The signal that this thread asked for at its parent's death, 0 for none.
pub(super) fn parent_death_signal() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: PR_GET_PDEATHSIG stores an int through the pointer, which is valid for one.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// `struct sched_attr` as it was first, by sched_setattr(2); later kernels take it by its size.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the slice, in nanoseconds, that the scheduler gives the thread `tid`, leaving its policy
/// and niceness as they are.
pub(super) fn set_time_slice(tid: c_int, slice_ns: u64) -> nix::Result<()> {
    const SIZE: u32 = size_of::<SchedAttr>() as u32;
    let mut attr = SchedAttr::default();
    // SAFETY: the pointer is valid for SIZE bytes, which the kernel is told.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attr, SIZE, 0) };
    Errno::result(got)?;
    attr.size = SIZE;
    attr.runtime = slice_ns;
    // SAFETY: as above; the kernel only reads.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attr, 0) };
    Errno::result(set).map(drop)
}
