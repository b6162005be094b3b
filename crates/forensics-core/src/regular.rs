//! Opening only what is a regular file, without a race and without a side effect.
//!
//! Opening a device can do things (a watchdog starts), a FIFO can hang, and what was looked at can
//! be another thing when it is opened. So the name is opened once with `O_PATH`, which does nothing
//! but hold what it found; that is looked at, and then that very file is opened, by way of
//! `/proc/self/fd` (`open(2)`, on `O_PATH`). Where `/proc` is not mounted, or there is none, it is
//! opened by its name a second time, and refused where that is another file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::os;

pub(crate) const READ: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

impl Links {
    /// The same for open(2).
    pub(crate) fn flag(self) -> OFlag {
        match self {
            Links::Follow => OFlag::empty(),
            Links::Refuse => OFlag::O_NOFOLLOW,
        }
    }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It is a folder, a FIFO, a device, or a symbolic link that is not followed.
    #[error("not a regular file")]
    NotRegular,
    /// It was another file when it was opened than when it was looked at.
    #[error("exchanged while it was being opened")]
    Exchanged,
    /// It is longer than it may be.
    #[error("larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Whether it is a regular file.
pub(crate) fn is_regular(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

/// What kind of file it is.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Opens the regular file of that name below `folder`, to read it.
///
/// # Errors
/// What open(2) says, and where it is anything else.
pub(crate) fn open_at(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
) -> Result<File, OpenError> {
    let (file, stat) = os::open_regular(folder, name, links)?;
    let opened = fstat(&file)?;
    match (opened.st_dev, opened.st_ino) == (stat.st_dev, stat.st_ino) {
        true => Ok(File::from(file)),
        false => Err(OpenError::Exchanged),
    }
}

/// The same by a path.
pub(crate) fn open_path(path: &Path, links: Links) -> Result<File, OpenError> {
    open_at(AT_FDCWD, path, links)
}

/// Reads the regular file at `path`, symbolic links followed, if it has at most `limit` bytes.
///
/// # Errors
/// Where it cannot be read, is no regular file or larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    let mut bytes = Vec::new();
    open_path(path, Links::Follow)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(OpenError::TooLarge(limit)),
        false => Ok(bytes),
    }
}
