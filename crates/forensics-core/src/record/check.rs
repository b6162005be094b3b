//! Decides how a run ended.
//!
//! This module decides the outcome, in the order of the table at [`post_mortem`]. The module
//! `explain` decides the reason and has all texts. Durations are computed only from the monotonic
//! clock, because the wall clock may have been set.

use std::fs::File;

use super::explain::{explain, stop_timeout_over_us};
use super::identity::{Liveness, Place, ProcessState, lock_id};
use super::lock::{is_locked, unlock};
use super::summary::Summary;
use super::{
    Digest, ExitKind, OpenPhase, PhaseOutcome, PostMortem, Reason, RunOutcome, RunStarted,
    SignalKind, SignalSender, Stopped,
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
    /// [`PostMortem::file_uid`].
    pub file_uid: Option<u32>,
    /// Where we run.
    pub place: Place,
    /// The id of the current boot.
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` now, in microseconds. A run that is dead has ended by then.
    pub mono_us: Option<u64>,
    /// The current `oom_kill` counter of a cgroup: that of the run if it can be seen, else ours.
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. If it is not the recorded one, this is another cgroup,
    /// whose counter proves nothing.
    pub cgroup_inode: Option<u64>,
    /// What the kernel log says about an OOM kill of this run's process.
    pub oom_log: OomLog,
}

/// What the kernel log says about an OOM kill of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OomLog {
    /// It cannot be read, or may have lost the lines of that time.
    #[default]
    Unknown,
    /// It has this line about the process.
    Killed(String),
    /// It has all lines of that time, and none about the process.
    NotKilled,
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
/// | `stopped`, but systemd says that a signal ended it | `killed_after_teardown` | signal |
/// | `stopped` | the same word, but not `clean` if a phase did not end well, the start failed, or a witness says that it exited with another status; `unknown` for a word of a newer version | recorded; panic if it panicked |
/// | its process, or the lock (see `HostState::liveness`) | `running` | alive |
/// | no way to see whether it lives, and no witness of its end | `maybe_alive` | unknown |
/// | another boot of the same machine, and no witness of its end | `rebooted` | reboot |
/// | a witness that says that it exited | `exited` | exit |
/// | a phase that began or ended | `killed_in_phase` | see the next table |
/// | a signal | `killed_before_teardown` | see the next table |
/// | none of these | `vanished` | out of memory, else unknown |
///
/// The reason for the end of a run without `stopped`. The first matching row decides:
///
/// | there is | reason |
/// |---|---|
/// | a line of the kernel log about this process, if no witness says that it ended by something else | out of memory |
/// | a report of systemd, if this was the main process | what it says |
/// | a report of the container runtime | what it says |
/// | a supervisor's signal, a known stop timeout, and a run that was seen alive until shortly before its end | stop timeout, grace period |
/// | another boot id | elsewhere |
/// | none of these | unknown |
///
/// This function is pure: the same record and the same [`HostState`] give the same result.
pub fn post_mortem(record: &Digest, host: &HostState) -> PostMortem {
    let mut run = Summary::of(record);
    run.check_time(host);
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
        file_uid: host.file_uid,
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
        cause: run
            .explained
            .map(|explained| &explained.cause)
            .or(first.map(|it| &it.cause))
            .cloned(),
        sender: first.and_then(|signal| {
            Some(SignalSender {
                pid: signal.sender_pid?,
                // Who was gone when the signal was handled may be in the audit log.
                name: signal
                    .sender_name
                    .clone()
                    .or_else(|| run.sent(signal.signal.as_deref()?)?.sender_name),
                uid: signal.sender_uid,
            })
        }),
        after_signal_us: run.asked.map(|(at_us, _)| run.last_us.saturating_sub(at_us)),
        deadline_us: first.and_then(|signal| signal.deadline_us),
        stop_timeout_us: run
            .asked
            .zip(stop_timeout_over_us(&run))
            .map(|((at_us, _), over_us)| over_us.saturating_sub(at_us)),
        how: run.stopped.map(|stopped| stopped.how),
        exit_code: run.stopped.and_then(|stopped| stopped.exit_code),
        exit_signal: run.stopped.and_then(|stopped| stopped.exit_signal.clone()),
        service_result: run.unit_end.as_ref().and_then(|end| end.service_result.clone()),
        killed_by: run.ended_by().filter(|_| outcome != RunOutcome::Clean),
        witnesses: run.witnesses.to_vec(),
        died_within_us: ended_us
            .filter(|_| run.stopped.is_none() && reason != Reason::Exec)
            .map(|us| us.saturating_sub(run.last_us)),
        explained: run.explained.cloned(),
        reason,
        basis,
        evidence,
        advice,
    }
}

fn outcome(run: &Summary<'_>, host: &HostState) -> RunOutcome {
    // What the process did after its last event. The run itself could not record it.
    if run.stopped.is_some_and(|stopped| contradicts(run, stopped)) {
        return RunOutcome::KilledAfterTeardown;
    }
    match run.stopped.map(|stopped| stopped.how) {
        Some(ExitKind::Clean) if run.has_failed_to_start() || run.failed_after_end().is_some() => {
            RunOutcome::Failed
        }
        Some(ExitKind::Clean) => match run.worst_phase() {
            PhaseOutcome::Ok => RunOutcome::Clean,
            PhaseOutcome::Skipped | PhaseOutcome::TimedOut => RunOutcome::TimedOut,
            PhaseOutcome::CutShort => RunOutcome::CutShort,
            _ => RunOutcome::Failed,
        },
        Some(ExitKind::TimedOut) => RunOutcome::TimedOut,
        Some(ExitKind::CutShort) => RunOutcome::CutShort,
        Some(ExitKind::Failed) => RunOutcome::Failed,
        Some(ExitKind::Abandoned) => RunOutcome::Abandoned,
        Some(ExitKind::Other) => RunOutcome::Unknown,
        Some(ExitKind::Forced) => RunOutcome::Forced,
        Some(ExitKind::Panicked) => RunOutcome::Panicked,
        None => match host.liveness(run.start) {
            Liveness::Alive => RunOutcome::Running,
            Liveness::Unknown if !run.has_reported_end() => RunOutcome::MaybeAlive,
            _ if host.is_reboot(run.start) && !run.has_reported_end() => RunOutcome::Rebooted,
            _ if run.has_exited() => RunOutcome::Exited,
            _ if run.teardown_began() => RunOutcome::KilledInPhase,
            _ if run.asked.is_some() => RunOutcome::KilledBeforeTeardown,
            _ => RunOutcome::Vanished,
        },
    }
}

/// Whether a witness says that a signal ended the process, which the run had not recorded.
fn contradicts(run: &Summary<'_>, stopped: &Stopped) -> bool {
    let signal = run.ended_by();
    // After `abandoned` the program may go on.
    let is_end = stopped.how != ExitKind::Abandoned;
    let is_recorded = signal == stopped.exit_signal || run.has_recorded_status(stopped);
    is_end && signal.is_some() && !is_recorded
}

#[cfg(test)]
mod tests;
