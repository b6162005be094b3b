//! The system calls of the handler: async-signal-safe, into buffers on the stack.
//!
//! Not `std::fs`, which allocates for a path, and not `nix`, whose paths go through a `CString`
//! where they are long. Every function here is on the list of signal-safety(7).

use nix::errno::Errno;
use nix::libc::{self, c_int};

/// Bytes with a length: what a handler can hold without allocating.
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

    /// Appends as much of `more` as there is room for.
    const fn push(&mut self, more: &[u8]) {
        let mut i = 0;
        while i < more.len() && self.len < N {
            self.bytes[self.len] = more[i];
            self.len += 1;
            i += 1;
        }
    }
}

/// `/proc/PID/FILE`, ending in a NUL.
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
    path.push(b"/proc/");
    path.push(&digits[first..]);
    path.push(b"/");
    path.push(file);
    // Ten digits and the file names used here leave room; were it not so, an empty path is
    // refused by the kernel, while one without its NUL would be read past its end.
    if path.len < 64 {
        path.push(b"\0");
    } else {
        path = Bytes::EMPTY;
        path.push(b"\0");
    }
    path
}

/// The first `N` bytes of the file at `path`, which [`proc_path`] made.
///
/// One read(2): the files of `/proc` used here give all they have at once, and to ask for their
/// end would cost as much again.
pub(super) fn read<const N: usize>(path: &Bytes<64>) -> Result<Bytes<N>, c_int> {
    const FLAGS: c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: `path` ends in a NUL by construction and lives through the call.
    let fd = unsafe { libc::open(path.bytes.as_ptr().cast(), FLAGS) };
    if fd < 0 {
        return Err(Errno::last_raw());
    }
    let mut content = Bytes::EMPTY;
    // SAFETY: the buffer is valid for the length given, and borrowed for the call.
    let read = unsafe { libc::read(fd, content.bytes.as_mut_ptr().cast(), N) };
    let errno = Errno::last_raw();
    // SAFETY: `fd` was opened above, and nobody else knows of it.
    unsafe { libc::close(fd) };
    match usize::try_from(read) {
        Ok(len) => {
            content.len = len;
            Ok(content)
        }
        Err(_) => Err(errno),
    }
}

/// Where the symbolic link at `path`, which [`proc_path`] made, leads.
pub(super) fn read_link<const N: usize>(path: &Bytes<64>) -> Option<Bytes<N>> {
    let mut target = Bytes::EMPTY;
    // SAFETY: `path` ends in a NUL by construction; the buffer is valid for the length given.
    let len =
        unsafe { libc::readlink(path.bytes.as_ptr().cast(), target.bytes.as_mut_ptr().cast(), N) };
    target.len = usize::try_from(len).ok()?;
    Some(target)
}

/// Whether a process with this pid exists, seen or not: `kill(pid, 0)`.
pub(super) fn exists(pid: c_int) -> bool {
    // SAFETY: signal 0 sends nothing; a positive pid names one process.
    pid > 0 && (unsafe { libc::kill(pid, 0) } == 0 || Errno::last_raw() == libc::EPERM)
}

/// Our own pid, asked of the kernel, so that a forked child does not take itself for its parent.
pub(super) fn own_pid() -> c_int {
    // SAFETY: getpid(2) has no preconditions.
    unsafe { libc::getpid() }
}

/// A clock's time in nanoseconds; 0 for a clock that this kernel lacks.
pub(super) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for a timespec.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    // Seconds since boot or since 1970 and nanoseconds below 10^9: neither is negative.
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// Ends the process with this status, now: no destructor runs, no exit handler, no flush.
pub(super) fn exit(status: c_int) -> ! {
    // SAFETY: _exit(2) has no preconditions, and does not return.
    unsafe { libc::_exit(status) }
}

/// Adds one to what the [`Waker`](super::os::Waker) behind `fd` holds. It does not block.
pub(super) fn notify(fd: c_int) {
    let one: u64 = 1;
    // SAFETY: the buffer is valid for its eight bytes. `fd` is the process's one waker's, which is
    // never closed, or -1 before there is one, which write(2) refuses.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_spelled_for_every_pid() {
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
        let stat: Bytes<1024> = read(&proc_path(pid, b"stat")).unwrap();
        assert!(stat.as_slice().starts_with(format!("{pid} (").as_bytes()));
        let cut: Bytes<4> = read(&proc_path(pid, b"stat")).unwrap();
        assert_eq!(cut.as_slice(), &stat.as_slice()[..4]);
        assert_eq!(read::<8>(&proc_path(pid, b"nothing")).err(), Some(libc::ENOENT));
        let exe: Bytes<4096> = read_link(&proc_path(pid, b"exe")).unwrap();
        assert_eq!(exe.as_slice(), std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert!(exists(pid) && exists(1) && !exists(i32::MAX) && !exists(0));
    }
}
