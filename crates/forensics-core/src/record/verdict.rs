//! How a run died: the verdict, as it is handed to programs and shown in one line.
//!
//! It is reached by [`super::verdict`], from nothing but a [`super::Record`] and what is known
//! [`Now`]. `evidence` and `advice` are texts for people, in which whatever other processes wrote
//! is escaped; the other texts are as the record has them, and escaped by [`Display`] alone.

use std::fmt::{self, Display};
use std::fs::File;
use std::path::Path;

use serde::Serialize;

use super::event::How;
use super::folder::{is_locked, is_running};
use crate::clock::{Utc, boot_id, mono_us};
use crate::escape::{Quoted, cut};

/// Longest text of the record that is shown within another, in characters.
pub(super) const MAX_SHOWN: usize = 160;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It ended by itself and within its limits. It may still have failed at its work:
    /// [`Verdict::is_clean`] tells.
    Clean,
    /// It ended by itself, but a phase timed out or the deadline passed.
    TimedOut,
    /// A further signal ended it at once.
    Forced,
    /// It was killed after the first phase had begun: within a phase, or between two.
    KilledInPhase,
    /// It was asked to stop and killed before the first phase began.
    KilledBeforeTeardown,
    /// A panic ended it.
    Panicked,
    /// It was gone without having been asked to stop.
    Vanished,
    /// The machine went down or crashed before it had ended.
    Rebooted,
    /// It is alive.
    Running,
}

impl Outcome {
    /// The word for it, in JSON and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::TimedOut => "timed_out",
            Self::Forced => "forced",
            Self::KilledInPhase => "killed_in_phase",
            Self::KilledBeforeTeardown => "killed_before_teardown",
            Self::Panicked => "panicked",
            Self::Vanished => "vanished",
            Self::Rebooted => "rebooted",
            Self::Running => "running",
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why it ended as it did, as far as there is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The run said so itself.
    Recorded,
    /// It panicked, and said so itself.
    Panic,
    /// systemd's stop timeout was over, and systemd sent SIGKILL.
    StopTimeout,
    /// A container's grace period was over, and its runtime sent SIGKILL.
    GracePeriod,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// The machine's boot id has changed.
    Reboot,
    /// Its lock is held.
    Alive,
    /// Nothing recorded tells.
    Unknown,
}

impl Reason {
    /// The word for it, in JSON and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Panic => "panic",
            Self::StopTimeout => "stop_timeout",
            Self::GracePeriod => "grace_period",
            Self::OutOfMemory => "out_of_memory",
            Self::Reboot => "reboot",
            Self::Alive => "alive",
            Self::Unknown => "unknown",
        }
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known at the time of the verdict. What is not known rules nothing out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Now {
    /// Whether the record's lock is held.
    pub running: bool,
    /// The present boot.
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` now, in microseconds: the run had ended by then.
    pub mono_us: Option<u64>,
    /// The present `oom_kill` of the cgroup whose counter the run recorded.
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. Where it is not the recorded one, the cgroup has been
    /// made anew in between and its counter began anew, too: then it proves nothing.
    pub cgroup_inode: Option<u64>,
    /// The line of the kernel log by which the kernel says that it killed this run's process for
    /// want of memory, where it can be read and there is one.
    pub oom_line: Option<String>,
}

impl Now {
    /// What the system tells about the record at `path` and its machine: the lock, the boot, the
    /// clock. A record that cannot be opened counts as one that is not running. The facts on memory
    /// are left to the caller.
    pub fn look(path: &Path) -> Self {
        Self::with_lock(is_running(path).unwrap_or(false))
    }

    /// The same for an open file.
    pub(super) fn of_file(file: &File) -> Self {
        let now = Self::with_lock(is_locked(file).unwrap_or(false));
        // A run that is about to lock it should not find it locked while we read. Where this fails
        // the lock goes when the file is closed.
        let _ = file.unlock();
        now
    }

    fn with_lock(running: bool) -> Self {
        Self {
            running,
            boot_id: boot_id(),
            mono_us: Some(mono_us()),
            oom_kill: None,
            cgroup_inode: None,
            oom_line: None,
        }
    }
}

/// A phase that had not ended when the run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenPhase {
    /// Its name.
    pub phase: String,
    /// The group it ran in, where it ran in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How long it ran at least, in microseconds: from its start to the last event.
    pub at_least_us: u64,
    /// How long it ran at most, in microseconds: up to the likely kill, up to where it would have
    /// timed out, or up to the verdict; absent where none of these is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most_us: Option<u64>,
    /// Its budget, in microseconds; absent where it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_us: Option<u64>,
}

/// Who sent the first signal, as the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sender {
    /// The process; 0 where it lives outside the run's pid namespace.
    pub pid: u32,
    /// Its name; absent where it was gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// How a run ended, why, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// The service's name.
    pub service: String,
    /// The process.
    pub pid: u32,
    /// When the record began.
    pub started: Utc,
    /// When the last event was written: the run lived at least until then.
    pub last: Utc,
    /// The phases that ran at the end, the one that began first in front.
    pub phases: Vec<OpenPhase>,
    /// The phase that ended last, with its group in front; only where the run was killed between
    /// phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_phase: Option<String>,
    /// The first signal's name, or `request` or `service_ended`; absent where nothing asked the
    /// run to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The cause of the stop, as one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Who sent the first signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// From the first signal to the last event, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_signal_us: Option<u64>,
    /// The deadline, in microseconds from the first signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// How the run itself says it ended; absent where it could not say so any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// The exit status the run meant to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it ended like that.
    pub reason: Reason,
    /// What the reason was decided on, as text.
    pub evidence: String,
    /// What to change, as text; absent where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Verdict {
    /// Whether there is nothing to look into: the run ended as planned and nothing failed.
    pub fn is_clean(&self) -> bool {
        self.outcome == Outcome::Clean && self.how == Some(How::Clean)
    }

    /// How the run ended, in one word: its outcome; or its own word, such as `failed`, where it ended by
    /// itself and not well.
    pub fn ended(&self) -> &'static str {
        let own = self.how.filter(|_| self.outcome == Outcome::Clean);
        own.map_or(self.outcome.as_str(), How::as_str)
    }
}

/// One line of `key=value` fields, to be read back by [`crate::escape::fields`]; overlong names
/// are cut. `phase_for` is for the phase that began first.
impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outcome={}", self.outcome)?;
        name(f, "service", Some(&self.service))?;
        write!(f, " pid={}", self.pid)?;
        if let Some(first) = self.phases.first() {
            let names = self.phases.iter().map(|p| phase_name(&p.phase, p.group.as_deref()));
            name(f, "phase", Some(&names.collect::<Vec<_>>().join(",")))?;
            span(f, "phase_for", Some(first.at_least_us))?;
            span(f, "phase_for_at_most", first.at_most_us)?;
        }
        name(f, "after_phase", self.after_phase.as_deref())?;
        name(f, "signal", self.signal.as_deref())?;
        name(f, "cause", self.cause.as_deref())?;
        if let Some(sender) = &self.sender {
            write!(f, " sender_pid={}", sender.pid)?;
            name(f, "sender_name", Some(sender.name.as_deref().unwrap_or("?")))?;
            if let Some(uid) = sender.uid {
                write!(f, " sender_uid={uid}")?;
            }
        }
        span(f, "after_signal", self.after_signal_us)?;
        span(f, "deadline", self.deadline_us)?;
        if let Some(code) = self.exit_code {
            write!(f, " exit_code={code}")?;
        }
        write!(f, " last_event={} reason={}", self.last, self.reason)?;
        write!(f, " evidence={}", Quoted(&self.evidence))?;
        match &self.advice {
            Some(advice) => write!(f, " advice={}", Quoted(advice)),
            None => Ok(()),
        }
    }
}

fn name(f: &mut fmt::Formatter<'_>, key: &str, value: Option<&str>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {key}={}", Quoted(&cut(value, MAX_SHOWN))),
        None => Ok(()),
    }
}

fn span(f: &mut fmt::Formatter<'_>, key: &str, us: Option<u64>) -> fmt::Result {
    match us {
        Some(us) => write!(f, " {key}={}", Span(us)),
        None => Ok(()),
    }
}

/// A phase's name, behind its group's.
pub(super) fn phase_name(phase: &str, group: Option<&str>) -> String {
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
        let (seconds, millis) = (self.0 / 1_000_000, self.0 / 1000 % 1000);
        match format!("{millis:03}").trim_end_matches('0') {
            "" => write!(f, "{seconds}s"),
            fraction => write!(f, "{seconds}.{fraction}s"),
        }
    }
}
