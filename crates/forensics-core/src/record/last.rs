//! The post-mortem of a folder: how the last run in it ended.

use std::path::Path;
use std::time::Duration;

use super::folder::{FolderError, runs};
use super::judge::verdict;
use super::reader::{ReadError, Record};
use super::verdict::{Now, Outcome, Verdict};
use crate::cgroupfs::OomKills;
use crate::diagnostic::killed_for_memory;
use crate::procfile;

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
        let mut now = Now::look(path);
        if let Some(oom) = OomKills::read() {
            now.oom_kill = Some(oom.count);
            now.cgroup_inode = Some(oom.cgroup_inode);
        }
        let record = Record::read(path)?;
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

    /// The newest run that has ended, as [`Verdict::of_last`] has it.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn last(dir: &Path) -> Result<Option<Self>, FolderError> {
        let newest_first = runs(dir)?.into_iter().rev();
        let mut all = newest_first.filter_map(|path| Self::read(&path).ok());
        let is_over = |run: &Self| run.verdict.outcome != Outcome::Running;
        let newest = all.next();
        match &newest {
            Some(run) if !is_over(run) => Ok(all.find(is_over).or(newest)),
            _ => Ok(newest),
        }
    }
}
