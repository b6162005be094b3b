//! Everything that is known about a stop.
//!
//! [`StartupInfo`] holds what was true when the service started. [`ShutdownContext::start`] adds
//! what the handler saw of the signal, and reads no file. [`Probe`]s find the other facts, one
//! each, and [`ShutdownContext::apply`] adds their results. Each fact can be missing on its own,
//! and nothing here fails. The caller decides how long a probe may block, because this crate starts
//! no thread. [`ShutdownContext::capture`] is for callers that may block.
//!
//! [`Display`](std::fmt::Display) gives the context line of the log, and serde the JSON of the
//! report and the record.

mod kubernetes;
mod line;
mod platform;
mod probe;
mod sender;
mod startup;
#[cfg(test)]
mod tests;

use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use crate::capture::{Signal, SignalInfo};
use crate::cause::{self, Basis, Cause, CauseDecision};
use crate::cgroupfs::Memory;
use crate::clock;
use crate::marker::Marker;
use crate::process::{ProcessSummary, own_pid};
use crate::record::Utc;
pub use kubernetes::Pod;
#[doc(hidden)]
pub use platform::{PLATFORMS, Platform};
#[doc(hidden)]
pub use probe::{Found, Probe, ProbeResult};
pub use sender::Sender;
pub use startup::StartupInfo;
#[doc(hidden)]
pub use startup::SystemdInfo;

/// What requested the stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A POSIX signal.
    Signal {
        /// The signal.
        signal: Signal,
    },
    /// The program itself.
    Request {
        /// The reason it gave.
        reason: String,
    },
    /// The service's own future ended before anything requested a stop.
    ServiceEnded {
        /// Its error, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// The facts of one stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShutdownContext {
    /// When the stop was requested: RFC 3339, UTC, microseconds.
    pub ts: Utc,
    /// The same on `CLOCK_MONOTONIC`, in microseconds.
    pub mono_us: u64,
    /// What requested the stop. Absent in a [snapshot](Self::snapshot).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// The cause, and the evidence for it. Absent without a trigger.
    #[doc(hidden)]
    #[serde(default, rename = "verdict", skip_serializing_if = "Option::is_none")]
    pub decision: Option<CauseDecision>,
    /// The process that sent the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// How long the OS handler took, in nanoseconds.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_ns: Option<u64>,
    /// Our parent. It can be the sender, but is usually another process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ProcessSummary>,
    /// This process.
    pub process: ProcessSummary,
    /// Whether a service manager runs us.
    pub under_systemd: bool,
    /// What systemd passed to us.
    #[doc(hidden)]
    pub systemd: SystemdInfo,
    /// The container runtime, if one can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The Kubernetes pod, if we are in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The platform that runs us, such as `fly`, if our environment identifies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The memory counters of our control group.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The load averages over 1, 5 and 15 minutes, by `proc_loadavg(5)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<[f32; 3]>,
    /// The markers that exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<Marker>,
    /// The other facts that decide the cause. Absent in a snapshot and in a context that was read
    /// from a record.
    #[serde(skip)]
    basis: Option<Basis>,
}

impl ShutdownContext {
    /// The facts about a stop by `trigger` that are known without reading a file: those of the
    /// start, and what the handler saw if it was a signal.
    #[doc(hidden)]
    pub fn start(startup: &StartupInfo, trigger: Trigger, signal: Option<&SignalInfo>) -> Self {
        let mut context = Self::without_trigger(startup);
        if let Some(signal) = signal {
            context.ts = Utc::from_system(signal.wall);
            context.mono_us = signal.mono_ns / 1000;
            context.capture_ns = Some(signal.took_ns);
            context.sender = Sender::of_signal(signal);
        }
        let mut is_ancestor = false;
        if let Some(sender) = &mut context.sender {
            let is_parent = context.process.ppid.is_some_and(|ppid| ppid > 0 && sender.is(ppid));
            is_ancestor = is_parent || startup.is_ancestor(&sender.process);
            sender.forwards = cause::is_container_init(&sender.process, is_ancestor);
        }
        context.trigger = Some(trigger);
        context.basis = Some(Basis {
            code: signal.map(|signal| signal.code),
            is_parent_death_signal: signal.is_some_and(|signal| signal.is_parent_death_signal),
            first_parent: startup.parent.as_ref().map(|parent| parent.pid),
            in_pid_namespace: startup.in_pid_namespace,
            in_container: startup.is_in_container(),
            is_ancestor,
            has_watchdog: true,
            is_service: startup.is_service(),
        });
        context.decide();
        context
    }

    /// States that no watchdog message is overdue. Then a SIGABRT of systemd has another reason.
    #[doc(hidden)]
    pub fn rule_out_watchdog(&mut self) {
        if let Some(basis) = &mut self.basis {
            basis.has_watchdog = false;
        }
        self.decide();
    }

    /// Adds the result of a probe, and decides the cause again from all facts. Pure.
    ///
    /// A result may come late, and after those of later probes. A result about a process that
    /// turned out not to be the sender is dropped.
    #[doc(hidden)]
    pub fn apply(&mut self, result: ProbeResult) {
        let Some(found) = result else { return };
        match found {
            Found::Sender(sender) => self.sender = Some(sender),
            Found::Parent(parent) => {
                self.process.ppid = Some(parent.pid);
                self.parent = Some(parent);
            }
            Found::Tracer(tracer) => self.process.tracer_pid = Some(tracer),
            Found::Load(load) => self.load = Some(load),
            Found::Marker(marker) => self.markers.push(marker),
            Found::Memory(memory) => self.memory = Some(memory),
            about_sender => {
                if let Some(sender) = &mut self.sender {
                    sender.add(about_sender);
                }
            }
        }
        self.decide();
    }

    /// Captures the whole context of a stop, for a caller that may block: [`start`](Self::start),
    /// and all probes one after another.
    pub fn capture(startup: &StartupInfo, trigger: Trigger, signal: Option<&SignalInfo>) -> Self {
        Self::start(startup, trigger, signal).with_all_probes(startup)
    }

    /// Captures the current facts, without a stop. May block, as [`capture`](Self::capture) may.
    pub fn snapshot(startup: &StartupInfo) -> Self {
        Self::without_trigger(startup).with_all_probes(startup)
    }

    fn with_all_probes(mut self, startup: &StartupInfo) -> Self {
        for probe in startup.line_probes().into_iter().chain(Probe::OF_RECORD) {
            let result = probe.run(&self, startup);
            self.apply(result);
        }
        self
    }

    fn without_trigger(startup: &StartupInfo) -> Self {
        // The probes read again what can have changed since the start.
        let mut process = ProcessSummary { tracer_pid: None, ..startup.process.clone() };
        if process.pid == own_pid() {
            // Our parent changes when it dies. This asks the kernel and needs no /proc.
            process.ppid = Some(getppid().as_raw());
        }
        Self {
            ts: Utc::now(),
            mono_us: clock::mono_us(),
            trigger: None,
            decision: None,
            sender: None,
            capture_ns: None,
            // Its name may have changed by exec.
            parent: process.ppid.filter(|&pid| pid > 0).map(ProcessSummary::unknown),
            under_systemd: startup.systemd.is_managed(),
            systemd: startup.systemd.clone(),
            container: startup.container.clone(),
            pod: startup.pod.clone(),
            platform: startup.platform.map(|platform| platform.id.to_owned()),
            memory: None,
            load: None,
            markers: Vec::new(),
            basis: None,
            process,
        }
    }

    fn decide(&mut self) {
        if let (Some(trigger), Some(basis)) = (&self.trigger, self.basis) {
            self.decision =
                Some(cause::decide(trigger, self.sender.as_ref(), &self.process, basis));
        }
    }

    /// Returns the cause of the stop. [`Cause::Unknown`] without a stop.
    pub fn cause(&self) -> Cause {
        self.decision.as_ref().map_or(Cause::Unknown, |decision| decision.cause)
    }

    /// Whether the sender of the signal may be a manager outside our pid namespace, or is not known
    /// because the handler did not see the signal.
    pub(crate) fn may_be_from_outside(&self) -> bool {
        let is_signal = matches!(self.trigger, Some(Trigger::Signal { .. }));
        match &self.sender {
            Some(sender) => is_signal && sender.is_verified() && sender.process.pid == 0,
            None => is_signal && self.capture_ns.is_none(),
        }
    }

    /// Returns the evidence for the cause, as text for people. It contains text from other
    /// processes: escape it.
    pub fn evidence(&self) -> Option<&str> {
        self.decision.as_ref().map(|decision| decision.evidence.as_str())
    }

    /// Returns the signal that requested the stop, if one did.
    pub fn signal(&self) -> Option<Signal> {
        match self.trigger {
            Some(Trigger::Signal { signal }) => Some(signal),
            _ => None,
        }
    }
}
