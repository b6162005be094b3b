//! Starts the subject and its senders, and reads its output.

use std::process::{Child, Command, Stdio};

use forensics_tests::{Ended, Program};
use forensics_tokio::ShutdownReport;
use forensics_tokio::core::cause::Cause;
use forensics_tokio::core::context::Sender;
use forensics_tokio::core::process::ProcessSummary;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

pub(crate) const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");
pub(crate) const KILL_AND_EXIT: &str = env!("CARGO_BIN_EXE_kill_and_exit");

/// The running guarded program.
pub(crate) struct Subject {
    pub(crate) program: Program,
    /// Its pid in its own namespace.
    pub(crate) pid: u32,
}

/// Its report and log after the stop.
pub(crate) struct Stop {
    pub(crate) report: ShutdownReport,
    pub(crate) ended: Ended,
}

impl Subject {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::under(Command::new(SUBJECT).args(options))
    }

    /// Starts it by a command that ends with the subject and its options.
    pub(crate) fn under(command: &mut Command) -> Self {
        let program = Program::start(command);
        let ready = program.wait_for_stdout("ready ");
        let pid = ready.strip_prefix("ready ").unwrap().parse().unwrap();
        Self { program, pid }
    }

    /// Sends SIGSTOP, and waits until it is stopped.
    pub(crate) fn pause(&self) {
        self.program.kill("-STOP");
        waitid(Id::Pid(Pid::from_raw(self.program.pid() as i32)), WaitPidFlag::WSTOPPED).unwrap();
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) {
        self.program.kill("-CONT");
    }

    /// Waits until it has ended.
    pub(crate) fn stopped(self) -> Stop {
        let ended = self.program.wait();
        let json = ended.stdout.lines().find(|line| line.starts_with('{'));
        let json = json.unwrap_or_else(|| panic!("no report; stderr:\n{}", ended.stderr));
        let report: ShutdownReport = serde_json::from_str(json).unwrap();
        // The log and the report must say the same, and the log each fact once.
        let context = report.context.to_string();
        let line = ended.line(&format!("Shutdown context: {context}"));
        assert!(line.ends_with(&context), "{line}");
        assert_eq!(report.exit_status, 0, "{}", ended.stderr);
        Stop { report, ended }
    }

    /// Lets `sender` signal it, waits until it has ended, and only then waits for the sender.
    pub(crate) fn stopped_by(self, sender: &mut Command) -> (Stop, u32) {
        let sender = Lingering::start(sender);
        let pid = sender.pid();
        let stop = self.stopped();
        sender.end();
        (stop, pid)
    }
}

impl Stop {
    /// A field of the context line.
    pub(crate) fn field(&self, key: &str) -> Option<String> {
        let fields = self.report.context.fields();
        fields.into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn sender(&self) -> &Sender {
        self.report
            .context
            .sender
            .as_ref()
            .unwrap_or_else(|| panic!("no sender in {}", self.line()))
    }

    pub(crate) fn line(&self) -> String {
        self.report.context.to_string()
    }

    pub(crate) fn cause(&self) -> Cause {
        self.report.context.cause()
    }

    pub(crate) fn evidence(&self) -> &str {
        self.report.context.evidence().unwrap()
    }

    /// Checks the cause, and that the evidence contains this text.
    pub(crate) fn assert_cause(&self, cause: Cause, evidence: &str) {
        assert_eq!(self.cause(), cause, "{} / {}", self.line(), self.evidence());
        assert!(self.evidence().contains(evidence), "{} / {evidence}", self.evidence());
    }

    /// Checks the sender's fields in the line. `fields` starts with `sender_pid=`.
    pub(crate) fn assert_sender(&self, fields: &str) {
        assert!(
            self.line().contains(&format!(" {fields} parent_pid=")),
            "{} / {fields}",
            self.line()
        );
    }

    /// Checks the cause of a signal from a descendant of this test, and its evidence. The cause is
    /// `operator` if the tests run in a terminal, and may be in a login session.
    pub(crate) fn assert_sent_by(&self, sender: &str) {
        match a_person_runs_the_tests() {
            true => assert!(matches!(self.cause(), Cause::Operator | Cause::Process)),
            false => self.assert_cause(
                Cause::Process,
                &format!("sent by {sender}, which has no terminal and no login session"),
            ),
        }
    }
}

/// A sender that the test does not wait for until the subject has ended. Its input stays open, so a
/// sender that reads it keeps running. A sender that exits remains a zombie.
pub(crate) struct Lingering(Child);

impl Lingering {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has exited, and leaves it a zombie.
    pub(crate) fn wait_for_exit(&self) {
        let pid = Id::Pid(Pid::from_raw(self.0.id() as i32));
        waitid(pid, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    /// Closes its input and waits until it has ended.
    pub(crate) fn end(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

/// The program kill(1), as `kill -SIGNAL PID`.
pub(crate) fn kill(signal: &str, pid: u32) -> Command {
    let mut kill = Command::new("/bin/kill");
    kill.args([signal, &pid.to_string()]);
    kill
}

/// `bash -c SCRIPT`, in which `$1` is the pid.
pub(crate) fn bash(script: &str, pid: u32) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", &pid.to_string()]);
    bash
}

/// This test, as the context line names it.
pub(crate) fn this_test() -> ProcessSummary {
    ProcessSummary::read(std::process::id() as i32)
}

pub(crate) fn our_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

fn a_person_runs_the_tests() -> bool {
    let us = this_test();
    let ancestors = us.ancestors(64);
    us.login_session.is_some() || us.tty.is_some() || ancestors.iter().any(|a| a.tty.is_some())
}
