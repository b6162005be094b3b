//! A guarded program with a record.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(crate) const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");

/// The running program, in a process group of its own.
pub(crate) struct Subject {
    pub(crate) child: Child,
    /// Its pid in its own namespace.
    pub(crate) pid: u32,
    records: TempDir,
    /// Kept open, because it prints its report there.
    _stdout: BufReader<ChildStdout>,
}

impl Subject {
    pub(crate) fn start() -> Self {
        Self::by(&mut Command::new(SUBJECT))
    }

    /// Starts it by a command.
    pub(crate) fn by(command: &mut Command) -> Self {
        let records = tempfile::tempdir().unwrap();
        command.env("FORENSICS_RECORD_DIR", records.path()).env_remove("INVOCATION_ID");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn().unwrap();
        let mut line = String::new();
        let mut _stdout = BufReader::new(child.stdout.take().unwrap());
        _stdout.read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix("ready ").unwrap().parse().unwrap();
        Self { child, pid, records, _stdout }
    }

    /// The folder of its record.
    pub(crate) fn records(&self) -> &Path {
        self.records.path()
    }

    /// Its pid, if it is our child.
    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    /// The pid of the only child of the command that started it.
    pub(crate) fn id_of_child(&self) -> u32 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// Waits until it has ended by this signal.
    pub(crate) fn ended_by(&mut self, signal: Signal) {
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a sender to its end, and returns its pid.
pub(crate) fn run(command: &mut Command) -> u32 {
    let mut sender = command.spawn().unwrap();
    let pid = sender.id();
    sender.wait().unwrap();
    pid
}

/// `/bin/kill`
pub(crate) fn kill(arguments: &[&str]) -> Command {
    let mut kill = Command::new("/bin/kill");
    kill.args(arguments).stderr(Stdio::null());
    kill
}

/// A script of Python. `sys.argv[1]` is the first of the arguments.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(arguments).stderr(Stdio::null());
    python
}
