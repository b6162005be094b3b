//! Your own program, started, stopped by real signals, and judged by the record it leaves.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use forensics_core::record::{Event, PhaseFinished, PhaseOutcome, PostMortem, Record, runs};
use forensics_core::signal::Signal;
use nix::sys::signal::{Signal as Nix, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::output::Output;
use crate::machine::SAME_REQUEST;

/// Where the harness has a program's records written.
const RECORD_DIR: &str = "FORENSICS_RECORD_DIR";

/// How long is waited for anything, unless told: far more than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What two signals are apart, to count as two: the real rule, and what a busy machine may swallow
/// of the time between two sends.
const APART: Duration = SAME_REQUEST.saturating_add(Duration::from_millis(50));

/// A running program. Blocking: for tests with `#[test]`, and for those with `#[tokio::test]` that
/// have nothing else to do meanwhile on their thread.
///
/// It writes its record to a temporary folder of the harness's, by the variable
/// `FORENSICS_RECORD_DIR`, which wins over what the program says. Every other `FORENSICS_` variable
/// of the test's own environment is kept from it; those set on the [`Command`] are not.
///
/// Whatever is waited for has a limit, past which the test fails with all the output so far. Ended
/// by SIGKILL when it is dropped.
///
/// ```no_run
/// use std::process::Command;
/// use forensics_tokio::Signal;
/// use forensics_tokio::core::record::PhaseOutcome;
/// use forensics_tokio::testing::Process;
///
/// // In a test: env!("CARGO_BIN_EXE_gateway").
/// let gateway = Process::start(&mut Command::new("target/debug/gateway"));
/// gateway.until_stdout("listening on");
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
    /// Absent where the command named a folder itself.
    made: Option<TempDir>,
    limit: Duration,
    signalled: Mutex<Option<Instant>>,
}

impl Process {
    /// Starts it, with no input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts it, with this input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[track_caller]
    pub fn start_reading(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let named = |name: &OsStr, command: &Command| {
            let mut set = command.get_envs().filter_map(|(set, value)| Some((set, value?)));
            set.find_map(|(set, value)| (set == name).then(|| PathBuf::from(value)))
        };
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("FORENSICS_")) {
            if named(&name, command).is_none() {
                command.env_remove(name);
            }
        }
        let (records, made) = match named(RECORD_DIR.as_ref(), command) {
            Some(records) => (records, None),
            None => {
                let made = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder: {e}"));
                let records = made.path().join("records");
                command.env(RECORD_DIR, &records);
                (records, Some(made))
            }
        };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        if made.is_some() {
            // Whoever starts the same command again gets a folder of his own.
            command.env_remove(RECORD_DIR);
        }
        let stdout = Output::of(child.stdout.take());
        let stderr = Output::of(child.stderr.take());
        Self { child, stdout, stderr, records, made, limit: LIMIT, signalled: Mutex::default() }
    }

    /// How long anything may take: a minute unless told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it writes its record; also for a second start, which then says how this run ended.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// Waits for a line on stdout that contains `text`, and returns it.
    ///
    /// # Panics
    /// Where it does not come.
    #[track_caller]
    pub fn until_stdout(&self, text: &str) -> String {
        self.found(self.stdout.wait_for(text, self.limit), "stdout", text)
    }

    /// Waits for a line on stderr that contains `text`, and returns it.
    ///
    /// # Panics
    /// Where it does not come.
    #[track_caller]
    pub fn until_stderr(&self, text: &str) -> String {
        self.found(self.stderr.wait_for(text, self.limit), "stderr", text)
    }

    #[track_caller]
    fn found(&self, line: Option<String>, stream: &str, text: &str) -> String {
        line.unwrap_or_else(|| {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            panic!("no `{text}` on {stream}\nstdout:\n{stdout}\nstderr:\n{stderr}")
        })
    }

    /// Sends it a signal. The sender is the test's process, its parent: cause `supervisor`.
    ///
    /// # Panics
    /// Where there is no such signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // Our own child, not waited for yet: the pid is still its.
        let pid = Pid::from_raw(self.pid().cast_signed());
        let sent = Nix::try_from(signal.as_raw()).and_then(|signal| kill(pid, signal));
        sent.unwrap_or_else(|e| panic!("cannot send {signal}: {e}"));
        *self.signalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Sends it another, once it does not count as the last one delivered twice: 200 ms after that.
    ///
    /// # Panics
    /// Where there is no such signal.
    #[track_caller]
    pub fn second_signal(&self, signal: Signal) {
        let last = *self.signalled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            // The rule is one of real time: there is no event to wait for.
            thread::sleep(APART.saturating_sub(last.elapsed()));
        }
        self.signal(signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn wait(mut self) -> Run {
        // Both ends of its output are closed when it ends, and no sooner.
        let closed = self.stdout.wait_closed(self.limit) && self.stderr.wait_closed(self.limit);
        assert!(closed, "it does not end; stderr so far:\n{}", self.stderr.text());
        let status = self.child.wait().unwrap_or_else(|e| panic!("cannot wait for it: {e}"));
        let (record, verdict) = self.read_record();
        Run {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            record,
            verdict,
            _records: self.made.take(),
        }
    }

    /// The newest record in our own folder, also where the program was started by another; else the
    /// newest of its process.
    fn read_record(&self) -> (Option<Record>, Option<PostMortem>) {
        let all = runs(&self.records).unwrap_or_default();
        let ours = |record: &Record| self.made.is_some() || record.start.pid == self.pid();
        let mut read = all.iter().rev().filter_map(|path| Some((path, Record::read(path).ok()?)));
        match read.find(|(_, record)| ours(record)) {
            Some((path, record)) => (Some(record), PostMortem::of(path).ok()),
            None => (None, None),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Our own child: if it is not waited for yet the pid is still its.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a program.
#[derive(Debug)]
#[non_exhaustive]
pub struct Run {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
    /// Its record; absent where it did not get to write one.
    pub record: Option<Record>,
    /// What the next start would say of it.
    pub verdict: Option<PostMortem>,
    /// Kept as long as this is.
    _records: Option<TempDir>,
}

/// Of a program that was run otherwise: with no record.
impl From<process::Output> for Run {
    fn from(output: process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            record: None,
            verdict: None,
            _records: None,
        }
    }
}

impl Run {
    /// The exit code.
    ///
    /// # Panics
    /// Where a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }

    /// The cause of its stop, in one word; empty where nothing asked it to stop.
    ///
    /// # Panics
    /// Where it left no record.
    #[track_caller]
    pub fn cause(&self) -> &str {
        let none = || panic!("it left no record\n{}", self.stderr);
        self.verdict.as_ref().unwrap_or_else(none).cause.as_deref().unwrap_or_default()
    }

    /// The phases and groups that ended, in that order, as the record has them; the members of a
    /// group stand in front of it.
    pub fn phases(&self) -> impl Iterator<Item = &PhaseFinished> {
        let entries = self.record.iter().flat_map(|record| &record.entries);
        entries.filter_map(|entry| match &entry.event {
            Event::PhaseFinished(phase) => Some(phase),
            _ => None,
        })
    }

    /// How the phases and groups ended, in that order; the members of groups left out.
    pub fn outcomes(&self) -> Vec<(&str, PhaseOutcome)> {
        let own = self.phases().filter(|phase| phase.group.is_none());
        own.map(|phase| (phase.phase.as_str(), phase.outcome)).collect()
    }

    /// The phase of that name, or the member of a group.
    ///
    /// # Panics
    /// Where it has not ended.
    #[track_caller]
    pub fn phase(&self, name: &str) -> &PhaseFinished {
        let found = self.phases().find(|phase| phase.phase == name);
        found.unwrap_or_else(|| panic!("no phase {name} has ended\n{}", self.stderr))
    }

    /// The first line of stderr that contains `text`.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn line(&self, text: &str) -> &str {
        let line = self.stderr.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no `{text}` in:\n{}", self.stderr))
    }
}
