//! The settings of a guard.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::cause::Cause;
use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_NAME_CHARS, truncate};
use forensics_core::record::ExitKind;
use forensics_core::systemd::{Alignment, DEFAULT_HEADROOM, DEFAULT_SIGNALS, Supervisor};

use crate::diagnostic::DiagCommand;

/// What the builder collects. The methods of [`Builder`](crate::Builder) document the settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) service: String,
    pub(crate) signals: Vec<Signal>,
    pub(crate) drain_timeout: Duration,
    pub(crate) headroom: Duration,
    /// `None`: the pre-stop delay, the drain timeout and [`BEYOND_DRAIN`] together.
    pub(crate) deadline: Option<Duration>,
    /// `None`: [`AFTER_PHASES`], the drain timeout if there are no phases, or no time if a phase has
    /// already waited for the service.
    pub(crate) service_timeout: Option<Duration>,
    pub(crate) diag_log: Option<PathBuf>,
    pub(crate) diag_command: DiagCommand,
    pub(crate) record_dir: Option<PathBuf>,
    pub(crate) fsync_records: bool,
    pub(crate) markers: Vec<(String, PathBuf)>,
    /// The exit statuses that differ from [`ExitKind::default_status`].
    pub(crate) exit_statuses: Vec<(ExitKind, u8)>,
    pub(crate) exit_by_signal: bool,
    /// `None`: depends on the runtime, see [`low_latency`](crate::low_latency).
    pub(crate) low_latency_capture: Option<bool>,
    pub(crate) show_secrets: bool,
    pub(crate) escalation: Escalation,
    pub(crate) on_forced_exit: Vec<Callback>,
    pub(crate) enforce_exit: bool,
    pub(crate) auto_ready: bool,
    pub(crate) watchdog: bool,
    /// `None`: systemd is not asked for more time.
    pub(crate) extend_ceiling: Option<Duration>,
    /// How long a supervisor that stops us by a signal waits before SIGKILL; `None` if unknown.
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) pre_stop_delay: Duration,
    /// `None`: the kubelet's usual file, if it exists.
    pub(crate) termination_message: Option<PathBuf>,
    /// Whether important events are written to stderr if nothing else receives them.
    pub(crate) stderr_fallback: bool,
    pub(crate) ignores_environment: bool,
}

/// Which repeated signals speed up a stop, and how.
///
/// Signals within 200 ms of the first one of a request belong to that request. Every signal is
/// logged and recorded with its sender and cause, whether it has an effect or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Escalation {
    /// Only those of a person: with the cause [`ctrl_c`](Cause::CtrlC) or
    /// [`operator`](Cause::Operator). The first one cuts the running phase short, and only phases
    /// with a reserve run after it. The next one ends the process at once.
    ///
    /// Other senders often repeat their signal although they do not want to speed up the stop:
    /// systemd after an `ExecStop=`, s6, a wrapper that forwards signals, a CI runner.
    #[default]
    Person,
    /// Every signal has the effect that [`Person`](Self::Person) describes.
    AnySignal,
    /// Every signal after the first request ends the process at once.
    Exit,
    /// No repeated signal has an effect.
    Never,
}

impl Escalation {
    /// Whether a repeated signal with this cause has an effect.
    pub(crate) fn counts(self, cause: Cause) -> bool {
        match self {
            Escalation::Person => matches!(cause, Cause::CtrlC | Cause::Operator),
            Escalation::AnySignal | Escalation::Exit => true,
            Escalation::Never => false,
        }
    }
}

/// A function of the program, to be called later.
#[derive(Clone)]
pub(crate) struct Callback(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// The longest deadline: thirty years. Adding `Duration::MAX` to an `Instant` would overflow.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How much longer than the drain the whole teardown may take, by default.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// How long to wait for the service's future after the last phase, by default.
const AFTER_PHASES: Duration = Duration::from_secs(1);

/// How long before SIGKILL the teardown ends, so that the process can end by itself.
const SAFETY_MARGIN: Duration = Duration::from_secs(1);

/// The safety margin for a supervisor that waits for `granted`: at most a quarter of that.
pub(crate) fn safety_margin(granted: Duration) -> Duration {
    SAFETY_MARGIN.min(granted / 4)
}

/// The exit status for an end that has no status of its own.
const FAILURE: u8 = 1;

impl Config {
    pub(crate) fn new(service: String) -> Self {
        Self {
            service: truncate(service, MAX_NAME_CHARS),
            signals: DEFAULT_SIGNALS.to_vec(),
            drain_timeout: Duration::from_secs(30),
            headroom: DEFAULT_HEADROOM,
            enforce_exit: true,
            auto_ready: true,
            stderr_fallback: true,
            ..Self::default()
        }
    }

    /// Sets how long the supervisor waits before SIGKILL. `Duration::MAX` means unknown.
    pub(crate) fn set_stop_timeout(&mut self, timeout: Duration) {
        self.stop_timeout = Some(timeout).filter(|&timeout| timeout < Duration::MAX);
    }

    pub(crate) fn deadline(&self) -> Duration {
        let default = self.drain_timeout.saturating_add(BEYOND_DRAIN);
        self.deadline.unwrap_or(default.saturating_add(self.pre_stop_delay)).min(FOREVER)
    }

    /// The exit status of a process that ends this way.
    pub(crate) fn exit_status(&self, how: ExitKind) -> u8 {
        let set = self.exit_statuses.iter().rev().find(|(kind, _)| *kind == how);
        set.map(|&(_, status)| status).or(how.default_status()).unwrap_or(FAILURE)
    }

    /// How long to wait for the service's future after `phases` phases. `is_awaited`: one of them has
    /// already waited for it.
    pub(crate) fn service_timeout(&self, phases: usize, is_awaited: bool) -> Duration {
        let default = match phases {
            0 => self.drain_timeout,
            _ if is_awaited => Duration::ZERO,
            _ => AFTER_PHASES,
        };
        self.service_timeout.unwrap_or(default)
    }

    /// Whether `granted`, from the stop request to SIGKILL, is long enough for the teardown.
    pub(crate) fn alignment(&self, supervisor: Supervisor, granted: Timespan) -> Alignment {
        let Self { pre_stop_delay, drain_timeout, headroom, .. } = *self;
        Alignment::check_all(supervisor, granted, pre_stop_delay, drain_timeout, headroom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_exit_statuses_are_those_of_the_code() {
        let page = include_str!("../docs/exit-status.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows: Vec<(&str, Option<u8>)> = rows
            .map(|row| {
                let mut cells = row.split(" | ");
                let word = cells.next().unwrap().trim_end_matches('`');
                (word, cells.next().unwrap().parse().ok())
            })
            .collect();
        let kinds = [
            ExitKind::Clean,
            ExitKind::TimedOut,
            ExitKind::CutShort,
            ExitKind::Failed,
            ExitKind::Forced,
            ExitKind::Panicked,
            ExitKind::Abandoned,
        ];
        let words = kinds.map(|kind| kind.to_string());
        assert_eq!(rows.iter().map(|(word, _)| *word).collect::<Vec<_>>(), words);
        for ((word, documented), kind) in rows.into_iter().zip(kinds) {
            let decided = kind.default_status();
            // Rust decides the status after a panic.
            let expected = if kind == ExitKind::Panicked { Some(101) } else { decided };
            assert_eq!(documented, expected, "{word}");
        }
    }
}
