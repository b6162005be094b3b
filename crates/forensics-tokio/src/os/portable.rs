//! Other Unix: what the standard library has.

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::{alarm, getpid};

use crate::blocking::spawn_detached;

/// The diagnostic where this program cannot be run again: for `/bin/sh -c`. It shows names without
/// command lines, as nothing would remove the secrets from those.
pub(crate) const SHELL: &str =
    "date; uptime; ps ax -o pid,ppid,user,stat,time,pcpu,rss,comm | head -n 60";

/// Kills the process in that time, unless the returned sender is dropped before. Where no thread can be
/// started, the last work is done on the calling thread, and could block forever. For that case there
/// is SIGALRM, which ends the process unless it is handled; it is not taken back.
pub(crate) fn kill_after(after: Duration) -> Option<Sender<()>> {
    let (keep, dropped) = channel::<()>();
    let last_resort = move || {
        if dropped.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(getpid(), SIGKILL);
        }
    };
    if spawn_detached("shutdown-end", last_resort).is_err() {
        alarm::set(u32::try_from(after.as_secs() + 1).unwrap_or(u32::MAX));
        return None;
    }
    Some(keep)
}

/// The program that this process runs, by its path: the file that is there now.
pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

/// There is none.
pub(crate) fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    let why = "Linux alone has abstract sockets: name one by its path";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}
