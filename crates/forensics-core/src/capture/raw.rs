//! The system calls of the handler. They are async-signal-safe and use buffers on the stack.
//!
//! `std::fs` is not used because it allocates for a path, and neither is `nix`, which allocates for
//! long paths. Every function called here is on the list in signal-safety(7).

use nix::errno::Errno;
use nix::libc::{self, c_int};

use super::os;

/// Bytes with a length, without an allocation.
#[derive(Clone, Copy)]
pub(super) struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    pub(super) const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len.min(N)]
    }

    /// Appends as much of `more` as fits.
    const fn push(&mut self, more: &[u8]) {
        let mut i = 0;
        while i < more.len() && self.len < N {
            self.bytes[self.len] = more[i];
            self.len += 1;
            i += 1;
        }
    }
}

const PROC: &[u8] = b"/proc/";

/// `/proc/PID/FILE` with a NUL at the end.
pub(super) fn proc_path(pid: c_int, file: &[u8]) -> Bytes<64> {
    let mut digits = [0; 10];
    let mut first = digits.len();
    let mut rest = pid.unsigned_abs();
    loop {
        first -= 1;
        // A decimal digit.
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 || first == 0 {
            break;
        }
    }
    let mut path = Bytes::EMPTY;
    path.push(PROC);
    path.push(&digits[first..]);
    path.push(b"/");
    path.push(file);
    // Ten digits and the file names used here always fit. If they did not, the kernel would refuse
    // an empty path, but would read a path without its NUL past the end.
    if path.len < 64 {
        path.push(b"\0");
    } else {
        path = Bytes::EMPTY;
        path.push(b"\0");
    }
    path
}

/// The first `N` bytes of the file at `path`, which must come from [`proc_path`]. `procfs` is the
/// folder `/proc`, or -1.
///
/// A single read(2): the files of `/proc` used here return everything at once, and a second call to
/// see the end of the file would take as long again.
pub(super) fn read<const N: usize>(procfs: c_int, path: &Bytes<64>) -> Result<Bytes<N>, c_int> {
    const FLAGS: c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = match os::open_in(procfs, &path.bytes[PROC.len()..], FLAGS) {
        // An old kernel or a seccomp filter does not know openat2(2).
        Err(libc::ENOSYS | libc::EPERM | libc::EBADF) => {
            // SAFETY: `path` ends in a NUL by construction and outlives the call.
            unsafe { libc::open(path.bytes.as_ptr().cast(), FLAGS) }
        }
        Err(errno) => return Err(errno),
        Ok(fd) => fd,
    };
    if fd < 0 {
        return Err(Errno::last_raw());
    }
    let mut content = Bytes::EMPTY;
    // SAFETY: the buffer is valid for the length given, and borrowed for the call.
    let read = unsafe { libc::read(fd, content.bytes.as_mut_ptr().cast(), N) };
    let errno = Errno::last_raw();
    // SAFETY: `fd` was opened above and is used nowhere else.
    unsafe { libc::close(fd) };
    match usize::try_from(read) {
        Ok(len) => {
            content.len = len;
            Ok(content)
        }
        Err(_) => Err(errno),
    }
}

/// The device that the file with this descriptor is on, or 0 if there is no such file.
pub(super) fn device_of(fd: c_int) -> u64 {
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for a `stat`; any number may be given as a descriptor.
    let result = unsafe { libc::fstat(fd, &raw mut stat) };
    if result == 0 { stat.st_dev as u64 } else { 0 }
}

/// The target of the symbolic link at `path`, which must come from [`proc_path`].
pub(super) fn read_link<const N: usize>(path: &Bytes<64>) -> Option<Bytes<N>> {
    let mut target = Bytes::EMPTY;
    // SAFETY: `path` ends in a NUL by construction; the buffer is valid for the length given.
    let len =
        unsafe { libc::readlink(path.bytes.as_ptr().cast(), target.bytes.as_mut_ptr().cast(), N) };
    target.len = usize::try_from(len).ok()?;
    Some(target)
}

/// Whether a process with this pid exists, visible in `/proc` or not: `kill(pid, 0)`.
pub(super) fn exists(pid: c_int) -> bool {
    // SAFETY: signal 0 sends nothing; a positive pid names one process.
    pid > 0 && (unsafe { libc::kill(pid, 0) } == 0 || Errno::last_raw() == libc::EPERM)
}

/// The pid of this process. The kernel is asked each time, so it is right in a forked child.
pub(super) fn own_pid() -> c_int {
    // SAFETY: getpid(2) has no preconditions.
    unsafe { libc::getpid() }
}

/// The time of a clock in nanoseconds, or 0 if the kernel lacks this clock.
pub(super) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for a timespec.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    // Neither is negative: seconds since boot or since 1970, and nanoseconds below 10^9.
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// Ends the process with this status at once, without destructors, exit handlers or flushes.
pub(super) fn exit(status: c_int) -> ! {
    // SAFETY: _exit(2) has no preconditions, and does not return.
    unsafe { libc::_exit(status) }
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
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn paths_are_right_for_every_pid() {
        let cases =
            [(1, "/proc/1/stat\0"), (4_194_304, "/proc/4194304/stat\0"), (0, "/proc/0/stat\0")];
        for (pid, path) in cases {
            assert_eq!(proc_path(pid, b"stat").as_slice(), path.as_bytes());
        }
        assert_eq!(proc_path(i32::MAX, b"sessionid").as_slice(), b"/proc/2147483647/sessionid\0");
        assert_eq!(proc_path(1, &[b'x'; 64]).as_slice(), b"\0");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri shows no /proc")]
    fn our_own_files_are_read_and_missing_ones_give_their_errno() {
        let pid = own_pid();
        let procfs = crate::os::procfs().map_or(-1, |fd| fd.as_raw_fd());
        // Without the folder the file is opened by its whole path.
        for procfs in [procfs, -1] {
            let stat: Bytes<1024> = read(procfs, &proc_path(pid, b"stat")).unwrap();
            assert!(stat.as_slice().starts_with(format!("{pid} (").as_bytes()));
            let cut: Bytes<4> = read(procfs, &proc_path(pid, b"stat")).unwrap();
            assert_eq!(cut.as_slice(), &stat.as_slice()[..4]);
            let missing = read::<8>(procfs, &proc_path(pid, b"nothing"));
            assert_eq!(missing.err(), Some(libc::ENOENT));
        }
        let exe: Bytes<4096> = read_link(&proc_path(pid, b"exe")).unwrap();
        assert_eq!(exe.as_slice(), std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert!(exists(pid) && exists(1) && !exists(i32::MAX) && !exists(0));
    }
}
