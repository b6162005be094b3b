//! Other Unix: only what POSIX has, without `/proc`.
//!
//! Without `O_PATH` there is no reference to a file between checking it and opening it. If it is
//! replaced in between, the opened file is another one, and is refused. A link cannot be opened, so
//! it is followed only if no other user could have replaced it; see [`LINKS_ARE_HELD`].

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::Found;
use crate::secure_fs::{Links, OpenError, is_regular, kind};

/// Whether the system has Linux's `/proc`. FreeBSD's is a different one.
pub(crate) const HAS_PROC: bool = false;

/// Whether a link stays the same between checking it and reading it.
pub(crate) const LINKS_ARE_HELD: bool = false;

/// There is none.
pub(crate) fn procfs() -> Option<BorrowedFd<'static>> {
    None
}

/// There is no such `/proc`.
pub(crate) fn open_in_procfs(_: &Path) -> nix::Result<File> {
    Err(Errno::ENOSYS)
}

/// Not supported.
pub(crate) fn open_within(_: BorrowedFd<'_>, _: &CStr) -> nix::Result<OwnedFd> {
    Err(Errno::ENOSYS)
}

/// The flags to open a folder on a path. Unlike with `O_PATH`, we must be allowed to list it.
const WALK: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens the folder at which a path begins, `/` or `.`.
pub(crate) fn begin(path: &Path) -> nix::Result<OwnedFd> {
    open(path, WALK, Mode::empty())
}

/// Looks up a name in a folder.
pub(crate) fn step(at: BorrowedFd<'_>, name: &Path) -> nix::Result<Found> {
    let stat = fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(match kind(&stat) {
        SFlag::S_IFDIR => Found::Folder(openat(at, name, WALK, Mode::empty())?),
        SFlag::S_IFLNK => Found::Link(stat, readlinkat(at, name)?),
        _ => Found::Other,
    })
}

/// Opens the regular file of that name below `folder`. Also returns the metadata from the check.
pub(crate) fn open_regular(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
    access: OFlag,
) -> Result<(OwnedFd, FileStat), OpenError> {
    let look = match links {
        Links::Follow => AtFlags::empty(),
        Links::Refuse => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    let stat = fstatat(folder, name, look)?;
    if !is_regular(&stat) {
        return Err(OpenError::NotRegular);
    }
    Ok((openat(folder, name, access | links.flag(), Mode::empty())?, stat))
}

/// Unknown.
pub(crate) fn is_mounted(_: &File) -> bool {
    false
}

/// There are no roots of other processes.
pub(crate) fn is_file_below(_: &Path, _: &Path) -> bool {
    false
}

/// Unknown, so such a file or folder counts as writable by others.
pub(crate) fn has_acl(_: &File) -> bool {
    true
}

/// Does nothing: posix_fallocate(2) would make the file longer, and macOS does not have it.
pub(crate) fn reserve_space(_: &File, _: i64) {}

/// Unknown: there is no `/proc/PID/stat`.
pub(crate) fn age(_: u64) -> Option<Duration> {
    None
}

/// Unknown: no clock gives it on all systems.
pub(crate) fn since_boot() -> Option<Duration> {
    None
}
