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
        let mut now = Now::look(path);
        if let Some(oom) = OomKills::read() {
            now.oom_kill = Some(oom.count);
            now.cgroup_inode = Some(oom.cgroup_inode);
        }
        let record = Record::read(path)?;
        let judged = verdict(&record, &now);
        let is_riddle = matches!(
            judged.outcome,
            Outcome::KilledInPhase | Outcome::KilledBeforeTeardown | Outcome::Vanished
        );
        // Last, as that log can be long; and its pids are those of the initial namespace.
        if is_riddle && procfile::is_in_initial_pid_namespace("/proc/self") == Some(true) {
            let began = record.entries.first().map_or(0, |entry| entry.mono_us);
            now.oom_line = killed_for_memory(record.start.pid, Duration::from_micros(began));
            if now.oom_line.is_some() {
                return Ok(verdict(&record, &now));
            }
        }
        Ok(judged)
    }

    /// Judges the newest record of a run that has ended; of one that still runs where there is no
    /// other. `None` in a folder without a record that can be read.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, FolderError> {
        let newest_first = runs(dir)?.into_iter().rev();
        let mut verdicts = newest_first.filter_map(|path| Self::of(&path).ok());
        let newest = verdicts.next();
        match &newest {
            Some(verdict) if verdict.outcome == Outcome::Running => {
                Ok(verdicts.find(|older| older.outcome != Outcome::Running).or(newest))
            }
            _ => Ok(newest),
        }
    }
}
