//! Why a signal would not reach our handler, although it is installed.
//!
//! [`obstacles`] asks the kernel about the handlers, and about the signal mask of the calling thread.
//! Usually nothing is wrong, and nothing else is read. Otherwise [`explain`] reads files of `/proc`:
//! a signal is delivered as long as one thread does not block it. The masks are those of
//! `proc_pid_status(5)`.
//!
//! A thread in sigwait(3) blocks a signal for the others and takes it itself. While it waits, its
//! mask in `/proc` lacks the signals that it waits for (`do_sigtimedwait()` in the kernel).

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::BufReader;

use nix::libc;
use nix::sys::signal::SigSet;
use procfs::FromBufRead;
use procfs::process::{MMapPath, MemoryMaps};

use crate::capture::{Disposition, Signal, disposition};
use crate::escape::Escaped;
use crate::process::ProcessSummary;
use crate::procfile;
use crate::threads::Thread;

/// What keeps a signal from our handler. Its `Display` continues a sentence that begins with the
/// signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The default action was installed over our handler.
    Default,
    /// The signal is ignored; this was set over our handler.
    Ignored,
    /// Another handler was installed over ours, at this address.
    Handler {
        /// Its address.
        address: usize,
        /// The program or library that contains it, as far as known.
        file: Option<String>,
    },
    /// Every thread blocks it, and nothing else is seen to take it. Probably the process was started with
    /// it blocked.
    Blocked,
    /// It is blocked, and this thread takes it by sigwait(3).
    Sigwait(String),
    /// It is blocked, and read from this descriptor, a signalfd(2).
    Signalfd(i32),
}

/// Libraries with a handler of their own, by their file name, and how to turn it off.
const REMEDIES: [(&str, &str); 2] = [
    ("libjvm", "start the JVM with -Xrs"),
    ("libpython", "initialize Python with Py_InitializeEx(0)"),
];

impl Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Default => f.write_str(
                "does not reach the guard: its default action was installed over the guard's handler; fix: \
                 install the guard after that",
            ),
            Obstacle::Ignored => f.write_str(
                "does not reach the guard: it was set to be ignored over the guard's handler; fix: install the \
                 guard after that",
            ),
            Obstacle::Handler { file, .. } => {
                let file = file.as_deref().unwrap_or_default();
                f.write_str("may not reach the guard: a handler")?;
                if !file.is_empty() {
                    write!(f, " of {}", Escaped(file))?;
                }
                f.write_str(
                    " was installed over the guard's, which runs only if the other one calls it; fix: \
                     install the guard after it, or ",
                )?;
                let known = REMEDIES.iter().find(|(library, _)| file.contains(library));
                f.write_str(known.map_or("leave this signal out there", |(_, remedy)| remedy))
            }
            Obstacle::Blocked => f.write_str(
                "does not reach the guard: it is blocked in every thread that can be seen; fix: unblock it in one \
                 of them (pthread_sigmask(3))",
            ),
            Obstacle::Sigwait(thread) => write!(
                f,
                "does not reach the guard: it is blocked, and the thread {} waits for it by sigwait(3); fix: leave \
                 the signal out there, or out of the guard's signals",
                Escaped(thread)
            ),
            Obstacle::Signalfd(fd) => write!(
                f,
                "does not reach the guard: it is blocked, and file descriptor {fd} is a signalfd(2) for it; fix: \
                 leave the signal out there, or out of the guard's signals"
            ),
        }
    }
}

/// Which of these signals, whose handlers are installed, may not reach them. Only asks the kernel,
/// so it does not block. A signal that only other threads accept is reported as blocked.
pub fn obstacles(signals: &[Signal]) -> Vec<(Signal, Obstacle)> {
    // The mask is empty if it cannot be read, which does not happen.
    let blocked = SigSet::thread_get_mask().unwrap_or(SigSet::empty());
    let is_blocked = |signal: Signal| {
        nix::sys::signal::Signal::try_from(signal.as_raw())
            .is_ok_and(|signal| blocked.contains(signal))
    };
    let obstacle = |&signal: &Signal| {
        let obstacle = match disposition(signal)? {
            Disposition::Default => Obstacle::Default,
            Disposition::Ignored => Obstacle::Ignored,
            Disposition::Other(address) => Obstacle::Handler { address, file: None },
            Disposition::Ours => return is_blocked(signal).then_some((signal, Obstacle::Blocked)),
        };
        Some((signal, obstacle))
    };
    signals.iter().filter_map(obstacle).collect()
}

/// Adds what `/proc` shows: the file of a handler, and what else takes a blocked signal. Leaves out the
/// signals that another thread accepts. May block, like every read of `/proc`.
pub fn explain(obstacles: Vec<(Signal, Obstacle)>) -> Vec<(Signal, Obstacle)> {
    let threads = Thread::all(usize::MAX);
    let explain = |(signal, obstacle)| match obstacle {
        Obstacle::Handler { address, .. } => {
            Some((signal, Obstacle::Handler { address, file: file_at(address) }))
        }
        Obstacle::Blocked => Some((signal, blocked(signal, &threads)?)),
        other => Some((signal, other)),
    };
    obstacles.into_iter().filter_map(explain).collect()
}

/// Why no thread delivers the signal, or `None` if one does.
fn blocked(signal: Signal, threads: &[Thread]) -> Option<Obstacle> {
    let accepts = |thread: &&Thread| {
        let status = procfile::text(format!("/proc/self/task/{}/status", thread.tid));
        let mask = status.and_then(|status| procfile::mask(&status, "SigBlk:"));
        mask.is_some_and(|mask| !has(mask, signal))
    };
    let mut waiting = None;
    for thread in threads.iter().filter(accepts) {
        if thread.syscall != Some(SIGWAIT) {
            return None;
        }
        waiting = Some(Obstacle::Sigwait(format!("{}({})", thread.name, thread.tid)));
    }
    Some(waiting.or_else(|| signalfd(signal)).unwrap_or(Obstacle::Blocked))
}

/// The number of the system call of sigwait(3), sigwaitinfo(2) and sigtimedwait(2).
#[cfg(target_os = "linux")]
const SIGWAIT: i64 = libc::SYS_rt_sigtimedwait;
#[cfg(not(target_os = "linux"))]
const SIGWAIT: i64 = -1;

fn signalfd(signal: Signal) -> Option<Obstacle> {
    let reads_it = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let fd = entry.file_name().to_str()?.parse().ok()?;
        let info = procfile::text(format!("/proc/self/fdinfo/{fd}"))
            .filter(|_| link.as_os_str() == "anon_inode:[signalfd]")?;
        has(procfile::mask(&info, "sigmask:")?, signal).then_some(Obstacle::Signalfd(fd))
    };
    procfile::list("/proc/self/fd").ok()?.flatten().find_map(reads_it)
}

/// Whether a mask in `/proc` contains the signal.
fn has(mask: u64, signal: Signal) -> bool {
    let bit = u32::try_from(i64::from(signal.as_raw()) - 1);
    bit.ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

/// The file that is mapped at this address of our memory.
fn file_at(address: usize) -> Option<String> {
    let maps = BufReader::new(File::open("/proc/self/maps").ok()?);
    let is_it = |(start, end): (u64, u64)| (start..end).contains(&(address as u64));
    let map = MemoryMaps::from_buf_read(maps).ok()?.0.into_iter().find(|map| is_it(map.address))?;
    match map.pathname {
        MMapPath::Path(path) => Some(path.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// Names of shells.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];

/// The name of our parent if it is process 1 and a shell that does not handle SIGTERM. The kernel then
/// ignores SIGTERM for it, and nothing passes it on to us.
pub fn shell_as_init(parent: &ProcessSummary) -> Option<&str> {
    let name = parent.name.as_deref().filter(|name| parent.pid == 1 && SHELLS.contains(name))?;
    let status = procfile::text_of(1, "status").unwrap_or_default();
    let has_trap = procfile::mask(&status, "SigCgt:").is_some_and(|mask| has(mask, Signal::TERM));
    (!has_trap).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_read_bit_by_bit() {
        let cases = [
            (0, Signal::TERM, false),
            (1 << 14, Signal::TERM, true),
            (1 << 14, Signal::INT, false),
            (1, Signal::HUP, true),
            (1 << 63, Signal::from_raw(64), true),
            (u64::MAX, Signal::from_raw(65), false),
            (u64::MAX, Signal::from_raw(0), false),
            (u64::MAX, Signal::from_raw(-1), false),
        ];
        for (mask, signal, expected) in cases {
            assert_eq!(has(mask, signal), expected, "{mask:x} {signal}");
        }
    }

    #[test]
    fn the_file_of_a_function_is_found() {
        let here = file_at(a_mask_is_read_bit_by_bit as fn() as usize);
        assert_eq!(here, Some(std::env::current_exe().unwrap().to_string_lossy().into_owned()));
        assert_eq!(file_at(1), None);
    }

    #[test]
    fn the_fix_names_the_setting_of_the_library() {
        let cases = [
            (None, "a handler was installed", "leave this signal out there"),
            (Some("/opt/x.so"), "a handler of /opt/x.so was", "leave this signal out there"),
            (Some("/usr/lib/libjvm.so"), "a handler of /usr/lib/libjvm.so was", "-Xrs"),
            (Some("/lib/libpython3.13.so.1.0"), "libpython3.13.so.1.0 was", "Py_InitializeEx(0)"),
        ];
        for (file, said, remedy) in cases {
            let file = file.map(str::to_owned);
            let text = Obstacle::Handler { address: 0, file }.to_string();
            assert!(text.contains(said) && text.ends_with(remedy), "{text}");
        }
    }
}
