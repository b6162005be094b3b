//! The facts of a record about the end of its run, for the post-mortem.

use super::digest::{Digest, End};
use super::post_mortem::phase_name;
use super::{
    Explained, HostState, PhaseFinished, PhaseStarted, RunStarted, SignalEvent, Stalled, Stopped,
    Utc,
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
}

impl<'a> Summary<'a> {
    pub(super) fn of(record: &'a Digest) -> Self {
        let (start, end): (_, &End) = (&record.start, &record.end);
        Self {
            start,
            last: end.last.unwrap_or(record.started),
            last_us: end.last_us,
            asked: end.asked.as_ref().map(|(at_us, signal)| (*at_us, signal)),
            asked_last: end.asked_last.as_ref(),
            stop_timeout: end.stop_timeout.or(start.stop_timeout_us),
            deadline_us: end.deadline_us,
            moved_us: end.moved_us,
            explained: end.explained.as_ref(),
            asked_by_systemd: end.asked_by_systemd.as_ref().map(|(at_us, it)| (*at_us, it)),
            open: end.open(),
            more_open: end.more_open,
            not_ok: &end.not_ok,
            more_not_ok: end.more_not_ok,
            ended_last: end.ended_last.as_ref(),
            stalled: end.stalled.as_ref(),
            stopped: end.stopped.as_ref(),
        }
    }

    pub(super) fn teardown_began(&self) -> bool {
        !self.open.is_empty() || self.ended_last.is_some()
    }

    /// The phase that ended last, if none runs.
    pub(super) fn between(&self) -> Option<String> {
        let last = self.ended_last.filter(|_| self.open.is_empty())?;
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
