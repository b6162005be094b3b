//! What stands for Linux's system calls on other Unix.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::c_int;

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
        // This end alone: the reader is to sleep.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
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
        // As much as there is: what is left would only wake the reader once more.
        (&self.reader).read(&mut [0; 1024]).is_ok()
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
