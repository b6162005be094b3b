//! What a guard was told, and what it found when it was installed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, cut_to};
use forensics_core::signal::Signal;

use crate::diag::DiagCommand;

/// What the builder collects. Times are as documented on its methods.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) service: String,
    pub(crate) signals: Vec<Signal>,
    pub(crate) drain_timeout: Duration,
    pub(crate) headroom: Duration,
    /// `None`: the lead, the drain timeout and [`BEYOND_DRAIN`].
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
    pub(crate) flush: FlushHooks,
    pub(crate) ready_at_run: bool,
    pub(crate) watchdog: bool,
    /// `None`: systemd is not asked for more time.
    pub(crate) extend_ceiling: Option<Duration>,
    /// How long whoever stops us by a signal waits before SIGKILL; `None` where nobody said.
    pub(crate) grace: Option<Duration>,
    pub(crate) lead: Duration,
    /// `None`: the kubelet's usual file, where it is there.
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

/// What writes out what is buffered.
pub(crate) type FlushHook = Arc<dyn Fn() + Send + Sync>;

/// What is run before a forced end.
#[derive(Clone, Default)]
pub(crate) struct FlushHooks(pub(crate) Vec<FlushHook>);

impl fmt::Debug for FlushHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.0.len())
    }
}

/// What a longer deadline is taken for: thirty years. A clock's reading and `Duration::MAX` are more than
/// an `Instant` can hold.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What the rest of a teardown has beyond the drain, unless told.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// How long the service's future is waited for after the last phase, unless told.
const AFTER_PHASES: Duration = Duration::from_secs(1);

/// What is kept back of the supervisor's patience, for the end of the process after the teardown.
const SAFETY_MARGIN: Duration = Duration::from_secs(1);

/// What of it is kept back: a second, and no more than a quarter.
pub(crate) fn safety_margin(granted: Duration) -> Duration {
    SAFETY_MARGIN.min(granted / 4)
}

impl Config {
    pub(crate) fn new(service: String) -> Self {
        Self {
            service: cut_to(service, MAX_NAME_CHARS),
            signals: vec![Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT],
            drain_timeout: Duration::from_secs(30),
            headroom: forensics_core::systemd::DEFAULT_HEADROOM,
            deadline: None,
            service_grace: None,
            diag_log: None,
            diag_command: DiagCommand::default(),
            record_dir: None,
            durable: false,
            markers: Vec::new(),
            failure_status: 1,
            low_latency_capture: None,
            show_secrets: false,
            escalation: Escalation::default(),
            flush: FlushHooks::default(),
            ready_at_run: true,
            watchdog: false,
            extend_ceiling: None,
            grace: None,
            lead: Duration::ZERO,
            termination_message: None,
        }
    }

    /// That whoever stops us waits for so long; no limit says that it is not known.
    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = Some(grace).filter(|&grace| grace < Duration::MAX);
    }

    pub(crate) fn deadline(&self) -> Duration {
        let unless_told =
            || self.drain_timeout.saturating_add(BEYOND_DRAIN).saturating_add(self.lead);
        self.deadline.unwrap_or_else(unless_told).min(FOREVER)
    }

    /// How long the service's future is waited for after `phases` phases.
    pub(crate) fn service_grace(&self, phases: usize) -> Duration {
        self.service_grace.unwrap_or(match phases {
            0 => self.drain_timeout,
            _ => AFTER_PHASES,
        })
    }
}
