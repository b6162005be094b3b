//! What a record says about its run, collected line by line.
//!
//! A record may be as large as [`MAX_RECORD`](super::MAX_RECORD), and anyone who may write to it
//! chooses its content. So nothing here grows with the number of lines. Phases are the exception,
//! up to [`MAX_PHASES`] and [`MAX_TEXT`]; beyond that they are only counted.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    DeadlineMoved, Entry, Event, Explained, PhaseFinished, PhaseOutcome, PhaseStarted, RunStarted,
    SignalEvent, Stalled, StalledWhat, Stopped, Utc, VERSION, Witness,
};
use crate::duration::Timespan;
use crate::systemd::is_valid_unit_name;

/// How many phases are kept: those that have not ended, and those that have not ended well.
const MAX_PHASES: usize = 4096;

/// How many bytes of the names and errors of these phases are kept.
const MAX_TEXT: usize = 2 << 20;

/// How many statements of witnesses are kept, and how long each may be as JSON, in bytes.
pub(super) const MAX_WITNESSES: usize = 16;
const MAX_WITNESS: usize = 16 << 10;

/// What a record says about its run, without the single events.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Digest {
    /// The first `run_started`.
    pub start: RunStarted,
    /// When it was written.
    pub started: Utc,
    /// How many lines could be read.
    pub read: usize,
    /// How many lines before the last one could not be read.
    pub corrupt: usize,
    /// Whether the last line is incomplete: the run was killed in the middle of a write, or is
    /// writing now.
    pub torn: bool,
    /// Whether a line was written in a newer version of the schema.
    pub newer: bool,
    pub(super) end: End,
}

/// What the events say about the end of the run. All instants are `mono_us` of its boot.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct End {
    /// The event of the first line, and of the last one.
    pub(super) began_us: Option<u64>,
    pub(super) last: Option<Utc>,
    /// The last event by the monotonic clock. Threads write concurrently, so the last line need not
    /// be the latest.
    pub(super) last_us: u64,
    pub(super) asked: Option<(u64, SignalEvent)>,
    /// The wall clock at that signal.
    pub(super) asked_at: Option<Utc>,
    pub(super) asked_last: Option<SignalEvent>,
    pub(super) asked_by_systemd: Option<(u64, SignalEvent)>,
    pub(super) stop_timeout: Option<Timespan>,
    pub(super) deadline_us: Option<u64>,
    /// By name and group, with the number of the line, which orders them.
    open: HashMap<(String, Option<String>), (usize, u64, PhaseStarted)>,
    /// The phases that did not end well.
    pub(super) not_ok: Vec<PhaseFinished>,
    /// The phase that ended last.
    pub(super) ended_last: Option<PhaseFinished>,
    /// How many open phases, and phases that did not end well, were not kept.
    pub(super) more_open: usize,
    pub(super) more_not_ok: usize,
    /// The bytes of the kept phases.
    text: usize,
    /// Why systemd stopped it, as systemd showed last.
    pub(super) explained: Option<Explained>,
    pub(super) stalled: Option<Stalled>,
    pub(super) stopped: Option<Stopped>,
    /// What witnesses said.
    pub(super) witnesses: Vec<Witness>,
}

impl Digest {
    /// Adds what a witness said.
    pub(super) fn add_witness(&mut self, witness: &Witness) {
        self.end.witness(witness);
    }
}

/// Collects a [`Digest`].
#[derive(Default)]
pub(super) struct Collector {
    start: Option<(RunStarted, Utc)>,
    pub(super) read: usize,
    newer: bool,
    end: End,
}

impl Collector {
    pub(super) fn add(&mut self, entry: &Entry) {
        self.read += 1;
        self.newer |= entry.v > VERSION;
        if let Event::RunStarted(start) = &entry.event {
            self.start.get_or_insert_with(|| {
                let mut start = RunStarted::clone(start);
                // It is shown in commands, so a text that is no name must not count.
                start.unit = start.unit.filter(|unit| is_valid_unit_name(unit));
                (start, entry.ts)
            });
        }
        self.end.add(self.read, entry);
    }

    /// `None` if there was no `run_started`.
    pub(super) fn digest(self, corrupt: usize, torn: bool) -> Option<Digest> {
        let Self { start, read, newer, end } = self;
        let (start, started) = start?;
        Some(Digest { start, started, read, corrupt, torn, newer, end })
    }
}

impl End {
    fn add(&mut self, line: usize, entry: &Entry) {
        // What a witness said is written after the run.
        if let Event::Witness(witness) = &entry.event {
            return self.witness(witness);
        }
        let at_us = entry.mono_us;
        self.began_us.get_or_insert(at_us);
        self.last = Some(entry.ts);
        self.last_us = self.last_us.max(at_us);
        match &entry.event {
            Event::Signal(signal) => {
                self.asked_at.get_or_insert(entry.ts);
                self.signal(at_us, signal);
            }
            Event::DeadlineMoved(DeadlineMoved { deadline_us, stop_timeout_us }) => {
                self.stop_timeout = stop_timeout_us.or(self.stop_timeout);
                self.deadline_us = deadline_us.or(self.deadline_us);
            }
            Event::PhaseStarted(phase) => {
                self.moved(Some(&phase.phase));
                self.started(line, at_us, phase);
            }
            Event::PhaseProgress(_) => self.moved(None),
            Event::PhaseFinished(phase) => {
                self.moved(Some(&phase.phase));
                self.ended(phase);
            }
            Event::Stalled(stalled) => {
                self.stalled = Some(Stalled { threads: Value::Null, ..stalled.clone() });
            }
            Event::Stopped(stopped) => self.stopped = Some(stopped.clone()),
            Event::Explained(explained) => {
                if matches!(explained.cause.as_str(), "systemd" | "reboot")
                    && self.asked_by_systemd.is_none()
                {
                    self.asked_by_systemd.clone_from(&self.asked);
                }
                self.explained = Some(explained.clone());
            }
            Event::RunStarted(_)
            | Event::Alive
            | Event::Diag(_)
            | Event::Witness(_)
            | Event::Unknown(_) => {}
        }
    }

    fn witness(&mut self, witness: &Witness) {
        let is_short = || serde_json::to_vec(witness).is_ok_and(|json| json.len() <= MAX_WITNESS);
        if self.witnesses.len() < MAX_WITNESSES && is_short() {
            self.witnesses.push(witness.clone());
        }
    }

    fn signal(&mut self, at_us: u64, signal: &SignalEvent) {
        let without_context = || SignalEvent { context: Value::Null, ..signal.clone() };
        let (_, first) = self.asked.get_or_insert_with(|| (at_us, signal.clone()));
        self.deadline_us = self.deadline_us.or(first.deadline_us);
        self.asked_last = Some(without_context());
        self.stop_timeout = signal.stop_timeout_us.or(self.stop_timeout);
        if matches!(signal.cause.as_str(), "systemd" | "reboot") {
            self.asked_by_systemd.get_or_insert_with(|| (at_us, without_context()));
        }
    }

    fn started(&mut self, line: usize, at_us: u64, phase: &PhaseStarted) {
        let key = (phase.phase.clone(), phase.group.clone());
        if let Some(open) = self.open.get_mut(&key) {
            *open = (line, at_us, phase.clone());
        } else if self.makes_room(text_of(&phase.phase, phase.group.as_ref())) {
            self.open.insert(key, (line, at_us, phase.clone()));
        } else {
            self.more_open += 1;
        }
    }

    fn ended(&mut self, phase: &PhaseFinished) {
        let text = text_of(&phase.phase, phase.group.as_ref());
        let ended = PhaseFinished { values: serde_json::Map::new(), ..phase.clone() };
        if self.open.remove(&(phase.phase.clone(), phase.group.clone())).is_some() {
            self.text -= text;
        } else if phase.outcome != PhaseOutcome::Skipped {
            // A phase that was not kept. One that was skipped has not started.
            self.more_open = self.more_open.saturating_sub(1);
        }
        if phase.outcome != PhaseOutcome::Ok {
            if self.makes_room(text + phase.error.as_ref().map_or(0, String::len)) {
                self.not_ok.push(ended.clone());
            } else {
                self.more_not_ok += 1;
            }
        }
        self.ended_last = Some(ended);
    }

    /// Whether another phase with that many bytes of text is kept.
    fn makes_room(&mut self, text: usize) -> bool {
        let fits = self.open.len() + self.not_ok.len() < MAX_PHASES && self.text + text <= MAX_TEXT;
        if fits {
            self.text += text;
        }
        fits
    }

    /// The runtime made progress, and this phase began or ended.
    fn moved(&mut self, phase: Option<&str>) {
        self.stalled.take_if(|stalled| {
            stalled.what == StalledWhat::Runtime
                || (phase.is_some() && stalled.phase.as_deref() == phase)
        });
    }

    /// The phases that have not ended, in the order in which they began, with their start times.
    pub(super) fn open(&self) -> Vec<(u64, &PhaseStarted)> {
        let mut open: Vec<_> = self.open.values().collect();
        open.sort_unstable_by_key(|(line, ..)| *line);
        open.into_iter().map(|(_, at_us, phase)| (*at_us, phase)).collect()
    }
}

fn text_of(phase: &str, group: Option<&String>) -> usize {
    phase.len() + group.map_or(0, String::len)
}
