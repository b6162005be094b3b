//! The diagnostic: a slow look around, in a process of its own, started at the signal.
//!
//! By default it is this program run again, which then is nothing but
//! [`Diagnostic`]: it needs no shell and no `ps` in the
//! image. For that [`init`] must be the first line of `main`, where it takes over in that second
//! run. A program in which `init` has not run is never started again by its own diagnostic; there
//! a shell command does what it can.
//!
//! systemd kills the whole cgroup of a unit whose stop takes too long, and what looks around with
//! it. So a service's diagnostic is started as a unit of its own where that can be had; see
//! `outside`. Else it is a child.
//!
//! A child has no handler for SIGTERM: where systemd signals the whole cgroup once more, it goes,
//! since what lingers turns a clean stop into a failed one. One that does not go, a command of the
//! user's, is ended with all it started at its time limit, or at the teardown's deadline.

mod outside;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forensics_core::diagnostic::Diagnostic;
use forensics_core::escape::{Plain, Quoted};
use forensics_core::record::DiagState;
use forensics_core::secret;
use forensics_core::secure_fs::{AccessError, append_to};
use forensics_core::systemd::CgroupUnit;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::outside::Outside;
use crate::blocking::off_runtime;
use crate::child::Group;
use crate::os::{SHELL, own_program};
use crate::systemctl::may_start_anew;
use crate::words::is_yes;

/// The name under which this program runs as its own diagnostic; nobody starts a service by it.
const ARG0: &str = "shutdown-diagnostic";
const PID_VARIABLE: &str = "FORENSICS_PID";
const CONTEXT_VARIABLE: &str = "FORENSICS_CONTEXT";
/// A yes where secrets are shown. The operator's setting, too, which is handed down as it is.
const SECRETS_VARIABLE: &str = "FORENSICS_SHOW_SECRETS";

/// How long a diagnostic may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Takes over where this process was started as the diagnostic of another; returns at once where
/// it was not.
///
/// Call it as the first line of `main`, before the runtime is built and before anything is opened.
pub fn init() {
    INITIALISED.store(true, Ordering::Release);
    let arguments: Vec<_> = std::env::args_os().take(4).collect();
    let number = |pid: &OsStr| pid.to_str().and_then(|pid| pid.parse().ok());
    let parent = || nix::unistd::getppid().as_raw();
    match arguments.as_slice() {
        // A child of the service.
        [name, ..] if name == ARG0 => {
            let pid = std::env::var_os(PID_VARIABLE).and_then(|pid| number(&pid));
            std::process::exit(look_around(pid.unwrap_or_else(parent)));
        }
        // A unit of its own: systemd-run gives no program another name.
        [_, name, pid] if name == ARG0 => {
            std::process::exit(look_around(number(pid).unwrap_or_else(parent)));
        }
        _ => {}
    }
}

fn look_around(pid: i32) -> i32 {
    secret::show(std::env::var_os(SECRETS_VARIABLE).is_some_and(|value| is_yes(&value)));
    // `Stdout` would write each line on its own.
    let looked = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let start = |work| std::thread::Builder::new().spawn(work).map(drop);
    match looked.and_then(|mut out| Diagnostic::of(pid).write_to(&mut out, start)) {
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
    /// The service's unit, where it is one.
    pub(crate) unit: Option<CgroupUnit>,
    /// Notified when the teardown's deadline is there.
    pub(crate) deadline: Arc<Notify>,
}

/// Why there is no diagnostic, or only part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiagError {
    #[error("no log: {0}")]
    Untrusted(#[from] AccessError),
    #[error("cannot write to the log {path:?}: {source}")]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot start {program:?}: {source}")]
    Spawn { program: OsString, source: io::Error },
    #[error("cannot wait for it: {0}")]
    Wait(io::Error),
    #[error("ended after {0:?}, its time limit")]
    TimedOut(Duration),
    #[error("ended at the deadline")]
    Deadline,
    #[error("{0}")]
    Status(std::process::ExitStatus),
}

impl DiagError {
    /// The word for it in the record.
    pub(crate) fn state(&self) -> DiagState {
        match self {
            DiagError::TimedOut(_) | DiagError::Deadline => DiagState::TimedOut,
            _ => DiagState::Failed,
        }
    }
}

/// What became of a diagnostic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// It is complete.
    Here,
    /// It goes on in a unit of its own, also when we are gone.
    Elsewhere { unit: String },
}

/// Runs the diagnostic, its output appended to the log: to its end where it is a child.
///
/// Dropped, it ends the process with all it started, and the log does not say so.
pub(crate) async fn run(plan: Plan, line: String) -> Result<Looked, DiagError> {
    let path = plan.log.clone();
    let heading = format!("=== {}[{}] {line}\n", Quoted(&plan.service), std::process::id());
    // Off the runtime, as the disk may be slow to answer.
    let log = off_runtime(move || {
        let mut log = append_to(&path)?;
        let written = log.write_all(heading.as_bytes());
        written.map(|()| log).map_err(|source| DiagError::Log { path, source })
    });
    let failed = |source| DiagError::Log { path: plan.log.clone(), source };
    let log = timeout(TIME_LIMIT, log).await.map_err(io::Error::from).flatten();
    let mut log = log.map_err(failed).flatten()?;

    if let Some(outside) = Outside::of(&plan) {
        match outside.start(&log, &line).await {
            Ok(unit) => return Ok(Looked::Elsewhere { unit }),
            Err(why) => {
                // The log is where somebody will look who misses something in it.
                let _ = writeln!(log, "--- not in a unit of its own: {}", Plain(&why));
            }
        }
    }
    let mut ended = look_as_child(&plan, &line, &log).await;
    // Once: who means it will signal it again.
    if let Err(DiagError::Status(status)) = ended
        && may_start_anew(status).await
    {
        ended = look_as_child(&plan, &line, &log).await;
    }
    let complete = match &ended {
        Ok(()) if is_ourselves(&plan.command) => return Ok(Looked::Here),
        Ok(()) => "--- end of diagnostic\n".to_owned(),
        Err(e) => format!("--- diagnostic incomplete: {}\n", Plain(&e.to_string())),
    };
    // One short line to a file that took the whole look; where it fails there is nobody to tell.
    let _ = log.write_all(complete.as_bytes());
    ended.map(|()| Looked::Here)
}

async fn look_as_child(plan: &Plan, line: &str, log: &File) -> Result<(), DiagError> {
    let failed = |source| DiagError::Log { path: plan.log.clone(), source };
    let mut command = command(&plan.command);
    let program = command.as_std().get_program().to_owned();
    let output = || log.try_clone().map(Stdio::from);
    command
        .env(PID_VARIABLE, std::process::id().to_string())
        .env(CONTEXT_VARIABLE, line)
        .envs(secret::is_shown().then_some((SECRETS_VARIABLE, "1")))
        .env_remove("NOTIFY_SOCKET")
        .stdout(output().map_err(failed)?)
        .stderr(output().map_err(failed)?);
    let mut child =
        Group::spawn(&mut command).map_err(|source| DiagError::Spawn { program, source })?;
    tokio::select! {
        biased;
        ended = timeout(TIME_LIMIT, child.wait()) => match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DiagError::Status(status)),
            Ok(Err(e)) => Err(DiagError::Wait(e)),
            Err(_) => Err(DiagError::TimedOut(TIME_LIMIT)),
        },
        () = plan.deadline.notified() => Err(DiagError::Deadline),
    }
}

fn command(command: &DiagCommand) -> Command {
    let shell = |line: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]);
        shell
    };
    match command {
        _ if is_ourselves(command) => {
            let mut ourselves = Command::new(own_program());
            ourselves.arg0(ARG0);
            ourselves
        }
        // For an image in which `init` was forgotten but a shell is there.
        DiagCommand::BuiltIn => shell(SHELL),
        DiagCommand::Shell(line) => shell(line),
        DiagCommand::Program(program, arguments) => {
            let mut program = Command::new(program);
            program.args(arguments);
            program
        }
    }
}

/// Whether this program itself looks around, which also writes how it ended.
fn is_ourselves(command: &DiagCommand) -> bool {
    *command == DiagCommand::BuiltIn && INITIALISED.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use nix::unistd::Pid;
    use tokio::task::JoinHandle;

    use super::*;

    fn plan(command: DiagCommand, log: PathBuf) -> Plan {
        Plan { command, log, service: "gateway".into(), unit: None, deadline: Arc::default() }
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
        for signal in ["TERM", "ABRT"] {
            let flag = dir.path().join(signal);
            let meets = format!("touch {}; kill -{signal} $$", flag.display());
            let met = format!("[ -e {} ] && echo whole || {{ {meets}; }}", flag.display());
            run(plan(DiagCommand::Shell(met), log.clone()), "line".to_owned()).await.unwrap();
            let said = fs::read_to_string(&log).unwrap();
            assert!(said.ends_with("whole\n--- end of diagnostic\n"), "{signal}: {said}");
        }
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

    /// Starts one that hears no SIGTERM and waits for a child for an hour, and returns that child's
    /// pid, too. It is to be ended by `deadline`.
    async fn wedged(
        log: &Path,
        deadline: &Arc<Notify>,
    ) -> (i32, JoinHandle<Result<Looked, DiagError>>) {
        let command = DiagCommand::Shell("trap '' TERM; sleep 3600 & echo $!; wait".into());
        let plan = Plan { deadline: deadline.clone(), ..plan(command, log.to_owned()) };
        let running = tokio::spawn(run(plan, "line".into()));
        // The child is real: only once it has said its child's pid may the clock jump.
        let sleeper = loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            if let Some((pid, _)) =
                text.split_once('\n').and_then(|(_, rest)| rest.split_once('\n'))
            {
                break pid.parse::<i32>().unwrap();
            }
            tokio::task::yield_now().await;
        };
        (sleeper, running)
    }

    /// Waits until it is gone or a zombie: its parent, gone with it, cannot have waited for it.
    fn assert_ends(sleeper: i32) {
        while nix::sys::signal::kill(Pid::from_raw(sleeper), None).is_ok() {
            let state = forensics_core::process::ProcessSummary::read_stat(sleeper).state;
            if matches!(state, Some('Z') | None) {
                break;
            }
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn one_that_runs_over_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let (sleeper, running) = wedged(&log, &Arc::default()).await;
        tokio::time::pause();
        tokio::time::advance(TIME_LIMIT).await;
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, DiagError::TimedOut(_)), "{error}");
        assert_ends(sleeper);
    }

    #[tokio::test]
    async fn at_the_deadline_it_is_ended_and_the_log_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let deadline = Arc::new(Notify::new());
        let (sleeper, running) = wedged(&log, &deadline).await;
        deadline.notify_one();
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, DiagError::Deadline), "{error}");
        assert_ends(sleeper);
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.ends_with("--- diagnostic incomplete: ended at the deadline\n"), "{text}");
    }

    #[tokio::test]
    async fn dropped_it_leaves_no_process_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (sleeper, running) = wedged(&dir.path().join("diag.log"), &Arc::default()).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_ends(sleeper);
    }
}
