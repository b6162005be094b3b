//! What a record shows of its run's end, gathered in one pass for the verdict.

use std::collections::HashMap;

use super::event::{Event, RunStarted, Signal, Stopped, Wedged, WedgedWhat};
use super::phase::{PhaseFinished, PhaseStarted};
use super::reader::Record;
use super::verdict::{Now, phase_name};
use crate::clock::Utc;
use crate::duration::Timespan;

/// How far two instants may lie apart and still be taken for the same: the time from systemd's
/// decision to the kill, from a timeout to the event that tells of it. In microseconds.
pub(super) const SLACK_US: u64 = 1_000_000;

/// All instants are `mono_us` of the run's boot.
pub(super) struct Seen<'a> {
    pub(super) start: &'a RunStarted,
    pub(super) started: Utc,
    /// The last event by the wall clock, and by the monotonic one.
    pub(super) last: Utc,
    pub(super) last_us: u64,
    /// The first signal, and when.
    pub(super) asked: Option<(u64, &'a Signal)>,
    /// The last signal.
    pub(super) asked_last: Option<&'a Signal>,
    /// systemd's stop timeout, as it was known last: the first signal's line may have it, further ones
    /// have not.
    pub(super) stop_timeout: Option<Timespan>,
    /// The first signal that is systemd's: its stop timeout runs from there.
    pub(super) asked_by_systemd: Option<(u64, &'a Signal)>,
    /// The phases that have not ended, and when each began.
    pub(super) open: Vec<(u64, &'a PhaseStarted)>,
    /// The phases that have ended.
    pub(super) ended: Vec<&'a PhaseFinished>,
    /// What was wedged, and has not moved since.
    pub(super) wedged: Option<&'a Wedged>,
    pub(super) stopped: Option<&'a Stopped>,
}

/// The phases that have not ended, by their place, and the order in which they began: a record may
/// hold a million events.
#[derive(Default)]
struct Open<'a> {
    place: HashMap<(&'a str, Option<&'a str>), usize>,
    /// `None` for one that has ended.
    began: Vec<Option<(u64, &'a PhaseStarted)>>,
}

impl<'a> Open<'a> {
    fn begin(&mut self, at_us: u64, phase: &'a PhaseStarted) {
        self.place.insert((&phase.phase, phase.group.as_deref()), self.began.len());
        self.began.push(Some((at_us, phase)));
    }

    fn end(&mut self, phase: &'a str, group: Option<&'a str>) {
        if let Some(place) = self.place.remove(&(phase, group)) {
            self.began[place] = None;
        }
    }
}

impl<'a> Seen<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let mut seen = Self {
            start: &record.start,
            started: record.started,
            last: record.entries.last().map_or(record.started, |entry| entry.ts),
            // Threads write side by side, so the last line need not be the latest.
            last_us: record.entries.iter().map(|entry| entry.mono_us).max().unwrap_or(0),
            asked: None,
            asked_last: None,
            stop_timeout: record.start.stop_timeout_us,
            asked_by_systemd: None,
            open: Vec::new(),
            ended: Vec::new(),
            wedged: None,
            stopped: None,
        };
        let mut open = Open::default();
        for entry in &record.entries {
            seen.take(&mut open, entry.mono_us, &entry.event);
        }
        seen.open = open.began.into_iter().flatten().collect();
        seen
    }

    fn take(&mut self, open: &mut Open<'a>, at_us: u64, event: &'a Event) {
        match event {
            Event::Signal(signal) => {
                self.asked.get_or_insert((at_us, signal));
                self.asked_last = Some(signal);
                self.stop_timeout = signal.stop_timeout_us.or(self.stop_timeout);
                if matches!(signal.cause.as_str(), "systemd" | "reboot") {
                    self.asked_by_systemd.get_or_insert((at_us, signal));
                }
            }
            Event::PhaseStarted(phase) => {
                self.runtime_lives();
                self.moves(&phase.phase);
                open.end(&phase.phase, phase.group.as_deref());
                open.begin(at_us, phase);
            }
            Event::PhaseProgress(_) => self.runtime_lives(),
            Event::PhaseFinished(phase) => {
                self.runtime_lives();
                self.moves(&phase.phase);
                open.end(&phase.phase, phase.group.as_deref());
                self.ended.push(phase);
            }
            Event::Wedged(wedged) => self.wedged = Some(wedged),
            Event::Stopped(stopped) => self.stopped = Some(stopped),
            Event::RunStarted(_) | Event::Diag(_) | Event::Unknown(_) => {}
        }
    }

    fn runtime_lives(&mut self) {
        self.wedged = self.wedged.filter(|wedged| wedged.what != WedgedWhat::Runtime);
    }

    fn moves(&mut self, phase: &str) {
        self.wedged = self.wedged.filter(|wedged| wedged.phase.as_deref() != Some(phase));
    }

    pub(super) fn teardown_began(&self) -> bool {
        !self.open.is_empty() || !self.ended.is_empty()
    }

    /// The phase that ended last, where none runs.
    pub(super) fn between(&self) -> Option<String> {
        let last = self.ended.last().filter(|_| self.open.is_empty())?;
        Some(phase_name(&last.phase, last.group.as_deref()))
    }

    /// Whether the machine has been booted since; `false` where that is not known.
    pub(super) fn rebooted(&self, now: &Now) -> bool {
        matches!((&self.start.boot_id, &now.boot_id), (Some(then), Some(now)) if then != now)
    }

    /// When the run was dead at the latest, as far as it can be told without knowing what killed
    /// it: it is dead now; and a phase that is past its budget is said to have timed out or to be
    /// wedged, by a run that is alive.
    pub(super) fn dead_by_us(&self, now: &Now) -> Option<u64> {
        let now_us = now.mono_us.filter(|_| !self.rebooted(now));
        let budget_us = |(began_us, phase): &(u64, &PhaseStarted)| {
            Some(began_us.saturating_add(phase.timeout_us?).saturating_add(SLACK_US))
        };
        let budgets = self.open.iter().filter(|_| self.wedged.is_none()).filter_map(budget_us);
        // What lies before the last event is no bound: the clock is another one, or the event
        // that was to be there was lost.
        budgets.chain(now_us).filter(|&us| us >= self.last_us).min()
    }
}
