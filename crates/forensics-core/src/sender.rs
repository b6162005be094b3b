//! The process that sent a signal, as far as it can still be told.
//!
//! Starts from what the handler saw (see [`capture`](crate::capture)) and looks again, at leisure,
//! at what outlives a short-lived sender: its parent and ancestors, above all the shell that ran
//! `kill`, and the sshd above that. Nobody is named on a guess: a pid under which another process
//! runs by now is recognised by its start time, and the pid in a sigqueue(3), which the sender
//! could write as it liked, is reported and not looked up.

use std::sync::{Mutex, PoisonError};

use nix::unistd::{Pid, getuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capture::{Absence, Captured, Code};
use crate::json;
use crate::process::{self, ProcessSummary};
use crate::procfile;
use crate::systemd::{CgroupUnit, unit_of_cgroup_file};

/// Inits of containers, by the names they run under: they send what they were sent.
/// `docker-init` is docker's tini, `podman-init` podman's catatonit.
const CONTAINER_INITS: [&str; 6] =
    ["tini", "tini-static", "docker-init", "dumb-init", "catatonit", "podman-init"];

/// How far up the ancestors are named.
const MAX_ANCESTORS: usize = 8;

/// A signal's sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sender {
    /// What is known of the process. Its `name` is absent where the [`absence`](Self::absence)
    /// says why, and where the sender is [unverified](Code::Queue).
    pub process: ProcessSummary,
    /// How the signal was sent.
    pub code: Code,
    /// The name of its user, from `/etc/passwd`; not asked of a directory service, which can hang.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The path of its program, where it had not exited yet and we may look into it. Its name is its
    /// own choice; this is the kernel's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Why `/proc` did not show it while the handler ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
    /// Whether it is a container's init by its name (tini, dumb-init, catatonit), which passes on
    /// what it was sent itself: who sent that is not known here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwards: bool,
    /// Its parent, that one's parent, and so on, as far as each is surely the one it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<ProcessSummary>,
}

impl Sender {
    /// A sender of whom this is known, and nothing else. The fields can be set.
    pub fn new(process: ProcessSummary, code: Code) -> Self {
        let forwards = is_container_init(&process);
        Self {
            process,
            code,
            user: None,
            exe: None,
            absence: None,
            forwards,
            ancestors: Vec::new(),
        }
    }

    /// It as JSON; `null` where it cannot be that.
    pub fn to_json(&self) -> Value {
        json::to_value(self).unwrap_or_default()
    }

    /// The sender of a captured signal; `None` where the kernel or a timer made it.
    ///
    /// A dozen small reads below `/proc`, none of which can hang; the sender's command line, which
    /// can, is left to the caller (see [`process::cmdline`]).
    pub fn identify(captured: &Captured) -> Option<Self> {
        let mut sender = Self::glimpse(captured)?;
        sender.complete();
        Some(sender)
    }

    /// The same in a hurry: what tells who it is, and of its ancestors the parent alone.
    /// [`complete`](Self::complete) adds the rest.
    pub fn glimpse(captured: &Captured) -> Option<Self> {
        let pid = captured.pid?;
        let sighting = &captured.sighting;
        let mut process = ProcessSummary::unknown(pid);
        let mut absence = sighting.absence;
        let mut exe = sighting.exe.as_deref().map(|exe| String::from_utf8_lossy(exe).into_owned());
        if captured.code == Code::Queue {
            (absence, exe) = (None, None);
        } else {
            if let Some(stat) = &sighting.stat {
                process = ProcessSummary::from_stat(pid, stat);
            }
            if let Some(Absence::Unreadable(_)) = absence {
                process.name = sighting.exe.as_deref().and_then(file_name);
            }
            process.login_uid = sighting.login_uid;
            process.login_session = sighting.login_session;
            if process.is_same_as(&ProcessSummary::read_stat(pid)) {
                // Between the two reads it may have gone after all; then there is no file, as no
                // pid is used again before all others have been.
                if process.name.as_deref() == Some("systemd") && pid != 1 {
                    // A user manager, most likely: its unit tells whose.
                    process.unit = unit(pid);
                }
                let uid = process::real_uid(pid);
                if uid.is_some() && uid != captured.uid {
                    // What the handler saw was another process already: the signal had waited for
                    // long, as in a stopped process; or the sender signalled its process group
                    // from a pid namespace below ours, where the kernel gives its number there.
                    process = ProcessSummary::unknown(pid);
                    (absence, exe) = (Some(Absence::Gone), None);
                }
            }
        }
        process.uid = captured.uid;
        let ancestors = process.ancestors(1);
        // What the sender wrote is nobody's name; and outside our pid namespace the same uid is
        // most likely another user, by another /etc/passwd.
        let user = captured.uid.filter(|_| captured.code != Code::Queue && pid > 0);
        let user = user.and_then(user_name);
        let forwards = is_container_init(&process);
        Some(Self { process, code: captured.code, user, exe, absence, forwards, ancestors })
    }

    /// Adds the unit it belongs to, where it is still there, and its ancestors above the parent. Up to a
    /// dozen small reads below `/proc`.
    pub fn complete(&mut self) {
        if self.process.unit.is_none() && self.is_still_there() {
            self.process.unit = unit(self.process.pid);
        }
        self.add_ancestors();
    }

    /// Without effect where there is no parent, or those above it are there already.
    pub(crate) fn add_ancestors(&mut self) {
        if let [parent] = &self.ancestors[..] {
            let above = parent.ancestors(MAX_ANCESTORS - 1);
            self.ancestors.extend(above);
        }
    }

    /// The sender's parent, usually the shell that ran it; where that had exited, who took it over.
    pub fn parent(&self) -> Option<&ProcessSummary> {
        self.ancestors.first()
    }

    /// Whether the kernel vouches for the pid.
    pub fn is_verified(&self) -> bool {
        self.code != Code::Queue
    }

    /// Whether the process is still the one that sent the signal, and runs under the same name, so
    /// that something about it read just now, such as its command line, is about the sender and
    /// not about a program that it has become by exec. Ask after having read it.
    pub fn is_still_there(&self) -> bool {
        let now = ProcessSummary::read_stat(self.process.pid);
        self.is_verified() && self.process.is_same_as(&now) && self.process.name == now.name
    }

    /// Whether this is the process that runs us.
    pub(crate) fn is(&self, pid: Pid) -> bool {
        self.is_verified() && self.process.pid == pid.as_raw()
    }
}

fn unit(pid: i32) -> Option<CgroupUnit> {
    unit_of_cgroup_file(&procfile::text_of(pid, "cgroup")?)
}

fn is_container_init(process: &ProcessSummary) -> bool {
    process.name.as_deref().is_some_and(|name| CONTAINER_INITS.contains(&name))
}

fn file_name(exe: &[u8]) -> Option<String> {
    let exe = String::from_utf8_lossy(exe);
    // The kernel says so of a program whose file has been replaced.
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe);
    exe.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The name of a user, once found not looked up again: it changes less often than services start.
fn user_name(uid: u32) -> Option<String> {
    static KNOWN: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, name)) = known().iter().find(|(id, _)| *id == uid) {
        return Some(name.clone());
    }
    let name = user_in_passwd(&procfile::text("/etc/passwd")?, uid)?;
    known().push((uid, name.clone()));
    Some(name)
}

/// Looks the users up that most senders are: root, and ours.
pub(crate) fn rehearse() {
    for uid in [0, getuid().as_raw()] {
        user_name(uid);
    }
}

/// The first user with that id in a file of the form of passwd(5).
fn user_in_passwd(passwd: &str, uid: u32) -> Option<String> {
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
    use crate::capture::Sighting;
    use crate::signal::Signal;
    use std::time::SystemTime;

    fn captured(code: Code, pid: i32, sighting: Sighting) -> Captured {
        Captured {
            signal: Signal::TERM,
            code,
            pid: Some(pid),
            uid: Some(0),
            sighting,
            is_parent_death_signal: false,
            wall: SystemTime::UNIX_EPOCH,
            mono_ns: 0,
            took_ns: 0,
        }
    }

    #[test]
    fn a_sender_that_has_gone_keeps_the_name_the_handler_saw() {
        let stat = format!(
            "999999999 (kill) Z {} 1 1 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 99999999999 {}0\n",
            std::process::id(),
            "0 ".repeat(29)
        );
        let sighting = Sighting { stat: Some(stat.into_bytes()), ..Sighting::default() };
        let sender = Sender::identify(&captured(Code::User, 999_999_999, sighting)).unwrap();
        assert_eq!(sender.process.name.as_deref(), Some("kill"));
        assert_eq!(sender.parent().unwrap().pid, std::process::id() as i32);
        assert_eq!(sender.user.as_deref(), Some("root"));
        assert!(!sender.is_still_there());
    }

    #[test]
    fn another_process_under_the_senders_pid_is_not_taken_for_it() {
        let pid = std::process::id() as i32;
        let stat =
            format!("{pid} (old) Z 1 1 1 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 1 {}0\n", "0 ".repeat(29));
        let sighting = Sighting { stat: Some(stat.into_bytes()), ..Sighting::default() };
        let sender = Sender::identify(&captured(Code::User, pid, sighting)).unwrap();
        assert_eq!(sender.process.name.as_deref(), Some("old"));
        assert_eq!(sender.process.unit, None);
        assert!(!sender.is_still_there());
    }

    #[test]
    fn the_pid_in_a_sigqueue_is_reported_and_not_looked_up() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let sighting = Sighting { stat: Some(stat), ..Sighting::default() };
        let sender = Sender::identify(&captured(Code::Queue, pid, sighting)).unwrap();
        assert_eq!(sender.process, ProcessSummary { uid: Some(0), ..ProcessSummary::unknown(pid) });
        assert_eq!(sender.ancestors, []);
        assert_eq!(sender.user, None);
        assert!(!sender.is_verified());
    }

    #[test]
    fn a_process_of_another_user_under_the_senders_pid_is_not_taken_for_it() {
        let pid = std::process::id() as i32;
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let sighting = Sighting { stat: Some(stat), ..Sighting::default() };
        let not_ours = Some(nix::unistd::getuid().as_raw() + 1);
        let captured = Captured { uid: not_ours, ..captured(Code::User, pid, sighting) };
        let sender = Sender::identify(&captured).unwrap();
        assert_eq!(
            sender.process,
            ProcessSummary { uid: not_ours, ..ProcessSummary::unknown(pid) }
        );
        assert_eq!(sender.absence, Some(Absence::Gone));
        assert_eq!(sender.ancestors, []);
    }

    #[test]
    fn a_uid_outside_our_pid_namespace_has_no_name_here() {
        let outside = Sighting { absence: Some(Absence::Outside), ..Sighting::default() };
        assert_eq!(Sender::identify(&captured(Code::User, 0, outside)).unwrap().user, None);
    }

    #[test]
    fn a_sender_that_became_another_program_is_not_there_any_more() {
        let pid = std::process::id() as i32;
        let process =
            ProcessSummary { name: Some("before".into()), ..ProcessSummary::read_stat(pid) };
        let mut sender = Sender::new(process, Code::User);
        assert!(!sender.is_still_there());
        sender.process = ProcessSummary::read_stat(pid);
        assert!(sender.is_still_there());
    }

    #[test]
    fn without_a_free_descriptor_the_program_gives_the_name() {
        let sighting = Sighting {
            absence: Some(Absence::Unreadable(nix::libc::EMFILE)),
            exe: Some(b"/usr/bin/python3.11 (deleted)".to_vec()),
            ..Sighting::default()
        };
        let sender = Sender::identify(&captured(Code::User, 999_999_999, sighting)).unwrap();
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
