//! The replacements of Linux's system calls on other Unix.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{getegid, geteuid, getgid, getuid};

/// Wakes the reader: a pipe. A full one holds thousands of unread wake-ups, so the reader wakes even
/// if one more is lost.
pub(super) struct Waker {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Waker {
    pub(super) fn new() -> nix::Result<Self> {
        let errno = |e: io::Error| e.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        let (reader, writer) = io::pipe().map_err(errno)?;
        for end in [reader.as_fd(), writer.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { reader, writer })
    }

    /// The handler writes to this. It never blocks.
    pub(super) fn write_fd(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    pub(super) fn read_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Sleeps until woken. Returns `false` if a signal interrupted the sleep.
    pub(super) fn sleep(&self) -> bool {
        let mut fds = [PollFd::new(self.read_fd(), PollFlags::POLLIN)];
        let mut woken = false;
        if matches!(poll(&mut fds, PollTimeout::NONE), Ok(1..)) {
            // Reads everything, as a read of an eventfd does. Remaining bytes would wake the reader
            // again.
            while matches!((&self.reader).read(&mut [0; 1024]), Ok(1..)) {
                woken = true;
            }
        }
        woken
    }
}

/// None: other Unix has no such signal, or does not say which it is.
pub(super) fn parent_death_signal() -> c_int {
    0
}

/// Keeps this process from dumping core.
pub(super) fn forbid_core_dump() {
    // Lowering a limit is always allowed.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Not needed: the audit log is Linux's.
pub(crate) fn signal_itself(_: [u32; 2]) {}

/// Not known.
pub fn tcp_unacknowledged(_: BorrowedFd<'_>) -> nix::Result<u32> {
    Err(Errno::ENOTSUP)
}

/// There are none.
pub(super) fn has_seccomp_filter() -> bool {
    false
}

/// Whether this program is set-user-ID or set-group-ID.
pub(super) fn is_secure_execution() -> bool {
    getuid() != geteuid() || getgid() != getegid()
}

/// Not supported.
pub(super) fn request_slice(_: c_int, _: u64, _: bool) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}
