//! The command line, and the trouble that it can cause.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use forensics_tokio::PhaseContext;
use forensics_tokio::core::duration;

/// An HTTP gateway that shows how a service stops.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Where to listen, if systemd passes no socket. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    /// How long requests in flight may take to finish, such as `30s` or `1min 30s`.
    #[arg(long, value_name = "T", default_value = "30s", value_parser = timespan)]
    pub(crate) drain_timeout: Duration,
    /// How long the whole teardown may take. Default: the pre-stop delay, the drain timeout and 15 s.
    #[arg(long, value_name = "T", value_parser = timespan)]
    pub(crate) deadline: Option<Duration>,
    /// Ask systemd for more time while phases make progress, up to this for the whole teardown.
    #[arg(long, value_name = "T", value_parser = timespan)]
    pub(crate) extend: Option<Duration>,
    /// How long the supervisor waits between its signal and SIGKILL, such as the pod's
    /// terminationGracePeriodSeconds.
    #[arg(long, value_name = "T", value_parser = timespan)]
    pub(crate) grace: Option<Duration>,
    /// How long to keep serving after the signal, but not ready, until load balancers have noticed.
    #[arg(long, value_name = "T", default_value = "0", value_parser = timespan)]
    pub(crate) lead: Duration,
    /// The file for the container's termination message, instead of /dev/termination-log.
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_message: Option<PathBuf>,
    /// The file that the diagnostic is appended to at the signal.
    #[arg(long, value_name = "FILE")]
    pub(crate) diag_log: Option<PathBuf>,
    /// The folder for the records of this and earlier runs.
    #[arg(long, value_name = "DIR")]
    pub(crate) records: Option<PathBuf>,
    /// The folder of `takeover.json` and `planned-stop.json`, the markers to look for at the signal.
    #[arg(long, value_name = "DIR", default_value = "/run/gateway")]
    pub(crate) markers: PathBuf,
    /// Log to the journal, even if stderr is not connected to it.
    #[arg(long)]
    pub(crate) journald: bool,
    /// Let this phase never end.
    #[arg(long, value_name = "PHASE")]
    wedge: Option<PhaseName>,
    /// Let this phase block its runtime thread.
    #[arg(long, value_name = "PHASE")]
    block: Option<PhaseName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PhaseName {
    Notify,
    Drain,
    Telegram,
    Slack,
    /// Both adapters.
    Adapters,
    DbClose,
}

impl PhaseName {
    fn covers(self, phase: &str) -> bool {
        match self {
            PhaseName::Adapters => matches!(phase, "telegram" | "slack"),
            one => one.to_possible_value().is_some_and(|value| value.get_name() == phase),
        }
    }
}

/// A phase that never ends or blocks its thread, to show what happens to the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    wedge: Option<PhaseName>,
    block: Option<PhaseName>,
}

impl Options {
    pub(crate) fn trouble(&self) -> Trouble {
        Trouble { wedge: self.wedge, block: self.block }
    }
}

impl Trouble {
    /// Returns at once, or never if the command line names this phase.
    pub(crate) async fn apply(self, cx: &PhaseContext) {
        if self.block.is_some_and(|phase| phase.covers(cx.name())) {
            loop {
                std::thread::park();
            }
        }
        if self.wedge.is_some_and(|phase| phase.covers(cx.name())) {
            std::future::pending::<()>().await;
        }
    }
}

fn timespan(text: &str) -> Result<Duration, String> {
    let span = duration::parse(text).map_err(|e| e.to_string())?;
    span.to_std().ok_or_else(|| "`infinity` is not allowed here; use for example `30s`".to_owned())
}
