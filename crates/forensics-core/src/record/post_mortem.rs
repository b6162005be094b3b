//! The post-mortem as data: how a run ended, why, and what to change.
//!
//! [`super::post_mortem()`] makes it from a [`super::Digest`] and a [`super::HostState`].
//! `evidence` and `advice` are texts for people, in which foreign text is already escaped. The
//! other texts are unescaped, as in the record; [`Display`] escapes them.

use std::fmt::{self, Display};

use serde::Serialize;

use super::{ExitKind, Explained, Utc, Witness};
use crate::basis::Basis;
use crate::escape::truncate;
use crate::logfmt::Value;

/// Longest text of the record that is shown inside another text, in characters.
pub(super) const MAX_SHOWN: usize = 160;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// It ended as planned: the service and every phase ended without an error.
    Clean,
    /// It ended by itself, but a phase timed out or was skipped because no time was left for it.
    TimedOut,
    /// It ended by itself, but a phase was cut short or skipped, because the stop was escalated.
    CutShort,
    /// It ended by itself, but the service or a phase failed.
    Failed,
    /// Its guard was dropped before the end of the teardown.
    Abandoned,
    /// It was ended at once, by a further signal or at the deadline.
    Forced,
    /// It exited by itself without recording its end.
    Exited,
    /// It was killed in a phase or between two phases.
    KilledInPhase,
    /// It was asked to stop and killed before the first phase began.
    KilledBeforeTeardown,
    /// It recorded its end, and its process was killed before it had ended.
    KilledAfterTeardown,
    /// A panic ended it.
    Panicked,
    /// It disappeared, and its record has no request to stop.
    Vanished,
    /// The machine was booted again since, and the run had not recorded its end.
    Rebooted,
    /// It is alive.
    Running,
    /// It has recorded no end, and from here it cannot be seen whether it is alive: it ran on another
    /// machine, or in another pod or container.
    MaybeAlive,
    /// It ended by itself, in a way that this version does not know.
    Unknown,
}

/// Why it ended as it did, if there is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The run recorded its end itself.
    Recorded,
    /// It panicked, and recorded that itself.
    Panic,
    /// systemd's stop timeout was over, and systemd sent SIGKILL.
    StopTimeout,
    /// A container's grace period was over, and its runtime sent SIGKILL.
    GracePeriod,
    /// The kernel OOM-killed it.
    OutOfMemory,
    /// The machine was booted again since.
    Reboot,
    /// It ran on another machine, or in another boot. Which of the two is not known.
    Elsewhere,
    /// A signal ended it. The evidence names the signal.
    Signal,
    /// It exited by itself, with a status.
    Exit,
    /// It missed systemd's watchdog.
    Watchdog,
    /// Its start took longer than systemd's `TimeoutStartSec=`.
    StartTimeout,
    /// It ran longer than systemd's `RuntimeMaxSec=`.
    RuntimeMax,
    /// One of systemd's timeouts was over. Which one is not known.
    Timeout,
    /// The kernel OOM-killed a process of its unit, and systemd stopped the unit.
    OomPolicy,
    /// Process 1 of its container ended.
    ContainerEnded,
    /// Its process has executed another program.
    Exec,
    /// Its process lives, or its lock is held.
    Alive,
    /// The record does not show it.
    Unknown,
}

display_as_in_json!(Reason, RunOutcome);

/// A phase that was still running when the run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenPhase {
    /// Its name.
    pub phase: String,
    /// The group it ran in, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How long it ran at least, in microseconds: from its start to the last event.
    pub at_least_us: u64,
    /// How long it ran at most, in microseconds: until the likely kill, until its timeout, or until
    /// the post-mortem; absent if none of these is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most_us: Option<u64>,
    /// Its budget, in microseconds; absent if it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_us: Option<u64>,
}

/// The sender of the first signal, as the kernel reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SignalSender {
    /// The pid; 0 if it is outside the run's pid namespace.
    pub pid: u32,
    /// Its name; absent if it had exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// How a run ended, why, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PostMortem {
    /// How it ended.
    pub outcome: RunOutcome,
    /// The service's name.
    pub service: String,
    /// The process.
    pub pid: u32,
    /// The user who owns the record, if that is neither the owner of its folder, nor root, nor the
    /// reader. Such a user may have made it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_uid: Option<u32>,
    /// The pod that it ran in, `NAMESPACE/NAME` or `NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The name of the host or container that it ran on, if that is not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When the record began.
    pub started: Utc,
    /// When the last event was written: the run lived at least until then.
    pub last: Utc,
    /// The phases that ran at the end, in the order in which they began.
    pub phases: Vec<OpenPhase>,
    /// The phase that ended last, as `GROUP/PHASE` in a group; only if the run was killed between
    /// phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_phase: Option<String>,
    /// The first signal's name, or `request` or `service_ended`; absent if nothing asked the
    /// run to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The cause of the stop, as one word, with what systemd showed during the stop taken into
    /// account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Who sent the first signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<SignalSender>,
    /// From the first signal to the last event, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_signal_us: Option<u64>,
    /// The deadline, in microseconds from the first signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// When the stop timeout of the supervisor ends, in microseconds from the first signal; absent if
    /// it is not known, or if the signal started none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_us: Option<u64>,
    /// How it ended, as the run itself recorded it; absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<ExitKind>,
    /// The exit status that the run was about to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that the run was about to end by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    /// Why systemd stopped it, as systemd showed during the stop; absent if systemd showed nothing.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
    /// The result of the unit in systemd's words, such as `timeout`; absent if systemd has not
    /// reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_result: Option<String>,
    /// The signal that ended it, as systemd reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<String>,
    /// What witnesses said about its end.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
    /// From the last event to the latest time at which it can have died, in microseconds; absent if
    /// it ended by itself, or if that time is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_within_us: Option<u64>,
    /// Why it ended this way.
    pub reason: Reason,
    /// What that rests on.
    pub basis: Basis,
    /// The evidence for the reason, as text.
    pub evidence: String,
    /// What to change, as text; absent if there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl PostMortem {
    /// Returns whether the run ended as planned, and nothing failed, timed out, or was skipped.
    pub fn is_clean(&self) -> bool {
        self.outcome == RunOutcome::Clean
    }
}

/// One line of `key=value` fields that [`crate::logfmt::parse`] reads back; overlong names are cut.
/// `phase_for` is for the phase that began first.
impl Display for PostMortem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &String| truncate(text, MAX_SHOWN);
        let span = |us: u64| Span(us).to_string();
        let first = self.phases.first();
        let phases = self.phases.iter().map(|p| phase_name(&p.phase, p.group.as_deref()));
        let phases = phases.collect::<Vec<_>>().join(",");
        let sender = self.sender.as_ref();
        let fields = [
            ("outcome", Some(self.outcome.to_string())),
            ("service", Some(name(&self.service))),
            ("pid", Some(self.pid.to_string())),
            ("file_uid", self.file_uid.map(|uid| uid.to_string())),
            ("pod", self.pod.as_ref().map(name)),
            ("host", self.host.as_ref().map(name)),
            ("phase", first.map(|_| name(&phases))),
            ("phase_for", first.map(|phase| span(phase.at_least_us))),
            ("phase_for_at_most", first.and_then(|phase| phase.at_most_us).map(span)),
            ("after_phase", self.after_phase.as_ref().map(name)),
            ("signal", self.signal.as_ref().map(name)),
            ("cause", self.cause.as_ref().map(name)),
            ("sender_pid", sender.map(|sender| sender.pid.to_string())),
            ("sender_name", sender.map(|s| s.name.as_ref().map_or("?".to_owned(), name))),
            ("sender_uid", sender.and_then(|sender| sender.uid).map(|uid| uid.to_string())),
            ("after_signal", self.after_signal_us.map(span)),
            ("deadline", self.deadline_us.map(span)),
            ("exit_code", self.exit_code.map(|code| code.to_string())),
            ("exit_signal", self.exit_signal.as_ref().map(name)),
            ("last_event", Some(self.last.to_string())),
            ("died_within", self.died_within_us.map(span)),
            ("service_result", self.service_result.as_ref().map(name)),
            ("killed_by", self.killed_by.as_ref().map(name)),
            ("stop_reason", self.explained.as_ref().map(|explained| name(&explained.reason))),
            ("reason", Some(self.reason.to_string())),
            ("basis", Some(self.basis.to_string())),
            ("evidence", Some(self.evidence.clone())),
            ("advice", self.advice.clone()),
        ];
        let field = |(key, value): (&str, Option<String>)| {
            value.map(|value| format!("{key}={}", Value(&value)))
        };
        f.write_str(&fields.into_iter().filter_map(field).collect::<Vec<_>>().join(" "))
    }
}

/// `GROUP/PHASE`, or `PHASE` if it is in no group.
pub fn phase_name(phase: &str, group: Option<&str>) -> String {
    match group {
        Some(group) => format!("{group}/{phase}"),
        None => phase.to_owned(),
    }
}

/// Microseconds shown as seconds, to the millisecond, rounded down: `3s`, `2.98s`, `0.012s`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exact to the millisecond for 285,000 years.
        let millis = self.0 / 1000;
        write!(f, "{}s", millis as f64 / 1000.0)
    }
}
