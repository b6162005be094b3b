//! The diagnostic: a process, started at the signal, that writes down what this process and the machine
//! are doing.
//!
//! By default the program starts itself again, and the second process only writes a [`Diagnostic`].
//! So the image needs no shell and no `ps`. For this, `main` must first call [`run_if_child`],
//! which writes the diagnostic in the second process and exits. A program that has not called it is
//! never started again. A shell command then replaces the built-in diagnostic. The second process
//! knows by a file on its input that it is the diagnostic; see `Order`.
//!
//! If the stop of a unit takes too long, systemd kills the whole cgroup of the unit, and a diagnostic in
//! it as well. So the diagnostic of a service is started as a transient unit if that is allowed; see
//! `transient_unit`. Otherwise it is a child.
//!
//! A child does not handle SIGTERM, so it ends when systemd signals the whole cgroup again. If a
//! process remained, systemd would report a clean stop as failed. A command that does not end is
//! killed, with all processes that it started, at its time limit or at the teardown's deadline.

mod transient_unit;

use std::convert::identity;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forensics_core::capture::is_secure_execution;
use forensics_core::diagnostic::Diagnostic;
use forensics_core::escape::{Escaped, error_chain};
use forensics_core::logfmt::Value;
use forensics_core::program::{self, SYSTEM_PATH};
use forensics_core::record::{AccessError, DiagState};
use forensics_core::secret;
use forensics_core::secure_fs::append_to;
use forensics_core::systemd::CgroupUnit;
use nix::unistd::geteuid;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::blocking::{off_runtime, run_with_timeout};
use crate::child::{Group, distrust_environment};
use crate::events;
use crate::os::{SHELL, is_sealed, own_program, sealed};
use crate::systemctl::{UNKNOWN_STATUS, may_start_again};

/// The first argument of this program when it runs as the diagnostic.
const ARGUMENT: &str = "shutdown-diagnostic";
/// The first word of an [`Order`], and its maximum length in bytes.
const ORDER: &str = "shutdown-diagnostic-of";
const MAX_ORDER: u64 = 100;
const PID_VARIABLE: &str = "FORENSICS_PID";
const CONTEXT_VARIABLE: &str = "FORENSICS_CONTEXT";
/// For a `diag_command`: `1` if the service shows secrets, otherwise `0`. It replaces the variable that
/// the operator may have set for the service, because the service may ignore that.
const SECRETS_VARIABLE: &str = "FORENSICS_SHOW_SECRETS";

/// How long a diagnostic may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How much of the output is copied, and how long to wait for the rest after the end of the child.
const MAX_COPIED: u64 = 1024 * 1024;
const COPY_LIMIT: Duration = Duration::from_millis(500);

/// An upper bound for the length of the last line of the built-in diagnostic, in bytes.
const LAST_LINE: u64 = 100;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Runs the diagnostic and exits, if this process was started as the diagnostic of another run of the
/// program. Otherwise it returns at once.
///
/// Call it in the first line of `main`, before anything is opened or started. It also works inside
/// a runtime, such as under `#[tokio::main]`.
pub fn run_if_child() {
    INITIALISED.store(true, Ordering::Release);
    let is_requested = std::env::args_os().nth(1).is_some_and(|name| name == ARGUMENT);
    let order = || Order::read(io::stdin().as_fd().try_clone_to_owned().ok()?.into());
    if is_requested && let Some(order) = order() {
        std::process::exit(diagnose(&order));
    }
}

fn diagnose(order: &Order) -> i32 {
    secret::show(order.shows_secrets);
    // `Stdout` would write each line separately.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let start = |work| std::thread::Builder::new().spawn(work).map(drop);
    let written = stdout.and_then(|mut out| Diagnostic::of(order.pid).write_to(&mut out, start));
    i32::from(written.is_err())
}

/// What this program does when it runs as the diagnostic. It is passed as a sealed file on the input.
///
/// The argument alone would let any caller of the program run the diagnostic, for example a user who may
/// start it by sudo(8). Such a caller cannot create a file that belongs to the user as whom the program
/// runs. A program with rights that its caller lacks accepts no order, because there the file can
/// belong to the caller.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    /// The process to inspect.
    pid: i32,
    shows_secrets: bool,
}

impl Order {
    /// The order to inspect this process.
    fn to_file() -> io::Result<File> {
        let shows_secrets = u8::from(secret::is_shown());
        sealed(&format!("{ORDER} {} {shows_secrets}\n", std::process::id()))
    }

    fn read(mut input: File) -> Option<Self> {
        let is_ours = input.metadata().is_ok_and(|it| it.uid() == geteuid().as_raw());
        if is_secure_execution() || !is_ours || !is_sealed(&input) {
            return None;
        }
        // A pipe, on other Unix, cannot and need not be rewound.
        let _ = input.rewind();
        let mut text = String::new();
        input.take(MAX_ORDER).read_to_string(&mut text).ok()?;
        let (pid, shows_secrets) =
            text.trim_end().strip_prefix(ORDER)?.trim_start().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, shows_secrets: shows_secrets == "1" })
    }
}

/// The command that runs as the diagnostic at a stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiagCommand {
    /// This program itself if it has called [`run_if_child`], otherwise a shell command with `ps`.
    #[default]
    BuiltIn,
    /// A command line for `/bin/sh -c`.
    Shell(String),
    /// A program with its arguments.
    Program(PathBuf, Vec<OsString>),
}

impl DiagCommand {
    /// The program and its arguments. `own_program` is the path of this program.
    ///
    /// # Errors
    /// A text, if it cannot be started safely, or not be found.
    fn resolve(&self, own_program: PathBuf) -> Result<(PathBuf, Vec<OsString>), String> {
        let shell = |line: String| ("/bin/sh".into(), vec!["-c".into(), line.into()]);
        let (program, arguments) = match self {
            DiagCommand::BuiltIn if is_secure_execution() => return Err(NOT_ITSELF.to_owned()),
            DiagCommand::BuiltIn if self.is_own_program() => {
                (own_program, vec![ARGUMENT.into(), std::process::id().to_string().into()])
            }
            DiagCommand::BuiltIn => shell(format!("PATH={SYSTEM_PATH}; {SHELL}")),
            DiagCommand::Shell(line) => shell(line.clone()),
            DiagCommand::Program(program, arguments) => {
                let name = program.to_str().filter(|name| !name.contains('/'));
                let found = name.map(program::find).transpose();
                let found = found.map_err(|e| format!("cannot start {program:?}: {e}"))?;
                (found.unwrap_or_else(|| program.clone()), arguments.clone())
            }
        };
        if is_secure_execution() && !program.is_absolute() {
            return Err(format!(
                "cannot start {program:?}: its path must be absolute, because the \
                caller of this program has chosen the current folder"
            ));
        }
        Ok((program, arguments))
    }

    /// Whether this program itself is the diagnostic. It then also writes the line that says how
    /// the diagnostic ended.
    fn is_own_program(&self) -> bool {
        *self == DiagCommand::BuiltIn && INITIALISED.load(Ordering::Acquire)
    }
}

/// Why a program with rights that its caller lacks has no built-in diagnostic.
const NOT_ITSELF: &str = "a program that is set-user-ID or set-group-ID, or whose file has \
    capabilities, does not start itself as the diagnostic: set a diag_command, or give its unit \
    AmbientCapabilities=";

/// How long opening the log may take at the start.
const OPEN_LIMIT: Duration = Duration::from_secs(1);

/// The log of the diagnostic as it was opened at the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenedLog {
    /// Kept open by root, who may drop the right to open it again.
    kept: Option<Arc<File>>,
    /// Whether it could not be opened. The start has logged that.
    pub(crate) is_refused: bool,
}

impl OpenedLog {
    /// Creates the log if it does not exist, so that a problem is reported at the start and not only
    /// when the diagnostic is needed.
    pub(crate) fn open(path: &Path) -> Self {
        let log = path.to_owned();
        match run_with_timeout(OPEN_LIMIT, move || append_to(&log)) {
            Some(Ok(log)) => {
                let kept = geteuid().is_root().then(|| Arc::new(log));
                Self { kept, is_refused: false }
            }
            Some(Err(e)) => {
                events::no_diagnostic_log(&error_chain(&e));
                Self { kept: None, is_refused: true }
            }
            // The disk blocks, or there is no thread. It is opened at the signal.
            None => Self::default(),
        }
    }

    /// Opens the log at its path. If that fails, uses the one that was opened at the start.
    fn reopen(&self, path: &Path) -> Result<File, AccessError> {
        let kept = || self.kept.as_ref()?.try_clone().ok();
        append_to(path).or_else(|e| kept().ok_or(e))
    }
}

/// What to start at the signal.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) command: DiagCommand,
    pub(crate) log: PathBuf,
    pub(crate) opened: OpenedLog,
    /// The service, for the heading.
    pub(crate) service: String,
    /// The service's unit, if it runs in one.
    pub(crate) unit: Option<CgroupUnit>,
    /// Notified at the teardown's deadline.
    pub(crate) deadline: Arc<Notify>,
}

/// Why the diagnostic is missing or incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct DiagError {
    /// The state in the record.
    pub(crate) state: DiagState,
    text: String,
}

fn timed_out(text: String) -> DiagError {
    DiagError { state: DiagState::TimedOut, text }
}

/// Turns an error into one that says `what` failed.
fn failed<E: Display>(what: impl Display) -> impl FnOnce(E) -> DiagError {
    move |e| DiagError { state: DiagState::Failed, text: format!("{what}: {e}") }
}

/// Runs the diagnostic and appends its output to the log. Waits for the end of a child. Returns the name
/// of a transient unit as soon as it runs; it may outlive this process.
///
/// If this is dropped, the child is killed with all processes that it started, and the log does not say so.
pub(crate) async fn run(plan: Plan, line: String) -> Result<Option<String>, DiagError> {
    let cannot_write = format!("cannot write to the log {:?}", plan.log);
    let heading = format!("=== {}[{}] {line}\n", Value(&plan.service), std::process::id());
    let (path, what) = (plan.log.clone(), cannot_write.clone());
    let before = plan.opened.clone();
    // Not on the runtime, because the disk may block.
    let opened = off_runtime(move || {
        let mut log = before.reopen(&path).map_err(|e| failed("no log")(error_chain(&e)))?;
        log.write_all(heading.as_bytes()).map_err(failed(what))?;
        Ok(log)
    });
    let opened = timeout(TIME_LIMIT, opened).await.map_err(io::Error::from).and_then(identity);
    let mut log = opened.map_err(failed(cannot_write)).and_then(identity)?;

    match transient_unit::start(&plan, &log, &line).await {
        Ok(None) => {}
        Ok(unit) => return Ok(unit),
        // Written to the diagnostic's log, because an operator reads it if something is missing.
        Err(why) => drop(writeln!(log, "--- not in a separate unit: {}", Escaped(&why))),
    }
    let ended = run_child(&plan, &line, &log).await;
    let end = match &ended {
        Ok(_) if plan.command.is_own_program() => String::new(),
        Ok(Some(_)) => "--- end of diagnostic\n".to_owned(),
        Ok(None) => format!("--- end of diagnostic, {UNKNOWN_STATUS}\n"),
        Err(e) => format!("--- diagnostic incomplete: {}\n", Escaped(&e.text)),
    };
    // If this fails, only this last line is missing.
    let _ = log.write_all(end.as_bytes());
    ended.map(|_| None)
}

/// Runs the diagnostic as a child. Returns the exit status, if it is known.
///
/// The child of a program with rights that its caller lacks may not have these rights, as a shell that gives
/// up those of a set-user-ID program. The caller may then control the child and take its descriptors
/// (pidfd_getfd(2)). So it does not get the log, but a pipe from which a thread copies to the log.
async fn run_child(plan: &Plan, line: &str, log: &File) -> Result<Option<ExitStatus>, DiagError> {
    if !is_secure_execution() {
        return run_with_output(plan, line, log).await;
    }
    let pipe = io::pipe().and_then(|pipe| Ok((pipe, log.try_clone()?)));
    let ((reader, writer), mut log) = pipe.map_err(failed("cannot start the diagnostic"))?;
    let copy = move || io::copy(&mut reader.take(MAX_COPIED), &mut log);
    let copied = tokio::spawn(off_runtime(copy));
    let ended = run_with_output(plan, line, &OwnedFd::from(writer).into()).await;
    // A process that has left the group, or the caller, may keep the pipe open.
    let _ = timeout(COPY_LIMIT, copied).await;
    ended
}

async fn run_with_output(
    plan: &Plan,
    line: &str,
    output: &File,
) -> Result<Option<ExitStatus>, DiagError> {
    let failed_to = |text| DiagError { state: DiagState::Failed, text };
    let (program, arguments) = plan.command.resolve(own_program()).map_err(failed_to)?;
    let cannot_start = format!("cannot start {program:?}");
    let mut command = Command::new(program);
    let output = || output.try_clone().map(Stdio::from).map_err(failed(&cannot_start));
    distrust_environment(&mut command);
    command
        .args(arguments)
        .env(PID_VARIABLE, std::process::id().to_string())
        .env(CONTEXT_VARIABLE, line)
        .env(SECRETS_VARIABLE, u8::from(secret::is_shown()).to_string())
        .env_remove("NOTIFY_SOCKET")
        .stdout(output()?)
        .stderr(output()?);
    let mut status = run_once(plan, &mut command, &cannot_start).await?;
    // Only once more: if the signal was meant for the diagnostic, its sender can send it again.
    if may_start_again(status).await {
        status = run_once(plan, &mut command, &cannot_start).await?;
    }
    match status {
        Some(status) if !status.success() => Err(failed_to(status.to_string())),
        None if plan.command.is_own_program() && !is_complete(&plan.log).await => {
            Err(failed_to(UNKNOWN_STATUS.to_owned()))
        }
        status => Ok(status),
    }
}

/// Whether the log ends with the last line of our own diagnostic.
async fn is_complete(log: &Path) -> bool {
    let log = log.to_owned();
    let tail = move || {
        let mut log = File::open(log)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE)))?;
        let mut tail = Vec::new();
        log.take(LAST_LINE).read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).contains("\n--- end of diagnostic"))
    };
    // Not on the runtime, because the disk may block.
    let read = timeout(TIME_LIMIT, off_runtime(tail)).await;
    matches!(read, Ok(Ok(Ok(true))))
}

async fn run_once(
    plan: &Plan,
    command: &mut Command,
    what: &str,
) -> Result<Option<ExitStatus>, DiagError> {
    let order = plan.command.is_own_program().then(Order::to_file).transpose();
    let child = order.and_then(|order| Group::spawn(command, order));
    let mut child = child.map_err(failed(what))?;
    tokio::select! {
        biased;
        ended = timeout(TIME_LIMIT, child.wait()) => ended
            .map_err(|_| timed_out(format!("ended after {TIME_LIMIT:?}, its time limit")))?
            .map_err(failed("cannot wait for it")),
        () = plan.deadline.notified() => Err(timed_out("ended at the deadline".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::unistd::Pid;
    use tokio::task::JoinHandle;

    use super::*;

    fn plan(command: DiagCommand, log: PathBuf) -> Plan {
        let (opened, deadline) = (OpenedLog::default(), Arc::default());
        Plan { command, log, opened, service: "gateway".into(), unit: None, deadline }
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
    async fn it_shows_secrets_only_if_this_process_does_whatever_the_environment_says() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let command = DiagCommand::Shell(format!("echo shown: ${SECRETS_VARIABLE}"));
        run(plan(command, log.clone()), "line".to_owned()).await.unwrap();
        assert!(fs::read_to_string(&log).unwrap().contains("\nshown: 0\n"));
    }

    #[tokio::test]
    async fn a_command_that_the_stop_signal_ended_is_started_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        for signal in ["TERM", "ABRT"] {
            let flag = dir.path().join(signal);
            let meets = format!("touch {}; kill -{signal} $$", flag.display());
            let met = format!("[ -e {} ] && echo whole || {{ {meets}; }}", flag.display());
            run(plan(DiagCommand::Shell(met), log.clone()), "line".to_owned()).await.unwrap();
            let written = fs::read_to_string(&log).unwrap();
            assert!(written.ends_with("whole\n--- end of diagnostic\n"), "{signal}: {written}");
        }
        let always = DiagCommand::Shell("kill $$".to_owned());
        let error = run(plan(always, log), "line".to_owned()).await.unwrap_err();
        assert!(error.to_string().contains("signal: 15"), "{error}");
    }

    /// On other Unix it is a pipe.
    #[cfg(all(target_os = "linux", not(forensics_portable)))]
    #[test]
    fn only_a_sealed_file_of_our_own_user_is_an_order() {
        use std::os::unix::fs::fchown;

        let pid = std::process::id() as i32;
        let text = format!("{ORDER} {pid} 0\n");
        let ours = Order { pid, shows_secrets: false };
        assert_eq!(Order::read(Order::to_file().unwrap()), Some(ours));
        let unsealed = || {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        assert_eq!(Order::read(unsealed()), None);
        let pipe = || {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            std::os::fd::OwnedFd::from(reader).into()
        };
        assert_eq!(Order::read(pipe()), None);
        assert_eq!(Order::read(File::open("/dev/null").unwrap()), None);
        for broken in ["", ORDER, "shutdown-diagnostic-of 7", "shutdown-diagnostic-of x 1", "7 1"] {
            assert_eq!(Order::read(sealed(broken).unwrap()), None, "{broken}");
        }
        if geteuid().is_root() {
            let theirs = sealed(&text).unwrap();
            fchown(&theirs, Some(65534), None).unwrap();
            assert_eq!(Order::read(theirs), None);
        }
    }

    #[tokio::test]
    async fn a_program_that_did_not_call_run_if_child_is_not_started_again() {
        assert!(!INITIALISED.load(Ordering::Acquire));
        let (program, _) = DiagCommand::BuiltIn.resolve("/own".into()).unwrap();
        assert_eq!(program, Path::new("/bin/sh"));
    }

    #[tokio::test]
    async fn a_log_is_complete_if_it_ends_with_the_diagnostics_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let heading = "x".repeat(200);
        let cases = [
            ("", false),
            ("--- end of diagnostic (7 ms)", false),
            ("\n--- end of diagnostic (7 ms)\n", true),
            (
                "\n--- end of diagnostic (7 ms)\n=== gateway[1] signal=SIGTERM cause=operator \
              under_systemd=no sender_pid=4242 sender_name=kill sender_uid=1000\n",
                false,
            ),
        ];
        for (text, expected) in cases {
            fs::write(&log, format!("{heading}{text}")).unwrap();
            assert_eq!(is_complete(&log).await, expected, "{text}");
        }
        assert!(!is_complete(&dir.path().join("missing")).await);
    }

    #[tokio::test]
    async fn a_failure_is_reported_and_the_heading_stays() {
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

    /// Starts a diagnostic that ignores SIGTERM and waits an hour for its child. Returns also the
    /// pid of that child. `deadline` ends it.
    async fn start_endless(
        log: &Path,
        deadline: &Arc<Notify>,
    ) -> (i32, JoinHandle<Result<Option<String>, DiagError>>) {
        let command = DiagCommand::Shell("trap '' TERM; sleep 3600 & echo $!; wait".into());
        let plan = Plan { deadline: deadline.clone(), ..plan(command, log.to_owned()) };
        let running = tokio::spawn(run(plan, "line".into()));
        // The processes are real, so the clock must not jump before the pid is in the log.
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

    /// Waits until it has ended or is a zombie. Its parent has ended, too, so it may remain a
    /// zombie.
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
    async fn at_its_time_limit_it_is_ended_with_all_processes_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let (sleeper, running) = start_endless(&log, &Arc::default()).await;
        tokio::time::pause();
        tokio::time::advance(TIME_LIMIT).await;
        let error = running.await.unwrap().unwrap_err();
        assert_eq!(error.state, DiagState::TimedOut);
        assert_eq!(error.to_string(), "ended after 5s, its time limit");
        assert_ends(sleeper);
    }

    #[tokio::test]
    async fn at_the_deadline_it_is_ended_and_the_log_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("diag.log");
        let deadline = Arc::new(Notify::new());
        let (sleeper, running) = start_endless(&log, &deadline).await;
        deadline.notify_one();
        let error = running.await.unwrap().unwrap_err();
        assert_eq!(error.state, DiagState::TimedOut);
        assert_eq!(error.to_string(), "ended at the deadline");
        assert_ends(sleeper);
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.ends_with("--- diagnostic incomplete: ended at the deadline\n"), "{text}");
    }

    #[tokio::test]
    async fn if_it_is_dropped_no_process_remains() {
        let dir = tempfile::tempdir().unwrap();
        let (sleeper, running) = start_endless(&dir.path().join("diag.log"), &Arc::default()).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_ends(sleeper);
    }
}
