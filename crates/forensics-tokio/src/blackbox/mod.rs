//! The record of this run.
//!
//! Every event is one write(2) to a file that is locked while we live; see
//! [`forensics_core::record`]. It may be called from the keeper as from tasks. Nothing here can
//! fail a teardown: the first write that does not succeed is remembered, to be logged by whoever
//! may log, and the rest goes on without a record.

mod syncer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::cgroupfs::{MemoryCgroup, OomKills};
use forensics_core::clock;
use forensics_core::context::{ShutdownContext, StartupInfo, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::record::{
    self, Event, ForcedBy, How, KEEP, PhaseFinished, PhaseOutcome, PhaseProgress, PhaseStarted,
    Recorder, RunStarted, Signal, SignalKind, Stopped, Wedged, WedgedWhat,
};
use forensics_core::systemd::Manager;
use serde_json::{Map, Value};

use self::syncer::Syncer;
use crate::config::Config;
use crate::outcome::Outcome;
use crate::report::{LaterSignal, PhaseReport};

/// The record being written; nothing where none was asked for or it could not be made.
#[derive(Debug, Default)]
pub(crate) struct BlackBox {
    recorder: Option<Arc<Recorder>>,
    /// Where each event is to be on the disk.
    syncer: Option<Syncer>,
    failed: Arc<OnceLock<String>>,
    said: AtomicBool,
}

impl BlackBox {
    /// Begins the record of this run, and throws away the oldest ones.
    pub(crate) fn open(dir: &Path, config: &Config, startup: &StartupInfo) -> Self {
        let mut start = RunStarted::new(&config.service, std::process::id());
        start.start_time = startup.process.start_time;
        start.boot_id = clock::boot_id();
        start.exe = std::env::current_exe().ok().map(|exe| exe.to_string_lossy().into_owned());
        start.cmdline.clone_from(&startup.process.cmdline);
        start.unit = startup.systemd.unit.as_ref().map(|unit| unit.unit.clone());
        start.manager = startup.systemd.unit.as_ref().map(|unit| match unit.manager {
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
        let mut black_box = Self::default();
        match Recorder::create(dir, start) {
            Ok(recorder) => black_box.recorder = Some(Arc::new(recorder)),
            Err(e) => drop(black_box.failed.set(e.to_string())),
        }
        if let Some(recorder) = black_box.recorder.clone().filter(|_| config.durable) {
            let failed = black_box.failed.clone();
            let sync = move || {
                if let Err(e) = recorder.sync() {
                    failed.get_or_init(|| e.to_string());
                }
            };
            match Syncer::start(sync) {
                Ok(syncer) => black_box.syncer = Some(syncer),
                Err(e) => drop(black_box.failed.set(format!("not durable: {e}"))),
            }
        }
        if let Err(e) = record::prune(dir, KEEP) {
            black_box.failed.get_or_init(|| e.to_string());
        }
        black_box
    }

    /// Whether there is a record to write into.
    pub(crate) fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// What went wrong first, if anything has; once, to whoever says it.
    pub(crate) fn failure_to_say(&self) -> Option<&str> {
        let failure = self.failed.get()?;
        (!self.said.swap(true, Ordering::Relaxed)).then_some(failure)
    }

    /// What began the stop.
    pub(crate) fn begun(
        &self,
        context: &ShutdownContext,
        allowed: Duration,
        lead: Duration,
        stop_timeout: Option<Timespan>,
    ) {
        let kind = match context.trigger {
            Some(Trigger::Request { .. }) => SignalKind::Request,
            Some(Trigger::ServiceEnded { .. }) => SignalKind::ServiceEnded,
            _ => SignalKind::Signal,
        };
        let mut event = Signal::new(kind, 1, context.cause().as_str());
        event.signal = context.signal().map(|signal| signal.to_string());
        if let Some(sender) = &context.sender {
            event.sender_pid = u32::try_from(sender.process.pid).ok();
            event.sender_name.clone_from(&sender.process.name);
            event.sender_uid = sender.process.uid;
        }
        event.line = context.to_string();
        event.context = context.to_json();
        event.deadline_us = Some(micros(allowed));
        event.lead_us = Some(micros(lead)).filter(|_| !lead.is_zero());
        event.stop_timeout_us = stop_timeout;
        self.write(&Event::Signal(event));
    }

    /// A signal after that, which with it makes so many requests; one that counts as the same
    /// request as the one before makes no more.
    pub(crate) fn later_signal(&self, later: &LaterSignal, requests: u32) {
        // Its cause would need the context, which belongs to the first one.
        let mut event = Signal::new(SignalKind::Signal, requests, Cause::Unknown.as_str());
        event.signal = Some(later.signal.to_string());
        if let Some(sender) = &later.sender {
            event.sender_pid = u32::try_from(sender.process.pid).ok();
            event.sender_name.clone_from(&sender.process.name);
            event.sender_uid = sender.process.uid;
            event.context = sender.to_json();
        }
        self.write(&Event::Signal(event));
    }

    pub(crate) fn phase_started(&self, place: Place<'_>, budget: Duration, offset: Duration) {
        if !self.records() {
            return;
        }
        let mut event = PhaseStarted::new(place.phase, micros(offset));
        event.group = place.group.map(str::to_owned);
        event.timeout_us = Some(micros(budget));
        self.write(&Event::PhaseStarted(event));
    }

    pub(crate) fn phase_progress(
        &self,
        place: Place<'_>,
        values: Map<String, Value>,
        offset: Duration,
    ) {
        if !self.records() {
            return;
        }
        let mut event = PhaseProgress::new(place.phase, values, micros(offset));
        event.group = place.group.map(str::to_owned);
        self.write(&Event::PhaseProgress(event));
    }

    pub(crate) fn phase_finished(&self, place: Place<'_>, report: &PhaseReport) {
        if !self.records() {
            return;
        }
        let outcome = match report.outcome {
            Outcome::Ok => PhaseOutcome::Ok,
            Outcome::Skipped => PhaseOutcome::Skipped,
            Outcome::CutShort => PhaseOutcome::CutShort,
            Outcome::TimedOut => PhaseOutcome::TimedOut,
            Outcome::Failed => PhaseOutcome::Failed,
            Outcome::Panicked => PhaseOutcome::Panicked,
        };
        let (took, offset) = (micros(report.took), micros(report.offset + report.took));
        let mut event = PhaseFinished::new(place.phase, outcome, took, offset);
        event.group = place.group.map(str::to_owned);
        event.error.clone_from(&report.error);
        event.values.clone_from(&report.values);
        self.write(&Event::PhaseFinished(event));
    }

    /// The keeper saw that something does not move.
    pub(crate) fn wedged(&self, phase: Option<&str>, waited: Duration, detail: &str) {
        let what = if phase.is_some() { WedgedWhat::Phase } else { WedgedWhat::Runtime };
        let mut event = Wedged::new(what, micros(waited), detail);
        event.phase = phase.map(str::to_owned);
        self.write(&Event::Wedged(event));
    }

    pub(crate) fn diag(&self, event: record::Diag) {
        self.write(&Event::Diag(event));
    }

    /// The run is over; with no status where it is not known.
    pub(crate) fn stopped(
        &self,
        how: How,
        exit_status: Option<u8>,
        total: Duration,
        more_signals: u64,
    ) {
        let mut event = Stopped::new(how, exit_status.map(i32::from), micros(total));
        event.more_signals = Some(more_signals).filter(|&more| more > 0);
        event.oom_kill = OomKills::read().map(|oom| oom.count);
        self.write(&Event::Stopped(event));
        if let Some(syncer) = &self.syncer {
            syncer.finish();
        }
    }

    /// The run is ended by force.
    pub(crate) fn forced(
        &self,
        by: ForcedBy,
        detail: String,
        exit_status: u8,
        total: Duration,
        more_signals: u64,
    ) {
        let mut event = Stopped::new(How::Forced, i32::from(exit_status), micros(total));
        event.more_signals = Some(more_signals).filter(|&more| more > 0);
        event.forced_by = Some(by);
        event.detail = Some(detail);
        event.oom_kill = OomKills::read().map(|oom| oom.count);
        self.write(&Event::Stopped(event));
    }

    /// A panic ends the run.
    pub(crate) fn panicked(&self, message: String, location: Option<String>, total: Duration) {
        // What a Rust program exits with that panicked; one that aborts dies of SIGABRT instead.
        const PANIC_STATUS: i32 = 101;
        let mut event = Stopped::new(How::Panicked, PANIC_STATUS, micros(total));
        event.panic = Some(message);
        event.location = location;
        self.write(&Event::Stopped(event));
    }

    fn write(&self, event: &Event) {
        if let Some(recorder) = &self.recorder
            && let Err(e) = recorder.record(event)
        {
            self.failed.get_or_init(|| e.to_string());
        }
        if let Some(syncer) = &self.syncer {
            syncer.wake();
        }
    }
}

/// Names a running phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) phase: &'a str,
    pub(crate) group: Option<&'a str>,
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
