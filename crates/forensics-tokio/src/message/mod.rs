//! When the termination message is written, and what it is written of.
//!
//! From a stop's beginning on whenever a phase begins or ends, or something hangs; the keeper looks,
//! which needs no runtime. Then the last word.

pub(crate) mod account;
pub(crate) mod termination;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::account::{Account, State};
use self::termination::Termination;
use crate::begun::Begun;
use crate::report::PhaseReport;

/// See the module's documentation.
pub(crate) struct Message {
    log: Termination,
    service: String,
    /// The phases and groups that have ended.
    ended: Mutex<Vec<PhaseReport>>,
    /// Grows whenever a phase begins or ends.
    changes: AtomicU64,
    /// What it was last written for.
    told: Mutex<Option<u64>>,
}

/// How a stop stands.
pub(crate) struct Standing {
    /// Absent where nobody has asked for one.
    pub(crate) begun: Option<Arc<Begun>>,
    /// The phases that run, and for how long already.
    pub(crate) running: Vec<(String, Duration)>,
    /// How long ago it began.
    pub(crate) since: Duration,
    /// How long it may take.
    pub(crate) allowed: Duration,
}

impl Message {
    pub(crate) fn new(log: Termination, service: String) -> Self {
        let (ended, told) = (Mutex::default(), Mutex::default());
        Self { log, service, ended, changes: AtomicU64::new(0), told }
    }

    /// A phase or a group has begun or ended.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How a phase or a group has ended.
    pub(crate) fn note_ended(&self, report: &PhaseReport) {
        if self.log.is_open() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(report.clone());
            self.note_change();
        }
    }

    /// Writes it anew where something has changed since, or there is an alarm. Never blocks.
    pub(crate) fn tell(&self, standing: impl FnOnce() -> Standing, alarm: Option<&str>) {
        if !self.log.is_open() {
            return;
        }
        let now = self.changes.load(Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.is_some() || told.replace(now) != Some(now) {
            let standing = standing();
            let (since, allowed) = (standing.since, standing.allowed);
            self.log.say(self.account(&standing, State::Stopping { since, allowed, alarm }));
        }
    }

    /// Writes the last word. Never blocks; whoever ends the process then waits for it with
    /// [`finish`](Self::finish).
    pub(crate) fn close(&self, standing: impl FnOnce() -> Standing, state: State<'_>) {
        if self.log.is_open() {
            self.log.close(self.account(&standing(), state));
        }
    }

    /// Waits until all is written, for 500 ms at most.
    pub(crate) fn finish(&self) {
        self.log.finish();
    }

    /// What went wrong first, if anything has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.log.failure()
    }

    fn account(&self, standing: &Standing, state: State<'_>) -> String {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let context = standing.begun.as_deref().map(|begun| &begun.context);
        let (service, running) = (self.service.as_str(), standing.running.as_slice());
        Account { service, state, context, running, ended: &ended }.text()
    }
}
