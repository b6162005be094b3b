//! The senders of the signals that a test delivers.

use std::process;

use forensics_core::capture::{SiCode, Signal, SignalInfo, SnapshotError};
use forensics_core::context;
use forensics_core::process::ProcessSummary;

use crate::machine::Caught;

/// The sender of a signal that a test delivers. The guard treats it as if the kernel had reported
/// it.
///
/// A test chooses the sender, not the cause. The cause follows from the sender, as from a real one
/// ([`forensics_core::cause`]):
///
/// | sender | cause |
/// |---|---|
/// | [`operator()`](Self::operator) | `operator` |
/// | [`systemd()`](Self::systemd) | `systemd` |
/// | [`supervisor()`](Self::supervisor) | `supervisor` |
/// | [`container_init()`](Self::container_init) | `container_stop` |
/// | [`kernel()`](Self::kernel) | `ctrl_c` for SIGINT and SIGQUIT, `hangup` for SIGHUP |
/// | [`this_process()`](Self::this_process) | `self_sent` |
/// | [`process(4242, "cron")`](Self::process) | `process` |
/// | [`gone(4242)`](Self::gone) | `unknown` |
/// | any of them, [`unverified()`](Self::unverified) | `unverified` |
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "give it to `TestHarness::signal_from`"]
pub struct Sender {
    /// `None` for the kernel.
    known: Option<context::Sender>,
}

impl Sender {
    /// A process without a terminal.
    pub fn process(pid: i32, name: &str) -> Self {
        let mut process = ProcessSummary::unknown(pid);
        process.name = Some(name.to_owned());
        Self { known: Some(context::Sender::new(process, SiCode::User)) }
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

    /// The init of a container, which forwards the signals of the container runtime.
    pub fn container_init() -> Self {
        Self::process(1, "tini").uid(0).with(|sender| sender.forwards = true)
    }

    /// The kernel, because of a key that was pressed at the terminal.
    pub fn kernel() -> Self {
        Self { known: None }
    }

    /// The test's own process.
    pub fn this_process() -> Self {
        Self::process(process::id().cast_signed(), "service")
    }

    /// A process that had exited, and was waited for, before its name could be read.
    pub fn gone(pid: i32) -> Self {
        let mut gone = context::Sender::new(ProcessSummary::unknown(pid), SiCode::User);
        gone.absence = Some(SnapshotError::Gone);
        Self { known: Some(gone) }
    }

    /// Sets its real user id.
    pub fn uid(self, uid: u32) -> Self {
        self.with(|sender| sender.process.uid = Some(uid))
    }

    /// Sets its command line.
    pub fn cmdline(self, cmdline: &str) -> Self {
        self.with(|sender| sender.process.cmdline = Some(cmdline.to_owned()))
    }

    /// Sets its controlling terminal, as a path below `/dev`: `pts/3`.
    pub fn terminal(self, tty: &str) -> Self {
        self.with(|sender| sender.process.tty = Some(tty.to_owned()))
    }

    /// Sets its parent, with the parent's own ancestors.
    pub fn child_of(self, parent: Self) -> Self {
        let Some(parent) = parent.known else { return self };
        self.with(|sender| {
            sender.process.ppid = Some(parent.process.pid);
            sender.ancestors = [vec![parent.process], parent.ancestors].concat();
        })
    }

    /// Makes it a sender by sigqueue(3), which can write any pid and uid.
    pub fn unverified(self) -> Self {
        self.with(|sender| {
            sender.process.name = None;
            *sender = context::Sender::new(sender.process.clone(), SiCode::Queue);
        })
    }

    fn with(mut self, change: impl FnOnce(&mut context::Sender)) -> Self {
        self.known.as_mut().map(change);
        self
    }

    /// A signal from this sender, as if it had just been received.
    pub(super) fn sends(&self, signal: Signal) -> Caught {
        let known = self.known.as_ref();
        let code = known.map_or(SiCode::Kernel, |sender| sender.code);
        let mut captured = SignalInfo::new(signal, code);
        captured.pid = known.map(|sender| sender.process.pid);
        captured.uid = known.and_then(|sender| sender.process.uid);
        Caught { captured, sender: self.known.clone() }
    }
}
