//! The facts of a record about the end of its run, for the post-mortem.

use super::digest::{Digest, End};
use super::post_mortem::phase_name;
use super::{
    ContainerEnd, ExitKind, Explained, HostState, PhaseFinished, PhaseOutcome, PhaseStarted,
    RunStarted, SentSignal, SignalEvent, Stalled, Stopped, UnitAction, UnitEnd, Utc, Witness,
};
use crate::duration::Timespan;

/// How far apart two instants may be and still count as the same, in microseconds: for example
/// systemd's decision and the kill, or a timeout and its event.
pub(super) const SLACK_US: u64 = 1_000_000;

/// The end of a run. All instants are `mono_us` of its boot.
pub(super) struct Summary<'a> {
    pub(super) start: &'a RunStarted,
    /// The last event by the wall clock, and by the monotonic one.
    pub(super) last: Utc,
    pub(super) last_us: u64,
    /// The first signal, and when.
    pub(super) asked: Option<(u64, &'a SignalEvent)>,
    /// The last signal.
    pub(super) asked_last: Option<&'a SignalEvent>,
    /// Why systemd stopped it, as systemd showed last.
    pub(super) explained: Option<&'a Explained>,
    /// systemd's stop timeout, from the first line or from the line of the first signal.
    pub(super) stop_timeout: Option<Timespan>,
    /// The deadline, from the first signal on.
    pub(super) deadline_us: Option<u64>,
    /// The first signal from systemd, which starts its stop timeout.
    pub(super) asked_by_systemd: Option<(u64, &'a SignalEvent)>,
    /// The phases that have not ended, in the order in which they began, with their start times.
    pub(super) open: Vec<(u64, &'a PhaseStarted)>,
    /// How many more.
    pub(super) more_open: usize,
    /// The phases that did not end well, and how many more.
    pub(super) not_ok: &'a [PhaseFinished],
    pub(super) more_not_ok: usize,
    /// The phase that ended last.
    ended_last: Option<&'a PhaseFinished>,
    /// The last stall, if there was no progress since.
    pub(super) stalled: Option<&'a Stalled>,
    pub(super) stopped: Option<&'a Stopped>,
    /// What systemd and the container runtime said about the end.
    pub(super) unit_end: Option<UnitEnd>,
    pub(super) container_end: Option<ContainerEnd>,
    /// What all witnesses said.
    pub(super) witnesses: &'a [Witness],
    /// When it died, as a witness says.
    pub(super) died_us: Option<u64>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(record: &'a Digest) -> Self {
        let (start, end): (_, &End) = (&record.start, &record.end);
        let mut run = Self {
            start,
            last: end.last.unwrap_or(record.started),
            last_us: end.last_us,
            asked: end.asked.as_ref().map(|(at_us, signal)| (*at_us, signal)),
            asked_last: end.asked_last.as_ref(),
            stop_timeout: end.stop_timeout.or(start.stop_timeout_us),
            deadline_us: end.deadline_us,
            explained: end.explained.as_ref(),
            asked_by_systemd: end.asked_by_systemd.as_ref().map(|(at_us, it)| (*at_us, it)),
            open: end.open(),
            more_open: end.more_open,
            not_ok: &end.not_ok,
            more_not_ok: end.more_not_ok,
            ended_last: end.ended_last.as_ref(),
            stalled: end.stalled.as_ref(),
            stopped: end.stopped.as_ref(),
            unit_end: None,
            container_end: None,
            witnesses: &end.witnesses,
            died_us: None,
        };
        for witness in &end.witnesses {
            run.add(witness);
        }
        run.died_us = run.died_us();
        run
    }

    /// Adds what a witness said. The first statement about a fact stays.
    fn add(&mut self, witness: &'a Witness) {
        if let Some(end) = witness.unit_end() {
            self.unit_end.get_or_insert_default().merge(end);
        }
        if let Some(end) = witness.container_end() {
            self.container_end.get_or_insert(end);
        }
    }

    /// When it died, as a witness says, on the clock of the run. A witness may round down to the
    /// second, and the wall clock may have been set since the last event. A time before that event
    /// is ignored.
    fn died_us(&self) -> Option<u64> {
        let systemd = self.main_end().and_then(|end| end.ended);
        let container =
            || self.container_end.as_ref().filter(|_| self.is_of_container())?.finished_at;
        let after = systemd.or_else(container)?.micros() - self.last.micros();
        let is_after = after.saturating_add(SLACK_US.cast_signed()) >= 0;
        is_after.then(|| self.last_us.saturating_add(u64::try_from(after).unwrap_or(0)))
    }

    /// Ignores a time of death that is still to come. The wall clock was set since the last event.
    pub(super) fn check_time(&mut self, host: &HostState) {
        let now_us = host.mono_us.filter(|_| !self.rebooted(host));
        self.died_us = self.died_us.filter(|&died_us| {
            now_us.is_none_or(|now_us| died_us <= now_us.saturating_add(SLACK_US))
        });
    }

    /// Whether it was the main process of its unit when its record began: systemd had started it. With
    /// `PrivatePIDs=` it is process 1. A scope has no main process.
    pub(super) fn is_main(&self) -> bool {
        if self.start.unit.as_ref().is_some_and(|unit| unit.ends_with(".scope")) {
            return true;
        }
        let parent = self.start.parent_name.as_deref();
        self.start.pid == 1 || self.start.parent_pid == Some(1) || parent == Some("systemd")
    }

    /// What systemd says about the end of this process. It only speaks of main processes.
    pub(super) fn main_end(&self) -> Option<&UnitEnd> {
        self.unit_end.as_ref().filter(|_| self.is_main())
    }

    /// Whether a witness says that it has ended.
    pub(super) fn has_reported_end(&self) -> bool {
        let container = self.container_end.as_ref();
        self.main_end().is_some_and(|end| end.exit_code.is_some())
            || container.is_some_and(|end| end.exit_code.is_some())
            || self.sent("SIGKILL").is_some()
    }

    /// Who sent it this signal, by the audit log. The first answer stays.
    pub(super) fn sent(&self, signal: &str) -> Option<SentSignal> {
        let mut sent = self.witnesses.iter().filter_map(Witness::sent_signal);
        sent.find(|sent| sent.signal == signal)
    }

    pub(super) fn teardown_began(&self) -> bool {
        !self.open.is_empty() || self.ended_last.is_some()
    }

    /// The phase that ended last, if none runs.
    pub(super) fn between(&self) -> Option<String> {
        let last = self.ended_last.filter(|_| self.open.is_empty())?;
        Some(phase_name(&last.phase, last.group.as_deref()))
    }

    /// The status with which the process exited by itself, as a witness says.
    pub(super) fn status(&self) -> Option<i32> {
        let by_runtime = self.container_end.as_ref().filter(|_| self.is_of_container());
        let by_runtime = by_runtime.and_then(|end| end.exit_code).filter(|&code| code < 128);
        self.main_end().and_then(UnitEnd::status).or(by_runtime)
    }

    /// Whether a witness says that the process exited by itself.
    pub(super) fn has_exited(&self) -> bool {
        self.status().is_some()
    }

    /// The status of a failure with which a witness says that it exited, if it had recorded an end as
    /// planned and another status.
    pub(super) fn failed_after_end(&self) -> Option<i32> {
        let stopped = self.stopped.filter(|stopped| stopped.how == ExitKind::Clean)?;
        self.status().filter(|&status| status != 0 && Some(status) != stopped.exit_code)
    }

    /// The signal that ended the process, as a witness says.
    pub(super) fn ended_by(&self) -> Option<String> {
        let by_runtime =
            || self.container_end.as_ref().filter(|_| self.is_of_container())?.signal();
        self.main_end().and_then(UnitEnd::signal).or_else(by_runtime)
    }

    /// Whether the container ended with the status that the run recorded. It may be that of a
    /// signal.
    pub(super) fn has_recorded_status(&self, stopped: &Stopped) -> bool {
        let code = self.container_end.as_ref().and_then(|end| end.exit_code);
        self.unit_end.is_none() && code.is_some() && code == stopped.exit_code
    }

    /// Whether the status of the container is that of this process: it was process 1, or the child
    /// of an init that ends with the status of its child.
    pub(super) fn is_of_container(&self) -> bool {
        /// Inits for containers, which do so.
        const INITS: [&str; 5] = ["tini", "docker-init", "dumb-init", "catatonit", "podman-init"];
        let is_init = |name: &str| INITS.contains(&name);
        let parent = self.start.parent_name.as_deref();
        self.start.pid == 1 || (self.start.parent_pid == Some(1) && parent.is_some_and(is_init))
    }

    /// Whether systemd stopped it because it did not start in time.
    pub(super) fn has_failed_to_start(&self) -> bool {
        self.explained.is_some_and(|explained| explained.reason == "start_timeout")
            || self.unit_end.as_ref().is_some_and(|end| end.did(UnitAction::StartTimeout))
    }

    /// The worst outcome of a phase that ended.
    pub(super) fn worst_phase(&self) -> PhaseOutcome {
        let rank = |outcome: PhaseOutcome| match outcome {
            PhaseOutcome::Ok => 0,
            PhaseOutcome::Skipped | PhaseOutcome::TimedOut => 1,
            PhaseOutcome::CutShort => 2,
            _ => 3,
        };
        let outcomes = self.not_ok.iter().map(|phase| phase.outcome);
        outcomes.max_by_key(|&outcome| rank(outcome)).unwrap_or(PhaseOutcome::Ok)
    }

    /// Whether another boot runs here than the one of the run; `false` if that is not known. It
    /// may be that of another machine.
    pub(super) fn rebooted(&self, host: &HostState) -> bool {
        matches!((&self.start.boot_id, &host.boot_id), (Some(then), Some(now)) if then != now)
    }

    /// The latest time at which the run can have died, without knowing what killed it. It is dead
    /// now. That it did not record when a phase exceeded its budget proves nothing: it may have been
    /// suspended, as by SIGSTOP or a frozen cgroup.
    pub(super) fn dead_by_us(&self, host: &HostState) -> Option<u64> {
        let now_us = host.mono_us.filter(|_| !self.rebooted(host));
        // A witness may have rounded the time.
        let died_us = self.died_us.map(|died_us| died_us.saturating_add(SLACK_US));
        // An instant before the last event is ignored: it is from another clock.
        now_us.into_iter().chain(died_us).filter(|&us| us >= self.last_us).min()
    }
}
