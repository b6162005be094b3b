//! What stands for Linux's system calls on other Unix.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What the handler wakes the reader by: a pipe. A full one holds thousands of signals that nobody
/// has read; one more is lost, and the reader wakes all the same.
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

    /// For the handler to write to. Never blocks it.
    pub(super) fn write_fd(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    pub(super) fn read_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Sleeps until woken; `false` where a signal interrupted that.
    pub(super) fn sleep(&self) -> bool {
        let mut fds = [PollFd::new(self.read_fd(), PollFlags::POLLIN)];
        let mut woken = false;
        if matches!(poll(&mut fds, PollTimeout::NONE), Ok(1..)) {
            // All there is, as an eventfd gives it: what were left would wake the reader once more.
            while matches!((&self.reader).read(&mut [0; 1024]), Ok(1..)) {
                woken = true;
            }
        }
        woken
    }
}

/// None: there is no such signal, or it is not told from others.
pub(super) fn parent_death_signal() -> c_int {
    0
}

/// Not to be had.
pub(super) fn set_time_slice(_: c_int, _: u64) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}
