//! Linux: kernel timers, abstract sockets, sealed files, `/proc/self/exe`.

use std::fs::File;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
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

/// All seals of memfd_create(2): the file can no longer be changed.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// A file in memory with this content, which can no longer be changed.
pub(crate) fn sealed(content: &str) -> io::Result<File> {
    let create = |flags| memfd_create(c"shutdown-diagnostic", flags | MFdFlags::MFD_CLOEXEC);
    // The system may require that such a file cannot be executed (`vm.memfd_noexec`). Linux has the
    // flag for that since 6.3.
    let not_executable = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let file = create(not_executable).or_else(|_| create(MFdFlags::MFD_ALLOW_SEALING))?;
    let mut file = File::from(file);
    file.write_all(content.as_bytes())?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file)
}

/// Whether the file is one that [`sealed`] has made.
pub(crate) fn is_sealed(file: &File) -> bool {
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    seals.is_ok_and(|seals| seals.contains(SEALS))
}

/// The address of an abstract socket (unix(7)), which has a name but no file.
pub(crate) fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}
