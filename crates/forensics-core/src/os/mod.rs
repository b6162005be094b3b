//! What only Linux has, and what stands for it on other Unix, such as macOS and FreeBSD.
//!
//! The one place of this crate, besides [`capture`](crate::capture), that knows on which system it
//! is. Both sides have the same functions, so that nobody else asks; what cannot be had is absent.
//! `--cfg forensics_portable` takes the other side on Linux, too, where it can be run: `.ci/portable`
//! does. See docs/other-unix.md.

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
    /// A symbolic link, and where it leads.
    Link(FileStat, OsString),
    /// Anything else.
    Other,
}
