//! Folders in which nobody else can turn what we write against us.
//!
//! A service that runs as root writes its record and its diagnostic log under names that others
//! know. Whoever may change a folder on the way could put a symbolic link there, a FIFO, or a hard
//! link to a file that matters, and have root write to it. So a folder is opened once, each step of
//! its path by itself (`openat(2)`, `O_NOFOLLOW`), judged by what was opened, and everything in it
//! is reached through that descriptor: nothing that is exchanged later can lead elsewhere.
//!
//! | what is found | we are root | we are not |
//! |---|---|---|
//! | the folder is another user's | refused | its files can be created or not, as the system has it |
//! | the folder is writable by its group or by everybody | refused, unless it is sticky as `/tmp` is | the same |
//! | a symbolic link on the way | followed where root made it, as `/var/run` | and where we did, or where only a folder's owner could |
//! | a symbolic link in place of a record folder, of a file | refused | refused |
//! | a file that is another user's | refused | as the system has it |
//! | a file writable by others, one with several hard links, one that is not regular | refused | refused |
//!
//! On other Unix than Linux a link cannot be held while it is looked at. So where others could exchange
//! it meanwhile it is refused, too; see `os/portable.rs`.
//!
//! Not looked at: who may write to the folders further up (a volume in a container is often open to
//! all). Whoever may can put another folder in place of ours, but none that passes this table.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::os::{self, Found};
use crate::regular::{self, Links, OpenError, is_regular};

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How many symbolic links a path may lead through, as for the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// For listing a folder.
const LIST: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// For a new file, and for one to append to.
const APPEND: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_CREAT)
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// Why a folder is not written to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It, or a parent of it, is not there and could not be made.
    #[error("cannot create the folder {}: {source}; create it, or name another", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be opened: no folder, or a symbolic link to one.
    #[error("cannot open the folder {}: {source}; it must be a folder of this user, \
        and no symbolic link", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A symbolic link on the way to it was made by somebody who could lead us elsewhere.
    #[error("on the way to the folder {} the symbolic link {} belongs to uid {owner}; chown it to \
        root, or name the folder it leads to", path.display(), link.display())]
    Link {
        /// The folder.
        path: PathBuf,
        /// The link, as a step of the path.
        link: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// We are root and it belongs to somebody else, who could put a file of his in place of ours.
    #[error("the folder {} belongs to uid {owner}, not to root; chown it, or name another",
        path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Its group or everybody may rename and remove what others have put there.
    #[error("the folder {} (mode {mode:04o}) lets other users replace files; \
        chmod go-w it, or name another", path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It could not be listed.
    #[error("cannot list the folder {}: {source}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a file is not written to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Its folder is of no use.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It could not be opened or made; a symbolic link is not followed.
    #[error("cannot open {}: {source}; it must be a file of this user, and no symbolic link",
        path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a FIFO, a device or the like.
    #[error("{} is not a regular file; remove it, or name another", path.display())]
    NotAFile {
        /// What it is not.
        path: PathBuf,
    },
    /// We are root and it belongs to somebody else.
    #[error("{} belongs to uid {owner}, not to root; chown it, or name another", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Its group or everybody may write to it.
    #[error("{} (mode {mode:04o}) lets other users write to it; chmod go-w it, or name another",
        path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It has several names (`ln`), so it may be a file that somebody would have us write to.
    #[error("{} has {links} hard links, so it may be another file than it seems; remove it, or \
        name another", path.display())]
    Linked {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
}

/// A folder that was opened; what is done in it is done there, whatever its path leads to by now.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Makes the folder where it is not there, its parents too, all with mode 0700, and opens it
    /// where it can be trusted. What exists keeps its mode.
    ///
    /// # Errors
    /// Where it cannot be made or opened, is a symbolic link, or where others could interfere.
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        Self::judged(path, walk(path, Missing::Make, Links::Refuse)?)
    }

    /// Opens the folder where it is there and can be trusted.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::judged(path, walk(path, Missing::Refuse, Links::Refuse)?)
    }

    /// Opens any folder, to read what is in it.
    pub(crate) fn look(path: &Path) -> Result<Self, FolderError> {
        let fd = open(path, LIST, Mode::empty())
            .map_err(|errno| FolderError::List { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The folder's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn judged(path: &Path, fd: OwnedFd) -> Result<Self, FolderError> {
        let path = path.to_owned();
        let stat = match fstat(&fd) {
            Ok(stat) => stat,
            Err(errno) => return Err(FolderError::Open { path, source: errno.into() }),
        };
        if geteuid().is_root() && stat.st_uid != 0 {
            return Err(FolderError::Foreign { path, owner: stat.st_uid });
        }
        let mode = permissions(&stat);
        match mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
            true => Err(FolderError::Shared { path, mode }),
            false => Ok(Self { fd, path }),
        }
    }

    /// Makes a file, 0600, to append to.
    ///
    /// # Errors
    /// What open(2) says, `EEXIST` where there is one of that name already, whatever it is.
    pub(crate) fn create_new(&self, name: &Path) -> io::Result<File> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(File::from(openat(self.fd.as_fd(), name, APPEND | OFlag::O_EXCL, mode)?))
    }

    /// Opens a regular file to read it; a symbolic link is not followed.
    pub(crate) fn read(&self, name: &Path) -> Result<File, OpenError> {
        regular::open_at(self.fd.as_fd(), name, Links::Refuse)
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The names of the regular files in it, in no order.
    pub(crate) fn files(&self) -> Result<Vec<OsString>, FolderError> {
        let failed =
            |errno: Errno| FolderError::List { path: self.path.clone(), source: errno.into() };
        let mut names = Vec::new();
        for entry in
            Dir::openat(&self.fd, Path::new("."), LIST, Mode::empty()).map_err(failed)?.iter()
        {
            let entry = entry.map_err(failed)?;
            let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
            let is_file = match entry.file_type() {
                Some(kind) => kind == Type::File,
                // Not every file system says; one that vanished meanwhile is none.
                None => fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| is_regular(&stat)),
            };
            if is_file {
                names.push(name.into());
            }
        }
        Ok(names)
    }
}

/// Opens the file at `path` to append to it; makes it, 0600, where it is not there, and the folders
/// above it, 0700. Its folder may be reached by symbolic links that root or this user made, as
/// `/var/lib/NAME` is under systemd's `DynamicUser=`.
///
/// # Errors
/// Where the folder or the file cannot be had, or where others could interfere with either.
pub fn append_to(path: &Path) -> Result<File, FileError> {
    let failed = |source| FileError::Open { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let folder = Folder::judged(parent, walk(parent, Missing::Make, Links::Follow)?)?;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = match openat(folder.fd.as_fd(), Path::new(name), APPEND, mode) {
        Ok(file) => file,
        // A folder, or a FIFO that nobody reads.
        Err(Errno::EISDIR | Errno::ENXIO) => {
            return Err(FileError::NotAFile { path: path.to_owned() });
        }
        Err(errno) => return Err(failed(errno.into())),
    };
    let file = File::from(file);
    judge_file(path, &file.metadata().map_err(failed)?)?;
    Ok(file)
}

fn judge_file(path: &Path, file: &Metadata) -> Result<(), FileError> {
    let (path, mode) = (path.to_owned(), file.mode() & 0o7777);
    match () {
        () if !file.is_file() => Err(FileError::NotAFile { path }),
        () if geteuid().is_root() && file.uid() != 0 => {
            Err(FileError::Foreign { path, owner: file.uid() })
        }
        () if file.nlink() > 1 => Err(FileError::Linked { path, links: file.nlink() }),
        () if mode & WRITABLE_BY_OTHERS != 0 => Err(FileError::Shared { path, mode }),
        () => Ok(()),
    }
}

/// What becomes of a folder that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

/// Walks to a folder step by step. `last` is for a link in place of the folder itself.
fn walk(path: &Path, missing: Missing, last: Links) -> Result<OwnedFd, FolderError> {
    let failed = |errno: Errno| {
        let (path, source) = (path.to_owned(), errno.into());
        match missing {
            Missing::Make if errno != Errno::ELOOP => FolderError::Create { path, source },
            _ => FolderError::Open { path, source },
        }
    };
    if path.as_os_str().is_empty() {
        return Err(failed(Errno::ENOENT));
    }
    let root = |path: &Path| os::begin(Path::new(if path.is_absolute() { "/" } else { "." }));
    let mut at = root(path).map_err(failed)?;
    let mut steps = steps(path);
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        match step_to(at.as_fd(), Path::new(&step), missing).map_err(failed)? {
            Found::Folder(found) => at = found,
            Found::Link(stat, target) => {
                links += 1;
                if links > MAX_LINKS || (steps.is_empty() && last == Links::Refuse) {
                    return Err(failed(Errno::ELOOP));
                }
                let folder = fstat(&at).map_err(failed)?;
                if !is_trusted_link(&stat, &folder) {
                    let (path, link) = (path.to_owned(), step.into());
                    return Err(FolderError::Link { path, link, owner: stat.st_uid });
                }
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    at = root(&target).map_err(failed)?;
                }
                for step in self::steps(&target).into_iter().rev() {
                    steps.push_front(step);
                }
            }
            Found::Other => return Err(failed(Errno::ENOTDIR)),
        }
    }
    Ok(at)
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let is_step =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_step).map(|part| part.as_os_str().to_owned()).collect()
}

fn step_to(at: BorrowedFd<'_>, name: &Path, missing: Missing) -> nix::Result<Found> {
    match os::step(at, name) {
        Err(Errno::ENOENT) if missing == Missing::Make => {
            match mkdirat(at, name, Mode::S_IRWXU) {
                // Somebody else was faster; what it is, is looked at like anything else.
                Ok(()) | Err(Errno::EEXIST) => os::step(at, name),
                Err(errno) => Err(errno),
            }
        }
        found => found,
    }
}

/// Whether a link can be followed: nobody but root, or we ourselves, may have put it there. One with
/// several names may have been put there by whoever found it elsewhere.
fn is_trusted_link(link: &FileStat, folder: &FileStat) -> bool {
    let us = geteuid();
    let is_ours = link.st_uid == 0 || link.st_uid == us.as_raw();
    // In a user namespace root's can look like anybody's.
    let is_its_owners = !us.is_root() && permissions(folder) & WRITABLE_BY_OTHERS == 0;
    (is_ours && link.st_nlink == 1 && (os::LINKS_ARE_HELD || keeps_its_links(folder)))
        || is_its_owners
}

/// Whether nobody but root and ourselves can put another file in place of one of ours there.
fn keeps_its_links(folder: &FileStat) -> bool {
    let is_ours = folder.st_uid == 0 || folder.st_uid == geteuid().as_raw();
    let mode = permissions(folder);
    is_ours && (mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0)
}

/// The permission bits, with the sticky one and its like.
#[allow(clippy::useless_conversion)] // A `mode_t` has 16 bits on macOS and FreeBSD.
fn permissions(stat: &FileStat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

#[cfg(test)]
mod tests;
