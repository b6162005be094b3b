//! Other Unix: what the standard library and POSIX offer.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::alarm;

/// The command line for `/bin/sh -c` that runs as the diagnostic if this program cannot be started
/// again. It shows names without command lines, because the shell cannot remove secrets from those.
pub(crate) const SHELL: &str =
    "date; uptime; ps ax -o pid,ppid,user,stat,time,pcpu,rss,comm | head -n 60";

/// Ends the process after that time by SIGALRM, unless the program handles that signal. It is for a
/// forced exit that blocks, so it is never cancelled.
pub(crate) fn kill_after(after: Duration) -> Option<u32> {
    alarm::set(u32::try_from(after.as_secs() + 1).unwrap_or(u32::MAX))
}

/// The program of this process, by its path. If the file was replaced, that is the new file.
pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

/// A pipe with this short content, and without a writer.
pub(crate) fn sealed(content: &str) -> io::Result<File> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(content.as_bytes())?;
    Ok(OwnedFd::from(reader).into())
}

/// Whether the file is a pipe.
pub(crate) fn is_sealed(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.file_type().is_fifo())
}

/// Always an error.
pub(crate) fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    let why = "only Linux has abstract sockets; use a path";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}
