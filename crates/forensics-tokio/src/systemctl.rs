//! Running the programs of systemd, systemctl(1) and systemd-run(1): with a limit, and ended with
//! the task that waits for them.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
use forensics_core::systemd::{CgroupUnit, Manager, UnitProperties, show_arguments};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::child;

/// How often a program is started where it is ended by the signal that we are ended by.
const ATTEMPTS: u32 = 3;

/// How long systemd may take to find no new process in our cgroup: it has nothing else to do meanwhile.
const SIGNAL_ROUND: Duration = Duration::from_millis(50);

/// The properties of `unit`.
///
/// # Errors
/// As [`run`].
pub(crate) async fn show(unit: &CgroupUnit, limit: Duration) -> Result<UnitProperties, String> {
    let arguments = show_arguments(unit.manager, &unit.unit);
    let output = run("systemctl", limit, |systemctl, _| {
        systemctl.args(&arguments);
    })
    .await?;
    Ok(UnitProperties::parse(&output))
}

/// The jobs of `manager`, a line each.
///
/// # Errors
/// As [`run`].
pub(crate) async fn list_jobs(manager: Manager, limit: Duration) -> Result<String, String> {
    let arguments = [manager.option(), "--no-pager", "--no-legend", "list-jobs"];
    run("systemctl", limit, |systemctl, _| {
        systemctl.args(arguments);
    })
    .await
}

/// The output of the program `name`. `configure` adds the arguments; it is also given the number of
/// the attempt, from 1 on. Cancel safe, as [`child::output`].
///
/// # Errors
/// A text, where the program is not there, fails, or does not end within `limit`.
pub(crate) async fn run(
    name: &str,
    limit: Duration,
    mut configure: impl FnMut(&mut Command, u32),
) -> Result<String, String> {
    let attempts = async {
        let mut attempt = 1;
        loop {
            let mut command = Command::new(name);
            // The texts that are read are not translated, and colour is no part of them.
            command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
            // It would notify our manager in its own name, and be refused with a line in the journal.
            command.env_remove("NOTIFY_SOCKET");
            configure(&mut command, attempt);
            let output = child::output(command).await?;
            if attempt == ATTEMPTS || !may_start_again(output.status).await {
                return io::Result::Ok(output);
            }
            attempt += 1;
        }
    };
    match timeout(limit, attempts).await {
        Ok(Ok(Output { status, stdout, .. })) if status.success() => {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        }
        Ok(Ok(Output { status, stderr, .. })) => {
            let why = String::from_utf8_lossy(&stderr);
            Err(format!("{name}: {status}: {}", truncate(why.trim(), MAX_TEXT_CHARS)))
        }
        Ok(Err(e)) => Err(format!("{name}: {e}")),
        Err(_) => Err(format!("{name} did not answer within {limit:?}")),
    }
}

/// Whether a process that we started was ended by the signal that we are ended by, at a stop or by the
/// watchdog. systemd signals the processes of our cgroup until it finds no new one, so what we start
/// in the first instant of a stop can be signalled, too. It can be started again once systemd has
/// found no new process, so this waits for that before it returns true. Cancel safe.
pub(crate) async fn may_start_again(ended: ExitStatus) -> bool {
    let signals = [Signal::SIGTERM, Signal::SIGABRT].map(|signal| signal as i32);
    let was_signalled = ended.signal().is_some_and(|signal| signals.contains(&signal));
    if was_signalled {
        sleep(SIGNAL_ROUND).await;
    }
    was_signalled
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_systemds_signal_met_is_started_again_after_its_round_and_nothing_else_is() {
        // As wait(2) has it: a signal, or a status a byte higher.
        let cases = [(15, true), (6, true), (9, false), (0, false), (15 << 8, false)];
        for (ended, again) in cases {
            let began = Instant::now();
            assert_eq!(may_start_again(ExitStatus::from_raw(ended)).await, again, "{ended}");
            assert_eq!(began.elapsed() >= SIGNAL_ROUND, again, "{ended}");
        }
    }
}
