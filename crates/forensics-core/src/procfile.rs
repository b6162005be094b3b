//! Reading small kernel files: bounded, and never waiting for whoever is at the other end.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// No file of `/proc` that we read whole is larger; the rest of one that is, is not read.
const LIMIT: u64 = 64 * 1024;

/// The content of `path`, at most its first 64 KiB.
///
/// # Errors
/// Whatever open(2) or read(2) say: `ESRCH` and `ENOENT` for a process that has gone, `EACCES`
/// and `EPERM` for one that is not ours to look at, `EMFILE` without a free descriptor.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let mut content = Vec::with_capacity(1024);
    file.take(LIMIT).read_to_end(&mut content)?;
    Ok(content)
}

/// The same as text, with what is not UTF-8 replaced; `None` where it cannot be read.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    let content = read(path).ok()?;
    Some(match String::from_utf8(content) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}
