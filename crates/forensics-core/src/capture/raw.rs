//! The system calls of the handler. They are async-signal-safe and use buffers on the stack.
//!
//! `std::fs` is not used because it allocates for a path. `nix` does not allocate for a `CStr`, and
//! only makes the call. Every function called here is on the list in signal-safety(7).

use std::ffi::CStr;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::open;
use nix::libc::{self, c_int};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, fstat};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{self, Pid};

use crate::os::open_within;
use crate::secure_fs::READ;

/// At most `N` bytes, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    pub(super) const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    /// Appends as much of `more` as fits.
    pub(super) fn push(&mut self, more: &[u8]) {
        for (free, &byte) in self.bytes.iter_mut().skip(self.len).zip(more) {
            *free = byte;
            self.len += 1;
        }
    }
}

impl<const N: usize> Deref for Bytes<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len.min(N)]
    }
}

const PROC: &[u8] = b"/proc/";

/// `/proc/PID/FILE` with a NUL at the end, which is missing if the path does not fit.
pub(super) fn proc_path(pid: c_int, file: &[u8]) -> Bytes<64> {
    let mut digits = [0; 10];
    let mut rest = pid.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        // A decimal digit.
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let zeros = digits[..9].iter().take_while(|&&digit| digit == b'0').count();
    let mut path = Bytes::EMPTY;
    for part in [PROC, &digits[zeros..], b"/", file, b"\0"] {
        path.push(part);
    }
    path
}

/// A path from [`proc_path`]. Fails if its NUL is missing.
fn c_str(path: &[u8]) -> nix::Result<&CStr> {
    CStr::from_bytes_with_nul(path).map_err(|_| Errno::ENAMETOOLONG)
}

/// The first `N` bytes of the file at `path`, which must come from [`proc_path`]. `procfs` is the
/// folder `/proc`, if it is open.
///
/// A single read(2): the files of `/proc` used here return everything at once, and a second call to
/// see the end of the file would take as long again.
pub(super) fn read<const N: usize>(
    procfs: Option<BorrowedFd<'_>>,
    path: &Bytes<64>,
) -> nix::Result<Bytes<N>> {
    let below = c_str(&path[PROC.len()..])?;
    let file = match procfs.ok_or(Errno::EBADF).and_then(|procfs| open_within(procfs, below)) {
        // An old kernel or a seccomp filter does not know openat2(2).
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EBADF) => {
            open(c_str(path)?, READ, Mode::empty())?
        }
        opened => opened?,
    };
    let mut content = Bytes::EMPTY;
    content.len = unistd::read(&file, &mut content.bytes)?;
    Ok(content)
}

/// The device that an open file is on, or 0 if the descriptor has been closed.
#[allow(clippy::unnecessary_cast)] // A `dev_t` has 32 bits on macOS.
pub(super) fn device_of(file: BorrowedFd<'_>) -> u64 {
    fstat(file).map_or(0, |stat| stat.st_dev as u64)
}

/// The target of the symbolic link at `path`, which must come from [`proc_path`].
pub(super) fn read_link<const N: usize>(path: &Bytes<64>) -> Option<Bytes<N>> {
    let path = c_str(path).ok()?.as_ptr();
    let mut target = Bytes::EMPTY;
    // SAFETY: `path` is a C string; the buffer is valid for the length given. nix would allocate.
    let len = unsafe { libc::readlink(path, target.bytes.as_mut_ptr().cast(), N) };
    target.len = usize::try_from(len).ok()?;
    Some(target)
}

/// Whether a process with this pid exists, visible in `/proc` or not: `kill(pid, 0)`.
pub(super) fn exists(pid: c_int) -> bool {
    pid > 0 && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

/// The time of a clock in nanoseconds, or 0 if the kernel lacks this clock.
pub(super) fn clock_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

/// Restores the default action of a signal, and sends it to this thread. In a handler of this signal
/// it takes effect when the handler returns, because it is blocked until then.
pub(super) fn raise_by_default(signal: c_int) {
    // SAFETY: both functions are async-signal-safe. The default action needs no function of ours.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Makes `fd` refer to the same file as `to`. Async-signal-safe.
pub(super) fn replace(fd: c_int, to: c_int) {
    // SAFETY: any numbers may be given as descriptors. The caller owns both.
    unsafe {
        libc::dup2(to, fd);
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
    }
}

/// Calls `in_child` in every child that this process forks from now on, before `fork` returns there.
pub(super) fn at_fork(in_child: extern "C" fn()) {
    // SAFETY: `in_child` stays valid, because code is never unloaded. It is async-signal-safe, which
    // a child of a process with several threads requires.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Ends the process with this status at once, without destructors, exit handlers or flushes.
pub(super) fn exit(status: c_int) -> ! {
    // SAFETY: _exit(2) has no preconditions, and does not return.
    unsafe { libc::_exit(status) }
}

/// As [`raise_by_default`], but takes effect at once, also if this thread blocks the signal. Returns
/// if the kernel does not end the process by it.
pub(super) fn end_by(signal: c_int) {
    // SAFETY: `sigset_t` is plain data, which sigemptyset(3) initializes, and the pointers to it are
    // valid for the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
    raise_by_default(signal);
}

/// Wakes the reader of the [`Waker`](super::os::Waker) with this descriptor. Does not block.
pub(super) fn notify(fd: c_int) {
    let one: u64 = 1;
    // SAFETY: the buffer is valid for its eight bytes. `fd` belongs to the only waker of the process,
    // which is never closed, or is -1 before it exists, which write(2) refuses.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_right_for_every_pid() {
        let cases =
            [(1, "/proc/1/stat\0"), (4_194_304, "/proc/4194304/stat\0"), (0, "/proc/0/stat\0")];
        for (pid, path) in cases {
            assert_eq!(*proc_path(pid, b"stat"), *path.as_bytes());
        }
        assert_eq!(*proc_path(i32::MAX, b"sessionid"), *b"/proc/2147483647/sessionid\0");
        let too_long = proc_path(1, &[b'x'; 64]);
        assert_eq!(read::<8>(None, &too_long).err(), Some(Errno::ENAMETOOLONG));
        assert!(read_link::<8>(&too_long).is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri shows no /proc")]
    fn our_own_files_are_read_and_missing_ones_give_their_errno() {
        let pid = Pid::this().as_raw();
        // Without the folder the file is opened by its whole path.
        for procfs in [crate::os::procfs(), None] {
            let stat: Bytes<1024> = read(procfs, &proc_path(pid, b"stat")).unwrap();
            assert!(stat.starts_with(format!("{pid} (").as_bytes()));
            let cut: Bytes<4> = read(procfs, &proc_path(pid, b"stat")).unwrap();
            assert_eq!(*cut, stat[..4]);
            let missing = read::<8>(procfs, &proc_path(pid, b"nothing"));
            assert_eq!(missing.err(), Some(Errno::ENOENT));
        }
        let exe: Bytes<4096> = read_link(&proc_path(pid, b"exe")).unwrap();
        assert_eq!(*exe, *std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert!(exists(pid) && exists(1) && !exists(i32::MAX) && !exists(0));
    }
}
