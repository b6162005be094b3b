//! Linux: timers of the kernel, abstract sockets, `/proc/self/exe`.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SIGKILL, SigEvent, SigevNotify};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{getpid, gettid};

/// What looks around where nothing of ours can: for `/bin/sh -c`. Names alone, without command
/// lines: nobody would take the secrets out of those. The second is for busybox.
pub(crate) const SHELL: &str = "date; cat /proc/loadavg; columns=pid,ppid,user,stat,time,comm; \
    { ps ax -o $columns,pcpu,rss,wchan:24 --sort=-pcpu 2>/dev/null || ps -o $columns; } | head -n 60";

/// Has the kernel kill the process in that time, unless what is returned is dropped before. What has
/// to be done before the end is done right here where no thread can be had, and could hang.
pub(crate) fn kill_after(after: Duration) -> Option<Timer> {
    let kill = SigevNotify::SigevSignal { signal: SIGKILL, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(kill)).ok()?;
    timer.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty()).ok()?;
    Some(timer)
}

/// Whether this thread is the one that began in `main`.
pub(crate) fn is_main_thread() -> bool {
    gettid() == getpid()
}

/// The program that this process runs, also where its file is another by now, or gone.
pub(crate) fn own_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// The address of a socket that has no file.
pub(crate) fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}
