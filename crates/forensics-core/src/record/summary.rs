//! The facts of a record about the end of its run, collected in one pass for the post-mortem.

use std::collections::HashMap;

use super::post_mortem::phase_name;
use super::{
    Entry, Event, Explained, HostState, PhaseFinished, PhaseStarted, Record, RunStarted,
    SignalEvent, Stalled, StalledWhat, Stopped, Utc,
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
    /// When the deadline moved last. The budgets of phases that began before are not known.
    moved_us: Option<u64>,
    /// The first signal from systemd, which starts its stop timeout.
    pub(super) asked_by_systemd: Option<(u64, &'a SignalEvent)>,
    /// The phases that have not ended, in the order in which they began, with their start times.
    pub(super) open: Vec<(u64, &'a PhaseStarted)>,
    /// The phases that have ended.
    pub(super) ended: Vec<&'a PhaseFinished>,
    /// The last stall, if there was no progress since.
    pub(super) stalled: Option<&'a Stalled>,
    pub(super) stopped: Option<&'a Stopped>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        // What a witness said is written after the run.
        let of_run = |entry: &&Entry| !matches!(entry.event, Event::Witness(_));
        let mut run = Self {
            start: &record.start,
            last: record.entries.iter().rfind(of_run).map_or(record.started, |entry| entry.ts),
            // Threads write concurrently, so the last line need not be the latest.
            last_us: record
                .entries
                .iter()
                .filter(of_run)
                .map(|entry| entry.mono_us)
                .max()
                .unwrap_or(0),
            asked: None,
            asked_last: None,
            explained: None,
            stop_timeout: record.start.stop_timeout_us,
            deadline_us: None,
            moved_us: None,
            asked_by_systemd: None,
            open: Vec::new(),
            ended: Vec::new(),
            stalled: None,
            stopped: None,
        };
        // A map by name, because a record may hold a million events. The line is kept for sorting.
        let mut open = HashMap::new();
        for (line, entry) in record.entries.iter().enumerate() {
            let at_us = entry.mono_us;
            match &entry.event {
                Event::Signal(signal) => {
                    let (_, first) = *run.asked.get_or_insert((at_us, signal));
                    run.deadline_us = run.deadline_us.or(first.deadline_us);
                    run.asked_last = Some(signal);
                    run.stop_timeout = signal.stop_timeout_us.or(run.stop_timeout);
                    if matches!(signal.cause.as_str(), "systemd" | "reboot") {
                        run.asked_by_systemd.get_or_insert((at_us, signal));
                    }
                }
                Event::Explained(explained) => run.explained = Some(explained),
                Event::DeadlineMoved(moved) => {
                    run.stop_timeout = moved.stop_timeout_us.or(run.stop_timeout);
                    run.deadline_us = moved.deadline_us.or(run.deadline_us);
                    run.moved_us = Some(at_us);
                }
                Event::PhaseStarted(phase) => {
                    run.moved(Some(&phase.phase));
                    open.insert((&phase.phase, &phase.group), (line, at_us, phase));
                }
                Event::PhaseProgress(_) => run.moved(None),
                Event::PhaseFinished(phase) => {
                    run.moved(Some(&phase.phase));
                    open.remove(&(&phase.phase, &phase.group));
                    run.ended.push(phase);
                }
                Event::Stalled(stalled) => run.stalled = Some(stalled),
                Event::Stopped(stopped) => run.stopped = Some(stopped),
                Event::RunStarted(_) | Event::Diag(_) | Event::Witness(_) | Event::Unknown(_) => {}
            }
        }
        let mut open: Vec<_> = open.into_values().collect();
        open.sort_by_key(|&(line, ..)| line);
        run.open = open.into_iter().map(|(_, at_us, phase)| (at_us, phase)).collect();
        run
    }

    /// The runtime made progress, and this phase began or ended.
    fn moved(&mut self, phase: Option<&str>) {
        self.stalled = self.stalled.filter(|stalled| {
            stalled.what != StalledWhat::Runtime
                && (phase.is_none() || stalled.phase.as_deref() != phase)
        });
    }

    pub(super) fn teardown_began(&self) -> bool {
        !self.open.is_empty() || !self.ended.is_empty()
    }

    /// The phase that ended last, if none runs.
    pub(super) fn between(&self) -> Option<String> {
        let last = self.ended.last().filter(|_| self.open.is_empty())?;
        Some(phase_name(&last.phase, last.group.as_deref()))
    }

    /// Whether the machine has been booted since; `false` if that is not known.
    pub(super) fn rebooted(&self, host: &HostState) -> bool {
        matches!((&self.start.boot_id, &host.boot_id), (Some(then), Some(now)) if then != now)
    }

    /// The latest time at which the run can have died, without knowing what killed it. It is dead
    /// now, and a living run records when a phase exceeds its budget.
    pub(super) fn dead_by_us(&self, host: &HostState) -> Option<u64> {
        let now_us = host.mono_us.filter(|_| !self.rebooted(host));
        let budget_us = |(began_us, phase): &(u64, &PhaseStarted)| {
            Some(began_us.saturating_add(phase.timeout_us?).saturating_add(SLACK_US))
        };
        let is_known = |(began_us, _): &&(u64, &PhaseStarted)| {
            self.stalled.is_none() && self.moved_us.is_none_or(|moved_us| moved_us <= *began_us)
        };
        let budgets = self.open.iter().filter(is_known).filter_map(budget_us);
        // An instant before the last event is ignored: it is from another clock, or the expected
        // event was lost.
        budgets.chain(now_us).filter(|&us| us >= self.last_us).min()
    }
}
