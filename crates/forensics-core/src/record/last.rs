//! The post-mortem of a folder: how the last run in it ended.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::folder::names;
use super::judge::verdict;
use super::reader::{ReadError, Record, not_opened, open};
use super::verdict::{Now, Outcome, Verdict};
use crate::cgroupfs::OomKills;
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
        Self::with_record(path).map(|(_, verdict)| verdict)
    }

    /// The same, with the record that was judged: the file is opened once.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn with_record(path: &Path) -> Result<(Record, Self), ReadError> {
        judged(&open(path)?, path)
    }

    /// Judges the newest record of a run that has ended; of one that still runs where there is no
    /// other. `None` in a folder without a record that can be read.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, FolderError> {
        Self::of_last_in(&Folder::look(dir)?)
    }

    /// The same in a folder that was opened.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn of_last_in(folder: &Folder) -> Result<Option<Self>, FolderError> {
        let of = |name: &Path| {
            let path = folder.path().join(name);
            let file = folder.read(name).map_err(|error| not_opened(&path, error))?;
            judged(&file, &path).map(|(_, verdict)| verdict)
        };
        let newest_first = names(folder)?.into_iter().rev();
        let mut verdicts = newest_first.filter_map(|name| of(Path::new(&name)).ok());
        let newest = verdicts.next();
        match &newest {
            Some(verdict) if verdict.outcome == Outcome::Running => {
                Ok(verdicts.find(|older| older.outcome != Outcome::Running).or(newest))
            }
            _ => Ok(newest),
        }
    }
}

fn judged(file: &File, path: &Path) -> Result<(Record, Verdict), ReadError> {
    let mut now = Now::of_file(file);
    if let Some(oom) = OomKills::read() {
        now.oom_kill = Some(oom.count);
        now.cgroup_inode = Some(oom.cgroup_inode);
    }
    let record = Record::of_file(file, path)?;
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
    Ok((record, judged))
}
