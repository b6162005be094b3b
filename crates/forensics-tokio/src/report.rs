//! The report of a stop, for the program that was stopped.

use std::io::{self, Write};
use std::process::{ExitCode, Termination};
use std::time::Duration;

use forensics_core::capture::{self, Signal};
use forensics_core::cause::Cause;
use forensics_core::context::Sender;
use forensics_core::context::ShutdownContext;
use forensics_core::record::{ExitKind, Explained};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::outcome::{Outcome, ServiceOutcome};

/// The report of a stop. [`ShutdownGuard::run`](crate::ShutdownGuard::run) returns it.
///
/// Return it from `main`, which then ends with [`exit_status`](Self::exit_status):
///
/// ```no_run
/// use std::error::Error;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport};
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("gateway").install()?;
///     let stop = guard.token();
///     Ok(guard.run(async move { stop.cancelled().await }).await)
/// }
/// ```
///
/// It serializes to JSON, with durations in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use = "`main` should return it, or end with its exit code"]
pub struct ShutdownReport {
    /// The name of the service.
    pub service: String,
    /// Who asked for the stop, and why.
    pub context: ShutdownContext,
    /// Why systemd stopped the service, as systemd showed during the stop. Its `cause` takes that into
    /// account; the cause of the context does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
    /// The phases and groups, in the order in which they started.
    pub phases: Vec<PhaseReport>,
    /// How the service's own future ended.
    pub service_outcome: ServiceOutcome,
    /// The signals after the first one: at most 32, and always those that escalated the stop.
    #[serde(default, rename = "later_signals", skip_serializing_if = "Vec::is_empty")]
    pub repeated_signals: Vec<RepeatedSignal>,
    /// How many signals arrived that are not listed in `repeated_signals`.
    #[serde(default, rename = "more_signals", skip_serializing_if = "is_zero")]
    pub unlisted_signals: u64,
    /// Mistakes in the registration of phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// How long the teardown was allowed to take.
    #[serde(rename = "deadline_us", with = "micros")]
    pub deadline: Duration,
    /// How long the [pre-stop delay](crate::Builder::pre_stop_delay) lasted: zero by default.
    #[serde(default, rename = "lead_us", with = "micros")]
    pub pre_stop_delay: Duration,
    /// From the signal to the end of the teardown.
    #[serde(rename = "total_us", with = "micros")]
    pub total: Duration,
    /// Whether a phase was dropped because its time was up.
    pub timed_out: bool,
    /// How the teardown ended.
    pub how: ExitKind,
    /// The status for the process to end with: see [`exit_status`](crate::Builder::exit_status).
    ///
    /// After SIGTERM it is 0 as well, because for systemd 0 is a success and 143 (a shell's number for
    /// SIGTERM) is a failure. If [`exit_signal`](Self::exit_signal) is set, it is 128 plus the number of the
    /// signal.
    pub exit_status: u8,
    /// The signal for the process to end by, if [`exit_by_signal`](crate::Builder::exit_by_signal) is
    /// set. Only a report that `main` returns ends the process by it; [`exit_code`](Self::exit_code)
    /// does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<Signal>,
}

impl ShutdownReport {
    /// Returns the [`exit_status`](Self::exit_status) as the standard library's type.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_status)
    }

    /// Returns the phase or group with that name, including members of groups.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        let mut all =
            self.phases.iter().flat_map(|phase| [phase].into_iter().chain(&phase.members));
        all.find(|phase| phase.name == name)
    }

    /// Returns whether a phase or the service failed or panicked, or a phase was registered
    /// wrongly.
    pub fn is_failed(&self) -> bool {
        !self.failure().is_empty()
    }

    /// The cause of the stop, with what systemd showed taken into account.
    pub(crate) fn cause(&self) -> String {
        let explained = self.explained.as_ref().map(|explained| explained.cause.clone());
        explained.unwrap_or_else(|| self.context.cause().to_string())
    }

    /// What failed, in a few words; empty if nothing did.
    pub(crate) fn failure(&self) -> String {
        let service = self.service_outcome.error().map(|error| format!("the service: {error}"));
        let phases = self.phases.iter().filter(|phase| phase.outcome >= Outcome::Failed);
        let phases = phases.map(|phase| format!("{} {}", phase.name, phase.outcome));
        let all: Vec<_> =
            service.into_iter().chain(phases).chain(self.errors.iter().cloned()).collect();
        all.join("; ")
    }
}

impl Termination for ShutdownReport {
    fn report(self) -> ExitCode {
        if let Some(signal) = self.exit_signal {
            // Its buffer is otherwise written when the process exits.
            let _ = io::stdout().flush();
            capture::end_by(signal);
        }
        self.exit_code()
    }
}

/// How a phase or a group ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// How it ended. A group has the worst outcome of its members.
    pub outcome: Outcome,
    /// Its error or panic message, or why it was skipped, cut short or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long after the signal it started.
    #[serde(rename = "offset_us", with = "micros")]
    pub started_after: Duration,
    /// How long it ran.
    #[serde(rename = "took_us", with = "micros")]
    pub duration: Duration,
    /// What it recorded.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// The members of a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PhaseReport>,
}

/// A signal that came after the first one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RepeatedSignal {
    /// Which signal.
    pub signal: Signal,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// Why it was sent, decided as for the first signal.
    pub cause: Cause,
    /// Its number among the requests to stop: 2 for the second request. Absent if it came within
    /// 200 ms of the first signal of a request, and so belongs to that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// How long after the first signal it came.
    #[serde(rename = "offset_us", with = "micros")]
    pub received_after: Duration,
    /// Whether it ended the [pre-stop delay](crate::Builder::pre_stop_delay), and so cut no phase
    /// short.
    #[serde(default, rename = "ended_lead", skip_serializing_if = "std::ops::Not::not")]
    pub ended_delay: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde requires this signature.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whole microseconds, the unit of records and reports.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

mod micros {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        super::micros(*span).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
