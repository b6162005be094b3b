//! Reads a run from its folder, with its post-mortem.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::unistd::getppid;

use super::check;
use super::folder::found;
use super::{Digest, Entry, PostMortem, ReadError, RecordFile, RunOutcome, RunStarted};
use crate::access::AccessError;
use crate::cgroupfs::OomKills;
use crate::diagnostic::killed_for_memory;
use crate::procfile;
use crate::secure_fs::{Folder, OpenError};

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

    /// Reads the post-mortem of the newest run that is not alive, or of a running one if there is no
    /// other.
    /// It may be of any service and pod that writes to the folder. The newest is the one that began
    /// last by the monotonic clock, because the wall clock, which names the files, may have been set
    /// since. Among other boots and machines the name decides. `None` if the folder has no readable record.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, AccessError> {
        Ok(Run::last_in(&Folder::look(dir)?)?.map(|run| run.post_mortem))
    }
}

/// A run: what it recorded, and how it ended.
#[derive(Debug)]
pub struct Run {
    /// What it recorded.
    pub record: Digest,
    /// See [`PostMortem::of`].
    pub post_mortem: PostMortem,
    /// Its record.
    pub file: RecordFile,
}

impl Run {
    /// Reads the run whose record is at `path`, with its [`PostMortem::of`].
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::of(RecordFile::open(path)?, |_| ())
    }

    /// The newest run of an open folder that is not alive, as for [`PostMortem::of_last`].
    fn last_in(folder: &Folder) -> Result<Option<Self>, AccessError> {
        let found = found(folder)?;
        let mut newest_first = found.iter().rev().filter_map(|record| record.run(folder).ok());
        let is_over = |run: &Self| run.post_mortem.outcome != RunOutcome::Running;
        let newest = newest_first.next();
        if newest.as_ref().is_none_or(is_over) {
            return Ok(newest);
        }
        Ok(newest_first.find(is_over).or(newest))
    }

    /// The run of an opened record; `path` is for errors.
    pub(super) fn of_file(opened: Result<File, OpenError>, path: &Path) -> Result<Self, ReadError> {
        Self::of(RecordFile::of(opened, path)?, |_| ())
    }

    /// The run of an open record, each entry of which is passed to `each`.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn of(file: RecordFile, mut each: impl FnMut(&Entry)) -> Result<Self, ReadError> {
        let mut host = file.host()?;
        let record = file.read(|entry, _| each(entry))?;
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
            let began = Duration::from_micros(record.end.began_us.unwrap_or(0));
            host.oom_line = killed_for_memory(record.start.pid, began);
            post_mortem = check::post_mortem(&record, &host);
        }
        Ok(Self { record, post_mortem, file })
    }
}

/// What a folder shows to a run of a service that is about to begin.
#[derive(Debug, Default)]
pub struct Before {
    /// The newest run of the service in our pod, or on our machine outside of Kubernetes, that is not
    /// alive. If there is none: the newest run of the service that has ended elsewhere.
    pub previous: Option<Run>,
    /// Why a newer record of that service cannot be read.
    pub unreadable: Option<ReadError>,
    /// The others that write to the folder: other services, and other runs that may be alive.
    pub others: Vec<String>,
}

impl Before {
    /// Reads the records of a folder for a service.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn read(folder: &Folder, service: &str) -> Result<Self, AccessError> {
        let mut before = Self::default();
        let (ours, others): (Vec<_>, Vec<_>) =
            found(folder)?.into_iter().rev().partition(|record| record.may_be_ours(service));
        for record in &ours {
            match record.run(folder) {
                Ok(run) if run.post_mortem.outcome != RunOutcome::Running => {
                    before.previous = Some(run);
                    break;
                }
                Ok(run) => before.add_other(&run.record.start, service),
                // Without a line and locked: a run that is just beginning.
                Err(_) if record.host.locked => {}
                Err(error) => drop(before.unreadable.get_or_insert(error)),
            }
        }
        // The newest run of each other service and pod is enough.
        let mut seen = HashSet::new();
        for record in &others {
            let Some((start, _)) = &record.head else { continue };
            if !seen.insert((&start.service, &start.pod, &start.host)) {
                continue;
            }
            let run = record.run(folder).ok();
            let may_live = run.as_ref().is_some_and(|run| {
                matches!(run.post_mortem.outcome, RunOutcome::Running | RunOutcome::MaybeAlive)
            });
            if may_live || start.service != service {
                before.add_other(start, service);
            } else if before.previous.is_none() {
                before.previous = run;
            }
        }
        Ok(before)
    }

    fn add_other(&mut self, start: &RunStarted, service: &str) {
        // The process that started us hands over to us.
        if start.service == service && start.pid.cast_signed() == getppid().as_raw() {
            return;
        }
        let place = match (&start.pod, &start.host) {
            (Some(pod), _) => format!(" in pod {pod}"),
            (None, Some(host)) => format!(" on {host}"),
            (None, None) => String::new(),
        };
        let other = format!("{}[{}]{place}", start.service, start.pid);
        if !self.others.contains(&other) {
            self.others.push(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::entry::line;
    use super::super::{Event, Utc};
    use super::*;
    use crate::clock;

    #[test]
    fn the_last_run_is_the_last_to_begin_even_if_the_wall_clock_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let boot = clock::boot_id();
        let run = |year: u32, pid: u32, boot: Option<&str>, mono_us: u64| {
            let mut start = RunStarted::new("gateway", pid);
            start.boot_id = boot.map(str::to_owned);
            let line = line(Utc::now(), mono_us, &Event::RunStarted(start.into())).unwrap();
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
