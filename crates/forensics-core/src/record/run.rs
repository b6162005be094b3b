//! Reads a run from its folder, with its post-mortem.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use super::check;
use super::folder::names;
use super::{Entry, Event, PostMortem, ReadError, Record, RunOutcome};
use crate::access::AccessError;
use crate::cgroupfs::OomKills;
use crate::diagnostic::killed_for_memory;
use crate::secure_fs::{Folder, Links, OpenError, open_path};
use crate::{clock, procfile};

impl PostMortem {
    /// Reads the post-mortem of the record at `path`. It uses everything that this process can find
    /// out: the lock, the boot, the OOM kills in our cgroup since then, and, if the record has no
    /// end, the kernel log about an OOM kill of the run.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        Ok(Run::read(path)?.post_mortem)
    }

    /// Reads the post-mortem of the newest run that has ended, or of a running one if there is no
    /// other. `None` if the folder has no readable record.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, AccessError> {
        Ok(Run::last_in(&Folder::look(dir)?)?.map(|run| run.post_mortem))
    }
}

/// A run: what it recorded, and how it ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its record.
    pub record: Record,
    /// See [`PostMortem::of`].
    pub post_mortem: PostMortem,
}

impl Run {
    /// Reads the run whose record is at `path`, with its [`PostMortem::of`].
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::of_file(open_path(path, Links::Refuse), path)
    }

    /// The newest run of an open folder that has ended, as for [`PostMortem::of_last`].
    ///
    /// The newest is the one that began last in this boot, by the monotonic clock: the wall clock,
    /// which names the files, may have been set since. Among other boots the name decides.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn last_in(folder: &Folder) -> Result<Option<Self>, AccessError> {
        let boot = clock::boot_id();
        let mut names = names(folder)?;
        // A stable sort: runs of other boots come first, in the order of their names.
        names.sort_by_cached_key(|name| began_us(folder, Path::new(name), boot.as_deref()));
        let read = |name: &OsString| {
            Self::of_file(folder.read(Path::new(name)), &folder.path().join(name)).ok()
        };
        let mut newest_first = names.iter().rev().filter_map(read);
        let is_over = |run: &Self| run.post_mortem.outcome != RunOutcome::Running;
        let newest = newest_first.next();
        if newest.as_ref().is_none_or(is_over) {
            return Ok(newest);
        }
        Ok(newest_first.find(is_over).or(newest))
    }

    /// The run of an opened record; `path` is for errors.
    fn of_file(opened: Result<File, OpenError>, path: &Path) -> Result<Self, ReadError> {
        let (record, mut host) = Record::of_file(opened, path)?;
        if let Some(oom) = OomKills::read() {
            host.oom_kill = Some(oom.count);
            host.cgroup_inode = Some(oom.cgroup_inode);
        }
        let mut post_mortem = check::post_mortem(&record, &host);
        let is_unexplained = matches!(
            post_mortem.outcome,
            RunOutcome::KilledInPhase | RunOutcome::KilledBeforeTeardown | RunOutcome::Vanished
        );
        // Last, because that log can be long. Its pids are those of the initial namespace.
        if is_unexplained && procfile::is_in_initial_pid_namespace("/proc/self") == Some(true) {
            let began = record.entries.first().map_or(0, |entry| entry.mono_us);
            host.oom_line = killed_for_memory(record.start.pid, Duration::from_micros(began));
            post_mortem = check::post_mortem(&record, &host);
        }
        Ok(Self { record, post_mortem })
    }
}

/// When the run of this record began, on this boot's monotonic clock. `None` for a run of another
/// boot, or if the record cannot be read.
fn began_us(folder: &Folder, name: &Path, boot: Option<&str>) -> Option<u64> {
    /// More than any first line has in practice, in bytes.
    const HEAD: u64 = 64 << 10;
    let mut line = Vec::new();
    BufReader::new(folder.read(name).ok()?.take(HEAD)).read_until(b'\n', &mut line).ok()?;
    let Entry { event: Event::RunStarted(start), mono_us, .. } = Entry::parse(&line).ok()? else {
        return None;
    };
    (start.boot_id.as_deref()? == boot?).then_some(mono_us)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::RunStarted;
    use super::super::Utc;
    use super::super::entry::line;
    use super::*;

    #[test]
    fn the_last_run_is_the_last_to_begin_even_if_the_wall_clock_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let boot = clock::boot_id();
        let run = |year: u32, pid: u32, boot: Option<&str>, mono_us: u64| {
            let mut start = RunStarted::new("gateway", pid);
            start.boot_id = boot.map(str::to_owned);
            let line = line(Utc::now(), mono_us, &Event::RunStarted(start)).unwrap();
            let name = format!("{year}1123T101500.000000Z-{pid}.jsonl");
            fs::write(dir.path().join(name), line).unwrap();
        };
        let last = || PostMortem::of_last(dir.path()).unwrap().unwrap().pid;
        run(2025, 1, Some("another"), 9);
        run(2026, 2, Some("another"), 7);
        assert_eq!(last(), 2);
        // The clock was ahead, then it was set back.
        run(2030, 3, boot.as_deref(), 5);
        run(2024, 4, boot.as_deref(), 6);
        assert_eq!(last(), 4);
        run(2031, 5, None, 100);
        assert_eq!(last(), 4);
    }
}
