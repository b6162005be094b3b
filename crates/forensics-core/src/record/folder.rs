//! The folder of the records: their names, their order, and the removal of old ones.
//!
//! [`crate::secure_fs`] says into which folders records are written. Only regular files of our own
//! user with the name of a record are removed, only those of the same service and pod, and never one
//! whose run may be alive.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::lock::is_locked;
use super::reader::head;
use super::{HostState, RecordFile, Run, RunOutcome, RunStarted, Utc, post_mortem};
use crate::access::AccessError;
use crate::escape::{MAX_NAME_CHARS, truncate};
use crate::secure_fs::{Folder, OpenError};

/// How many records of a service are kept by default; of each pod in Kubernetes.
pub const DEFAULT_RETENTION: usize = 50;

const EXTENSION: &str = ".jsonl";

/// The name of a run's record: `20261123T101500.123456Z-4100.jsonl`. Sorting the names sorts them by
/// time, unless the wall clock was set.
pub(super) fn name(start: Utc, pid: u32) -> String {
    format!("{}-{pid}{EXTENSION}", start.compact())
}

/// Whether a file has the name of a record.
pub(super) fn is_record_name(name: &str) -> bool {
    /// A `0` matches any digit.
    const TIME: &[u8] = b"00000000T000000.000000Z-";
    let Some(stem) = name.strip_suffix(EXTENSION) else { return false };
    let Some((time, pid)) = stem.as_bytes().split_at_checked(TIME.len()) else { return false };
    let fits = |(byte, like): (&u8, &u8)| byte == like || (*like == b'0' && byte.is_ascii_digit());
    time.iter().zip(TIME).all(fits)
        && (1..=10).contains(&pid.len())
        && pid.iter().all(u8::is_ascii_digit)
}

/// Lists the records in a folder, oldest first: all regular files with the name of a record, also
/// those of other users.
///
/// The newest may be the caller's own. It may be empty if its run has just begun.
///
/// # Errors
/// If the folder does not exist or cannot be listed.
pub fn runs(dir: &Path) -> Result<Vec<PathBuf>, AccessError> {
    let names = names(&Folder::look(dir)?.of_all_users(), |_| ())?;
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The names of the records whose owners count. The owners of others go to `foreign`.
fn names(folder: &Folder, foreign: impl FnMut(u32)) -> Result<Vec<OsString>, AccessError> {
    let is_record = |name: &OsStr| name.to_str().is_some_and(is_record_name);
    let mut names = folder.files(is_record, foreign)?;
    names.sort();
    Ok(names)
}

/// The records of a folder that belong to other users than the folder's owner, root and the reader.
#[derive(Debug, Default)]
pub struct ForeignRecords {
    /// How many there are.
    pub count: usize,
    /// The users, at most a few.
    uids: BTreeSet<u32>,
}

impl ForeignRecords {
    /// How many users are named.
    const MAX_UIDS: usize = 4;

    /// Counts those in a folder.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn of(dir: &Path) -> Result<Self, AccessError> {
        let mut foreign = Self::default();
        names(&Folder::look(dir)?, |uid| foreign.add(uid))?;
        Ok(foreign)
    }

    /// Counts one of this user.
    pub fn add(&mut self, uid: u32) {
        self.count += 1;
        if self.uids.len() <= Self::MAX_UIDS {
            self.uids.insert(uid);
        }
    }
}

/// `3 records of other users (uid 1000, 1001)`.
impl Display for ForeignRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uids: Vec<_> = self.uids.iter().take(Self::MAX_UIDS).map(u32::to_string).collect();
        let more = if self.uids.len() > Self::MAX_UIDS { ", …" } else { "" };
        let records = if self.count == 1 { "record" } else { "records" };
        write!(f, "{} {records} of other users (uid {}{more})", self.count, uids.join(", "))
    }
}

/// How many records of a folder are looked at: the newest by name. A service keeps far fewer.
const MAX_FOUND: usize = 10_000;

/// A record of which only the first line has been read.
pub(super) struct Found {
    pub(super) name: OsString,
    /// `None` if its first line cannot be read.
    pub(super) head: Option<Head>,
    /// Whether its lock is held.
    pub(super) locked: bool,
    /// Whether the file belongs to our user.
    is_our_users: bool,
}

/// What the first line says. Long names are cut.
pub(super) struct Head {
    pub(super) service: String,
    pub(super) pid: u32,
    pub(super) pod: Option<String>,
    pub(super) host: Option<String>,
    pub(super) invocation_id: Option<String>,
    /// Whether it is of our pod or machine.
    is_ours: bool,
    /// When it began, on the clock of this boot; `None` for another boot.
    began_us: Option<u64>,
}

impl Head {
    fn of((start, mono_us): (RunStarted, u64), host: &HostState) -> Self {
        let is_of_this_boot = start.boot_id.is_some() && start.boot_id == host.boot_id;
        let cut = |text: String| truncate(text, MAX_NAME_CHARS);
        Self {
            is_ours: host.is_ours(&start),
            began_us: is_of_this_boot.then_some(mono_us),
            service: cut(start.service),
            pid: start.pid,
            pod: start.pod.map(cut),
            host: start.host.map(cut),
            invocation_id: start.invocation_id.map(cut),
        }
    }

    pub(super) fn is_of(&self, service: &str) -> bool {
        self.service == truncate(service, MAX_NAME_CHARS)
    }
}

impl Found {
    fn read(folder: &Folder, name: OsString) -> Self {
        let mut found = Self { name, head: None, locked: false, is_our_users: false };
        if let Ok(file) = folder.read(Path::new(&found.name)) {
            let head = head(&file).ok().flatten();
            let host = HostState::of_file(&file, head.as_ref().map(|(start, _)| start));
            found.head = head.map(|head| Head::of(head, &host));
            found.locked = host.locked;
            let owner = file.metadata().map(|meta| meta.uid());
            found.is_our_users = owner.is_ok_and(|uid| uid == geteuid().as_raw());
        }
        found
    }

    /// Whether it is a record of this service, and of our pod or machine. One that cannot be read
    /// may be.
    pub(super) fn may_be_ours(&self, service: &str) -> bool {
        self.head.as_ref().is_none_or(|head| head.is_of(service) && head.is_ours)
    }

    /// Reads it completely.
    pub(super) fn run(&self, folder: &Folder) -> Result<Run, super::ReadError> {
        Run::of_file(folder.read(Path::new(&self.name)), &folder.path().join(&self.name))
    }

    fn began_us(&self) -> Option<u64> {
        self.head.as_ref()?.began_us
    }

    /// Whether it is of an earlier boot of this machine. Other machines may have run at any time.
    fn is_of_earlier_boot(&self) -> bool {
        let is_earlier = |head: &Head| head.pod.is_none() && head.is_ours;
        self.began_us().is_none() && self.head.as_ref().is_some_and(is_earlier)
    }
}

/// The records of a folder, in the order in which their runs began.
///
/// Names have the time of the wall clock, which may have been set. So runs of this boot are ordered
/// by the monotonic clock, and come after those of earlier boots. Otherwise the name decides.
pub(super) fn found(folder: &Folder) -> Result<Vec<Found>, AccessError> {
    let mut names = names(folder, |_| ())?;
    names.drain(..names.len().saturating_sub(MAX_FOUND));
    let mut found: Vec<_> = names.into_iter().map(|name| Found::read(folder, name)).collect();
    // A stable sort, which keeps the order of the names.
    found.sort_by_key(|record| !record.is_of_earlier_boot());
    let is_of_this_boot = |record: &Found| record.began_us().is_some();
    let places: Vec<_> = (0..found.len()).filter(|&at| is_of_this_boot(&found[at])).collect();
    let (mut ordered, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_of_this_boot);
    ordered.sort_by_key(Found::began_us);
    let (mut ordered, mut others) = (ordered.into_iter(), others.into_iter());
    let count = ordered.len() + others.len();
    let next = |at: usize| match places.binary_search(&at) {
        Ok(_) => ordered.next(),
        Err(_) => others.next(),
    };
    Ok((0..count).filter_map(next).collect())
}

/// Removes the oldest records of this service and of our pod or machine until `keep` of them remain.
/// Returns how many it removed.
///
/// A record is kept, and counted, if its run may be alive or if it cannot be removed. Files of other users
/// are kept and not counted.
///
/// # Errors
/// If the folder cannot be opened or listed, or other users may change it.
pub fn prune(dir: &Path, service: &str, keep: usize) -> Result<usize, AccessError> {
    let folder = Folder::open(dir)?;
    let mut ours = found(&folder)?;
    ours.retain(|record| record.is_our_users && record.may_be_ours(service));
    let surplus = ours[..ours.len().saturating_sub(keep)].iter();
    Ok(surplus.filter(|record| remove_dead(&folder, record).unwrap_or(false)).count())
}

/// Removes a record if its run has ended; returns whether it did.
fn remove_dead(folder: &Folder, record: &Found) -> Result<bool, OpenError> {
    let name = Path::new(&record.name);
    let outcome = RecordFile::of(folder.read(name), name).and_then(|file| {
        let host = file.host()?;
        Ok(post_mortem(&file.read(|_, _| ())?, &host).outcome)
    });
    if matches!(outcome, Ok(RunOutcome::Running | RunOutcome::MaybeAlive)) {
        return Ok(false);
    }
    let file = folder.read(name)?;
    // A record that cannot be read may be that of a run that has just begun.
    if is_locked(&file).unwrap_or(false) && outcome.is_err() {
        return Ok(false);
    }
    // Our lock is held until the file is removed. A run that has just created this file and not
    // locked it yet then fails to lock it, and creates another one.
    folder.remove(name)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::super::lock::unlock;
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
        assert_eq!(prune(&folder, "gateway", 0).unwrap(), 1);
        assert!(his.exists() && !ours.exists());
        std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
        let foreign = "belongs to uid 65534";
        assert!(Folder::create(&folder).is_err_and(|e| e.to_string().contains(foreign)));
        assert!(prune(&folder, "gateway", 0).is_err_and(|e| e.to_string().contains(foreign)));
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
        assert_eq!(prune(folder, "gateway", 50).unwrap(), 0);
        assert_eq!(prune(folder, "gateway", 4).unwrap(), 2);
        assert_eq!(left(), [3, 5, 6, 7, 8].map(path));
        // Unlocks the file explicitly. Closing is not enough, because a child that another test
        // just forked may share it.
        unlock(&living);
        assert_eq!(prune(folder, "gateway", 4).unwrap(), 1);
        assert_eq!(prune(folder, "gateway", 4).unwrap(), 0);
        assert_eq!(left(), [5, 6, 7, 8].map(path));
        assert_eq!(prune(folder, "gateway", 0).unwrap(), 4);
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
        assert!(remove_dead(&folder, &Found::read(&folder, nth(1).into())).is_err());
        let refused = error_chain(&super::super::Record::read(&fifo).unwrap_err());
        assert!(refused.contains("not a regular file"), "{refused}");
    }
}
