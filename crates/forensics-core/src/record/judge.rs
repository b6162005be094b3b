//! Judges how a run ended, from its record and what is known now.
//!
//! All decisions on the outcome are here, in the order of the table at [`verdict`]; those on the
//! reason, and all texts, are in `reason`. Durations come from the monotonic clock alone, since
//! the wall clock may be set meanwhile.

use super::event::{How, SignalKind};
use super::reader::Record;
use super::reason::{Finding, find};
use super::seen::Seen;
use super::verdict::{Now, OpenPhase, Outcome, Sender, Verdict};

/// Judges how a run ended: by its own word where it left one, else by the lock, the boot, and how
/// far its teardown had come.
///
/// The first row that fits decides. `stopped` is the run's own word and the last thing it writes,
/// so it counts before the lock, which a forked child may still hold.
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
/// What killed a run that was asked to stop is told by the first row again:
///
/// | there is | reason |
/// |---|---|
/// | the kernel log's word, or an `oom_kill` counter that grew | out of memory |
/// | a signal of systemd's and a stop timeout, the end of which the run may have seen, but not outlived | stop timeout |
/// | a stop by a container's runtime | grace period |
/// | none of these | unknown |
///
/// Pure: the same record and the same [`Now`] give the same verdict.
pub fn verdict(record: &Record, now: &Now) -> Verdict {
    let seen = Seen::of(record);
    let outcome = outcome(&seen, now);
    let Finding { reason, evidence, advice, killed_us } = find(outcome, &seen, now);
    let ended_us = match outcome {
        Outcome::Running => None,
        Outcome::Clean | Outcome::TimedOut | Outcome::Forced | Outcome::Panicked => {
            Some(seen.last_us)
        }
        _ => killed_us.or_else(|| seen.dead_by_us(now)),
    };
    let open = seen.open.iter().map(|&(began_us, phase)| OpenPhase {
        phase: phase.phase.clone(),
        group: phase.group.clone(),
        at_least_us: seen.last_us.saturating_sub(began_us),
        at_most_us: ended_us.map(|us| us.saturating_sub(began_us)),
        timeout_us: phase.timeout_us,
    });
    let first = seen.asked.map(|(_, signal)| signal);
    Verdict {
        outcome,
        service: seen.start.service.clone(),
        pid: seen.start.pid,
        started: seen.started,
        last: seen.last,
        phases: open.collect(),
        after_phase: seen.between().filter(|_| outcome == Outcome::KilledInPhase),
        signal: first.map(|signal| match (&signal.signal, signal.kind) {
            (Some(name), SignalKind::Signal) => name.clone(),
            (_, kind) => kind.as_str().to_owned(),
        }),
        cause: first.map(|signal| signal.cause.clone()),
        sender: first.and_then(|signal| {
            Some(Sender {
                pid: signal.sender_pid?,
                name: signal.sender_name.clone(),
                uid: signal.sender_uid,
            })
        }),
        after_signal_us: seen.asked.map(|(at_us, _)| seen.last_us.saturating_sub(at_us)),
        deadline_us: first.and_then(|signal| signal.deadline_us),
        how: seen.stopped.map(|stopped| stopped.how),
        exit_code: seen.stopped.and_then(|stopped| stopped.exit_code),
        reason,
        evidence,
        advice,
    }
}

fn outcome(seen: &Seen<'_>, now: &Now) -> Outcome {
    match seen.stopped.map(|stopped| stopped.how) {
        Some(How::Clean | How::Failed | How::Abandoned | How::Other) => Outcome::Clean,
        Some(How::TimedOut) => Outcome::TimedOut,
        Some(How::Forced) => Outcome::Forced,
        Some(How::Panicked) => Outcome::Panicked,
        None if now.running => Outcome::Running,
        None if seen.rebooted(now) => Outcome::Rebooted,
        None if seen.teardown_began() => Outcome::KilledInPhase,
        None if seen.asked.is_some() => Outcome::KilledBeforeTeardown,
        None => Outcome::Vanished,
    }
}

#[cfg(test)]
mod tests;
