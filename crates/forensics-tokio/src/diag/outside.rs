//! The diagnostic in a unit of its own, outside our cgroup, where it outlives us.
//!
//! systemd-run(1) asks for it, in a way that needs no message bus: without `--wait` and `--pipe`. The
//! unit opens the log through our descriptor, so that it writes to the very file that we opened,
//! whatever it is called outside. Seen on systemd 252: such a unit survives the SIGKILL at our stop
//! timeout, and with `DefaultDependencies=no` it starts also while the machine goes down.
//!
//! Only a manager that runs the unit with no more rights than ours is asked: the system's where we
//! are root, the user's for a unit of its. And the program has to be the same file out there, as a
//! service can have a root of its own.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use forensics_core::escape::{MAX_TEXT_CHARS, Plain, cut};
use forensics_core::secret;
use forensics_core::systemd::Manager;
use nix::unistd::geteuid;
use tokio::time::timeout;

use super::{
    ARG0, CONTEXT_VARIABLE, DiagCommand, PID_VARIABLE, Plan, SECRETS_VARIABLE, TIME_LIMIT,
    is_ourselves,
};
use crate::child;
use crate::systemctl::{self, may_start_anew};

/// How long systemd may take to start it before a child is started in its stead.
const START_LIMIT: Duration = Duration::from_secs(1);

/// Runs a command, and writes how it ended, as we may be gone by then.
const WITH_END: &str = r#""$@"; status=$?
case $status in
0) echo "--- end of diagnostic" ;;
*) echo "--- diagnostic incomplete: exit status: $status" ;;
esac
exit $status"#;

/// What is to be run, and which manager is asked.
#[derive(Debug)]
pub(super) struct Outside {
    manager: Manager,
    command: Vec<OsString>,
    description: String,
}

impl Outside {
    /// `None` where we are no unit that systemd stops, or may not have that.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let unit = plan.unit.as_ref().filter(|unit| unit.has_stop_timeout())?;
        let shell = |line: &str| ["/bin/sh", "-c", line].map(OsString::from).to_vec();
        let is_ourselves = is_ourselves(&plan.command);
        let command = match &plan.command {
            _ if is_ourselves => {
                let exe = std::env::current_exe().ok()?;
                vec![exe.into(), ARG0.into(), std::process::id().to_string().into()]
            }
            DiagCommand::BuiltIn => shell(super::SHELL),
            DiagCommand::Shell(line) => shell(line),
            DiagCommand::Program(program, arguments) => {
                std::iter::once(program.into()).chain(arguments.iter().cloned()).collect()
            }
        };
        let program = Path::new(command.first()?);
        let may = match unit.manager {
            Manager::User { .. } => program.is_absolute(),
            _ => geteuid().is_root() && is_same_outside(program),
        };
        if !may {
            return None;
        }
        let command = match is_ourselves {
            true => command,
            false => {
                let with_end = ["/bin/sh", "-c", WITH_END, "sh"].map(OsString::from);
                with_end.into_iter().chain(command).collect()
            }
        };
        let pid = std::process::id();
        let description = format!("Shutdown diagnostic of {}[{pid}]", Plain(&plan.service));
        Some(Self { manager: unit.manager, command, description })
    }

    /// Starts it, and returns the name of its unit. It goes on where we are ended.
    ///
    /// # Errors
    /// A text, where it was not started.
    pub(super) async fn start(&self, log: &File, line: &str) -> Result<String, String> {
        let pid = std::process::id();
        let unit = |attempt: &str| format!("shutdown-diagnostic-{pid}{attempt}.service");
        let first = unit("");
        let asked = self.systemd_run(log, line, &first).await?;
        if asked.status.success() {
            return Ok(first);
        }
        // Nobody knows how far it had come, so the second try has a name of its own.
        if may_start_anew(asked.status).await {
            let second = unit("-2");
            if self.systemd_run(log, line, &second).await?.status.success() {
                return Ok(second);
            }
        }
        match String::from_utf8_lossy(&asked.stderr).trim() {
            "" => Err(format!("systemd-run: {}", asked.status)),
            why => Err(cut(why, MAX_TEXT_CHARS).into_owned()),
        }
    }

    /// Returns once the unit has begun, its output opened.
    async fn systemd_run(&self, log: &File, line: &str, unit: &str) -> Result<Output, String> {
        let pid = std::process::id();
        // As systemd sees it, whatever namespaces we are in; its output is appended.
        let output = format!("append:/proc/{pid}/fd/{}", log.as_raw_fd());
        let mut command = systemctl::program("systemd-run");
        command
            .arg(self.manager.option())
            .args(["--quiet", "--collect", "--no-ask-password", "--service-type=exec"])
            .arg(format!("--unit={unit}"))
            .arg(format!("--description={}", self.description))
            .arg("--property=DefaultDependencies=no")
            .arg(format!("--property=RuntimeMaxSec={}", TIME_LIMIT.as_secs()))
            .arg(format!("--property=StandardOutput={output}"))
            .arg(format!("--property=StandardError={output}"))
            .arg(format!("--setenv={PID_VARIABLE}={pid}"))
            .arg(format!("--setenv={CONTEXT_VARIABLE}={line}"))
            .args(secret::is_shown().then(|| format!("--setenv={SECRETS_VARIABLE}=1")))
            .arg("--")
            .args(&self.command);
        match timeout(START_LIMIT, child::output(command)).await {
            Ok(asked) => asked.map_err(|e| format!("systemd-run: {e}")),
            Err(_) => Err(format!("systemd-run has started nothing within {START_LIMIT:?}")),
        }
    }
}

/// Whether `program` names the same file for process 1 as for us.
fn is_same_outside(program: &Path) -> bool {
    let Ok(below) = program.strip_prefix("/") else { return false };
    let id = |found: &Metadata| (found.dev(), found.ino());
    match (fs::metadata(program), fs::metadata(Path::new("/proc/1/root").join(below))) {
        (Ok(ours), Ok(theirs)) => id(&ours) == id(&theirs),
        _ => false,
    }
}
