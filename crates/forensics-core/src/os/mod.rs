//! What only Linux has, and what replaces it on other Unix, such as macOS and FreeBSD.
//!
//! Besides [`capture`](crate::capture), this is the only module that depends on the system. Both files
//! have the same functions, so the rest of the crate does not ask; what a system does not have is
//! absent. `--cfg forensics_portable` selects the other file on Linux as well, so that it can be tested
//! there: `.ci/portable` does. See docs/other-unix.md.

#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod this;

pub(crate) use this::*;

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use nix::sys::stat::FileStat;

/// What one step of a path leads to.
pub(crate) enum Found {
    /// A folder, opened.
    Folder(OwnedFd),
    /// A symbolic link, and if it leads.
    Link(FileStat, OsString),
    /// Anything else.
    Other,
}
