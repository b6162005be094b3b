//! The post-mortem of a folder: how the last run in it ended.

use std::path::Path;

use super::folder::{FolderError, runs};
use super::judge::verdict;
use super::reader::{ReadError, Record};
use super::verdict::{Now, Outcome, Verdict};
use crate::cgroupfs::OomKills;

impl Verdict {
    /// Judges the record at `path` by all that can be known now, in this process's place: the lock,
    /// the boot, and how often the kernel has killed in our control group since.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        let mut now = Now::look(path);
        if let Some(oom) = OomKills::read() {
            now.oom_kill = Some(oom.count);
            now.cgroup_inode = Some(oom.cgroup_inode);
        }
        Ok(verdict(&Record::read(path)?, &now))
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
