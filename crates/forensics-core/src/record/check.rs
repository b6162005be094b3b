//! Decides how a run ended.
//!
//! All decisions about the outcome are here, in the order of the table at [`post_mortem`]. Those about
//! the reason, and all texts, are in `explain`. Durations are computed from the monotonic clock alone,
//! since the wall clock may have been set.

use std::fs::File;

use super::explain::explain;
use super::folder::is_locked;
use super::summary::Summary;
use super::{ExitKind, OpenPhase, PostMortem, Record, RunOutcome, SignalKind, SignalSender};
use crate::clock::{boot_id, mono_us};

/// The state of the host at the time of the post-mortem. A fact that is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether the record's lock is held.
    pub running: bool,
    /// The id of the present boot.
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` now, in microseconds: the run had ended by then.
    pub mono_us: Option<u64>,
    /// The present `oom_kill` of the cgroup whose counter the run recorded.
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. If it is not the recorded one, this is a new cgroup with a
    /// counter of its own, which proves nothing.
    pub cgroup_inode: Option<u64>,
    /// The line of the kernel log that says that this run's process was OOM-killed, if there is one
    /// and the log can be read.
    pub oom_line: Option<String>,
}

impl HostState {
    /// The lock of the record in `file`, the boot and the clock. The facts about memory are left to the
    /// caller.
    pub(super) fn of_file(file: &File) -> Self {
        let running = is_locked(file).unwrap_or(false);
        // So that a run that is about to lock the file does not find it locked while we read. If
        // this fails, the lock ends when the file is closed.
        let _ = file.unlock();
        Self { running, boot_id: boot_id(), mono_us: Some(mono_us()), ..Self::default() }
    }
}

/// Tells how a run ended: by its own last line if there is one, else by the lock, the boot, and how
/// far its teardown had come.
///
/// The first row that fits decides. `stopped` is the last line that a run writes, so it counts before
/// the lock, which a forked child may still hold.
///
/// | there is | outcome | reason |
/// |---|---|---|
/// | `stopped`: clean, failed, abandoned, or a word not known | `clean` | recorded |
/// | `stopped`: timed out | `timed_out` | recorded |
/// | `stopped`: forced | `forced` | recorded |
/// | `stopped`: panicked | `panicked` | panic |
/// | the lock | `running` | alive |
/// | another boot id now | `rebooted` | reboot |
/// | a phase that began or ended | `killed_in_phase` | as the next table has it |
/// | a signal | `killed_before_teardown` | as the next table has it |
/// | none of these | `vanished` | out of memory, else unknown |
///
/// What killed a run that was asked to stop; again the first row that fits:
///
/// | there is | reason |
/// |---|---|
/// | the kernel log says so, or the `oom_kill` counter grew | out of memory |
/// | a signal from systemd, and the run may have lived until the end of the stop timeout, but no longer | stop timeout |
/// | the same with the grace period that the run was told, or a stop by a container's runtime | grace period |
/// | none of these | unknown |
///
/// Pure: the same record and the same [`HostState`] give the same result.
pub fn post_mortem(record: &Record, host: &HostState) -> PostMortem {
    let run = Summary::of(record);
    let outcome = outcome(&run, host);
    let (reason, (evidence, advice), killed_us) = explain(outcome, &run, host);
    let ended_us = match outcome {
        RunOutcome::Running => None,
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
        reason,
        evidence,
        advice: Some(advice).filter(|advice| !advice.is_empty()),
    }
}

fn outcome(run: &Summary<'_>, host: &HostState) -> RunOutcome {
    match run.stopped.map(|stopped| stopped.how) {
        Some(ExitKind::Clean | ExitKind::Failed | ExitKind::Abandoned | ExitKind::Other) => {
            RunOutcome::Clean
        }
        Some(ExitKind::TimedOut) => RunOutcome::TimedOut,
        Some(ExitKind::Forced) => RunOutcome::Forced,
        Some(ExitKind::Panicked) => RunOutcome::Panicked,
        None if host.running => RunOutcome::Running,
        None if run.rebooted(host) => RunOutcome::Rebooted,
        None if run.teardown_began() => RunOutcome::KilledInPhase,
        None if run.asked.is_some() => RunOutcome::KilledBeforeTeardown,
        None => RunOutcome::Vanished,
    }
}

#[cfg(test)]
mod tests;
