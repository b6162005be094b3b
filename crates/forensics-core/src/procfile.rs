//! Reading small kernel files: bounded, and never waiting for whoever is at the other end.

use std::fs::{OpenOptions, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::unistd::getpid;

use crate::os;

/// No file of `/proc` that we read whole is larger; the rest of one that is, is not read.
pub(crate) const LIMIT: usize = 64 * 1024;

/// What the first read asks for: more than most files of `/proc` hold.
const FIRST: usize = 2048;

/// Whether `/proc` numbers processes as our pid namespace does.
///
/// It does not after `unshare --pid` without a new `/proc`, or in a container that was given the
/// host's: there `/proc/PID` is about some other process, which must not be named.
///
/// Looked at until it does, and from then on known: nobody mounts another's below a service that runs.
pub(crate) fn is_ours() -> bool {
    /// The process that found it so; a forked child may live in another namespace.
    static KNOWN_BY: AtomicI32 = AtomicI32::new(0);
    if !os::HAS_PROC {
        return false;
    }
    let pid = getpid();
    let looked = || {
        std::fs::read_link("/proc/self")
            .is_ok_and(|own| own.as_os_str() == pid.to_string().as_str())
    };
    // Relaxed: no other memory is published by it.
    if KNOWN_BY.load(Ordering::Relaxed) != pid.as_raw() {
        if !looked() {
            return false;
        }
        KNOWN_BY.store(pid.as_raw(), Ordering::Relaxed);
    }
    true
}

/// Whether the process of that folder of `/proc` (`/proc/self`) is in the machine's own pid
/// namespace, whose inode is always the same (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
/// `None` where that cannot be read.
pub(crate) fn is_in_initial_pid_namespace(proc: &str) -> Option<bool> {
    if !os::HAS_PROC {
        return None;
    }
    let namespace = std::fs::read_link(format!("{proc}/ns/pid")).ok()?;
    Some(namespace.as_os_str() == "pid:[4026531836]")
}

/// The content of `/proc/PID/FILE`.
///
/// # Errors
/// As [`read`], and `ENOENT` where `/proc` is not [ours](is_ours).
pub(crate) fn read_of(pid: i32, file: &str) -> io::Result<Vec<u8>> {
    match is_ours() {
        true => read(format!("/proc/{pid}/{file}")),
        false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}

/// The same as text, with what is not UTF-8 replaced; `None` where it cannot be read.
pub(crate) fn text_of(pid: i32, file: &str) -> Option<String> {
    Some(lossy(read_of(pid, file).ok()?))
}

/// The content of `path`, at most its first 64 KiB.
///
/// Read until a read(2) gives less than was asked for. That is the end in all files read here: the
/// kernel makes each as one piece (`single_open()` in its `seq_file.c`), of which a read gives all
/// that fits. To ask once more, only to hear that this was all, costs a microsecond each.
///
/// # Errors
/// Whatever open(2) or read(2) say: `ESRCH` and `ENOENT` for a process that has gone, `EACCES`
/// and `EPERM` for one that is not ours to look at, `EMFILE` without a free descriptor. `ENOENT`
/// where there is no [`/proc`](os::HAS_PROC).
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    if !os::HAS_PROC {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let mut file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let mut content = vec![0; FIRST];
    let mut len = 0;
    loop {
        match file.read(&mut content[len..]) {
            Ok(read) => len += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if len < content.len() || len == LIMIT {
            content.truncate(len);
            return Ok(content);
        }
        content.resize((2 * len).min(LIMIT), 0);
    }
}

/// The entries of the folder `path`.
///
/// # Errors
/// As [`read`].
pub(crate) fn list(path: &str) -> io::Result<ReadDir> {
    match os::HAS_PROC {
        true => std::fs::read_dir(path),
        false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}

/// Whether there is such a file, or a folder.
pub(crate) fn exists(path: &str) -> bool {
    os::HAS_PROC && Path::new(path).exists()
}

/// The same as text, as [`text_of`].
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(lossy(read(path).ok()?))
}

fn lossy(content: Vec<u8>) -> String {
    match String::from_utf8(content) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    }
}
