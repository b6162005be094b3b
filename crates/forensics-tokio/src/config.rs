//! The settings of a guard.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_NAME_CHARS, truncate};
use forensics_core::systemd::{Alignment, DEFAULT_HEADROOM, Supervisor};

use crate::diag::DiagCommand;

/// What the builder collects. Times are as documented on its methods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) service: String,
    pub(crate) signals: Vec<Signal>,
    pub(crate) drain_timeout: Duration,
    pub(crate) headroom: Duration,
    /// `None`: the pre-stop delay, the drain timeout and [`BEYOND_DRAIN`].
    pub(crate) deadline: Option<Duration>,
    /// `None`: [`AFTER_PHASES`], or the drain timeout where there are no phases.
    pub(crate) service_grace: Option<Duration>,
    pub(crate) diag_log: Option<PathBuf>,
    pub(crate) diag_command: DiagCommand,
    pub(crate) record_dir: Option<PathBuf>,
    pub(crate) durable: bool,
    pub(crate) markers: Vec<(String, PathBuf)>,
    pub(crate) failure_status: u8,
    /// `None`: depends on the runtime, see [`low_latency`](crate::low_latency).
    pub(crate) low_latency_capture: Option<bool>,
    pub(crate) show_secrets: bool,
    pub(crate) escalation: Escalation,
    pub(crate) flush: Vec<Callback>,
    pub(crate) ready_at_run: bool,
    pub(crate) watchdog: bool,
    /// `None`: systemd is not asked for more time.
    pub(crate) extend_ceiling: Option<Duration>,
    /// How long a supervisor that stops us by a signal waits before SIGKILL; `None` if unknown.
    pub(crate) grace: Option<Duration>,
    /// The pre-stop delay.
    pub(crate) lead: Duration,
    /// `None`: the kubelet's usual file, if it exists.
    pub(crate) termination_message: Option<PathBuf>,
}

/// What further signals do once a stop is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Escalation {
    /// The second one cuts the running phase short, after which only phases with a reserve run;
    /// the third ends the process at once.
    #[default]
    CutThenExit,
    /// The second one ends the process at once.
    Exit,
    /// They are logged, and nothing else.
    Ignore,
}

/// A closure to be called later.
#[derive(Clone)]
pub(crate) struct Callback(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// A longer deadline is taken for this: thirty years. An `Instant` cannot hold the present time and
/// `Duration::MAX`.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What the rest of a teardown has beyond the drain, by default.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// How long the service's future is waited for after the last phase, by default.
const AFTER_PHASES: Duration = Duration::from_secs(1);

/// What is left of the time until SIGKILL, for the end of the process after the teardown.
const SAFETY_MARGIN: Duration = Duration::from_secs(1);

/// What is left of the time `granted` until SIGKILL: a second, and no more than a quarter.
pub(crate) fn safety_margin(granted: Duration) -> Duration {
    SAFETY_MARGIN.min(granted / 4)
}

impl Config {
    pub(crate) fn new(service: String) -> Self {
        Self {
            service: truncate(service, MAX_NAME_CHARS),
            signals: vec![Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT],
            drain_timeout: Duration::from_secs(30),
            headroom: DEFAULT_HEADROOM,
            failure_status: 1,
            ready_at_run: true,
            ..Self::default()
        }
    }

    /// Sets how long the supervisor waits before SIGKILL. No limit says that it is not known.
    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = Some(grace).filter(|&grace| grace < Duration::MAX);
    }

    pub(crate) fn deadline(&self) -> Duration {
        let default = self.drain_timeout.saturating_add(BEYOND_DRAIN).saturating_add(self.lead);
        self.deadline.unwrap_or(default).min(FOREVER)
    }

    /// How long the service's future is waited for after `phases` phases.
    pub(crate) fn service_grace(&self, phases: usize) -> Duration {
        let default = if phases == 0 { self.drain_timeout } else { AFTER_PHASES };
        self.service_grace.unwrap_or(default)
    }

    /// Whether `granted`, from the stop request to SIGKILL, is long enough for the teardown.
    pub(crate) fn alignment(&self, supervisor: Supervisor, granted: Timespan) -> Alignment {
        let Self { lead, drain_timeout, headroom, .. } = *self;
        Alignment::check_all(supervisor, granted, lead, drain_timeout, headroom)
    }
}
