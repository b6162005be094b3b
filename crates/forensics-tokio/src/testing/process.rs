//! Starts your own program, stops it by real signals, and reads its record.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::record::{self, Event, PhaseFinished, PhaseOutcome, PostMortem, Record, runs};
use nix::sys::signal::{Signal as Nix, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::output::Output;
use crate::machine::SAME_REQUEST;

/// The variable that says where a program writes its records.
const RECORD_DIR: &str = "FORENSICS_RECORD_DIR";

/// How long the harness waits by default. Even on a busy machine everything takes far less.
const LIMIT: Duration = Duration::from_secs(60);

/// How far apart two signals must be to count as two requests: what the guard requires, plus a
/// margin for a busy machine.
const APART: Duration = SAME_REQUEST.saturating_add(Duration::from_millis(50));

/// A running program. Its methods block the thread. So use it in tests with `#[test]`, or in tests
/// with `#[tokio::test]` that have nothing else to run on that thread.
///
/// The program writes its record to a temporary folder. The harness sets the variable
/// `FORENSICS_RECORD_DIR`, which overrides the program's own setting. The program does not inherit
/// the other `FORENSICS_` variables of the test's environment. To set one, set it on the
/// [`Command`].
///
/// Every wait has a limit. If it passes, the test fails and shows all the output so far. The program is
/// killed with SIGKILL when this is dropped.
///
/// ```no_run
/// use std::process::Command;
/// use forensics_tokio::Signal;
/// use forensics_tokio::core::record::PhaseOutcome;
/// use forensics_tokio::testing::Process;
///
/// // In a test: env!("CARGO_BIN_EXE_gateway").
/// let gateway = Process::start(&mut Command::new("target/debug/gateway"));
/// gateway.wait_for_stdout("listening on");
/// gateway.signal(Signal::TERM);
/// let run = gateway.wait();
/// assert_eq!(run.code(), 0, "{}", run.stderr);
/// assert_eq!(run.outcomes(), [("drain", PhaseOutcome::Ok), ("db_close", PhaseOutcome::Ok)]);
/// ```
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    records: PathBuf,
    /// The temporary folder. `None` if the command names a folder itself.
    made: Option<TempDir>,
    limit: Duration,
}

impl Process {
    /// Starts a program without input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts a program with `stdin` as its input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start_reading(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        for (name, _) in std::env::vars_os() {
            let is_set = command.get_envs().any(|(set, _)| set == name);
            if name.to_string_lossy().starts_with("FORENSICS_") && !is_set {
                command.env_remove(name);
            }
        }
        let mut named = command.get_envs().filter(|(name, _)| *name == RECORD_DIR);
        let named = named.find_map(|(_, value)| value.map(PathBuf::from));
        let (records, made) = if let Some(records) = named {
            (records, None)
        } else {
            let made = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
            (made.path().join("records"), Some(made))
        };
        command.env(RECORD_DIR, &records);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        if made.is_some() {
            // So that a second start of the same command gets another folder.
            command.env_remove(RECORD_DIR);
        }
        let (stdout, stderr) = (Output::of(child.stdout.take()), Output::of(child.stderr.take()));
        Self { child, stdout, stderr, records, made, limit: LIMIT }
    }

    /// Sets how long each wait may take. The default is a minute.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the folder in which the program writes its record. If a second start gets the same
    /// folder, it reports how this run ended.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// Waits for a line on stdout that contains `text`, and returns it.
    ///
    /// # Panics
    /// If no such line is written within the limit.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.wait_for(&self.stdout, "stdout", text)
    }

    /// Waits for a line on stderr that contains `text`, and returns it.
    ///
    /// # Panics
    /// If no such line is written within the limit.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.wait_for(&self.stderr, "stderr", text)
    }

    #[track_caller]
    fn wait_for(&self, output: &Output, stream: &str, text: &str) -> String {
        output.wait_for(text, self.limit).unwrap_or_else(|| {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            panic!("no `{text}` on {stream}\nstdout:\n{stdout}\nstderr:\n{stderr}")
        })
    }

    /// Sends it a signal. The sender is its parent, the test's process, so the cause is `supervisor`.
    ///
    /// # Panics
    /// If there is no such signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // The child has not been waited for, so the pid is still its own.
        let pid = Pid::from_raw(self.pid().cast_signed());
        let sent = Nix::try_from(signal.as_raw()).and_then(|signal| kill(pid, signal));
        sent.unwrap_or_else(|e| panic!("cannot send {signal}: {e}"));
    }

    /// Sends it another signal, more than 200 ms after the last one. Before that it could belong to
    /// the same request.
    ///
    /// By default only the signals of a person speed up a stop, and a test is not a person. If this signal
    /// should do so, set `FORENSICS_ESCALATION=any_signal` in the environment of the program.
    ///
    /// # Panics
    /// If there is no such signal.
    #[track_caller]
    pub fn second_signal(&self, signal: Signal) {
        // The rule is about real time, so there is no event to wait for.
        thread::sleep(APART);
        self.signal(signal);
    }

    /// Waits until the program has ended.
    ///
    /// # Panics
    /// If it does not end within the limit.
    #[track_caller]
    pub fn wait(mut self) -> Run {
        // The streams are closed when the program has ended, and every process that inherited them.
        let closed = self.stdout.wait_closed(self.limit) && self.stderr.wait_closed(self.limit);
        assert!(closed, "it does not end; stderr so far:\n{}", self.stderr.text());
        let status = self.child.wait().unwrap_or_else(|e| panic!("cannot wait for it: {e}"));
        // In the temporary folder, the newest record, which may be of a process that the program started.
        // In another folder, the newest record of the program's own process.
        let is_its = |run: &record::Run| self.made.is_some() || run.record.start.pid == self.pid();
        let paths = runs(&self.records).unwrap_or_default();
        let mut newest_first = paths.iter().rev().filter_map(|path| record::Run::read(path).ok());
        let run = newest_first.find(is_its);
        let record = run.as_ref().and_then(|run| Record::of(&run.file).ok());
        let verdict = run.map(|run| run.post_mortem);
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Run { status, stdout, stderr, record, verdict, _records: self.made.take() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If the child has not been waited for, the pid is still its own. Otherwise this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Run {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything that it wrote to stdout.
    pub stdout: String,
    /// Everything that it wrote to stderr.
    pub stderr: String,
    /// Its record. `None` if it wrote none.
    pub record: Option<Record>,
    /// The post-mortem of the run, as the next start would report it.
    pub verdict: Option<PostMortem>,
    /// Deleted when this is dropped.
    _records: Option<TempDir>,
}

impl Run {
    /// Returns the exit code.
    ///
    /// # Panics
    /// If a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }

    /// Returns the cause of its stop, in one word. Empty if nothing asked it to stop.
    ///
    /// # Panics
    /// If it wrote no record.
    #[track_caller]
    pub fn cause(&self) -> &str {
        let none = || panic!("it left no record\n{}", self.stderr);
        self.verdict.as_ref().unwrap_or_else(none).cause.as_deref().unwrap_or_default()
    }

    /// Returns the phases and groups that ended, in the order in which they ended. The members of a
    /// group come before it.
    pub fn phases(&self) -> impl Iterator<Item = &PhaseFinished> {
        let entries = self.record.iter().flat_map(|record| &record.entries);
        entries.filter_map(|entry| match &entry.event {
            Event::PhaseFinished(phase) => Some(phase),
            _ => None,
        })
    }

    /// Returns the outcomes of the phases and groups, in the order in which they ended, without the
    /// members of groups.
    pub fn outcomes(&self) -> Vec<(&str, PhaseOutcome)> {
        let own = self.phases().filter(|phase| phase.group.is_none());
        own.map(|phase| (phase.phase.as_str(), phase.outcome)).collect()
    }

    /// Returns the phase or group member with that name.
    ///
    /// # Panics
    /// If it has not ended.
    #[track_caller]
    pub fn phase(&self, name: &str) -> &PhaseFinished {
        let found = self.phases().find(|phase| phase.phase == name);
        found.unwrap_or_else(|| panic!("no phase {name} has ended\n{}", self.stderr))
    }

    /// Returns the first line of stderr that contains `text`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn line(&self, text: &str) -> &str {
        let line = self.stderr.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no `{text}` in:\n{}", self.stderr))
    }
}
