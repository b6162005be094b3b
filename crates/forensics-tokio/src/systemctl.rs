//! Asking systemd, by systemctl(1): bounded, and ended with whoever waits for it. And what holds for
//! each program that we start during a stop.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use forensics_core::escape::{MAX_TEXT_CHARS, cut};
use forensics_core::systemd::{CgroupUnit, Manager, UnitProperties, show_arguments};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::child;

/// The properties of `unit`.
///
/// # Errors
/// A text, where systemctl is not there, fails, or does not answer within `limit`.
pub(crate) async fn show(unit: &CgroupUnit, limit: Duration) -> Result<UnitProperties, String> {
    let arguments = show_arguments(unit.manager, &unit.unit);
    run(&arguments, limit).await.map(|output| UnitProperties::parse(&output))
}

/// The jobs of `manager`, a line each.
///
/// # Errors
/// As [`show`].
pub(crate) async fn list_jobs(manager: Manager, limit: Duration) -> Result<String, String> {
    let arguments = [manager.option(), "--no-pager", "--no-legend", "list-jobs"].map(str::to_owned);
    run(&arguments, limit).await
}

/// How often systemctl is started anew where it was ended by the signal that we are ended by.
const ATTEMPTS: usize = 3;

/// How long systemd may take to find no new process in our cgroup: it has nothing else to do meanwhile.
const LOOKS_IN_VAIN: Duration = Duration::from_millis(50);

/// The output of systemctl with these arguments. Cancel safe, as [`child::output`].
async fn run(arguments: &[String], limit: Duration) -> Result<String, String> {
    let ask = async {
        for _ in 1..ATTEMPTS {
            let asked = start(arguments).await?;
            if !may_start_anew(asked.status).await {
                return Ok(asked);
            }
        }
        start(arguments).await
    };
    match timeout(limit, ask).await {
        Ok(Ok(Output { status, stdout, .. })) if status.success() => {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        }
        Ok(Ok(Output { status, stderr, .. })) => {
            let why = String::from_utf8_lossy(&stderr);
            Err(format!("systemctl: {status}: {}", cut(why.trim(), MAX_TEXT_CHARS)))
        }
        Ok(Err(e)) => Err(format!("systemctl: {e}")),
        Err(_) => Err(format!("systemctl did not answer within {limit:?}")),
    }
}

async fn start(arguments: &[String]) -> std::io::Result<Output> {
    let mut systemctl = program("systemctl");
    systemctl.args(arguments);
    child::output(systemctl).await
}

/// A program of systemd's, whose output is to be read.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // The texts that are read are not translated, and colour is no part of them.
    command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    // It would notify our manager in its own name, and be refused with a line in the journal.
    command.env_remove("NOTIFY_SOCKET");
    command
}

/// Whether a process that we started was ended by the signal that we are ended by, at a stop or by the
/// watchdog: systemd signals the processes of our cgroup until it finds no new one, so that what we start in
/// the first instant of a stop can be met, too. Starting it anew helps, once systemd has looked in vain; so
/// it is waited for that before this says yes. Cancel safe.
pub(crate) async fn may_start_anew(ended: ExitStatus) -> bool {
    let signals = [Signal::SIGTERM, Signal::SIGABRT].map(|signal| signal as i32);
    let was_met = ended.signal().is_some_and(|signal| signals.contains(&signal));
    if was_met {
        sleep(LOOKS_IN_VAIN).await;
    }
    was_met
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_systemds_signal_met_is_started_anew_after_its_round_and_nothing_else_is() {
        // As wait(2) has it: a signal, or a status a byte higher.
        let cases = [(15, true), (6, true), (9, false), (0, false), (15 << 8, false)];
        for (ended, anew) in cases {
            let began = Instant::now();
            assert_eq!(may_start_anew(ExitStatus::from_raw(ended)).await, anew, "{ended}");
            assert_eq!(began.elapsed() >= LOOKS_IN_VAIN, anew, "{ended}");
        }
    }
}
