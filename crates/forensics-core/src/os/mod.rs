//! What only Linux has, and what replaces it on other Unix, such as macOS and FreeBSD.
//!
//! Besides [`capture`](crate::capture), this is the only module that depends on the system. Both
//! files have the same functions, so the rest of the crate needs no conditions. Facts that a system
//! does not provide are absent. `--cfg forensics_portable` selects `portable` on Linux as well;
//! `.ci/portable` tests it that way. See docs/other-unix.md.

#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod this;

pub(crate) use this::*;

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use nix::sys::stat::FileStat;

/// What one component of a path is.
pub(crate) enum Found {
    /// A folder, opened.
    Folder(OwnedFd),
    /// A symbolic link: its metadata and its target.
    Link(FileStat, OsString),
    /// Anything else.
    Other,
}
