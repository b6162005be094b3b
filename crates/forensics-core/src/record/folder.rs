//! The folder of the records: their names, their locks, and the removal of old ones.
//!
//! [`crate::secure_fs`] says into which folders records are written. Only regular files of our own
//! user with the name of a record are removed, and never one whose run is still alive.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::Utc;
use crate::access::AccessError;
use crate::secure_fs::{Folder, OpenError};

/// How many records are kept by default.
pub const DEFAULT_RETENTION: usize = 50;

const EXTENSION: &str = ".jsonl";

/// The name of a run's record: `20261123T101500.123456Z-4100.jsonl`. Sorting the names sorts them by
/// time, unless the wall clock was set.
pub(super) fn name(start: Utc, pid: u32) -> String {
    format!("{}-{pid}{EXTENSION}", start.compact())
}

/// Whether a file has the name of a record.
fn is_record_name(name: &str) -> bool {
    /// A `0` matches any digit.
    const TIME: &[u8] = b"00000000T000000.000000Z-";
    let Some(stem) = name.strip_suffix(EXTENSION) else { return false };
    let Some((time, pid)) = stem.as_bytes().split_at_checked(TIME.len()) else { return false };
    let fits = |(byte, like): (&u8, &u8)| byte == like || (*like == b'0' && byte.is_ascii_digit());
    time.iter().zip(TIME).all(fits)
        && (1..=10).contains(&pid.len())
        && pid.iter().all(u8::is_ascii_digit)
}

/// Lists the records in a folder, oldest first: all regular files with the name of a record.
///
/// The newest may be the caller's own. It may be empty if its run has just begun.
///
/// # Errors
/// If the folder does not exist or cannot be listed.
pub fn runs(dir: &Path) -> Result<Vec<PathBuf>, AccessError> {
    let names = names(&Folder::look(dir)?)?;
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The same as [`runs`], as names in the folder.
pub(super) fn names(folder: &Folder) -> Result<Vec<OsString>, AccessError> {
    let mut names = folder.files()?;
    names.retain(|name| name.to_str().is_some_and(is_record_name));
    names.sort();
    Ok(names)
}

/// Whether the run that writes this record is alive: whether its lock is held.
///
/// This function tries a shared lock, so that two readers do
/// not mistake each other for the run.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the oldest of the folder's [`runs`] until `keep` remain. Returns how many it removed.
///
/// A record stays, and counts as kept, if its run is alive, if it belongs to another user, or if it
/// cannot be removed.
///
/// # Errors
/// If the folder cannot be opened or listed, or other users may change it.
pub fn prune(dir: &Path, keep: usize) -> Result<usize, AccessError> {
    let folder = Folder::open(dir)?;
    let names = names(&folder)?;
    let surplus = names[..names.len().saturating_sub(keep)].iter();
    Ok(surplus.filter(|name| remove_dead(&folder, Path::new(name)).unwrap_or(false)).count())
}

/// Removes a record if it is ours and its run has ended; returns whether it did.
fn remove_dead(folder: &Folder, name: &Path) -> Result<bool, OpenError> {
    let file = folder.read(name)?;
    let meta = file.metadata()?;
    if meta.uid() != geteuid().as_raw() || is_locked(&file)? {
        return Ok(false);
    }
    // Our lock is held until the file is removed. A run that has just created this file and not
    // locked it yet then fails to lock it, and creates another one.
    folder.remove(name)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::escape::error_chain;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The name of the `n`th record of a test, oldest first.
    fn nth(n: usize) -> String {
        format!("20261123T101500.{n:06}Z-{}.jsonl", 4200 - n)
    }

    #[test]
    fn names_sort_by_time_and_differ_from_those_of_other_files() {
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
    fn root_neither_writes_nor_removes_records_in_another_users_folder() {
        if !geteuid().is_root() {
            return; // Only root can give files away.
        }
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("records");
        Folder::create(&folder).unwrap();
        let (his, ours) = (folder.join(nth(1)), folder.join(nth(2)));
        fs::write(&his, "").unwrap();
        fs::write(&ours, "").unwrap();
        std::os::unix::fs::chown(&his, Some(65534), None).unwrap();
        assert_eq!(prune(&folder, 0).unwrap(), 1);
        assert!(his.exists() && !ours.exists());
        std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
        let foreign = "belongs to uid 65534";
        assert!(Folder::create(&folder).is_err_and(|e| e.to_string().contains(foreign)));
        assert!(prune(&folder, 0).is_err_and(|e| e.to_string().contains(foreign)));
    }

    #[test]
    fn pruning_keeps_the_newest_records_locked_records_and_other_files() {
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
        // Unlocks the file explicitly. Closing is not enough, because a child that another test
        // just forked may share it.
        living.unlock().unwrap();
        assert_eq!(prune(folder, 4).unwrap(), 1);
        assert_eq!(prune(folder, 4).unwrap(), 0);
        assert_eq!(left(), [5, 6, 7, 8].map(path));
        assert_eq!(prune(folder, 0).unwrap(), 4);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 4);
    }

    #[test]
    fn readers_do_not_mistake_each_other_for_the_run() {
        let tmp = tempfile::NamedTempFile::new().unwrap();
        let reader = tmp.reopen().unwrap();
        reader.lock_shared().unwrap();
        assert!(!is_locked(&tmp.reopen().unwrap()).unwrap());
        reader.lock().unwrap();
        assert!(is_locked(&tmp.reopen().unwrap()).unwrap());
    }

    #[test]
    fn a_fifo_named_like_a_record_blocks_no_reader() {
        let tmp = tempfile::tempdir().unwrap();
        chmod(tmp.path(), 0o700);
        let fifo = tmp.path().join(nth(1));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let folder = Folder::open(tmp.path()).unwrap();
        assert!(remove_dead(&folder, Path::new(&nth(1))).is_err());
        let refused = error_chain(&super::super::Record::read(&fifo).unwrap_err());
        assert!(refused.contains("not a regular file"), "{refused}");
    }
}
