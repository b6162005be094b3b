//! Who a test says has sent a signal.

use std::process;

use forensics_core::capture::{SiCode, SignalInfo, SnapshotError};
use forensics_core::process::ProcessSummary;
use forensics_core::sender;
use forensics_core::signal::Signal;

use crate::capture_context::Caught;

/// The sender of an injected signal: made up, and taken by the guard for what the kernel says.
///
/// The cause is decided from it as from a real one ([`forensics_core::cause`]), so a test says who
/// it was and not why:
///
/// | sender | cause |
/// |---|---|
/// | [`operator()`](Self::operator) | `operator` |
/// | [`systemd()`](Self::systemd) | `systemd` |
/// | [`supervisor()`](Self::supervisor) | `supervisor` |
/// | [`container_init()`](Self::container_init) | `container_stop` |
/// | [`kernel()`](Self::kernel) | `ctrl_c` of SIGINT and SIGQUIT, `hangup` of SIGHUP |
/// | [`ourselves()`](Self::ourselves) | `self_sent` |
/// | [`process(4242, "cron")`](Self::process) | `process` |
/// | [`gone(4242)`](Self::gone) | `unknown` |
/// | any of them, [`unverified()`](Self::unverified) | `unverified` |
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "give it to `Kit::signal_from`"]
pub struct Sender {
    /// Absent where it is the kernel.
    process: Option<ProcessSummary>,
    code: SiCode,
    absence: Option<SnapshotError>,
    ancestors: Vec<ProcessSummary>,
}

impl Sender {
    /// A process without a terminal.
    pub fn process(pid: i32, name: &str) -> Self {
        let mut process = ProcessSummary::unknown(pid);
        process.name = Some(name.to_owned());
        Self { process: Some(process), code: SiCode::User, absence: None, ancestors: Vec::new() }
    }

    /// kill(1), run by user 1000 in a shell at a terminal.
    pub fn operator() -> Self {
        let shell = Self::process(4201, "bash").terminal("pts/3");
        Self::process(4242, "kill").uid(1000).child_of(shell)
    }

    /// The service manager of the system, process 1.
    pub fn systemd() -> Self {
        Self::process(1, "systemd").uid(0)
    }

    /// The parent of the test's process.
    pub fn supervisor() -> Self {
        Self::process(nix::unistd::getppid().as_raw(), "supervisor")
    }

    /// The init of a container, which passes on what its runtime sends.
    pub fn container_init() -> Self {
        Self::process(1, "tini").uid(0)
    }

    /// The kernel, which sends a key at the terminal.
    pub fn kernel() -> Self {
        Self { process: None, code: SiCode::Kernel, absence: None, ancestors: Vec::new() }
    }

    /// The test's own process.
    pub fn ourselves() -> Self {
        Self::process(process::id().cast_signed(), "service")
    }

    /// A process that had exited, and was waited for, before it could be named.
    pub fn gone(pid: i32) -> Self {
        let process = Some(ProcessSummary::unknown(pid));
        Self {
            process,
            code: SiCode::User,
            absence: Some(SnapshotError::Gone),
            ancestors: Vec::new(),
        }
    }

    /// Its real user.
    pub fn uid(self, uid: u32) -> Self {
        self.with(|process| process.uid = Some(uid))
    }

    /// Its command line.
    pub fn cmdline(self, cmdline: &str) -> Self {
        self.with(|process| process.cmdline = Some(cmdline.to_owned()))
    }

    /// Its controlling terminal, as below `/dev`: `pts/3`.
    pub fn terminal(self, tty: &str) -> Self {
        self.with(|process| process.tty = Some(tty.to_owned()))
    }

    /// Its parent, and that one's.
    pub fn child_of(mut self, parent: Self) -> Self {
        self.ancestors = parent.process.into_iter().chain(parent.ancestors).collect();
        let ppid = self.ancestors.first().map(|parent| parent.pid);
        self.with(|process| process.ppid = ppid)
    }

    /// It used sigqueue(3), where the sender writes pid and uid as it likes.
    pub fn unverified(mut self) -> Self {
        self.code = SiCode::Queue;
        (self.absence, self.ancestors) = (None, Vec::new());
        self.with(|process| process.name = None)
    }

    fn with(mut self, change: impl FnOnce(&mut ProcessSummary)) -> Self {
        self.process.as_mut().map(change);
        self
    }

    /// A signal by it, as the keeper would have caught it just now.
    pub(super) fn sends(&self, signal: Signal) -> Caught {
        let mut captured = SignalInfo::new(signal, self.code);
        captured.pid = self.process.as_ref().map(|process| process.pid);
        captured.uid = self.process.as_ref().and_then(|process| process.uid);
        let sender = self.process.clone().map(|process| {
            let mut sender = sender::Sender::new(process, self.code);
            sender.absence = self.absence;
            sender.ancestors.clone_from(&self.ancestors);
            sender
        });
        Caught::known(captured, sender)
    }
}
