//! Opens a file only if it is a regular file, without a race and without a side effect.
//!
//! Opening a device can have effects (a watchdog starts), opening a FIFO can block, and a file can
//! be replaced between the check and the opening. So the name is opened with `O_PATH`, which only
//! gives a reference to the file. The reference is checked, and then the same file is opened
//! through `/proc/self/fd` (see `O_PATH` in `open(2)`). Without `/proc` the name is opened a second
//! time, and refused if it is another file by then.

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
    /// The corresponding flag of open(2).
    pub(crate) fn flag(self) -> OFlag {
        match self {
            Links::Follow => OFlag::empty(),
            Links::Refuse => OFlag::O_NOFOLLOW,
        }
    }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It is a folder, a FIFO, a device, or a symbolic link that is not followed.
    #[error("not a regular file")]
    NotRegular,
    /// It is not stored anywhere: the kernel itself answers.
    #[error("a file of the kernel, as in /proc or /sys")]
    Kernel,
    /// It was replaced by another file between the check and the opening.
    #[error("replaced by another file while it was being opened")]
    Exchanged,
    /// It is a file of this user, whose files do not count here.
    #[error("belongs to uid {0}, not to this user")]
    Foreign(u32),
    /// It has so many names, one of which another user may have made.
    #[error("has {0} hard links, so it may be another file")]
    HardLinks(u64),
    /// It is larger than the limit.
    #[error("larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Whether the file is regular.
pub(crate) fn is_regular(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

/// The type of the file.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Opens the regular file of that name below `folder`, with these flags of open(2).
///
/// # Errors
/// Those of open(2), or if it is not a regular file.
pub(crate) fn open_at(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
    access: OFlag,
) -> Result<File, OpenError> {
    let (file, stat) = os::open_regular(folder, name, links, access)?;
    let opened = fstat(&file)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(OpenError::Exchanged);
    }
    Ok(File::from(file))
}

/// The same for a path, to read it.
pub(crate) fn open_path(path: &Path, links: Links) -> Result<File, OpenError> {
    open_at(AT_FDCWD, path, links, READ)
}

/// Reads the regular file at `path` if it has at most `limit` bytes. Symbolic links are followed.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    read_open(&open_path(path, Links::Follow)?, limit)
}

/// The same for an open file.
fn read_open(file: &File, limit: u64) -> Result<Vec<u8>, OpenError> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(OpenError::TooLarge(limit));
    }
    Ok(bytes)
}
