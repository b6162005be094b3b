//! The folder that the records lie in: their names, their locks, and how many are kept.
//!
//! A folder is trusted only where no one else could put files in place of ours. Files that are
//! not named as we name ours, not regular or not our user's are never touched, nor is one whose
//! run is still alive.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::clock::Utc;

/// How many records are kept unless told otherwise.
pub const KEEP: usize = 50;

const EXTENSION: &str = ".jsonl";
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// For a file that may be anything: `O_NONBLOCK` keeps a FIFO from hanging us.
pub(super) const QUIETLY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY);

/// Why a folder is of no use for records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It, or a parent of it, is not there and could not be made.
    #[error("cannot create the record folder {}: {source}; create it, or name another", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be opened: no folder, or a symbolic link to one.
    #[error("cannot open the record folder {}: {source}; it must be a folder of this user, \
        and no symbolic link", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// We are root and it belongs to somebody else, who could put a file of his in place of ours.
    #[error("the record folder {} belongs to uid {owner}, not to root; chown it, or name another",
        path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Its group or everybody may rename and remove what others have put there.
    #[error("the record folder {} (mode {mode:04o}) lets other users replace files; \
        chmod go-w it, or name another", path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It could not be listed.
    #[error("cannot list the record folder {}: {source}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The name of the record of a run: `20261123T101500.123456Z-4100.jsonl`. Sorted as text, names
/// are sorted by time, as far as the wall clock did not jump.
pub(super) fn name(start: Utc, pid: u32) -> String {
    format!("{}-{pid}{EXTENSION}", start.compact())
}

/// Whether a file of that name is a record, going by the name alone.
fn is_record_name(name: &str) -> bool {
    /// A `0` stands for any digit.
    const TIME: &[u8] = b"00000000T000000.000000Z-";
    let Some(stem) = name.strip_suffix(EXTENSION) else { return false };
    let Some((time, pid)) = stem.as_bytes().split_at_checked(TIME.len()) else { return false };
    let fits = |(byte, like): (&u8, &u8)| byte == like || (*like == b'0' && byte.is_ascii_digit());
    time.iter().zip(TIME).all(fits)
        && (1..=10).contains(&pid.len())
        && pid.iter().all(u8::is_ascii_digit)
}

/// Makes the folder where it is not there, its parents too, all with mode 0700, and opens it.
/// What exists keeps its mode.
pub(super) fn create(path: &Path) -> Result<OwnedFd, FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FolderError::Create { path: path.to_owned(), source })?;
    open_trusted(path)
}

fn open_trusted(path: &Path) -> Result<OwnedFd, FolderError> {
    let failed = |errno: Errno| FolderError::Open { path: path.to_owned(), source: errno.into() };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = open(path, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&folder).map_err(failed)?;
    if geteuid().is_root() && stat.st_uid != 0 {
        return Err(FolderError::Foreign { path: path.to_owned(), owner: stat.st_uid });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        return Err(FolderError::Shared { path: path.to_owned(), mode });
    }
    Ok(folder)
}

/// The records in a folder, oldest first: all regular files that are named like one.
///
/// The newest may be the caller's own, or still empty, its run having only just begun.
///
/// # Errors
/// Where the folder cannot be listed, or is not there.
pub fn runs(dir: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |source| FolderError::List { path: dir.to_owned(), source };
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let named = entry.file_name().to_str().is_some_and(is_record_name);
        // A file that vanished meanwhile has no type, and is no error.
        if named && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            runs.push(entry.path());
        }
    }
    runs.sort_unstable();
    Ok(runs)
}

/// Whether the run that writes this record is alive: whether its lock is held.
///
/// Wrong in one case: a child that the run forked and that never executed another program shares
/// the lock, and keeps it when the run is gone.
///
/// # Errors
/// Where the file cannot be opened, or its file system has no locks.
pub fn is_running(path: &Path) -> io::Result<bool> {
    is_locked(&File::from(open(path, QUIETLY, Mode::empty())?))
}

/// Tries a shared lock, so that two readers do not take each other for the run.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the oldest of the folder's [`runs`] until `keep` are left; returns how many it removed.
///
/// Passed over, though counted, are a record whose run is alive, one that belongs to another
/// user, and one that cannot be removed.
///
/// # Errors
/// Where the folder cannot be opened or listed, or may be changed by others.
pub fn prune(dir: &Path, keep: usize) -> Result<usize, FolderError> {
    let folder = open_trusted(dir)?;
    let runs = runs(dir)?;
    let surplus = &runs[..runs.len().saturating_sub(keep)];
    let names = surplus.iter().filter_map(|path| path.file_name());
    Ok(names.filter(|name| remove_dead(&folder, Path::new(name)).unwrap_or(false)).count())
}

/// Removes a record below `folder` if it is ours and its run has ended; says whether it did.
fn remove_dead(folder: &OwnedFd, name: &Path) -> io::Result<bool> {
    let file = File::from(openat(folder, name, QUIETLY | OFlag::O_NOFOLLOW, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != geteuid().as_raw() || is_locked(&file)? {
        return Ok(false);
    }
    // The lock is held until the name is gone, so that a run whose file this is and that is about
    // to take its own lock fails to, and begins another file.
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::unistd::mkfifo;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The name of the `n`th record of a test, in the order of age.
    fn nth(n: usize) -> String {
        format!("20261123T101500.{n:06}Z-{}.jsonl", 4200 - n)
    }

    #[test]
    fn names_sort_by_time_and_are_told_from_other_files() {
        let at = |text: &str| name(text.parse().unwrap(), 4100);
        let name = at("2026-11-23T10:15:00.123456Z");
        assert_eq!(name, "20261123T101500.123456Z-4100.jsonl");
        assert!(at("2026-11-23T09:15:00.9Z") < name && name < at("2026-11-23T10:15:00.2Z"));
        for ours in [&*name, "00000101T000000.000000Z-1.jsonl", &super::name(Utc::now(), u32::MAX)]
        {
            assert!(is_record_name(ours), "{ours}");
        }
        for foreign in [
            "",
            ".jsonl",
            "a.jsonl",
            "20261123T101500.123456Z-4100",
            "20261123T101500.123456Z-4100.json",
            "20261123T101500.123456Z-4100.jsonl.bak",
            "20261123T101500.123456Z-.jsonl",
            "20261123T101500.123456Z-+1.jsonl",
            "20261123T101500.123456Z-41x0.jsonl",
            "20261123T101500.123456Z-12345678901.jsonl",
            "20261123t101500.123456Z-4100.jsonl",
            "2026112xT101500.123456Z-4100.jsonl",
            "2026-11-23T10:15:00.123456Z-4100.jsonl",
            " 20261123T101500.123456Z-4100.jsonl",
            "20261123T101500.12345\u{fc}Z-4100.jsonl",
        ] {
            assert!(!is_record_name(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_new_folder_is_closed_to_others_and_an_old_one_left_as_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        chmod(tmp.path(), 0o755);
        let deep = tmp.path().join("a/b/c");
        create(&deep).unwrap();
        create(&deep).unwrap();
        assert_eq!((mode(&deep), mode(&tmp.path().join("a"))), (0o700, 0o700));
        assert_eq!(mode(tmp.path()), 0o755);
        create(tmp.path()).unwrap();
        assert_eq!(mode(tmp.path()), 0o755);
    }

    #[test]
    fn folders_that_others_can_change_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("records");
        create(&folder).unwrap();
        for (bits, good) in
            [(0o720, false), (0o702, false), (0o777, false), (0o1777, true), (0o755, true)]
        {
            chmod(&folder, bits);
            match create(&folder) {
                Ok(_) => assert!(good, "{bits:o}"),
                Err(FolderError::Shared { mode, .. }) => assert!(!good && mode == bits, "{bits:o}"),
                Err(error) => panic!("{error}"),
            }
        }
        symlink(&folder, tmp.path().join("link")).unwrap();
        fs::write(tmp.path().join("file"), "").unwrap();
        assert!(matches!(create(&tmp.path().join("link")), Err(FolderError::Open { .. })));
        assert!(matches!(create(&tmp.path().join("file")), Err(FolderError::Create { .. })));
        assert!(matches!(create(&tmp.path().join("file/x")), Err(FolderError::Create { .. })));
        assert!(matches!(runs(&tmp.path().join("none")), Err(FolderError::List { .. })));
    }

    #[test]
    fn root_puts_no_record_into_another_users_folder_and_removes_none_of_his() {
        if !geteuid().is_root() {
            return; // Only root can give files away.
        }
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("records");
        create(&folder).unwrap();
        let (his, ours) = (folder.join(nth(1)), folder.join(nth(2)));
        fs::write(&his, "").unwrap();
        fs::write(&ours, "").unwrap();
        std::os::unix::fs::chown(&his, Some(65534), None).unwrap();
        assert_eq!(prune(&folder, 0).unwrap(), 1);
        assert!(his.exists() && !ours.exists());
        std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
        assert!(matches!(create(&folder), Err(FolderError::Foreign { owner: 65534, .. })));
        assert!(matches!(prune(&folder, 0), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn pruning_keeps_the_newest_the_living_and_everything_that_is_not_a_record() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path();
        chmod(folder, 0o700);
        let path = |n: usize| folder.join(nth(n));
        for n in 2..9 {
            fs::write(path(n), "x").unwrap();
        }
        symlink(path(8), path(0)).unwrap();
        mkfifo(&path(1), Mode::S_IRWXU).unwrap();
        fs::write(folder.join("notes.jsonl"), "x").unwrap();
        fs::create_dir(folder.join(nth(9))).unwrap();
        let living = File::open(path(3)).unwrap();
        living.lock().unwrap();
        let left = || runs(folder).unwrap();

        assert_eq!(left(), [2, 3, 4, 5, 6, 7, 8].map(path));
        assert_eq!(prune(folder, 50).unwrap(), 0);
        assert_eq!(prune(folder, 4).unwrap(), 2);
        assert_eq!(left(), [3, 5, 6, 7, 8].map(path));
        // Not by closing it: a child that another test just forked may share it.
        living.unlock().unwrap();
        assert_eq!(prune(folder, 4).unwrap(), 1);
        assert_eq!(prune(folder, 4).unwrap(), 0);
        assert_eq!(left(), [5, 6, 7, 8].map(path));
        assert_eq!(prune(folder, 0).unwrap(), 4);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 4);
    }

    #[test]
    fn readers_do_not_take_each_other_for_the_run() {
        let tmp = tempfile::NamedTempFile::new().unwrap();
        let reader = tmp.reopen().unwrap();
        reader.lock_shared().unwrap();
        assert!(!is_running(tmp.path()).unwrap());
        reader.lock().unwrap();
        assert!(is_running(tmp.path()).unwrap());
    }

    #[test]
    fn a_fifo_named_like_a_record_hangs_nobody() {
        let tmp = tempfile::tempdir().unwrap();
        chmod(tmp.path(), 0o700);
        let fifo = tmp.path().join(nth(1));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert!(!is_running(&fifo).unwrap());
        let folder = open_trusted(tmp.path()).unwrap();
        assert!(!remove_dead(&folder, Path::new(&nth(1))).unwrap());
        assert!(matches!(
            super::super::Record::read(&fifo),
            Err(super::super::ReadError::NotAFile { .. })
        ));
    }
}
