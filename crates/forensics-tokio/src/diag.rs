//! The diagnostic: a slow look around, in a process of its own, started at the signal.
//!
//! By default it is this program run again, which then is nothing but
//! [`Diagnostic`]: it needs no shell and no `ps` in the
//! image. For that [`init`] must be the first line of `main`, where it takes over in that second
//! run. A program in which `init` has not run is never started again by its own diagnostic; there
//! a shell command does what it can.
//!
//! It is started through posix_spawn: never a `pre_exec` hook, which makes std fork, and that takes
//! a quarter of a second for a process with 8 GiB resident. It has a process group of its own, so
//! that it can be ended with all it started, and no handler for SIGTERM: where systemd signals the
//! whole cgroup once more, it goes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forensics_core::diagnostic::Diagnostic;
use forensics_core::record::DiagState;
use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The name under which this program runs as its own diagnostic; nobody starts a service by it.
const ARG0: &str = "shutdown-diagnostic";
const PID_VARIABLE: &str = "FORENSICS_PID";
const CONTEXT_VARIABLE: &str = "FORENSICS_CONTEXT";

/// How long a diagnostic may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Takes over where this process was started as the diagnostic of another; returns at once where
/// it was not.
///
/// Call it as the first line of `main`, before the runtime is built and before anything is opened.
pub fn init() {
    INITIALISED.store(true, Ordering::Release);
    if std::env::args_os().next().is_some_and(|name| name == ARG0) {
        std::process::exit(look_around());
    }
}

fn look_around() -> i32 {
    let pid = std::env::var(PID_VARIABLE).ok().and_then(|pid| pid.parse().ok());
    let pid = pid.unwrap_or_else(|| nix::unistd::getppid().as_raw());
    // Not through `Stdout`, whose line buffer would write each row twice.
    let looked = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match looked.and_then(|mut out| Diagnostic::of(pid).write_to(&mut out)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// What looks around at a stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiagCommand {
    /// This program itself, where [`init`] has run in it; else a shell with `ps`.
    #[default]
    BuiltIn,
    /// A command line for `/bin/sh -c`.
    Shell(String),
    /// A program with its arguments.
    Program(PathBuf, Vec<OsString>),
}

/// What is started at the signal.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) command: DiagCommand,
    pub(crate) log: PathBuf,
    /// The service, for the heading.
    pub(crate) service: String,
}

/// Why there is no diagnostic, or only part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiagError {
    #[error("cannot open the log {path:?}: {source}")]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot start {program:?}: {source}")]
    Spawn { program: OsString, source: io::Error },
    #[error("cannot wait for it: {0}")]
    Wait(io::Error),
    #[error("ended after {0:?}, its time limit")]
    TimedOut(Duration),
    #[error("{0}")]
    Status(std::process::ExitStatus),
}

impl DiagError {
    /// The word for it in the record.
    pub(crate) fn state(&self) -> DiagState {
        match self {
            DiagError::TimedOut(_) => DiagState::TimedOut,
            _ => DiagState::Failed,
        }
    }
}

/// Runs the diagnostic from start to end, its output appended to the log.
///
/// Not cancel safe: dropped, it leaves the process running, and without its time limit.
pub(crate) async fn run(plan: Plan, line: String) -> Result<(), DiagError> {
    let path = plan.log.clone();
    let heading = format!("=== {}[{}] {line}\n", plan.service, std::process::id());
    // Off the runtime, as the disk may be slow to answer.
    let log = tokio::task::spawn_blocking(move || {
        let mut log = open_log(&path)?;
        log.write_all(heading.as_bytes())?;
        Ok(log)
    });
    let failed = |source| DiagError::Log { path: plan.log.clone(), source };
    let mut log = log.await.map_err(io::Error::other).flatten().map_err(failed)?;

    let look = || async {
        let mut command = command(&plan.command);
        let program = command.as_std().get_program().to_owned();
        let output = |log: &File| log.try_clone().map(Stdio::from);
        command
            .env(PID_VARIABLE, std::process::id().to_string())
            .env(CONTEXT_VARIABLE, &line)
            .stdin(Stdio::null())
            .stdout(output(&log).map_err(failed)?)
            .stderr(output(&log).map_err(failed)?)
            .process_group(0);
        let child = command.spawn().map_err(|source| DiagError::Spawn { program, source })?;
        supervise(child).await
    };
    let mut ended = look().await;
    // systemd signals the processes of our cgroup until it finds no new one, so that what we start
    // in the first instant of a stop can be met, too. Once: who means it will signal it again.
    if let Err(DiagError::Status(status)) = &ended
        && status.signal() == Some(Signal::SIGTERM as i32)
    {
        ended = look().await;
    }
    let complete = match &ended {
        Ok(()) if writes_own_end(&plan.command) => return Ok(()),
        Ok(()) => "--- end of diagnostic\n".to_owned(),
        Err(e) => format!("--- diagnostic incomplete: {e}\n"),
    };
    // One short line to a file that took the whole look; where it fails there is nobody to tell.
    let _ = log.write_all(complete.as_bytes());
    ended
}

async fn supervise(mut child: Child) -> Result<(), DiagError> {
    match timeout(TIME_LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(DiagError::Status(status)),
        Ok(Err(e)) => Err(DiagError::Wait(e)),
        Err(_) => {
            // Its pid is its group's: `process_group(0)`. While it is not waited for, neither can
            // have been given to anybody else.
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Err(DiagError::TimedOut(TIME_LIMIT))
        }
    }
}

/// For an image in which [`init`] was forgotten but a shell is there.
const SHELL: &str = "date; cat /proc/loadavg; ps auxf --sort=-pcpu 2>/dev/null | head -n 60 || ps";

fn command(command: &DiagCommand) -> Command {
    let shell = |line: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]);
        shell
    };
    match command {
        DiagCommand::BuiltIn if INITIALISED.load(Ordering::Acquire) => {
            let mut ourselves = Command::new("/proc/self/exe");
            ourselves.arg0(ARG0);
            ourselves
        }
        DiagCommand::BuiltIn => shell(SHELL),
        DiagCommand::Shell(line) => shell(line),
        DiagCommand::Program(program, arguments) => {
            let mut program = Command::new(program);
            program.args(arguments);
            program
        }
    }
}

fn writes_own_end(command: &DiagCommand) -> bool {
    *command == DiagCommand::BuiltIn && INITIALISED.load(Ordering::Acquire)
}

/// Opens the log to append to it; creates it, 0600, and the folders above it, 0750. A symbolic
/// link in its place is not followed, so that nobody who may write to the folder can have us, as
/// root, write elsewhere; nor is anything but a regular file taken.
fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match log.metadata()?.is_file() {
        true => Ok(log),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn plan(command: DiagCommand, log: PathBuf) -> Plan {
        Plan { command, log, service: "gateway".into() }
    }

    #[test]
    fn the_log_is_private_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("deep/er/diag.log");
        open_log(&log).unwrap().write_all(b"one\n").unwrap();
        open_log(&log).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);

        let link = dir.path().join("link");
        symlink(&log, &link).unwrap();
        assert!(open_log(&link).is_err());
        assert!(open_log(dir.path()).is_err());
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_log(&dir.path().join("fifo")).is_err());
    }

    #[tokio::test]
    async fn a_shell_command_gets_its_heading_its_context_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let command = DiagCommand::Shell(format!("echo ${CONTEXT_VARIABLE} of ${PID_VARIABLE}"));
        run(plan(command, log.clone()), "signal=SIGTERM".to_owned()).await.unwrap();
        let pid = std::process::id();
        let expected = format!(
            "=== gateway[{pid}] signal=SIGTERM\nsignal=SIGTERM of {pid}\n--- end of diagnostic\n"
        );
        assert_eq!(fs::read_to_string(&log).unwrap(), expected);
    }

    #[tokio::test]
    async fn one_that_the_stop_itself_has_met_is_started_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let flag = dir.path().join("met");
        let met = format!("[ -e {0} ] && echo whole || {{ touch {0}; kill $$; }}", flag.display());
        run(plan(DiagCommand::Shell(met), log.clone()), "line".to_owned()).await.unwrap();
        assert!(fs::read_to_string(&log).unwrap().ends_with("whole\n--- end of diagnostic\n"));
        let always = DiagCommand::Shell("kill $$".to_owned());
        let error = run(plan(always, log), "line".to_owned()).await.unwrap_err();
        assert!(error.to_string().contains("signal: 15"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_did_not_call_init_is_not_started_again() {
        assert!(!INITIALISED.load(Ordering::Acquire));
        assert_eq!(command(&DiagCommand::BuiltIn).as_std().get_program(), "/bin/sh");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_and_leaves_the_heading() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let missing = DiagCommand::Program("/nonexistent".into(), Vec::new());
        let error = run(plan(missing, log.clone()), "line".into()).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot start \"/nonexistent\""), "{error}");
        let failing = DiagCommand::Shell("exit 3".into());
        let error = run(plan(failing, log.clone()), "line".into()).await.unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3");
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.matches("=== gateway[").count(), 2, "{text}");
        assert!(text.ends_with("--- diagnostic incomplete: exit status: 3\n"), "{text}");
    }

    #[tokio::test]
    async fn one_that_runs_over_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let command = DiagCommand::Shell("sleep 3600 & echo $!; wait".into());
        let running = tokio::spawn(run(plan(command, log.clone()), "line".into()));
        // The child is real: only once it has said its child's pid may the clock jump.
        let sleeper = loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(pid) = text.lines().nth(1) {
                break pid.parse::<i32>().unwrap();
            }
            tokio::task::yield_now().await;
        };
        tokio::time::pause();
        tokio::time::advance(TIME_LIMIT).await;
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, DiagError::TimedOut(_)), "{error}");
        // Ended, though its parent, now gone, cannot have waited for it: gone or a zombie.
        while nix::sys::signal::kill(Pid::from_raw(sleeper), None).is_ok() {
            let state = forensics_core::process::ProcessSummary::read_stat(sleeper).state;
            if matches!(state, Some('Z') | None) {
                break;
            }
            std::thread::yield_now();
        }
    }
}
