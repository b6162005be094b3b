//! The diagnostic in a transient unit. It is outside our cgroup, so it can outlive us.
//!
//! systemd-run(1) starts it without `--wait` and `--pipe`, so no message bus is needed. The unit
//! opens the log through our file descriptor. So it writes to the file that we opened, even if that
//! file has another path in systemd's mount namespace. Observed with systemd 252: the unit survives
//! the SIGKILL at our stop timeout, and with `DefaultDependencies=no` it also starts while the
//! machine shuts down.
//!
//! The unit finds our files by our pid, so both must be in the same pid namespace. Any user can delay
//! systemd by many calls over the bus, until we have ended and a process of that user has our pid. So
//! systemd does not open our files, but a shell in the unit. Its working directory is our folder of
//! `/proc`, which never becomes that of another process, and it compares the start time first.
//!
//! The unit must not have more rights than we have. So the system's manager is asked only if we are
//! root, and the user's manager only for a unit of that user. Also, the path of the program must
//! name the same file for systemd, because a service can have another root directory. And it must still
//! be the file of this process: the path of a program that was removed ends in ` (deleted)`, and another
//! user may have put a file there. The unit does not use the path, which may change meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use forensics_core::capture::is_secure_execution;
use forensics_core::escape::Escaped;
use forensics_core::process::{ProcessSummary, manager_shares_pids};
use forensics_core::secret;
use forensics_core::systemd::Manager;
use nix::unistd::geteuid;

use super::{Order, PID_VARIABLE, Plan, SECRETS_VARIABLE, TIME_LIMIT};
use crate::os::{own_program, sealed};
use crate::{systemctl, unit};

/// How long systemd may take to start it. After that a child is started instead.
const START_LIMIT: Duration = Duration::from_secs(1);

/// A script that opens the files of the service, and then runs a command in the background. Its end tells
/// systemd that the files are open. The arguments are the pid of the service, its start time, the
/// descriptors of the input and of the log, the files behind these and of the program as `DEVICE:INODE`, and
/// the command.
///
/// The service may have executed another program by then, which has its pid and start time. So each file is
/// compared once it is open.
const OPEN: &str = r#"cd "/proc/$1" && IFS= read -r stat <stat || exit
field() { shift 19; echo "$1"; }
set -f; IFS=')'; for rest in $stat; do :; done; IFS=' '
[ "$(field $rest)" = "$2" ] || { echo "the service $1 has ended" >&2; exit 1; }
other() { echo "the process $1 has other files now" >&2; exit 1; }
is() { [ "$(stat -L -c %d:%i "/proc/self/fd/$1")" = "$2" ]; }
exec 3<"fd/$3" 5>>"fd/$4" || exit
is 3 "$5" && is 5 "$6" || other "$1"
"#;

/// The rest of the script for this program, whose input is its [`Order`]. It starts the file that runs as the
/// service, because another user may be able to make its path lead to another one at any time. The file is
/// opened first, because the service may end before the program has started.
const RUN_OWN: &str = r#"exec 4<exe || exit
is 4 "$7" || other "$1"
exec >&5 2>&1 5>&-
cd / && shift 8
/proc/self/fd/4 "$@" <&3 3<&- &"#;

/// The rest of the script for a command. It also writes how the command ended, because we may have exited
/// by then. The input is the context line.
const RUN: &str = r#"exec >&5 2>&1 5>&-
cd / && shift 7
IFS= read -r FORENSICS_CONTEXT <&3; export FORENSICS_CONTEXT
{ "$@" </dev/null 3<&-; status=$?
case $status in
0) echo "--- end of diagnostic" ;;
*) echo "--- diagnostic incomplete: exit status: $status" ;;
esac; } &"#;

/// Starts the diagnostic, and returns the name of its unit once its files are open. It continues after
/// this process has ended. Returns `None` if systemd does not stop our unit, or if we lack the rights.
///
/// # Errors
/// A text, if it was not started.
pub(super) async fn start(plan: &Plan, log: &File, line: &str) -> Result<Option<String>, String> {
    let Some((manager, command)) = command(plan) else { return Ok(None) };
    let pid = std::process::id();
    // Not an argument or a variable of the unit, because every user can read those.
    let input = match plan.command.is_own_program() {
        true => Order::to_file(),
        false => sealed(&format!("{line}\n")),
    };
    let input = input.map_err(|e| format!("cannot pass the context: {e}"))?;
    let log = log.try_clone().map_err(|e| format!("cannot pass the log: {e}"))?;
    let started = ProcessSummary::read_stat(pid.cast_signed()).start_time;
    let started = started.ok_or("the start time of this process is not known")?;
    let ids = [input.metadata(), log.metadata(), fs::metadata(own_program())]
        .into_iter()
        .map(|file| file.map(|file| format!("{}:{}", file.dev(), file.ino())))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| format!("cannot identify the files: {e}"))?;
    // They are never closed. If systemd starts the unit late, no other file must have their numbers.
    let service = [u64::from(pid), started].map(|number| number.to_string());
    let files = [input.into_raw_fd(), log.into_raw_fd()].map(|number| number.to_string());
    let script = [OPEN, if plan.command.is_own_program() { RUN_OWN } else { RUN }].concat();
    let mut unit = String::new();
    let configure = |systemd_run: &mut tokio::process::Command, attempt: u32| {
        // A first attempt may have started its unit before it was ended, so a second uses another name.
        let suffix = if attempt > 1 { format!("-{attempt}") } else { String::new() };
        unit = format!("shutdown-diagnostic-{pid}{suffix}.service");
        systemd_run
            .arg(manager.option())
            .args(["--collect", "--no-ask-password", "--service-type=forking"])
            .arg(format!("--unit={unit}"))
            .arg(format!("--description=Shutdown diagnostic of {}[{pid}]", Escaped(&plan.service)))
            .arg("--property=DefaultDependencies=no")
            .arg(format!("--property=RuntimeMaxSec={}", TIME_LIMIT.as_secs()))
            .arg(format!("--setenv={PID_VARIABLE}={pid}"))
            .arg(format!("--setenv={SECRETS_VARIABLE}={}", u8::from(secret::is_shown())))
            .args(["--", "/bin/sh", "-c"])
            .arg(literal(script.as_ref()))
            .arg("sh")
            .args(service.iter().chain(&files).chain(&ids))
            .args(command.iter().map(|argument| literal(argument)));
    };
    systemctl::run("systemd-run", START_LIMIT, configure).await?;
    Ok(Some(unit))
}

/// An argument of a unit that systemd leaves as it is: it replaces `${NAME}` and `$$` in others.
fn literal(argument: &OsStr) -> OsString {
    let parts: Vec<_> = argument.as_bytes().split(|&byte| byte == b'$').collect();
    OsString::from_vec(parts.join(&b"$$"[..]))
}

/// The manager to ask, and the command for the unit.
fn command(plan: &Plan) -> Option<(Manager, Vec<OsString>)> {
    let unit = plan.unit.as_ref().filter(|unit| unit::can_be_asked(unit))?;
    let (program, arguments) = plan.command.resolve(std::env::current_exe().ok()?).ok()?;
    // systemd opens our files by our pid. In its pid namespace that can be the pid of another process.
    if is_secure_execution() || !manager_shares_pids() {
        return None;
    }
    let is_allowed = match unit.manager {
        Manager::User { .. } => program.is_absolute(),
        _ => geteuid().is_root() && is_same_outside(&program).unwrap_or(false),
    };
    let is_own = plan.command.is_own_program();
    if !is_allowed || (is_own && !is_same(&program, &own_program()).unwrap_or(false)) {
        return None;
    }
    let command = [program.into()].into_iter().chain(arguments).collect();
    Some((unit.manager, command))
}

/// Whether `program` names the same file for process 1 as for us.
fn is_same_outside(program: &Path) -> io::Result<bool> {
    let below = program.strip_prefix("/").map_err(io::Error::other)?;
    is_same(program, &Path::new("/proc/1/root").join(below))
}

/// Whether both paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
