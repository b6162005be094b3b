//! Decides how a run ended.
//!
//! This module decides the outcome, in the order of the table at [`post_mortem`]. The module
//! `explain` decides the reason and has all texts. Durations are computed only from the monotonic
//! clock, because the wall clock may have been set.

use std::fs::File;

use super::explain::explain;
use super::identity::{Liveness, Place, ProcessState, lock_id};
use super::lock::{is_locked, unlock};
use super::summary::Summary;
use super::{
    Digest, ExitKind, OpenPhase, PostMortem, RunOutcome, RunStarted, SignalKind, SignalSender,
};
use crate::clock::{boot_id, mono_us};

/// The state of the host at the time of the post-mortem. A fact that is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether the record's lock is held.
    pub locked: bool,
    /// The file that was looked at, as [`RunStarted::lock`](super::RunStarted::lock).
    pub lock: Option<String>,
    /// What the pid of the run shows.
    pub process: ProcessState,
    /// Where we run.
    pub place: Place,
    /// The id of the current boot.
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` now, in microseconds. A run that is dead has ended by then.
    pub mono_us: Option<u64>,
    /// The current `oom_kill` counter of the cgroup that the run recorded.
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. If it is not the recorded one, this is a new cgroup with
    /// a new counter, which proves nothing.
    pub cgroup_inode: Option<u64>,
    /// The line of the kernel log about the OOM kill of this run's process. `None` if there is
    /// none, or if the log cannot be read.
    pub oom_line: Option<String>,
}

impl HostState {
    /// Looks at the process that `start` names, and at the lock of the record in `file`. The caller
    /// sets the facts about memory.
    pub(super) fn of_file(file: &File, start: Option<&RunStarted>) -> Self {
        let locked = is_locked(file).unwrap_or(false);
        // Unlocked at once, so that a new run can lock its file while we read it.
        unlock(file);
        let (boot_id, place) = (boot_id(), Place::here());
        let look = |start| ProcessState::look(start, boot_id.as_deref(), &place);
        Self {
            locked,
            lock: lock_id(file),
            process: start.map(look).unwrap_or_default(),
            mono_us: Some(mono_us()),
            boot_id,
            place,
            ..Self::default()
        }
    }
}

/// Decides how a run ended: by its own last line if there is one, otherwise by whether it lives, the
/// boot, and the progress of its teardown.
///
/// The first matching row decides. `stopped` is the last line that a run writes, so it comes before
/// the lock, which a forked child may still hold.
///
/// | there is | outcome | reason |
/// |---|---|---|
/// | `stopped` | the same word; `unknown` for a word of a newer version | recorded; panic if it panicked |
/// | its process, or the lock (see `HostState::liveness`) | `running` | alive |
/// | no way to see whether it lives | `maybe_alive` | unknown |
/// | another boot id now | `rebooted` | reboot |
/// | a phase that began or ended | `killed_in_phase` | see the next table |
/// | a signal | `killed_before_teardown` | see the next table |
/// | none of these | `vanished` | out of memory, else unknown |
///
/// The reason for the end of a run that was killed after a request to stop. Again the first
/// matching row decides:
///
/// | there is | reason |
/// |---|---|
/// | the kernel log says so, or the `oom_kill` counter grew | out of memory |
/// | a signal from systemd, and the run can have lasted until the end of the stop timeout, but not longer | stop timeout |
/// | the same with the grace period that was configured for the run, or a stop by a container runtime | grace period |
/// | none of these | unknown |
///
/// This function is pure: the same record and the same [`HostState`] give the same result.
pub fn post_mortem(record: &Digest, host: &HostState) -> PostMortem {
    let run = Summary::of(record);
    let outcome = outcome(&run, host);
    let (verdict, killed_us) = explain(outcome, &run, host);
    let (reason, basis, evidence, advice) = verdict.into_parts();
    let ended_us = match outcome {
        RunOutcome::Running | RunOutcome::MaybeAlive => None,
        _ if run.stopped.is_some() => Some(run.last_us),
        _ => killed_us.or_else(|| run.dead_by_us(host)),
    };
    let open = run.open.iter().map(|&(began_us, phase)| OpenPhase {
        phase: phase.phase.clone(),
        group: phase.group.clone(),
        at_least_us: run.last_us.saturating_sub(began_us),
        at_most_us: ended_us.map(|us| us.saturating_sub(began_us)),
        timeout_us: phase.timeout_us,
    });
    let first = run.asked.map(|(_, signal)| signal);
    PostMortem {
        outcome,
        service: run.start.service.clone(),
        pid: run.start.pid,
        pod: run.start.pod.clone(),
        host: run.start.host.clone().filter(|name| host.place.host.as_ref() != Some(name)),
        started: record.started,
        last: run.last,
        phases: open.collect(),
        after_phase: run.between().filter(|_| outcome == RunOutcome::KilledInPhase),
        signal: first.map(|signal| match (&signal.signal, signal.kind) {
            (Some(name), SignalKind::Signal) => name.clone(),
            (_, kind) => kind.to_string(),
        }),
        cause: first.map(|signal| signal.cause.clone()),
        sender: first.and_then(|signal| {
            Some(SignalSender {
                pid: signal.sender_pid?,
                name: signal.sender_name.clone(),
                uid: signal.sender_uid,
            })
        }),
        after_signal_us: run.asked.map(|(at_us, _)| run.last_us.saturating_sub(at_us)),
        deadline_us: first.and_then(|signal| signal.deadline_us),
        how: run.stopped.map(|stopped| stopped.how),
        exit_code: run.stopped.and_then(|stopped| stopped.exit_code),
        exit_signal: run.stopped.and_then(|stopped| stopped.exit_signal.clone()),
        explained: run.explained.cloned(),
        reason,
        basis,
        evidence,
        advice,
    }
}

fn outcome(run: &Summary<'_>, host: &HostState) -> RunOutcome {
    match run.stopped.map(|stopped| stopped.how) {
        Some(ExitKind::Clean) => RunOutcome::Clean,
        Some(ExitKind::TimedOut) => RunOutcome::TimedOut,
        Some(ExitKind::CutShort) => RunOutcome::CutShort,
        Some(ExitKind::Failed) => RunOutcome::Failed,
        Some(ExitKind::Abandoned) => RunOutcome::Abandoned,
        Some(ExitKind::Other) => RunOutcome::Unknown,
        Some(ExitKind::Forced) => RunOutcome::Forced,
        Some(ExitKind::Panicked) => RunOutcome::Panicked,
        None => match host.liveness(run.start) {
            Liveness::Alive => RunOutcome::Running,
            Liveness::Unknown => RunOutcome::MaybeAlive,
            Liveness::Ended if run.rebooted(host) => RunOutcome::Rebooted,
            Liveness::Ended if run.teardown_began() => RunOutcome::KilledInPhase,
            Liveness::Ended if run.asked.is_some() => RunOutcome::KilledBeforeTeardown,
            Liveness::Ended => RunOutcome::Vanished,
        },
    }
}

#[cfg(test)]
mod tests;
