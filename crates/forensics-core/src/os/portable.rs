//! Other Unix: what POSIX has, and nothing of `/proc`.
//!
//! Without `O_PATH` nothing is held between the look and the opening. A file or a folder that was
//! exchanged meanwhile is another when it is opened, which is seen. A link cannot be opened; so only
//! one that nobody could have exchanged is followed, see [`LINKS_ARE_HELD`].

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::Found;
use crate::secure_fs::{Links, OpenError, READ, is_regular, kind};

/// Whether there is a `/proc` as Linux has it. FreeBSD can have one, which is another.
pub(crate) const HAS_PROC: bool = false;

/// Whether a link that was found could be another by the time it is read.
pub(crate) const LINKS_ARE_HELD: bool = false;

/// A folder to walk through. Unlike by `O_PATH`, it must be one that we may list.
const WALK: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a folder to begin a walk in, `/` or `.`.
pub(crate) fn begin(path: &Path) -> nix::Result<OwnedFd> {
    open(path, WALK, Mode::empty())
}

/// Looks at what stands under a name in a folder.
pub(crate) fn step(at: BorrowedFd<'_>, name: &Path) -> nix::Result<Found> {
    let stat = fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(match kind(&stat) {
        SFlag::S_IFDIR => Found::Folder(openat(at, name, WALK, Mode::empty())?),
        SFlag::S_IFLNK => Found::Link(stat, readlinkat(at, name)?),
        _ => Found::Other,
    })
}

/// Opens the regular file of that name below `folder`, to read it; and what was looked at before.
pub(crate) fn open_regular(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
) -> Result<(OwnedFd, FileStat), OpenError> {
    let look = match links {
        Links::Follow => AtFlags::empty(),
        Links::Refuse => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    let stat = fstatat(folder, name, look)?;
    if !is_regular(&stat) {
        return Err(OpenError::NotRegular);
    }
    Ok((openat(folder, name, READ | links.flag(), Mode::empty())?, stat))
}

/// Nothing: posix_fallocate(2) would make the file longer, and macOS has none.
pub(crate) fn set_aside(_: &File, _: i64) {}

/// Not to be had by one clock of all systems.
pub(crate) fn since_boot() -> Option<Duration> {
    None
}
