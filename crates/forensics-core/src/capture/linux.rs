//! The system calls of the capture that only Linux has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};
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

/// Opens the file at `path` below `folder`, if no other file system is mounted on the way to it. A
/// file system that is served by a process may block forever. `path` must contain a NUL. For the
/// handler.
pub(super) fn open_in(folder: c_int, path: &[u8], flags: c_int) -> Result<c_int, c_int> {
    if folder < 0 || !path.contains(&0) {
        return Err(libc::EBADF);
    }
    // SAFETY: all zeros is a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.resolve = libc::RESOLVE_NO_XDEV;
    let (path, size) = (path.as_ptr(), size_of::<libc::open_how>());
    // SAFETY: `path` contains a NUL, as checked above, and the kernel only reads `how`, for `size` bytes.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, folder, path, &raw const how, size) };
    if fd < 0 { Err(Errno::last_raw()) } else { Ok(fd as c_int) }
}

/// The signal that this thread asked for when its parent dies, or 0.
pub(super) fn parent_death_signal() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: PR_GET_PDEATHSIG stores an int through the pointer, which is valid for one.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// Whether a seccomp filter applies to this thread.
pub(super) fn has_seccomp_filter() -> bool {
    const SECCOMP_MODE_FILTER: c_int = 2;
    // SAFETY: PR_GET_SECCOMP takes no further arguments.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) == SECCOMP_MODE_FILTER }
}

/// `struct sched_attr` in its first version, see sched_setattr(2). Later kernels accept it by its
/// size.
#[repr(C)]
#[derive(Default)]
pub(super) struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    pub(super) nice: i32,
    priority: u32,
    /// In nanoseconds. For ordinary threads the slice, since Linux 6.12; 0 before.
    pub(super) runtime: u64,
    deadline: u64,
    period: u64,
}

const SCHED_ATTR_SIZE: u32 = size_of::<SchedAttr>() as u32;

/// Requests a time slice of `slice_ns` nanoseconds for the thread `tid`, and keeps its policy and
/// nice value. What the thread starts gets it only if it `is_inherited`. Does not change threads
/// with another policy: real-time threads have no slice of this kind, and for `SCHED_DEADLINE` the
/// same field means something else.
pub(super) fn request_slice(tid: c_int, slice_ns: u64, is_inherited: bool) -> nix::Result<()> {
    let mut attr = sched_attr(tid)?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&attr.policy.cast_signed()) {
        return Ok(());
    }
    attr.size = SCHED_ATTR_SIZE;
    attr.runtime = slice_ns;
    if !is_inherited && attr.nice >= 0 {
        attr.flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    }
    // SAFETY: the pointer is valid for `attr.size` bytes, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attr, 0) };
    Errno::result(result).map(drop)
}

/// The scheduling attributes of the thread `tid`.
pub(super) fn sched_attr(tid: c_int) -> nix::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let result = {
        let attr = &raw mut attr;
        // SAFETY: the pointer is valid for SCHED_ATTR_SIZE bytes, the size that the kernel is given.
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid, attr, SCHED_ATTR_SIZE, 0) }
    };
    Errno::result(result)?;
    Ok(attr)
}
