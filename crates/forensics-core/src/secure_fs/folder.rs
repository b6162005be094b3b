//! Opens folders and files that we write to, so that no other user can replace them.
//!
//! A service that runs as root writes its record and its diagnostic log under well-known names. A
//! user who may change a folder on the path could put a symbolic link, a FIFO, or a hard link to an
//! important file there, and root would write to it. So a folder is opened once, step by step along
//! its path (`openat(2)`, `O_NOFOLLOW`). The opened folder is checked, and everything in it is
//! accessed through that descriptor. Replacing the folder later has no effect.
//!
//! [`super::trust`] has the rules about owners, groups and modes. A symbolic link is followed, also in
//! place of the folder, if root or our user made it, as `/var/run`, or `/var/lib/NAME` under systemd's
//! `DynamicUser=`. If this program has rights that its caller lacks, none is followed. A link in
//! place of a file is refused, and so is a file that is not regular.
//!
//! On Unix other than Linux, a link cannot be kept open while it is checked. A link that other
//! users could replace meanwhile is therefore refused as well; see `os/portable.rs`.
//!
//! The permissions of the folders further up are not checked, because a volume in a container is
//! often writable by everyone. A user who may write there can replace our folder, but only with one
//! that these rules accept.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::regular::{self, Links, OpenError, READ, is_regular, kind};
use super::trust::{BY_ALL, BY_GROUP, Facts, STICKY, Us, follows_link, problem};
use crate::access::{AccessError, Attempt};
use crate::capture::is_secure_execution;
use crate::os::{self, Found};

/// How many symbolic links a path may contain, as in the kernel (`MAXSYMLINKS`).
pub(crate) const MAX_LINKS: usize = 40;

/// Opens a folder to list it.
const LIST: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

const CREATE: Attempt = ("create the folder", " (create it, or name another)");
const OPEN: Attempt = ("open the folder", " (it must be a folder of this user)");
const LIST_FOLDER: Attempt = ("list the folder", "");
const OPEN_MESSAGE: Attempt =
    ("open", ": the kubelet creates the file that `terminationMessagePath` names");
const OPEN_FILE: Attempt = ("open", " (it must be a file of this user, not a symbolic link)");

/// An open folder. All operations use this folder, even if its path now leads to another one.
#[derive(Debug)]
pub struct Folder {
    file: File,
    path: PathBuf,
    /// Whose files count. `None`: no other user can put files here.
    owners: Option<Vec<u32>>,
    /// Whether other users may have linked a file of ours to here.
    refuses_hard_links: bool,
}

impl Folder {
    /// Creates the folder and its parents with mode 0700 if they do not exist, and opens the folder
    /// if no other user can change it. Existing folders keep their modes.
    ///
    /// # Errors
    /// If it cannot be created or opened, or another user could change it.
    pub fn create(path: &Path) -> Result<Self, AccessError> {
        Self::checked(path, walk(path, Missing::Create)?)
    }

    /// Opens the folder if it exists and no other user can change it.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn open(path: &Path) -> Result<Self, AccessError> {
        Self::checked(path, walk(path, Missing::Refuse)?)
    }

    /// The same, if no other user can lead the path to another folder either.
    pub(crate) fn open_closed(path: &Path) -> Result<Self, AccessError> {
        Self::checked(path, walk(path, Missing::RefuseAndClosed)?)
    }

    /// Opens any folder for reading its entries. The files of its owner, of root and of our user
    /// count.
    pub(crate) fn look(path: &Path) -> Result<Self, AccessError> {
        let failed = |errno| AccessError::system(LIST_FOLDER, path, errno);
        let file = File::from(open(path, LIST, Mode::empty()).map_err(failed)?);
        let stat = fstat(&file).map_err(failed)?;
        let owners = Some(vec![stat.st_uid, 0, geteuid().as_raw()]);
        let refuses_hard_links = permissions(&stat) & BY_ALL != 0;
        Ok(Self { file, path: path.to_owned(), owners, refuses_hard_links })
    }

    /// The same folder, in which the files of all users count.
    pub(crate) fn of_all_users(self) -> Self {
        Self { owners: None, refuses_hard_links: false, ..self }
    }

    /// The folder's path, as it was passed in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn checked(path: &Path, fd: OwnedFd) -> Result<Self, AccessError> {
        let file = checked(File::from(fd), path, OPEN)?;
        let stat = fstat(&file).map_err(|errno| AccessError::system(OPEN, path, errno))?;
        let us = geteuid().as_raw();
        // The group bits also limit what an access control list allows.
        let is_shared = stat.st_uid != us || permissions(&stat) & (BY_GROUP | BY_ALL) != 0;
        let owners = is_shared.then(|| vec![us]);
        Ok(Self { file, path: path.to_owned(), owners, refuses_hard_links: is_shared })
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

    /// Opens a regular file to read it, if the files of its owner count. A symbolic link is not
    /// followed.
    pub(crate) fn read(&self, name: &Path) -> Result<File, OpenError> {
        let file = regular::open_at(self.file.as_fd(), name, Links::Refuse, READ)?;
        // That of the opened file: the name may have led to another one when it was listed.
        let stat = fstat(&file)?;
        if !self.counts(stat.st_uid) {
            return Err(OpenError::Foreign(stat.st_uid));
        }
        match hard_links(&stat) {
            links @ 2.. if self.refuses_hard_links => Err(OpenError::HardLinks(links)),
            _ => Ok(file),
        }
    }

    /// Whether files of this user count.
    fn counts(&self, uid: u32) -> bool {
        self.owners.as_ref().is_none_or(|owners| owners.contains(&uid))
    }

    /// Opens an existing regular file to read it and to append to it, if no other user can change
    /// it. A symbolic link is not followed, and neither is a device or a FIFO opened.
    pub(crate) fn append_to(&self, name: &Path) -> Result<File, AccessError> {
        let path = self.path.join(name);
        let failed = |errno: Errno| AccessError::system(OPEN_FILE, &path, errno);
        let open_error = |error: OpenError| match error {
            OpenError::System(source) => AccessError::system(OPEN_FILE, &path, source),
            _ => AccessError::refused(not_a_file(&path)),
        };
        let seen = fstat(self.read(name).map_err(open_error)?).map_err(failed)?;
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file =
            openat(&self.file, name, flags, Mode::empty()).map(File::from).map_err(failed)?;
        let opened = fstat(&file).map_err(failed)?;
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
            return Err(AccessError::refused(format!("{} was replaced", path.display())));
        }
        checked(file, &path, OPEN_FILE)
    }

    /// Whether other users can create files in it.
    pub(crate) fn is_sticky(&self) -> bool {
        fstat(&self.file).map_or(true, |stat| permissions(&stat) & STICKY != 0)
    }

    /// Where the link of that name leads, if it is one that we follow.
    pub(crate) fn link(&self, name: &Path) -> Option<PathBuf> {
        let folder = fstat(&self.file).ok()?;
        match os::step(self.file.as_fd(), name).ok()? {
            Found::Link(stat, target) => is_trusted_link(&stat, &folder).then(|| target.into()),
            _ => None,
        }
    }

    /// Whether it has a program of that name that no other user can change. A link is not followed.
    pub(crate) fn has_program(&self, name: &Path) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(&self.file, name, flags, Mode::empty()).map(File::from);
        found.is_ok_and(|file| {
            fstat(&file).is_ok_and(|stat| {
                let facts = Facts { hard_links: 1, ..facts(&file, &stat) };
                let is_program = is_regular(&stat) && facts.mode & 0o111 != 0;
                is_program && problem(&facts, &Us::now()).is_none()
            })
        })
    }

    /// Renames a file, and replaces a file that has the new name.
    ///
    /// # Errors
    /// Those of rename(2).
    #[doc(hidden)]
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.file, from, &self.file, to)?)
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The error if we may not create files in it.
    pub(crate) fn not_writable(&self, source: io::Error) -> AccessError {
        AccessError::command("write to the folder", &self.path, &["chown UID"], source)
    }

    /// The names of its regular files that `is_wanted` accepts, in no particular order, without those
    /// of users whose files do not count. The other users go to `foreign`.
    pub(crate) fn files(
        &self,
        is_wanted: impl Fn(&OsStr) -> bool,
        mut foreign: impl FnMut(u32),
    ) -> Result<Vec<OsString>, AccessError> {
        let failed = |errno: Errno| AccessError::system(LIST_FOLDER, &self.path, errno);
        let mut names = Vec::new();
        let mut dir = Dir::openat(&self.file, ".", LIST, Mode::empty()).map_err(failed)?;
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !is_wanted(name) {
                continue;
            }
            // A file that has been removed meanwhile is skipped.
            match fstatat(&self.file, Path::new(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_regular(&stat) => {}
                Ok(stat) if self.counts(stat.st_uid) => names.push(name.to_owned()),
                Ok(stat) => foreign(stat.st_uid),
                Err(_) => {}
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
    let (parent, name) = split(path, OPEN_FILE)?;
    let folder = Folder::checked(parent, walk(parent, Missing::Create)?)?;
    match folder.append(name, OFlag::empty()) {
        Ok(file) => checked(file, path, OPEN_FILE),
        // A folder, or a FIFO without a reader.
        Err(Errno::EISDIR | Errno::ENXIO) => Err(AccessError::refused(not_a_file(path))),
        Err(Errno::EACCES) => {
            let source = Errno::EACCES.into();
            match fstatat(&folder.file, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => Err(AccessError::command("open", path, &["chown UID"], source)),
                Err(_) => Err(folder.not_writable(source)),
            }
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Opens an existing file to replace its content. Others may be able to write to it, as to the
/// kubelet's termination message, but it must belong to us or root.
///
/// The folder must be one that no other user can change, unless the file itself is mounted there, as in
/// a container. Then no user can replace it.
///
/// # Errors
/// If the file cannot be opened, or could be another one than the path's owner meant.
pub fn open_existing(path: &Path) -> Result<File, AccessError> {
    const WRITE: OFlag = READ.difference(OFlag::O_RDONLY).union(OFlag::O_WRONLY);
    let (parent, name) = split(path, OPEN_MESSAGE)?;
    let folder = walk(parent, Missing::Refuse)?;
    let file = match regular::open_at(folder.as_fd(), name, Links::Refuse, WRITE) {
        Ok(file) => file,
        Err(OpenError::System(source)) => {
            return Err(AccessError::system(OPEN_MESSAGE, path, source));
        }
        Err(OpenError::NotRegular) => return Err(AccessError::refused(not_a_file(path))),
        Err(why) => return Err(AccessError::refused(format!("{} is {why}", path.display()))),
    };
    if !os::is_mounted(&file) {
        checked(File::from(folder), parent, OPEN)?;
    }
    let stat = fstat(&file).map_err(|errno| AccessError::system(OPEN_MESSAGE, path, errno))?;
    // We only write, so it does not matter who else can.
    refuse(&Facts { mode: 0, has_acl: false, ..facts(&file, &stat) }, path)?;
    Ok(file)
}

/// The folder of a file, and its name there.
fn split(path: &Path, attempt: Attempt) -> Result<(&Path, &Path), AccessError> {
    let is_folder = || io::Error::from(io::ErrorKind::IsADirectory);
    let name = path.file_name().ok_or_else(|| AccessError::system(attempt, path, is_folder()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), Path::new(name)))
}

fn not_a_file(path: &Path) -> String {
    format!("{} is not a regular file; remove it, or name another", path.display())
}

/// Returns an open file or folder if no other user can change it.
fn checked(file: File, path: &Path, attempt: Attempt) -> Result<File, AccessError> {
    let stat = fstat(&file).map_err(|errno| AccessError::system(attempt, path, errno))?;
    let facts = facts(&file, &stat);
    if facts.is_file && !is_regular(&stat) {
        return Err(AccessError::refused(not_a_file(path)));
    }
    refuse(&facts, path)?;
    Ok(file)
}

/// The error if another user can change the file or folder.
fn refuse(facts: &Facts, path: &Path) -> Result<(), AccessError> {
    let Some((what, commands)) = problem(facts, &Us::now()) else { return Ok(()) };
    let fix = AccessError::fix(path, &commands);
    Err(AccessError::refused(format!("{} {what}; {fix}", path.display())))
}

/// What decides whether a folder or a file is used.
fn facts(file: &File, stat: &FileStat) -> Facts {
    let mode = permissions(stat);
    Facts {
        is_file: kind(stat) != SFlag::S_IFDIR,
        owner: stat.st_uid,
        group: stat.st_gid,
        mode,
        hard_links: hard_links(stat),
        has_acl: mode & BY_GROUP != 0 && os::has_acl(file),
    }
}

/// Whether to create a folder that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Refuse,
    /// Refuse also a folder on the way in which another user can replace files.
    RefuseAndClosed,
}

/// Walks to a folder step by step.
///
/// The caller of a program with rights that the caller lacks can choose the current folder, so there the
/// path must be absolute.
fn walk(path: &Path, missing: Missing) -> Result<OwnedFd, AccessError> {
    let failed = |errno: Errno| match missing {
        // Neither the folder nor its owner is the reason.
        _ if matches!(errno, Errno::EMFILE | Errno::ENFILE) => {
            AccessError::system((OPEN.0, ""), path, errno)
        }
        Missing::Create if errno != Errno::ELOOP => AccessError::system(CREATE, path, errno),
        _ => AccessError::system(OPEN, path, errno),
    };
    if path.as_os_str().is_empty() {
        return Err(failed(Errno::ENOENT));
    }
    if is_secure_execution() && !path.is_absolute() {
        let why = "the path must be absolute, because the caller of this program has chosen the current folder";
        return Err(AccessError::refused(why.to_owned()));
    }
    let root = |path: &Path| os::begin(Path::new(if path.is_absolute() { "/" } else { "." }));
    let mut at = root(path).map_err(failed)?;
    let mut steps: VecDeque<OsString> = steps(path).collect();
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        let step = Path::new(&step);
        if missing == Missing::RefuseAndClosed {
            at = checked(File::from(at), path, OPEN)?.into();
        }
        let mut found = os::step(at.as_fd(), step);
        if missing == Missing::Create && matches!(found, Err(Errno::ENOENT)) {
            found = match mkdirat(&at, step, Mode::S_IRWXU) {
                // Another process may have created it first. It is checked like any other folder.
                Ok(()) | Err(Errno::EEXIST) => os::step(at.as_fd(), step),
                Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                    let command = ["install -d -m 700 -o UID"];
                    let (what, source) = ("create the folder", errno.into());
                    return Err(AccessError::command(what, path, &command, source));
                }
                Err(errno) => Err(errno),
            };
        }
        match found.map_err(failed)? {
            Found::Folder(found) => at = found,
            Found::Link(stat, target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(failed(Errno::ELOOP));
                }
                let folder = fstat(&at).map_err(failed)?;
                if !is_trusted_link(&stat, &folder) {
                    let fix = match is_secure_execution() {
                        true => {
                            "name the folder it leads to, because this program follows no links"
                        }
                        false => "name the folder it leads to, or let root make the link",
                    };
                    return Err(AccessError::refused(format!(
                        "on the way to the folder {} the symbolic link {} belongs to uid {}; {fix}",
                        path.display(),
                        step.display(),
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

/// Whether a link that was found in this folder can be followed.
fn is_trusted_link(link: &FileStat, folder: &FileStat) -> bool {
    // The caller may have made any link: with capabilities or a group from its file, the program runs as the
    // caller, and can enter a file system that the caller has mounted, which may claim any owner.
    if is_secure_execution() {
        return false;
    }
    let folder = (folder.st_uid, permissions(folder));
    follows_link(&Us::now(), (link.st_uid, hard_links(link)), folder, os::LINKS_ARE_HELD)
}

#[allow(clippy::useless_conversion)] // Its type differs between systems.
fn hard_links(stat: &FileStat) -> u64 {
    u64::from(stat.st_nlink)
}

/// The permission bits, including the sticky, setuid and setgid bits.
#[allow(clippy::useless_conversion)] // A `mode_t` has 16 bits on macOS and FreeBSD.
fn permissions(stat: &FileStat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

#[cfg(test)]
mod tests;
