//! The schema: the fields of each event. `docs/record-fields.md` documents it for users.
//!
//! Within version 1 fields are only added, so every struct here is `#[non_exhaustive]`. Its `new`
//! takes the required fields; the others are set afterwards. A field that is `None` or empty is
//! left out of the line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::few::few_values;
use super::phase::{PhaseFinished, PhaseProgress, PhaseStarted};
use crate::basis::{Basis, Source};
use crate::duration::Timespan;

/// What happened. In JSON the fields of an event are next to the field `event`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line: the run and its limits.
    RunStarted(Box<RunStarted>),
    /// A request to stop.
    Signal(SignalEvent),
    /// systemd has shown why it stops the run.
    Explained(Explained),
    /// The deadline has moved, because systemd has reported its stop timeout.
    DeadlineMoved(DeadlineMoved),
    /// A phase began.
    PhaseStarted(PhaseStarted),
    /// A phase reported its progress.
    PhaseProgress(PhaseProgress),
    /// A phase ended, or was skipped.
    PhaseFinished(PhaseFinished),
    /// A phase or the runtime has exceeded its timeout or makes no progress.
    #[serde(rename = "wedged")]
    Stalled(Stalled),
    /// The run is alive. It says so at least once a second during a stop, so that the time of a
    /// kill is known.
    Alive,
    /// The diagnostic was started, or ended.
    Diag(Diag),
    /// The last line of a run that ended by itself.
    Stopped(Stopped),
    /// What a witness said about the end of the run, after that end.
    Witness(Witness),
    /// An event of a newer writer, of which only the name is kept. Only the reader makes these.
    #[serde(untagged)]
    Unknown(Unknown),
}

display_as_in_json!(DiagState, ExitKind, ForcedBy, SignalKind, StalledWhat);

/// The facts about the run that are known at its start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunStarted {
    /// The service's name, as it was passed to the builder.
    pub service: String,
    /// The pid, in the process's own pid namespace.
    pub pid: u32,
    /// When the process started, in clock ticks since the boot: field 22 of `/proc/self/stat`
    /// (`proc_pid_stat(5)`). It distinguishes this process from a later one with the same pid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// [`crate::clock::boot_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The command line, its arguments joined by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// The systemd unit; absent outside of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Which systemd runs the unit, `system` or `user`; absent outside of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// systemd's id of this invocation of the unit (`INVOCATION_ID`); absent outside of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// The path of the cgroup that counts its memory, as its own `/proc/self/cgroup` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The name that the kernel knows the process by (`/proc/self/comm`), which its log shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_name: Option<String>,
    /// The parent process at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// The parent's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_name: Option<String>,
    /// The Kubernetes pod, `NAMESPACE/NAME` or `NAME`; absent outside of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The host name; in a container usually its id, or the pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `/etc/machine-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The inode of the pid namespace to which `pid` belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
    /// The pid in the machine's first pid namespace, in which the audit log names processes; absent if
    /// it is not visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_pid: Option<u32>,
    /// The real user id; absent in a user namespace, in which it is another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The locked file, as `DEVICE:INODE`; absent if its file system has no locks. [`Recorder::create`]
    /// sets it.
    ///
    /// [`Recorder::create`]: super::Recorder::create
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// systemd's stop timeout (`TimeoutStopUSec`), in microseconds or `"infinity"`; absent if
    /// it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_us: Option<Timespan>,
    /// The deadline of a teardown, in microseconds; absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// The supervisor's grace period as it was configured, in microseconds, such as the pod's
    /// `terminationGracePeriodSeconds`; absent if none was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_us: Option<u64>,
    /// The configured drain timeout, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_us: Option<u64>,
    /// The version of the crate that wrote the record.
    pub version: String,
    /// `oom_kill` of the cgroup's `memory.events` at the start: how many of its processes the kernel
    /// has OOM-killed ("Control Group v2", Memory).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. systemd makes a new cgroup at every start of a unit, also
    /// at an automatic restart, and its counter starts at 0 again (seen with systemd 252).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_inode: Option<u64>,
}

impl RunStarted {
    /// A run of `service` with the pid `pid`, written by this version. All other fields are absent.
    pub fn new(service: impl Into<String>, pid: u32) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { service: service.into(), pid, version, ..Self::default() }
    }
}

/// What requested the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// A POSIX signal.
    #[default]
    Signal,
    /// The program itself, with a reason.
    Request,
    /// The service's own future ended.
    ServiceEnded,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

/// A request to stop.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SignalEvent {
    /// The kind of request.
    pub kind: SignalKind,
    /// The signal's name, such as `SIGTERM`; absent if it was not a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The number of the request: 1 for the first, 2 for the second, …
    pub ordinal: u32,
    /// The pid of the sender, as the kernel reported it; 0 if it is outside our pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_pid: Option<u32>,
    /// The sender's name; absent if it had exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// The sender's real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_uid: Option<u32>,
    /// The cause, as one word.
    pub cause: String,
    /// The context line of the log, as text.
    pub line: String,
    /// The whole context. `null` if there is none.
    #[serde(default, skip_serializing_if = "Value::is_null", deserialize_with = "few_values")]
    pub context: Value,
    /// The deadline of the teardown, in microseconds from this signal; absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// The pre-stop delay in microseconds: how long at most the service continues to serve after
    /// this signal, but is not ready, before the teardown begins. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_us: Option<u64>,
    /// [`RunStarted::stop_timeout_us`]. systemd's answer often comes only after the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_us: Option<Timespan>,
}

impl SignalEvent {
    /// A request of that kind and cause. All other fields are absent or empty.
    pub fn new(kind: SignalKind, ordinal: u32, cause: impl Into<String>) -> Self {
        Self { kind, ordinal, cause: cause.into(), ..Self::default() }
    }
}

/// Why systemd stops the run, as systemd showed during the stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explained {
    /// The reason as one word, such as `restart_job`.
    pub reason: String,
    /// The reason as text, in which foreign text is escaped.
    pub detail: String,
    /// The other units that the reason names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// The cause of the stop, with what systemd showed taken into account.
    pub cause: String,
    /// What the reason rests on.
    pub basis: Basis,
}

impl Explained {
    /// An explanation that names no other unit.
    #[doc(hidden)]
    pub fn new(
        reason: impl Into<String>,
        detail: impl Into<String>,
        cause: impl Into<String>,
        basis: Basis,
    ) -> Self {
        let (reason, detail, cause) = (reason.into(), detail.into(), cause.into());
        Self { reason, detail, units: Vec::new(), cause, basis }
    }
}

/// What a witness said about the end of a run. It is written after the run, by `forensics last` or
/// by the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// The witness.
    pub source: Source,
    /// What it said, by the names of its fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// systemd has reported its stop timeout during the stop, and it differs from what was known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeadlineMoved {
    /// [`SignalEvent::deadline_us`], from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    /// [`RunStarted::stop_timeout_us`], from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_us: Option<Timespan>,
}

/// What is stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StalledWhat {
    /// A phase.
    Phase,
    /// The async runtime: it no longer runs its tasks.
    Runtime,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

/// A phase or the runtime has exceeded its timeout or makes no progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stalled {
    /// What is stalled.
    pub what: StalledWhat,
    /// The stalled phase, or the phase that ran when the runtime stalled; absent if none ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The group of that phase, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How long it has been stalled, in microseconds.
    pub for_us: u64,
    /// What was observed, as text.
    pub detail: String,
    /// The threads and what each waits for. `null` if that is not known. This crate does not
    /// interpret it.
    #[serde(default, skip_serializing_if = "Value::is_null", deserialize_with = "few_values")]
    pub threads: Value,
}

impl Stalled {
    /// A stall of that duration, without phase and threads.
    pub fn new(what: StalledWhat, for_us: u64, detail: impl Into<String>) -> Self {
        Self { what, phase: None, group: None, for_us, detail: detail.into(), threads: Value::Null }
    }
}

/// The state of the diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiagState {
    /// Its process was started.
    Started,
    /// It succeeded.
    Finished,
    /// It could not be started, or failed.
    Failed,
    /// It exceeded its time limit and was killed.
    TimedOut,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

/// The diagnostic was started, or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diag {
    /// Its state.
    pub state: DiagState,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its output file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Diag {
    /// An event with only the state.
    pub fn new(state: DiagState) -> Self {
        Self { state, pid: None, path: None, error: None }
    }
}

/// How a run ended, as the run itself recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitKind {
    /// As planned: the service and every phase ended without an error.
    #[default]
    Clean,
    /// A phase timed out, or was skipped because no time was left for it.
    TimedOut,
    /// A phase was cut short or skipped, because the stop was escalated.
    CutShort,
    /// The service or a phase failed or panicked, or a phase was registered wrongly.
    Failed,
    /// The process was ended at once: by a further signal, at the deadline, or because it did not
    /// end after its teardown.
    Forced,
    /// A panic ended it.
    Panicked,
    /// Its guard was dropped before the end of the teardown. Either `main` returned early, for
    /// example with an error at the start, or the future of `run` was dropped.
    Abandoned,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

impl ExitKind {
    /// The exit status of a process that ends this way, if nothing else is configured. `None` if
    /// the guard does not decide it.
    pub fn default_status(self) -> Option<u8> {
        match self {
            // For systemd, 0 is a success. A phase that timed out has used the time that it was
            // given, so it is not a failure of the unit.
            ExitKind::Clean | ExitKind::TimedOut => Some(0),
            ExitKind::CutShort | ExitKind::Failed => Some(1),
            // `EX_SOFTWARE` of sysexits.h.
            ExitKind::Forced => Some(70),
            ExitKind::Panicked | ExitKind::Abandoned | ExitKind::Other => None,
        }
    }
}

/// What made a run end at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ForcedBy {
    /// A further signal.
    Signal,
    /// The deadline passed before the teardown ended.
    Deadline,
    /// The process did not end after its teardown.
    NoExit,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

/// The last line of a run that ended by itself. It is written only when the end is certain, and not
/// for a panic that was caught.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stopped {
    /// How it ended.
    pub how: ExitKind,
    /// The exit status that the process is about to return; absent if it is not known, as after
    /// `Abandoned`, or if the process ends by a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that the process is about to end by, such as `SIGTERM`; absent if it ends with an
    /// exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    /// Microseconds from the first signal, or from the start if there was none.
    pub total_us: u64,
    /// The panic's message, if it panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
    /// The panic's place, `file:line:column`, if it panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What made it end at once, if it was forced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_by: Option<ForcedBy>,
    /// The state at that time, as text: the running phases, and what each thread waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// [`RunStarted::oom_kill`] now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// How many signals came that have no lines of their own; absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_signals: Option<u64>,
}

impl Stopped {
    /// An end that is neither a panic nor forced.
    pub fn new(how: ExitKind, exit_code: impl Into<Option<i32>>, total_us: u64) -> Self {
        Self { how, exit_code: exit_code.into(), total_us, ..Self::default() }
    }
}

/// An event of a newer writer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unknown {
    /// The event's name.
    pub event: String,
}
