//! Linux: kernel timers, abstract sockets, `/proc/self/exe`.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SIGKILL, SigEvent, SigevNotify};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// The command line for `/bin/sh -c` that runs as the diagnostic if this program cannot be started
/// again. It shows names without command lines, because the shell cannot remove secrets from those.
/// The second `ps` is for busybox.
pub(crate) const SHELL: &str = "date; cat /proc/loadavg; columns=pid,ppid,user,stat,time,comm; \
    { ps ax -o $columns,pcpu,rss,wchan:24 --sort=-pcpu 2>/dev/null || ps -o $columns; } | head -n 60";

/// Lets the kernel kill the process after that time, unless the returned timer is dropped before.
/// It is for a forced exit that blocks: if no thread can be started, hooks run on the exiting
/// thread itself.
pub(crate) fn kill_after(after: Duration) -> Option<Timer> {
    let kill = SigevNotify::SigevSignal { signal: SIGKILL, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(kill)).ok()?;
    timer.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty()).ok()?;
    Some(timer)
}

/// The program of this process, even if its file was replaced or removed.
pub(crate) fn own_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// The address of an abstract socket (unix(7)), which has a name but no file.
pub(crate) fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}
