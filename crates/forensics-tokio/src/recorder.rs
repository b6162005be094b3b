//! Writes the record of this run.
//!
//! Each event is one write(2) on a separate thread, because a disk may block, and neither the
//! runtime nor the deadline may wait for it. The events are written in the order in which they are
//! queued, which is the order of the machine.
//!
//! The start of a phase must be written before its work runs. So the task of a phase waits for the
//! queue. That takes about ten microseconds on a healthy disk, and at most [`WRITE_LIMIT`]. After a
//! wait that timed out, no other phase waits until that event is written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use forensics_core::cgroupfs::{MemoryCgroup, OomKills};
use forensics_core::clock::{self, Utc};
use forensics_core::context::StartupInfo;
use forensics_core::escape::error_chain;
use forensics_core::logfmt::Value;
use forensics_core::record::{
    self, DEFAULT_RETENTION, Event, Loss, Place, RecordError, RunStarted,
};
use forensics_core::systemd::Manager;

use crate::blocking::{WorkQueue, run_with_timeout};
use crate::config::Config;
use crate::lock::lock;
use crate::report::micros;

/// How long a phase waits at most for its start to be written.
const WRITE_LIMIT: Duration = Duration::from_millis(100);

/// How long the end of a teardown waits for the record, and for the log. It is longer than the
/// limit of a phase, because nothing else waits any more.
pub(crate) const FINISH_LIMIT: Duration = Duration::from_millis(500);

/// How long a forced exit waits for the last event.
pub(crate) const LAST_WRITE_LIMIT: Duration = Duration::from_millis(200);

/// How long reading the cgroup's memory events may take.
const OOM_LIMIT: Duration = Duration::from_millis(100);

/// The record of this run.
pub(crate) struct Recorder {
    /// `None` if no record is configured, or if it could not be created. Then nothing is written.
    file: Option<Arc<record::Recorder>>,
    pub(crate) queue: WorkQueue,
    /// Syncs the file after each event, if that is configured. It is a separate queue, so that no
    /// phase waits for it.
    sync: Option<WorkQueue>,
    /// The first error.
    failure: Arc<OnceLock<String>>,
    account: Arc<Mutex<Account>>,
    /// Why old records could not be removed.
    not_removed: Option<String>,
    is_failure_logged: AtomicBool,
    /// Why the record was written again.
    restored: Arc<OnceLock<Loss>>,
    /// The number of the last event for which a wait timed out.
    late: AtomicU64,
}

impl Recorder {
    /// Begins the record of this run, if one is configured, and removes the oldest records.
    pub(crate) fn open(config: &Config, startup: &StartupInfo) -> Self {
        let mut recorder = Self {
            file: None,
            queue: WorkQueue::new("shutdown-record"),
            sync: config.fsync_records.then(|| WorkQueue::new("shutdown-sync")),
            failure: Arc::default(),
            account: Arc::default(),
            not_removed: None,
            is_failure_logged: AtomicBool::new(false),
            restored: Arc::default(),
            late: AtomicU64::new(0),
        };
        let Some(dir) = &config.record_dir else { return recorder };
        match record::Recorder::create(dir, run_started(config, startup)) {
            Ok(file) => {
                recorder.file = Some(Arc::new(file));
                // The first line is already written, but may have to be synced.
                recorder.write("the start of the run".to_owned(), |_| Ok(None));
                recorder.queue.start();
            }
            Err(e) => fail(&recorder.failure, error_chain(&e)),
        }
        // If there is no record, the same error is already known.
        if let (Some(_), Err(e)) =
            (&recorder.file, record::prune(dir, &config.service, DEFAULT_RETENTION))
        {
            recorder.not_removed = Some(error_chain(&e));
        }
        recorder
    }

    /// The first error, if there was one, and what is recorded. It is returned only once.
    pub(crate) fn failure_to_log(&self) -> Option<String> {
        let failure = self.failure.get()?;
        if self.is_failure_logged.swap(true, Ordering::Relaxed) {
            return None;
        }
        let Some(file) = &self.file else { return Some(format!("{failure}; recorded: nothing")) };
        let account = lock(&self.account);
        let is_behind = !self.queue.has_done(self.queue.last());
        Some(format!("{failure}; {}", account.text(file.path(), is_behind)))
    }

    /// Why old records could not be removed at the start.
    pub(crate) fn not_removed(&self) -> Option<&str> {
        self.not_removed.as_deref()
    }

    /// Why the record had to be written again, and its path.
    pub(crate) fn restored(&self) -> Option<(Loss, &Path)> {
        Some((*self.restored.get()?, self.file.as_ref()?.path()))
    }

    /// Queues an event. Never blocks. The caller must call [`WorkQueue::start`] afterwards.
    pub(crate) fn push(&self, mut event: Event) {
        // The time at which the event happened. It may be written later.
        let (ts, mono_us) = (Utc::now(), clock::mono_us());
        self.write(name(&event), move |file| {
            if let Event::Stopped(stopped) = &mut event {
                let oom = run_with_timeout(OOM_LIMIT, OomKills::read).flatten();
                stopped.oom_kill = oom.map(|oom| oom.count);
            }
            file.record_at(ts, mono_us, &event)
        });
    }

    fn write(
        &self,
        name: String,
        write: impl FnOnce(&record::Recorder) -> Result<Option<Loss>, RecordError> + Send + 'static,
    ) {
        let Some(file) = self.file.clone() else { return };
        let (sync, failure) = (self.sync.clone(), self.failure.clone());
        let (restored, account) = (self.restored.clone(), self.account.clone());
        self.queue.push(move || {
            let written = write(&file);
            lock(&account).add(name, written.is_ok());
            match written {
                Ok(None) => {}
                Ok(Some(loss)) => drop(restored.set(loss)),
                Err(e) => fail(&failure, error_chain(&e)),
            }
            if let Some(sync) = sync {
                sync.push(move || file.sync().unwrap_or_else(|e| fail(&failure, error_chain(&e))));
                sync.start();
            }
        });
    }

    /// Waits until all queued events are written, for at most [`WRITE_LIMIT`]. Does not wait if an
    /// earlier wait timed out and its event is still not written.
    pub(crate) fn wait_until_written(&self) {
        let is_late = !self.queue.has_done(self.late.load(Ordering::Relaxed));
        let last = self.queue.last();
        if !self.queue.flush(if is_late { Duration::ZERO } else { WRITE_LIMIT }) {
            self.late.store(last, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, and then until it is synced if that is configured, each
    /// for at most `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        if !self.queue.flush(limit) {
            fail(&self.failure, "the disk did not take the last events in time".to_owned());
        }
        if let Some(sync) = &self.sync {
            sync.flush(limit);
        }
    }
}

/// Which events were written.
#[derive(Default)]
struct Account {
    written: u64,
    last_written: String,
    lost: u64,
    first_lost: String,
}

impl Account {
    fn add(&mut self, name: String, is_written: bool) {
        if is_written {
            self.written += 1;
            self.last_written = name;
        } else {
            if self.lost == 0 {
                self.first_lost = name;
            }
            self.lost += 1;
        }
    }

    /// What is recorded in this file, and what is not. `is_behind`: some events wait for the disk.
    fn text(&self, file: &Path, is_behind: bool) -> String {
        let Self { written, last_written, lost, first_lost } = self;
        let events = |n: u64| if n == 1 { "1 event".to_owned() } else { format!("{n} events") };
        let mut text = format!("recorded in {}: ", file.display());
        match written {
            0 => text.push_str("nothing"),
            _ => text.push_str(&format!("{}, the last is {last_written}", events(*written))),
        }
        if *lost > 0 {
            text.push_str(&format!("; not recorded: {}, the first is {first_lost}", events(*lost)));
        }
        if is_behind {
            text.push_str("; not recorded yet: the events after that");
        } else if *lost == 0 {
            text.push_str("; a power loss may destroy it");
        }
        text
    }
}

/// Stores an error if it is the first.
fn fail(failure: &OnceLock<String>, why: String) {
    failure.get_or_init(|| why);
}

fn run_started(config: &Config, startup: &StartupInfo) -> RunStarted {
    let mut start = RunStarted::new(&config.service, std::process::id());
    start.start_time = startup.process.start_time;
    start.boot_id = clock::boot_id();
    start.exe = std::env::current_exe().ok().map(|exe| exe.to_string_lossy().into_owned());
    start.cmdline.clone_from(&startup.process.cmdline);
    let unit = startup.systemd.unit.as_ref();
    start.unit = unit.map(|unit| unit.unit.clone());
    start.manager = unit.map(|unit| match unit.manager {
        Manager::User { .. } => "user".to_owned(),
        _ => "system".to_owned(),
    });
    start.invocation_id.clone_from(&startup.systemd.invocation_id);
    start.process_name.clone_from(&startup.process.name);
    let parent = startup.parent.as_ref();
    start.parent_pid = parent.and_then(|parent| parent.pid.try_into().ok());
    start.parent_name = parent.and_then(|parent| parent.name.clone());
    start.set_place(Place::here());
    start.set_audit_identity(&startup.process);
    start.grace_us = config.stop_timeout.map(micros);
    start.deadline_us = Some(micros(config.deadline()));
    start.drain_timeout_us = Some(micros(config.drain_timeout));
    start.cgroup = startup.memory_cgroup.as_ref().map(|group| group.path().to_owned());
    let oom = startup.memory_cgroup.as_ref().and_then(MemoryCgroup::oom_kills);
    start.oom_kill = oom.map(|oom| oom.count);
    start.cgroup_inode = oom.map(|oom| oom.cgroup_inode);
    start
}

/// Names an event for the log.
fn name(event: &Event) -> String {
    match event {
        Event::Signal(_) => "the signal or request".to_owned(),
        Event::PhaseStarted(started) => format!("the start of phase {}", Value(&started.phase)),
        Event::PhaseProgress(progress) => format!("a value of phase {}", Value(&progress.phase)),
        Event::PhaseFinished(finished) => format!("the end of phase {}", Value(&finished.phase)),
        Event::Stopped(_) => "the end of the run".to_owned(),
        _ => "an event between the phases".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use forensics_core::record::{Diag, DiagState, Record};

    use super::*;

    #[test]
    fn the_account_says_what_is_recorded_and_what_is_not() {
        /// The events, and whether each is written; whether the queue is behind; the text.
        type Case = (&'static [(&'static str, bool)], bool, &'static str);
        let cases: [Case; 4] = [
            (
                &[("a", true), ("b", true)],
                false,
                "2 events, the last is b; a power loss may destroy it",
            ),
            (
                &[("a", true)],
                true,
                "1 event, the last is a; not recorded yet: the events after that",
            ),
            (&[("a", false)], false, "nothing; not recorded: 1 event, the first is a"),
            (
                &[("a", true), ("b", false), ("c", true), ("d", false)],
                false,
                "2 events, the last is c; not recorded: 2 events, the first is b",
            ),
        ];
        for (events, is_behind, expected) in cases {
            let mut account = Account::default();
            events
                .iter()
                .for_each(|(name, is_written)| account.add((*name).to_owned(), *is_written));
            let text = account.text(Path::new("/r"), is_behind);
            assert_eq!(text, format!("recorded in /r: {expected}"));
        }
    }

    #[test]
    fn what_a_disk_takes_late_has_the_time_at_which_it_happened() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("test".to_owned());
        config.record_dir = Some(dir.path().to_owned());
        let recorder = Recorder::open(&config, &StartupInfo::collect());
        let (release, blocks) = mpsc::channel::<()>();
        recorder.queue.push(move || {
            let _ = blocks.recv();
        });
        let before = clock::mono_us();
        recorder.push(Event::Diag(Diag::new(DiagState::Started)));
        recorder.queue.start();
        let after = clock::mono_us();
        // This wait times out. After that no other call waits.
        recorder.wait_until_written();
        assert!(recorder.late.load(Ordering::Relaxed) > 0);
        while clock::mono_us() < after + 1000 {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        recorder.flush(Duration::from_secs(60));
        let record = Record::read(recorder.file.as_ref().unwrap().path()).unwrap();
        let written = record.entries.last().unwrap().mono_us;
        assert!((before..=after).contains(&written), "{before} {written} {after}");
        assert_eq!(recorder.failure_to_log(), None);
    }
}
