//! Opens folders and files that we write to, so that no other user can replace them.
//!
//! A service that runs as root writes its record and its diagnostic log under well-known names. A
//! user who may change a folder on the path could put a symbolic link, a FIFO, or a hard link to an
//! important file there, and root would write to it. So a folder is opened once, step by step along
//! its path (`openat(2)`, `O_NOFOLLOW`). The opened folder is checked, and everything in it is
//! accessed through that descriptor. Replacing the folder later has no effect.
//!
//! | found | as root | as another user |
//! |---|---|---|
//! | the folder belongs to another user | refused | allowed if the file permissions allow it |
//! | the folder is writable by its group or by everyone | refused, unless it is sticky as `/tmp` is | the same |
//! | a symbolic link on the path | followed if root made it, as `/var/run` | also followed if we made it, or if only the folder's owner can have made it |
//! | a symbolic link in place of a record folder or a file | refused | refused |
//! | a file that belongs to another user | refused | allowed if the file permissions allow it |
//! | a file that is writable by others, has several hard links, or is not regular | refused | refused |
//!
//! On Unix other than Linux, a link cannot be kept open while it is checked. A link that other
//! users could replace meanwhile is therefore refused as well; see `os/portable.rs`.
//!
//! The permissions of the folders further up are not checked, because a volume in a container is
//! often writable by everyone. A user who may write there can replace our folder, but only with one
//! that this table accepts.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::regular::{self, Links, OpenError, is_regular};
use crate::access::{AccessError, Attempt};
use crate::os::{self, Found};

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How many symbolic links a path may contain, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Opens a folder to list it.
const LIST: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

const CREATE: Attempt = ("create the folder", " (create it, or name another)");
const OPEN: Attempt =
    ("open the folder", " (it must be a folder of this user, not a symbolic link)");
const LIST_FOLDER: Attempt = ("list the folder", "");
const OPEN_FILE: Attempt = ("open", " (it must be a file of this user, not a symbolic link)");

/// An open folder. All operations use this folder, even if its path now leads to another one.
#[derive(Debug)]
pub struct Folder {
    file: File,
    path: PathBuf,
}

impl Folder {
    /// Creates the folder and its parents with mode 0700 if they do not exist, and opens the folder
    /// if no other user can change it. Existing folders keep their modes.
    ///
    /// # Errors
    /// If it cannot be created or opened, is a symbolic link, or another user could change it.
    pub fn create(path: &Path) -> Result<Self, AccessError> {
        Self::checked(path, walk(path, Missing::Create, Links::Refuse)?)
    }

    /// Opens the folder if it exists and no other user can change it.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn open(path: &Path) -> Result<Self, AccessError> {
        Self::checked(path, walk(path, Missing::Refuse, Links::Refuse)?)
    }

    /// Opens any folder for reading its entries.
    pub(crate) fn look(path: &Path) -> Result<Self, AccessError> {
        let fd = open(path, LIST, Mode::empty())
            .map_err(|errno| AccessError::system(LIST_FOLDER, path, errno))?;
        Ok(Self { file: fd.into(), path: path.to_owned() })
    }

    /// The folder's path, as it was passed in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn checked(path: &Path, fd: OwnedFd) -> Result<Self, AccessError> {
        Ok(Self { file: checked(File::from(fd), path, OPEN)?, path: path.to_owned() })
    }

    /// Creates a file to append to, with mode 0600.
    ///
    /// # Errors
    /// Those of open(2): `EEXIST` if the name exists, even if it is not a file.
    pub(crate) fn create_new(&self, name: &Path) -> io::Result<File> {
        Ok(self.append(name, OFlag::O_EXCL)?)
    }

    /// Opens or creates a file to append to it.
    fn append(&self, name: &Path, more: OFlag) -> nix::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_CLOEXEC | more;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat(&self.file, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    /// Opens a regular file to read it; a symbolic link is not followed.
    pub(crate) fn read(&self, name: &Path) -> Result<File, OpenError> {
        regular::open_at(self.file.as_fd(), name, Links::Refuse)
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The names of its regular files, in no particular order.
    pub(crate) fn files(&self) -> Result<Vec<OsString>, AccessError> {
        let failed = |errno: Errno| AccessError::system(LIST_FOLDER, &self.path, errno);
        let mut names = Vec::new();
        let mut dir = Dir::openat(&self.file, ".", LIST, Mode::empty()).map_err(failed)?;
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
            // A file that has been removed meanwhile is skipped.
            let stat = fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW);
            if stat.is_ok_and(|stat| is_regular(&stat)) {
                names.push(name.into());
            }
        }
        Ok(names)
    }
}

/// Opens the file at `path` to append to it. If it does not exist, it is created with mode 0600,
/// and missing folders above it with mode 0700. The path to its folder may contain symbolic links
/// that root or this user made, such as `/var/lib/NAME` under systemd's `DynamicUser=`.
///
/// # Errors
/// If the folder or the file cannot be opened or created, or another user could change either.
pub fn append_to(path: &Path) -> Result<File, AccessError> {
    let failed = |source: io::Error| AccessError::system(OPEN_FILE, path, source);
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let folder = Folder::checked(parent, walk(parent, Missing::Create, Links::Follow)?)?;
    match folder.append(Path::new(name), OFlag::empty()) {
        Ok(file) => checked(file, path, OPEN_FILE),
        // A folder, or a FIFO without a reader.
        Err(Errno::EISDIR | Errno::ENXIO) => Err(AccessError::refused(not_a_file(path))),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn not_a_file(path: &Path) -> String {
    format!("{} is not a regular file; remove it, or name another", path.display())
}

/// Returns an open file or folder if no other user can change it.
fn checked(file: File, path: &Path, attempt: Attempt) -> Result<File, AccessError> {
    let metadata = file.metadata().map_err(|error| AccessError::system(attempt, path, error))?;
    let (shown, mode, links) = (path.display(), metadata.mode() & 0o7777, metadata.nlink());
    let (is_file, owner) = (metadata.is_file(), metadata.uid());
    let is_shared = mode & WRITABLE_BY_OTHERS != 0;
    Err(AccessError::refused(if !is_file && !metadata.is_dir() {
        not_a_file(path)
    } else if geteuid().is_root() && owner != 0 {
        // That user could replace our files, or read them.
        format!("{shown} belongs to uid {owner}, not to root; chown it, or name another")
    } else if is_file && links > 1 {
        // Another user may have linked a file that we must not write to.
        format!(
            "{shown} has {links} hard links, so it may really be another file; remove it, \
             or name another"
        )
    } else if is_shared && (is_file || mode & STICKY == 0) {
        let what = if is_file { "write to it" } else { "replace files" };
        format!("{shown} (mode {mode:04o}) lets other users {what}; chmod go-w it, or name another")
    } else {
        return Ok(file);
    }))
}

/// Whether to create a folder that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Refuse,
}

/// Walks to a folder step by step. `last` is for a symbolic link in place of the folder itself.
fn walk(path: &Path, missing: Missing, last: Links) -> Result<OwnedFd, AccessError> {
    let failed = |errno: Errno| match missing {
        Missing::Create if errno != Errno::ELOOP => AccessError::system(CREATE, path, errno),
        _ => AccessError::system(OPEN, path, errno),
    };
    if path.as_os_str().is_empty() {
        return Err(failed(Errno::ENOENT));
    }
    let root = |path: &Path| os::begin(Path::new(if path.is_absolute() { "/" } else { "." }));
    let mut at = root(path).map_err(failed)?;
    let mut steps: VecDeque<OsString> = steps(path).collect();
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
                    return Err(AccessError::refused(format!(
                        "on the way to the folder {} the symbolic link {} belongs to uid {}; chown \
                         it to root, or name the folder it leads to",
                        path.display(),
                        Path::new(&step).display(),
                        stat.st_uid
                    )));
                }
                let target = Path::new(&target);
                if target.is_absolute() {
                    at = root(target).map_err(failed)?;
                }
                steps = self::steps(target).chain(steps).collect();
            }
            Found::Other => return Err(failed(Errno::ENOTDIR)),
        }
    }
    Ok(at)
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    let is_step =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_step).map(|part| part.as_os_str().to_owned())
}

fn step_to(at: BorrowedFd<'_>, name: &Path, missing: Missing) -> nix::Result<Found> {
    let found = os::step(at, name);
    if missing == Missing::Refuse || !matches!(found, Err(Errno::ENOENT)) {
        return found;
    }
    match mkdirat(at, name, Mode::S_IRWXU) {
        // Another process may have created it first. It is checked like any other folder.
        Ok(()) | Err(Errno::EEXIST) => os::step(at, name),
        Err(errno) => Err(errno),
    }
}

/// Whether a link can be followed, because only root or our user can have put it there. A link with
/// several hard links is not trusted, because another user may have made a hard link to one of
/// root's links.
fn is_trusted_link(link: &FileStat, folder: &FileStat) -> bool {
    let us = geteuid();
    let is_ours = link.st_uid == 0 || link.st_uid == us.as_raw();
    // In a user namespace, root's links can appear to belong to any user.
    let is_its_owners = !us.is_root() && permissions(folder) & WRITABLE_BY_OTHERS == 0;
    (is_ours && link.st_nlink == 1 && (os::LINKS_ARE_HELD || keeps_its_links(folder)))
        || is_its_owners
}

/// Whether only root and our user can replace one of our files there.
fn keeps_its_links(folder: &FileStat) -> bool {
    let is_ours = folder.st_uid == 0 || folder.st_uid == geteuid().as_raw();
    let mode = permissions(folder);
    is_ours && (mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0)
}

/// The permission bits, including the sticky, setuid and setgid bits.
#[allow(clippy::useless_conversion)] // A `mode_t` has 16 bits on macOS and FreeBSD.
fn permissions(stat: &FileStat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

#[cfg(test)]
mod tests;
