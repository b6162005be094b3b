//! Writing the record of this run.
//!
//! Each event is one write(2), on a thread of its own: a disk may block, and then neither the
//! runtime nor the deadline may wait for it. The events are written in the order in which they are
//! queued, which is the machine's.
//!
//! The start of a phase has to be on disk before its work runs. So a phase's task waits for the
//! queue, which takes some ten microseconds on a healthy disk, and [`WRITE_LIMIT`] at most. Once a
//! wait was in vain, no other phase waits until the disk has taken what was waited for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forensics_core::cgroupfs::{MemoryCgroup, OomKills};
use forensics_core::clock::{self, Utc};
use forensics_core::context::StartupInfo;
use forensics_core::escape::error_chain;
use forensics_core::record::{self, DEFAULT_RETENTION, Event, RunStarted};
use forensics_core::systemd::Manager;

use crate::blocking::{WorkQueue, run_with_timeout};
use crate::config::Config;
use crate::record_events::micros;

/// How long a phase waits for its start to be written.
const WRITE_LIMIT: Duration = Duration::from_millis(100);

/// How long the end of a teardown waits for the disk. Longer, as nothing else is held up by then.
pub(crate) const FINISH_LIMIT: Duration = Duration::from_millis(500);

/// How long a forced end waits for the last event.
pub(crate) const LAST_WRITE_LIMIT: Duration = Duration::from_millis(200);

/// How long the cgroup's memory events may take to be read.
const OOM_LIMIT: Duration = Duration::from_millis(100);

/// The record being written; nothing where none was asked for or it could not be made.
#[derive(Default)]
pub(crate) struct Recorder {
    file: Option<Arc<record::Recorder>>,
    queues: Option<Queues>,
    failed: Arc<OnceLock<String>>,
    said: AtomicBool,
    /// The number of the event that was last waited for in vain.
    late: AtomicU64,
}

struct Queues {
    write: WorkQueue,
    /// Where each event is to be synced: apart, so that no phase waits for it.
    sync: Option<WorkQueue>,
}

impl Recorder {
    /// Begins the record of this run, and removes the oldest ones.
    pub(crate) fn open(dir: &Path, config: &Config, startup: &StartupInfo) -> Self {
        let mut recorder = Self::default();
        match record::Recorder::create(dir, run_started(config, startup)) {
            Ok(file) => {
                recorder.file = Some(Arc::new(file));
                recorder.queues = Some(Queues {
                    write: WorkQueue::new("shutdown-record"),
                    sync: config.durable.then(|| WorkQueue::new("shutdown-sync")),
                });
                recorder.push_sync();
                recorder.start();
            }
            Err(e) => drop(recorder.failed.set(error_chain(&e))),
        }
        if let Err(e) = record::prune(dir, DEFAULT_RETENTION) {
            recorder.failed.get_or_init(|| error_chain(&e));
        }
        recorder
    }

    /// What went wrong first, if anything has; only once.
    pub(crate) fn failure_to_say(&self) -> Option<&str> {
        let failure = self.failed.get()?;
        (!self.said.swap(true, Ordering::Relaxed)).then_some(failure)
    }

    /// Queues an event; [`start`](Self::start) is to follow. Never blocks.
    pub(crate) fn push(&self, mut event: Event) {
        let (Some(file), Some(queues)) = (self.file.clone(), &self.queues) else { return };
        let failed = self.failed.clone();
        // The time at which it happened: a disk may take it later.
        let (ts, mono_us) = (Utc::now(), clock::mono_us());
        queues.write.push(move || {
            if let Event::Stopped(stopped) = &mut event {
                let oom = run_with_timeout(OOM_LIMIT, OomKills::read).flatten();
                stopped.oom_kill = oom.map(|oom| oom.count);
            }
            if let Err(e) = file.record_at(ts, mono_us, &event) {
                failed.get_or_init(|| error_chain(&e));
            }
        });
        self.push_sync();
    }

    fn push_sync(&self) {
        let (Some(file), Some(queues)) = (self.file.clone(), &self.queues) else { return };
        let Some(sync) = queues.sync.clone() else { return };
        let failed = self.failed.clone();
        queues.write.push(move || {
            sync.push(move || {
                if let Err(e) = file.sync() {
                    failed.get_or_init(|| error_chain(&e));
                }
            });
            sync.start();
        });
    }

    /// Sees to it that what is queued is written.
    pub(crate) fn start(&self) {
        if let Some(queues) = &self.queues {
            queues.write.start();
        }
    }

    /// Waits until what is queued is written, for [`WRITE_LIMIT`] at most, unless it is known that the
    /// disk does not answer.
    pub(crate) fn wait_until_written(&self) {
        let Some(queues) = &self.queues else { return };
        let is_late = !queues.write.has_done(self.late.load(Ordering::Relaxed));
        let last = queues.write.last();
        let limit = if is_late { Duration::ZERO } else { WRITE_LIMIT };
        if !queues.write.flush(limit) {
            self.late.store(last, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, and synced where it is to be, for `limit` at most each.
    pub(crate) fn flush(&self, limit: Duration) {
        let Some(queues) = &self.queues else { return };
        if !queues.write.flush(limit) {
            let why = "the disk did not take the last events in time";
            self.failed.get_or_init(|| why.to_owned());
        }
        if let Some(sync) = &queues.sync {
            sync.flush(limit);
        }
    }
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
    start.pod = startup.pod.as_ref().map(ToString::to_string);
    start.grace_us = config.grace.map(micros);
    start.deadline_us = Some(micros(config.deadline()));
    start.drain_timeout_us = Some(micros(config.drain_timeout));
    let oom = startup.memory_cgroup.as_ref().and_then(MemoryCgroup::oom_kills);
    start.oom_kill = oom.map(|oom| oom.count);
    start.cgroup_inode = oom.map(|oom| oom.cgroup_inode);
    start
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use forensics_core::record::{Diag, DiagState, Record};

    use super::*;

    #[test]
    fn what_a_disk_takes_late_has_the_time_at_which_it_happened() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new("test".to_owned());
        let recorder = Recorder::open(dir.path(), &config, &StartupInfo::collect());
        let (release, blocks) = mpsc::channel::<()>();
        recorder.queues.as_ref().unwrap().write.push(move || {
            let _ = blocks.recv();
        });
        let before = clock::mono_us();
        recorder.push(Event::Diag(Diag::new(DiagState::Started)));
        recorder.start();
        let after = clock::mono_us();
        // Once a wait was in vain, no other waits.
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
        assert_eq!(recorder.failure_to_say(), None);
    }
}
