//! Reads a run from its folder, with its post-mortem.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::unistd::getppid;

use super::check;
use super::folder::{Found, Head, found};
use super::{
    Digest, Entry, HostState, PostMortem, ReadError, RecordFile, RunOutcome, RunStarted, UnitEnd,
    Witness,
};
use crate::access::AccessError;
use crate::cgroupfs::{MemoryCgroup, OomKills};
use crate::diagnostic::oom_log;
use crate::procfile::{self, INITIAL_PID_NAMESPACE};
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
    /// other. `None` if the folder has no readable record.
    ///
    /// The run may be of any service and pod that writes to the folder. Runs of this boot are compared
    /// by the monotonic clock, because the wall clock may have been set. Runs of other boots and
    /// machines are compared by the names of their files, which contain the wall clock.
    ///
    /// A record of another user than the folder's owner, root and the reader is used only if there is
    /// no other. [`PostMortem::file_uid`] then names that user.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_last(dir: &Path) -> Result<Option<Self>, AccessError> {
        Ok(Run::last(dir)?.map(|run| run.post_mortem))
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
    host: HostState,
}

impl Run {
    /// Reads the run whose record is at `path`, with its [`PostMortem::of`].
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::of(RecordFile::open(path)?, |_| ())
    }

    /// Reads the newest run of a folder, as [`PostMortem::of_last`].
    ///
    /// # Errors
    /// As [`PostMortem::of_last`].
    pub fn last(dir: &Path) -> Result<Option<Self>, AccessError> {
        let folder = Folder::look(dir)?;
        match Self::last_in(&folder)? {
            None => Self::last_in(&folder.of_all_users()),
            last => Ok(last),
        }
    }

    /// Reads the newest run of a folder that is not alive and whose first line has this invocation
    /// id of systemd. `end` is the end of the main process. A run that recorded a different end
    /// belongs to another process, and is returned only if there is no better one.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_invocation(dir: &Path, id: &str, end: &UnitEnd) -> Result<Option<Self>, AccessError> {
        let folder = Folder::look(dir)?;
        let found = found(&folder)?;
        let is_its = |record: &&Found| {
            record.head.as_ref().is_some_and(|head| head.invocation_id.as_deref() == Some(id))
        };
        let runs = found.iter().rev().filter(is_its).filter_map(|it| it.run(&folder).ok());
        let mut ended = runs.filter(|run| run.post_mortem.outcome != RunOutcome::Running);
        let fits = |run: &Self| match &run.record.end.stopped {
            Some(stopped) if end.signal().is_some() => stopped.exit_signal == end.signal(),
            Some(stopped) => stopped.exit_code.is_none() || stopped.exit_code == end.status(),
            None => true,
        };
        let newest = ended.next();
        if newest.as_ref().is_none_or(fits) {
            return Ok(newest);
        }
        Ok(ended.find(fits).or(newest))
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
        if let Some(oom) = oom_kills(&record.start) {
            host.oom_kill = Some(oom.count);
            host.cgroup_inode = Some(oom.cgroup_inode);
        }
        let post_mortem = check::post_mortem(&record, &host);
        let mut run = Self { record, post_mortem, file, host };
        // Last, because that log can be long.
        if run.has_no_end() {
            run.read_kernel_log();
        }
        Ok(run)
    }

    /// Where its record is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether the run has ended without recording its end.
    pub fn has_no_end(&self) -> bool {
        matches!(
            self.post_mortem.outcome,
            RunOutcome::KilledInPhase
                | RunOutcome::KilledBeforeTeardown
                | RunOutcome::Vanished
                | RunOutcome::Rebooted
        )
    }

    /// Whether the journal of systemd may say more about its end than what is known.
    pub fn may_be_in_journal(&self) -> bool {
        let is_known =
            |witness: &Witness| witness.unit_end().is_some_and(|end| end.ended.is_some());
        self.has_no_end() && !self.post_mortem.witnesses.iter().any(is_known)
    }

    /// Takes what a witness said. This changes the post-mortem, and not the file; see
    /// [`append_witness`](super::append_witness).
    pub fn add(&mut self, witness: &Witness) {
        self.record.add_witness(witness);
        self.post_mortem = check::post_mortem(&self.record, &self.host);
    }

    /// Its pids are those of the initial namespace, and its clock that of this boot.
    fn read_kernel_log(&mut self) {
        let start = &self.record.start;
        let has_its_pids = start.pid_namespace == Some(INITIAL_PID_NAMESPACE)
            && procfile::is_in_initial_pid_namespace("/proc/self") == Some(true)
            && start.boot_id.is_some()
            && start.boot_id == self.host.boot_id;
        let Some(name) = start.process_name.as_ref().filter(|_| has_its_pids) else { return };
        // It lived until its last event.
        let last = Duration::from_micros(self.record.end.last_us);
        self.host.oom_log = oom_log(start.pid, name, last);
        self.post_mortem = check::post_mortem(&self.record, &self.host);
    }
}

/// The OOM kills in the cgroup of the run, if it can be seen from here, else in our own.
fn oom_kills(start: &RunStarted) -> Option<OomKills> {
    let of_run = start.cgroup.as_deref().and_then(MemoryCgroup::at);
    let of_run = of_run.and_then(|group| group.oom_kills());
    of_run.filter(|oom| start.cgroup_inode == Some(oom.cgroup_inode)).or_else(OomKills::read)
}

/// How many others are named.
const MAX_OTHERS: usize = 16;

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
                Ok(_) => before.add_other(record.head.as_ref(), service),
                // Without a line and locked: a run that is just beginning.
                Err(_) if record.locked => {}
                Err(error) => drop(before.unreadable.get_or_insert(error)),
            }
        }
        // The newest run of each other service and pod is enough.
        let mut seen = HashSet::new();
        for record in &others {
            let Some(head) = &record.head else { continue };
            if !seen.insert((&head.service, &head.pod, &head.host)) {
                continue;
            }
            let run = record.run(folder).ok();
            let may_live = run.as_ref().is_some_and(|run| {
                matches!(run.post_mortem.outcome, RunOutcome::Running | RunOutcome::MaybeAlive)
            });
            if may_live || !head.is_of(service) {
                before.add_other(Some(head), service);
            } else if before.previous.is_none() {
                before.previous = run;
            }
        }
        Ok(before)
    }

    fn add_other(&mut self, head: Option<&Head>, service: &str) {
        let Some(head) = head else { return };
        // The process that started us hands over to us.
        if head.is_of(service) && head.pid.cast_signed() == getppid().as_raw() {
            return;
        }
        let place = match (&head.pod, &head.host) {
            (Some(pod), _) => format!(" in pod {pod}"),
            (None, Some(host)) => format!(" on {host}"),
            (None, None) => String::new(),
        };
        let other = format!("{}[{}]{place}", head.service, head.pid);
        if self.others.len() < MAX_OTHERS && !self.others.contains(&other) {
            self.others.push(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::entry::line;
    use super::super::{Event, RunStarted, Utc};
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
