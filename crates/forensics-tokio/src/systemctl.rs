//! Runs systemd's programs, systemctl(1) and systemd-run(1), with a time limit. A program is killed if the
//! task that waits for it is dropped.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
use forensics_core::systemd::{CgroupUnit, Manager, UnitProperties, show_arguments};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::child;

/// The exit status of a program, in a message.
pub(crate) const UNKNOWN_STATUS: &str = "exit status unknown (SIGCHLD is ignored)";

/// How often a program is started at most, if systemd's signal to our cgroup ends it.
const ATTEMPTS: u32 = 3;

/// How long systemd may take until it finds no new process in our cgroup. It does nothing else
/// meanwhile.
const SIGNAL_ROUND: Duration = Duration::from_millis(50);

/// How often systemctl is started again if its connection was closed, and after how long. In all
/// this is about as long as a `daemon-reexec` takes.
const RETRIES: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_millis(150);

/// What root's systemctl says in a pid namespace other than systemd's (`PrivatePIDs=`): it uses a
/// socket of systemd, and the kernel does not tell it the pid of systemd. The bus works there.
const NO_PEER: &str = "No data available";

/// Asks for the properties of `unit`.
///
/// # Errors
/// As [`run`].
pub(crate) async fn show(unit: &CgroupUnit, limit: Duration) -> Result<UnitProperties, String> {
    let output = ask(&show_arguments(unit.manager, &unit.unit), limit).await?;
    Ok(UnitProperties::parse(&output))
}

/// Lists the jobs of `manager`, one a line, between lines for people.
///
/// # Errors
/// As [`run`].
pub(crate) async fn list_jobs(manager: Manager, limit: Duration) -> Result<String, String> {
    ask(&[manager.option(), "--no-pager", "--full", "list-jobs"], limit).await
}

/// Whether `manager` has not finished its start. `false` if it does not answer.
pub(crate) async fn is_booting(manager: Manager, limit: Duration) -> bool {
    let arguments = [manager.option(), "--no-pager", "show", "--property=SystemState"];
    let state = ask(&arguments, limit).await.unwrap_or_default();
    matches!(state.trim(), "SystemState=initializing" | "SystemState=starting")
}

/// Runs systemctl, and returns its output. Runs it again if its connection to systemd breaks, as during `systemctl
/// daemon-reexec`, or if it can reach systemd only over the bus.
///
/// # Errors
/// As [`run`].
pub(crate) async fn ask(
    arguments: &[impl AsRef<OsStr>],
    limit: Duration,
) -> Result<String, String> {
    let attempts = async {
        let (mut retries, mut over_bus) = (RETRIES, false);
        loop {
            let configure = |command: &mut Command, _| {
                command.args(arguments);
                if over_bus {
                    command.env("SYSTEMCTL_FORCE_BUS", "1");
                }
            };
            let answer = run("systemctl", limit, configure).await;
            match &answer {
                Err(why) if why.contains(NO_PEER) && !over_bus => over_bus = true,
                Err(why) if is_disconnected(why) && retries > 0 => {
                    retries -= 1;
                    sleep(RETRY_AFTER).await;
                }
                _ => return answer,
            }
        }
    };
    timeout(limit, attempts).await.unwrap_or_else(|_| Err(no_answer("systemctl", limit)))
}

/// Whether systemd or the bus has closed the connection of systemctl.
fn is_disconnected(why: &str) -> bool {
    let always = [
        "Connection refused",
        "Connection reset by peer",
        "disconnected from message bus without replying",
    ];
    // dbus-daemon also closes each connection of a user whose name it cannot look up (DynamicUser=).
    let only_root = "Transport endpoint is not connected";
    always.iter().any(|text| why.contains(text)) || (geteuid().is_root() && why.contains(only_root))
}

fn no_answer(name: &str, limit: Duration) -> String {
    format!("{name} did not answer within {limit:?}")
}

/// Runs the program `name` and returns its output. `configure` adds the arguments. It is also given the
/// number of the attempt, from 1 on. Cancel safe, as [`child::output`].
///
/// # Errors
/// A text, if the program does not exist, fails, or does not end within `limit`.
pub(crate) async fn run(
    name: &str,
    limit: Duration,
    mut configure: impl FnMut(&mut Command, u32),
) -> Result<String, String> {
    let attempts = async {
        let mut attempt = 1;
        loop {
            let mut command = child::command(name)?;
            // The texts that we read must be neither translated nor colored.
            command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
            // Otherwise the program would notify our manager. The manager would reject that and log
            // it to the journal.
            command.env_remove("NOTIFY_SOCKET");
            configure(&mut command, attempt);
            let output = child::output(command).await?;
            if attempt == ATTEMPTS || !may_start_again(output.status).await {
                return std::io::Result::Ok(output);
            }
            attempt += 1;
        }
    };
    let output = timeout(limit, attempts).await;
    let output = output.map_err(|_| no_answer(name, limit))?;
    let output = output.map_err(|e| format!("{name}: {e}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    let has_answered = match output.status {
        Some(status) => status.success(),
        // Each of these programs prints something if it succeeds: systemctl to stdout, systemd-run this.
        None => !output.stdout.is_empty() || why.starts_with("Running "),
    };
    if has_answered {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let status =
        output.status.map_or_else(|| UNKNOWN_STATUS.to_owned(), |status| status.to_string());
    Err(format!("{name}: {status}: {}", truncate(why.trim(), MAX_TEXT_CHARS)))
}

/// Whether a process that we started was ended by the signal of the stop or of the watchdog.
///
/// systemd signals the processes of our cgroup until it finds no new one. So it can also signal a
/// process that we start in the first moment of a stop. That process can be started again once
/// systemd has found no new process. This function waits for that before it returns true. If the exit
/// status is not known, it returns false. Cancel safe.
pub(crate) async fn may_start_again(ended: Option<ExitStatus>) -> bool {
    let signals = [Signal::SIGTERM, Signal::SIGABRT].map(|signal| signal as i32);
    let signal = ended.and_then(|ended| ended.signal());
    let was_signalled = signal.is_some_and(|signal| signals.contains(&signal));
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
    async fn only_a_process_ended_by_systemds_signal_is_started_again_after_a_delay() {
        // As in wait(2): a signal, or an exit status shifted by a byte.
        let cases = [(15, true), (6, true), (9, false), (0, false), (15 << 8, false)];
        for (ended, again) in cases {
            let began = Instant::now();
            let status = Some(ExitStatus::from_raw(ended));
            assert_eq!(may_start_again(status).await, again, "{ended}");
            assert_eq!(began.elapsed() >= SIGNAL_ROUND, again, "{ended}");
        }
    }
}
