//! The process that sent a signal, as far as it is known.
//!
//! A sender is built from what the OS handler saw (see [`capture`](crate::capture)). The
//! [probes](super::Probe) then verify it, and add the processes that outlive a short-lived sender:
//! its parent and ancestors, such as the shell that ran `kill` and the sshd above that shell.
//!
//! Nothing is guessed. A new process with the sender's pid has another start time and is not named.
//! The pid in a sigqueue(3), which the sender can choose, is reported but not looked up.

use serde::{Deserialize, Serialize};

use super::Found;
use crate::capture::{SenderSnapshot, SiCode, SignalInfo, SnapshotError};
use crate::process::ProcessSummary;
use crate::procfile;

/// A signal's sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sender {
    /// What is known of the process. It has no `name` if [`absence`](Self::absence) says why, or if
    /// the sender is [unverified](SiCode::Queue).
    pub process: ProcessSummary,
    /// How the signal was sent.
    pub code: SiCode,
    /// The name of its user, from `/etc/passwd` as it was when the service started. A directory
    /// service such as LDAP is not asked, because it may not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The path of its program, if it had not exited yet and we may see it. A process can choose
    /// its name, but not this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Why the handler could not read it in `/proc`.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absence: Option<SnapshotError>,
    /// Whether it is a container's init that forwards signals: process 1 or one of our ancestors, with
    /// the name of one (tini, dumb-init, catatonit). The process that signalled the init is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwards: bool,
    /// Its parent, that one's parent, and so on, as far as they can be identified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<ProcessSummary>,
}

impl Sender {
    /// A sender of which only this much is known. The fields can be set.
    #[doc(hidden)]
    pub fn new(process: ProcessSummary, code: SiCode) -> Self {
        let (user, exe, absence, ancestors) = (None, None, None, Vec::new());
        Self { process, code, user, exe, absence, forwards: false, ancestors }
    }

    /// The sender of a signal, as the handler saw it. `None` if the kernel or a timer sent it.
    pub(crate) fn of_signal(signal: &SignalInfo) -> Option<Self> {
        let pid = signal.pid?;
        let SenderSnapshot { stat, absence, exe, login_uid, login_session, .. } = &signal.snapshot;
        if signal.code == SiCode::Queue {
            let process = ProcessSummary { uid: signal.uid, ..ProcessSummary::unknown(pid) };
            return Some(Self::new(process, signal.code));
        }
        let mut process = ProcessSummary::from_stat(pid, stat.as_deref().unwrap_or_default());
        process.uid = signal.uid.filter(|&uid| procfile::is_known_uid(uid));
        let exe = exe.as_deref().map(|exe| String::from_utf8_lossy(exe).into_owned());
        if let Some(SnapshotError::Unreadable(_)) = absence {
            process.name = exe.as_deref().and_then(file_name);
        }
        (process.login_uid, process.login_session) = (*login_uid, *login_session);
        Some(Self { exe, absence: *absence, ..Self::new(process, signal.code) })
    }

    /// Adds the result of a probe. Without a start time the process cannot be identified, and the
    /// result is dropped.
    pub(crate) fn add(&mut self, found: Found) {
        let is_known = self.process.start_time.is_some();
        match found {
            Found::SenderIsAnother => {
                let uid = self.process.uid;
                let process = ProcessSummary { uid, ..ProcessSummary::unknown(self.process.pid) };
                let absence = Some(SnapshotError::Gone);
                *self = Self { user: self.user.take(), absence, ..Self::new(process, self.code) };
            }
            Found::SenderUser(user) => self.user = Some(user),
            Found::SenderCmdline(cmdline) if is_known => self.process.cmdline = Some(cmdline),
            Found::SenderUnit(unit) if is_known => self.process.unit = Some(unit),
            Found::SenderAncestors(all) if is_known && all.len() > self.ancestors.len() => {
                self.ancestors = all;
            }
            _ => {}
        }
    }

    /// Returns the sender's parent, usually the shell that ran it. If the parent has exited, this
    /// is the process that adopted the sender.
    pub fn parent(&self) -> Option<&ProcessSummary> {
        self.ancestors.first()
    }

    /// Returns whether the kernel reported the pid, and the sender did not choose it.
    pub fn is_verified(&self) -> bool {
        self.code != SiCode::Queue
    }

    /// Whether the process is still the one that sent the signal, with the same name. If so, a fact
    /// that was just read, such as its command line, is about the sender and not about a program
    /// that it has executed since.
    pub(crate) fn is_still_there(&self) -> bool {
        let now = ProcessSummary::read_stat(self.process.pid);
        self.is_verified() && self.process.is_same_as(&now) && self.process.name == now.name
    }

    /// Whether the kernel reported the process `pid` as the sender.
    pub(crate) fn is(&self, pid: i32) -> bool {
        self.is_verified() && self.process.pid == pid
    }
}

fn file_name(exe: &str) -> Option<String> {
    // What the kernel appends if the program's file has been replaced.
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    exe.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The first user with that id in a file in the format of passwd(5).
pub(super) fn user_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Signal;
    use crate::capture::tests::bytes;
    use crate::context::{ShutdownContext, StartupInfo, Trigger};
    use std::time::SystemTime;

    fn captured(code: SiCode, pid: i32, snapshot: SenderSnapshot) -> SignalInfo {
        SignalInfo {
            signal: Signal::TERM,
            code,
            pid: Some(pid),
            uid: Some(0),
            snapshot,
            is_parent_death_signal: false,
            wall: SystemTime::UNIX_EPOCH,
            mono_ns: 0,
            took_ns: 0,
        }
    }

    /// What all probes find.
    fn resolve(signal: &SignalInfo) -> Sender {
        let trigger = Trigger::Signal { signal: signal.signal };
        let context = ShutdownContext::capture(&StartupInfo::collect(), trigger, Some(signal));
        context.sender.unwrap()
    }

    #[test]
    fn a_sender_that_has_exited_keeps_the_name_that_the_handler_saw() {
        let stat = format!(
            "999999999 (kill) Z {} 1 1 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 99999999999 {}0\n",
            std::process::id(),
            "0 ".repeat(29)
        );
        let snapshot = SenderSnapshot { stat: bytes(stat), ..SenderSnapshot::default() };
        let sender = resolve(&captured(SiCode::User, 999_999_999, snapshot));
        assert_eq!(sender.process.name.as_deref(), Some("kill"));
        assert_eq!(sender.parent().unwrap().pid, std::process::id() as i32);
        assert_eq!(sender.user.as_deref(), Some("root"));
        assert!(!sender.is_still_there());
    }

    #[test]
    fn another_process_with_the_senders_pid_is_not_the_sender() {
        let pid = std::process::id() as i32;
        let stat =
            format!("{pid} (old) Z 1 1 1 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 1 {}0\n", "0 ".repeat(29));
        let snapshot = SenderSnapshot { stat: bytes(stat), ..SenderSnapshot::default() };
        let sender = resolve(&captured(SiCode::User, pid, snapshot));
        assert_eq!(sender.process.name.as_deref(), Some("old"));
        assert_eq!(sender.process.unit, None);
        assert!(!sender.is_still_there());
    }

    #[test]
    fn the_pid_in_a_sigqueue_is_reported_and_not_looked_up() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let snapshot = SenderSnapshot { stat: bytes(stat), ..SenderSnapshot::default() };
        let sender = resolve(&captured(SiCode::Queue, pid, snapshot));
        assert_eq!(sender.process, ProcessSummary { uid: Some(0), ..ProcessSummary::unknown(pid) });
        assert_eq!(sender.ancestors, []);
        assert_eq!(sender.user, None);
        assert!(!sender.is_verified());
    }

    #[test]
    fn a_process_of_another_user_with_the_senders_pid_is_not_the_sender() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let snapshot = SenderSnapshot { stat: bytes(stat), ..SenderSnapshot::default() };
        let not_ours = Some(nix::unistd::getuid().as_raw() + 1);
        let captured = SignalInfo { uid: not_ours, ..captured(SiCode::User, pid, snapshot) };
        let sender = resolve(&captured);
        assert_eq!(
            sender.process,
            ProcessSummary { uid: not_ours, ..ProcessSummary::unknown(pid) }
        );
        assert_eq!(sender.absence, Some(SnapshotError::Gone));
        assert_eq!(sender.ancestors, []);
    }

    #[test]
    fn a_uid_outside_our_pid_namespace_has_no_name_here() {
        let outside =
            SenderSnapshot { absence: Some(SnapshotError::Outside), ..SenderSnapshot::default() };
        assert_eq!(resolve(&captured(SiCode::User, 0, outside)).user, None);
    }

    #[test]
    fn a_sender_that_has_executed_another_program_is_gone() {
        let pid = std::process::id() as i32;
        let process =
            ProcessSummary { name: Some("before".into()), ..ProcessSummary::read_stat(pid) };
        let mut sender = Sender::new(process, SiCode::User);
        assert!(!sender.is_still_there());
        sender.process = ProcessSummary::read_stat(pid);
        assert!(sender.is_still_there());
    }

    #[test]
    fn without_a_free_descriptor_the_program_gives_the_name() {
        let snapshot = SenderSnapshot {
            absence: Some(SnapshotError::Unreadable(nix::libc::EMFILE)),
            exe: bytes("/usr/bin/python3.11 (deleted)"),
            ..SenderSnapshot::default()
        };
        let sender = resolve(&captured(SiCode::User, 999_999_999, snapshot));
        assert_eq!(sender.process.name.as_deref(), Some("python3.11"));
    }

    #[test]
    fn users_are_found_in_passwd() {
        let passwd =
            "\n# x\nroot:x:0:0:root:/root:/bin/sh\nbroken:x\n:x:7:7::/:/\nops:x:1000:1:::\n";
        let cases = [(0, Some("root")), (1000, Some("ops")), (7, None), (1, None)];
        for (uid, name) in cases {
            assert_eq!(user_in_passwd(passwd, uid).as_deref(), name);
        }
    }
}
