//! The schema: what each event says. `docs/records.md` tells the same to users.
//!
//! Within version 1 fields are only ever added, so every struct here is `#[non_exhaustive]`: made
//! by its `new`, which takes what an event cannot be without, then filled in. A field that is
//! `None` or empty is left out of the line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::phase::{PhaseFinished, PhaseProgress, PhaseStarted};
use super::timespan_us;
use super::words::words;
use crate::duration::Timespan;

/// What happened, with the event's own fields. In JSON the fields stand flat beside `event`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The first line: who runs, and under which limits.
    RunStarted(RunStarted),
    /// Something asked the run to stop.
    Signal(Signal),
    /// A phase began.
    PhaseStarted(PhaseStarted),
    /// A phase told how far it is.
    PhaseProgress(PhaseProgress),
    /// A phase ended, or was skipped.
    PhaseFinished(PhaseFinished),
    /// A phase or the runtime is past its timeout or makes no progress.
    Wedged(Wedged),
    /// News of the diagnostic.
    Diag(Diag),
    /// The last line of a run that ended by itself.
    Stopped(Stopped),
    /// An event that only a newer writer knows. Only readers make these.
    #[serde(untagged)]
    Unknown(Unknown),
}

impl Event {
    /// The event's name, as it stands in the record.
    pub fn name(&self) -> &str {
        match self {
            Self::RunStarted(_) => "run_started",
            Self::Signal(_) => "signal",
            Self::PhaseStarted(_) => "phase_started",
            Self::PhaseProgress(_) => "phase_progress",
            Self::PhaseFinished(_) => "phase_finished",
            Self::Wedged(_) => "wedged",
            Self::Diag(_) => "diag",
            Self::Stopped(_) => "stopped",
            Self::Unknown(unknown) => &unknown.event,
        }
    }
}

/// The run, as it is known at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunStarted {
    /// The service's name, as its builder was given it.
    pub service: String,
    /// The process, in its own pid namespace.
    pub pid: u32,
    /// When the process started, in clock ticks since the boot: field 22 of `/proc/self/stat`
    /// (`proc_pid_stat(5)`). With it a pid used again is told from this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// [`crate::clock::boot_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The command line, its arguments joined by blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// The systemd unit; absent outside of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Which systemd runs the unit, `system` or `user`; absent outside of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// The Kubernetes pod, `NAMESPACE/NAME` or `NAME`; absent outside of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// systemd's stop timeout (`TimeoutStopUSec`), in microseconds or `"infinity"`; absent where
    /// it could not be learnt.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timespan_us")]
    pub stop_timeout_us: Option<Timespan>,
    /// The longest a teardown may take, in microseconds; absent where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// The supervisor's grace period as it was configured, in microseconds, such as the pod's
    /// `terminationGracePeriodSeconds`; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_us: Option<u64>,
    /// The configured drain timeout, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_us: Option<u64>,
    /// The version of the crate that writes.
    pub version: String,
    /// `oom_kill` of the cgroup's `memory.events` at the start: processes of the cgroup that the
    /// kernel has killed for want of memory ("Control Group v2", Memory).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// The inode of the folder of the cgroup whose counter that is, to know it again:
    /// systemd makes a unit's cgroup anew at every start, an automatic restart
    /// included, and the counter then begins at 0 again (seen with systemd 252).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_inode: Option<u64>,
}

impl RunStarted {
    /// A run of `service` under `pid`, written by this version; everything else absent.
    pub fn new(service: impl Into<String>, pid: u32) -> Self {
        Self {
            service: service.into(),
            pid,
            start_time: None,
            boot_id: None,
            exe: None,
            cmdline: None,
            unit: None,
            manager: None,
            pod: None,
            stop_timeout_us: None,
            deadline_us: None,
            grace_us: None,
            drain_timeout_us: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oom_kill: None,
            cgroup_inode: None,
        }
    }
}

words! {
    /// What asked the run to stop.
    SignalKind {
        /// A POSIX signal.
        Signal = "signal",
        /// The program itself, with a reason.
        Request = "request",
        /// The service's own future ended.
        ServiceEnded = "service_ended",
    }
}

/// Something asked the run to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signal {
    /// What it was.
    pub kind: SignalKind,
    /// The signal's name, `SIGTERM`; absent where it was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// 1 for the first that asked this run to stop, 2 for the second, …
    pub ordinal: u32,
    /// The process that sent it, as the kernel says; 0 where it lives outside our pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_pid: Option<u32>,
    /// The sender's name; absent where it was gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// The sender's real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_uid: Option<u32>,
    /// The cause, as one word.
    pub cause: String,
    /// The one line of the log, as text.
    pub line: String,
    /// The whole context; opaque here. `null` where there is none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// When the teardown must have ended, in microseconds from this signal; absent where there is
    /// no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// How long the service goes on as before after this signal, not ready any more, until the
    /// teardown begins; in microseconds, at most. Absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_us: Option<u64>,
    /// [`RunStarted::stop_timeout_us`], which is asked of systemd while the run starts and is
    /// often known only after its first line.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timespan_us")]
    pub stop_timeout_us: Option<Timespan>,
}

impl Signal {
    /// A stop of that kind and cause; everything else absent or empty.
    pub fn new(kind: SignalKind, ordinal: u32, cause: impl Into<String>) -> Self {
        Self {
            kind,
            signal: None,
            ordinal,
            sender_pid: None,
            sender_name: None,
            sender_uid: None,
            cause: cause.into(),
            line: String::new(),
            context: Value::Null,
            deadline_us: None,
            lead_us: None,
            stop_timeout_us: None,
        }
    }
}

words! {
    /// What is wedged.
    WedgedWhat {
        /// A phase.
        Phase = "phase",
        /// The async runtime: it no longer runs its tasks.
        Runtime = "runtime",
    }
}

/// A phase or the runtime is past its timeout or makes no progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Wedged {
    /// What is wedged.
    pub what: WedgedWhat,
    /// The phase, or the one that ran when the runtime stood still; absent where none ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The group of that phase, where it runs in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// For how long already, in microseconds.
    pub for_us: u64,
    /// What was seen, as text.
    pub detail: String,
    /// The threads and what each waits for; opaque here. `null` where they were not looked at.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub threads: Value,
}

impl Wedged {
    /// Something wedged for so long; phase and threads absent.
    pub fn new(what: WedgedWhat, for_us: u64, detail: impl Into<String>) -> Self {
        Self { what, phase: None, group: None, for_us, detail: detail.into(), threads: Value::Null }
    }
}

words! {
    /// How far the diagnostic is.
    DiagState {
        /// Its process was started.
        Started = "started",
        /// It ended well.
        Finished = "finished",
        /// It could not be started, or ended badly.
        Failed = "failed",
        /// It ran past its time and was ended.
        TimedOut = "timed_out",
    }
}

/// News of the diagnostic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diag {
    /// How far it is.
    pub state: DiagState,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Diag {
    /// That state alone.
    pub fn new(state: DiagState) -> Self {
        Self { state, pid: None, path: None, error: None }
    }
}

words! {
    /// How a run ended that could still say so.
    How {
        /// As planned.
        Clean = "clean",
        /// A phase timed out, or the deadline passed.
        TimedOut = "timed_out",
        /// The service or a phase failed.
        Failed = "failed",
        /// A further signal ended the process at once.
        Forced = "forced",
        /// A panic ended it.
        Panicked = "panicked",
        /// It gave its guard up before a teardown had ended: `main` returned early, as with an error
        /// at the start, or `run` was dropped.
        Abandoned = "abandoned",
    }
}

words! {
    /// What made a run end at once.
    ForcedBy {
        /// A further signal.
        Signal = "signal",
        /// The deadline passed, and the teardown had not ended.
        Deadline = "deadline",
        /// The teardown had ended, and the process did not.
        NoExit = "no_exit",
    }
}

/// The last line of a run that ended by itself. It is written once, when nothing can bring the
/// run back: a panic that was caught is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stopped {
    /// How it ended.
    pub how: How,
    /// The exit status that the process is about to return; absent where it is not known, as of an
    /// abandoned guard's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Microseconds from the first signal, or from the start where there was none.
    pub total_us: u64,
    /// The panic's message, where it panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
    /// The panic's place, `file:line:column`, where it panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What made it end at once, where it was forced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_by: Option<ForcedBy>,
    /// What was seen then, as text: the phases that ran, what each thread waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// [`RunStarted::oom_kill`] now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// How many signals came beyond those that have lines of their own; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_signals: Option<u64>,
}

impl Stopped {
    /// An end without panic and force.
    pub fn new(how: How, exit_code: impl Into<Option<i32>>, total_us: u64) -> Self {
        Self {
            how,
            exit_code: exit_code.into(),
            total_us,
            panic: None,
            location: None,
            forced_by: None,
            detail: None,
            oom_kill: None,
            more_signals: None,
        }
    }
}

/// An event that only a newer writer knows: its name, and its own fields as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Unknown {
    /// The event's name.
    pub event: String,
    /// Its own fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
