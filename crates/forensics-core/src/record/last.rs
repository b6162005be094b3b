//! The post-mortem of a folder: how the last run in it ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use super::entry::Entry;
use super::event::Event;
use super::folder::names;
use super::judge::verdict;
use super::reader::{ReadError, Record, not_opened, open};
use super::verdict::{Outcome, Verdict};
use crate::cgroupfs::OomKills;
use crate::clock;
use crate::diagnostic::killed_for_memory;
use crate::procfile;
use crate::trusted::{Folder, FolderError};

impl Verdict {
    /// Judges the record at `path` by all that can be known now, in this process's place: the lock,
    /// the boot, how often the kernel has killed in our control group since, and, of a run that did
    /// not say that it ended, whether the kernel's log has it killed for want of memory.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        Ok(Run::read(path)?.verdict)
    }

    /// Judges the newest record of a run that has ended; of one that still runs where there is no
    /// other. `None` in a folder without a record that can be read.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, FolderError> {
        Ok(Run::last(dir)?.map(|run| run.verdict))
    }
}

/// A run: what it recorded, and how it ended by that.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Run {
    /// Its record.
    pub record: Record,
    /// See [`Verdict::of`].
    pub verdict: Verdict,
}

impl Run {
    /// The run whose record is at `path`, judged as by [`Verdict::of`].
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::of_file(&open(path)?, path)
    }

    /// The newest run that has ended, as [`Verdict::of_last`] has it.
    ///
    /// The newest is the one that began last in this boot, by the monotonic clock, as the wall clock,
    /// which names the files, may have been set back meanwhile; of other boots the last by its name.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn last(dir: &Path) -> Result<Option<Self>, FolderError> {
        Self::last_in(&Folder::look(dir)?)
    }

    /// The same in a folder that was opened.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn last_in(folder: &Folder) -> Result<Option<Self>, FolderError> {
        let boot = clock::boot_id();
        let began = |name: &OsString| began_us(folder, Path::new(name), boot.as_deref());
        // Other boots' come first: among these the names decide.
        let named = names(folder)?.into_iter().map(|name| (began(&name), name));
        let mut by_begin: Vec<(Option<u64>, OsString)> = named.collect();
        by_begin.sort_unstable();
        let read = |name: &Path| {
            let path = folder.path().join(name);
            let file = folder.read(name).map_err(|error| not_opened(&path, error))?;
            Self::of_file(&file, &path)
        };
        let newest_first = by_begin.iter().rev();
        let mut all = newest_first.filter_map(|(_, name)| read(Path::new(name)).ok());
        let is_over = |run: &Self| run.verdict.outcome != Outcome::Running;
        let newest = all.next();
        match &newest {
            Some(run) if !is_over(run) => Ok(all.find(is_over).or(newest)),
            _ => Ok(newest),
        }
    }

    /// The same of an open file; `path` is for errors.
    fn of_file(file: &File, path: &Path) -> Result<Self, ReadError> {
        let (record, mut now) = Record::of_file(file, path)?;
        if let Some(oom) = OomKills::read() {
            now.oom_kill = Some(oom.count);
            now.cgroup_inode = Some(oom.cgroup_inode);
        }
        let mut judged = verdict(&record, &now);
        let is_riddle = matches!(
            judged.outcome,
            Outcome::KilledInPhase | Outcome::KilledBeforeTeardown | Outcome::Vanished
        );
        // Last, as that log can be long; and its pids are those of the initial namespace.
        if is_riddle && procfile::is_in_initial_pid_namespace("/proc/self") == Some(true) {
            let began = record.entries.first().map_or(0, |entry| entry.mono_us);
            now.oom_line = killed_for_memory(record.start.pid, Duration::from_micros(began));
            if now.oom_line.is_some() {
                judged = verdict(&record, &now);
            }
        }
        Ok(Self { record, verdict: judged })
    }
}

/// When the run of this record began, on this boot's monotonic clock; `None` for another boot's, and
/// where that cannot be read.
fn began_us(folder: &Folder, name: &Path, boot: Option<&str>) -> Option<u64> {
    /// Much longer than any first line.
    const HEAD: u64 = 64 << 10;
    let mut line = Vec::new();
    BufReader::new(folder.read(name).ok()?.take(HEAD)).read_until(b'\n', &mut line).ok()?;
    let first = Entry::parse(&line).ok()?;
    match first.event {
        Event::RunStarted(start) if start.boot_id.as_deref() == Some(boot?) => Some(first.mono_us),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::RunStarted;
    use super::super::entry::line;
    use super::*;
    use crate::clock::Utc;

    #[test]
    fn the_last_run_is_the_last_to_begin_whatever_was_done_to_the_wall_clock() {
        let dir = tempfile::tempdir().unwrap();
        let boot = clock::boot_id();
        let run = |year: u32, pid: u32, boot: Option<&str>, mono_us: u64| {
            let mut start = RunStarted::new("gateway", pid);
            start.boot_id = boot.map(str::to_owned);
            let line = line(Utc::now(), mono_us, &Event::RunStarted(start)).unwrap();
            let name = format!("{year}1123T101500.000000Z-{pid}.jsonl");
            fs::write(dir.path().join(name), line).unwrap();
        };
        let last = || Verdict::of_last(dir.path()).unwrap().unwrap().pid;
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
