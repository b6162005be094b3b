//! How a stop went, for the program that was stopped.

use std::process::ExitCode;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::Sender;
use forensics_core::context::ShutdownContext;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Callback;
use crate::os::is_main_thread;
use crate::outcome::{Outcome, ServiceOutcome};

/// The whole of a stop. Serialises to JSON, durations in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use = "the process should end with its exit code"]
pub struct ShutdownReport {
    /// The service's name.
    pub service: String,
    /// Who asked, and why.
    pub context: ShutdownContext,
    /// The phases, in the order in which they ran.
    pub phases: Vec<PhaseReport>,
    /// How the service's own future ended.
    pub service_outcome: ServiceOutcome,
    /// Signals that came after the first one: 32 at most, and the second and third request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later_signals: Vec<LaterSignal>,
    /// How many more came than are listed there; of these only the number is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_signals: u64,
    /// What was wrong with the phases' registrations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// How long the teardown had at most.
    #[serde(rename = "deadline_us", with = "micros")]
    pub deadline: Duration,
    /// How long the service went on as before once it was asked to stop: the pre-stop delay
    /// ([`lead`](crate::Builder::lead)), zero by default.
    #[serde(default, rename = "lead_us", with = "micros")]
    pub lead: Duration,
    /// From the signal to the end of the teardown.
    #[serde(rename = "total_us", with = "micros")]
    pub total: Duration,
    /// Whether any phase was dropped at its time's end.
    pub timed_out: bool,
    /// What [`exit_code`](Self::exit_code) gives.
    pub exit_status: u8,
    /// Called by [`exit_code`](Self::exit_code), when the process is about to end.
    #[serde(skip)]
    pub(crate) on_exit: Option<Callback>,
}

impl ShutdownReport {
    /// The status to leave `main` with: 0 for a teardown that ended as planned, also where a phase
    /// timed out but the whole ended within its deadline; 1 where a phase or the service failed or
    /// panicked, or phases were registered wrongly. Both can be set in the builder.
    ///
    /// 0 even after SIGTERM: systemd counts it as clean, and 143, a shell's way to say SIGTERM, as
    /// a failure.
    ///
    /// Called on the process's main thread it also says that the process is about to end. The
    /// runtime's drop then waits for blocked threads, without limit; so the shutdown thread ends the process
    /// with 70 if it is still there at the deadline, and no sooner than in 1.5 s.
    pub fn exit_code(&self) -> ExitCode {
        if let Some(on_exit) = &self.on_exit
            && is_main_thread()
        {
            (on_exit.0)();
        }
        ExitCode::from(self.exit_status)
    }

    /// The phase or group of that name, wherever it ran.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        let mut all =
            self.phases.iter().flat_map(|phase| [phase].into_iter().chain(&phase.members));
        all.find(|phase| phase.name == name)
    }

    /// Whether something failed or panicked, or was registered wrongly.
    pub fn is_failed(&self) -> bool {
        !self.failure().is_empty()
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

/// What became of one phase, or of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// How it ended; a group ends like the worst of its members.
    pub outcome: Outcome,
    /// What it failed or panicked with, or why it was skipped, cut short or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it started, from the signal on.
    #[serde(rename = "offset_us", with = "micros")]
    pub offset: Duration,
    /// How long it ran.
    #[serde(rename = "took_us", with = "micros")]
    pub took: Duration,
    /// What it recorded.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// A group's members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PhaseReport>,
}

/// A signal that came while the teardown was under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LaterSignal {
    /// Which.
    pub signal: Signal,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// Its place among the requests, from 2 on; absent for one that came within 200 ms of the one
    /// before and counts as the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// When it came, from the first one on.
    #[serde(rename = "offset_us", with = "micros")]
    pub offset: Duration,
    /// Whether it ended the pre-stop delay ([`lead`](crate::Builder::lead)), and so cut no phase short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_lead: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

mod micros {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        crate::record_events::micros(*span).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
