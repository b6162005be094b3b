//! The log that diagnostics are appended to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

/// Opens the log to append to it; creates it, 0600, and the folders above it, 0750. A symbolic
/// link in its place is not followed, so that nobody who may write to the folder can have us, as
/// root, write elsewhere; nor is anything but a regular file taken.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match log.metadata()?.is_file() {
        true => Ok(log),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_log_is_private_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("deep/er/diag.log");
        open_log(&log).unwrap().write_all(b"one\n").unwrap();
        open_log(&log).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);

        let link = dir.path().join("link");
        symlink(&log, &link).unwrap();
        assert!(open_log(&link).is_err());
        assert!(open_log(dir.path()).is_err());
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_log(&dir.path().join("fifo")).is_err());
    }
}
