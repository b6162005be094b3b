//! The facts about one process.
//!
//! A process can exit while it is being read, `hidepid=` can hide it, and a container masks parts
//! of `/proc`. So every fact is optional and nothing fails. The summary of a process that never
//! existed has only a pid. The fields are those of `proc_pid_stat(5)`, `proc_pid_status(5)` and
//! `proc_pid_cmdline(5)`.
//!
//! [`cmdline`] reads the command line separately, because that read can block for as long as the other
//! process holds the lock of its memory map (moby issue 15204, efs-utils issue 374).

use std::fmt::{self, Display};
use std::time::Duration;

use nix::unistd::getpid;
use serde::{Deserialize, Serialize};

use crate::escape::{MAX_CMDLINE_CHARS, truncate};
use crate::logfmt::Value;
use crate::os;
use crate::procfile;
use crate::secret::redact_some;
use crate::systemd::{CgroupUnit, Manager, unit_of_cgroup_file};

/// The facts about a process at the time when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessSummary {
    /// Its id in our pid namespace.
    pub pid: i32,
    /// Its parent's id. 0 if the parent is outside our pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppid: Option<i32>,
    /// Its name (`comm`): at most 15 bytes, chosen by the process itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One letter: `R` running, `S` sleeping, `D` in uninterruptible sleep, `Z` zombie, `T`
    /// stopped, `t` traced, `X` dead, `I` idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<char>,
    /// Its real user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its arguments, joined by spaces and cut at 300 characters. Absent for a zombie and a kernel
    /// thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// When it started, in clock ticks (`sysconf(_SC_CLK_TCK)`, 100 per second on Linux) since
    /// boot. Pids are reused; pid and start time together identify a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// Its controlling terminal, by its name below `/dev`: `pts/3`, `tty1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// The id of its POSIX session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<i32>,
    /// The user who logged in, kept through `su` and `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The login's audit session id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_session: Option<u32>,
    /// The systemd unit it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CgroupUnit>,
    /// The process that traces it, such as a debugger; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer_pid: Option<i32>,
}

impl ProcessSummary {
    /// Reads all facts about the process `pid` except for its command line.
    ///
    /// Five small reads below `/proc/PID`. If the pid is reused between two of them, the facts are of
    /// two processes. [`start_time`](Self::start_time) shows whether it is the intended process.
    pub fn read(pid: i32) -> Self {
        let mut summary = Self::read_stat(pid);
        (summary.uid, summary.tracer_pid) = procfile::uid_and_tracer(pid);
        summary.login_uid = procfile::read_of(pid, "loginuid").ok().and_then(|id| login_id(&id));
        summary.login_session = login_session(pid);
        summary.unit = unit(pid);
        summary
    }

    /// Its name, or `?`.
    pub(crate) fn name_or_unknown(&self) -> &str {
        self.name.as_deref().unwrap_or("?")
    }

    /// `bash(4201)`
    pub(crate) fn name_and_pid(&self) -> String {
        format!("{}({})", self.name_or_unknown(), self.pid)
    }

    /// Returns the parent, its parent, and so on up to process 1, at most `limit` of them.
    ///
    /// A parent cannot have started after its child. If one seems to, its pid has been reused, and
    /// the list ends before it.
    pub fn ancestors(&self, limit: usize) -> Vec<Self> {
        let mut line: Vec<Self> = Vec::new();
        while line.len() < limit {
            let child = line.last().unwrap_or(self);
            let Some(ppid) = child.ppid.filter(|&ppid| ppid > 0) else { break };
            let parent = Self::read_stat(ppid);
            let older = parent.start_time.is_some() && parent.start_time <= child.start_time;
            if !older {
                break;
            }
            line.push(parent);
        }
        line
    }
}

#[doc(hidden)]
impl ProcessSummary {
    /// The facts from one read of `/proc/PID/stat`: parent, name, state, start time, terminal,
    /// session.
    pub fn read_stat(pid: i32) -> Self {
        Self::from_stat(pid, &procfile::read_of(pid, "stat").unwrap_or_default())
    }

    /// The same, from the content of such a file.
    pub fn from_stat(pid: i32, stat: &[u8]) -> Self {
        let Some(stat) = procfile::parse_stat(stat) else { return Self::unknown(pid) };
        Self {
            ppid: Some(stat.ppid),
            tty: tty_name(stat.tty_nr()),
            name: Some(stat.comm),
            state: Some(stat.state),
            start_time: Some(stat.starttime),
            session: Some(stat.session),
            ..Self::unknown(pid)
        }
    }

    /// How long ago it started.
    pub fn age(&self) -> Option<Duration> {
        os::age(self.start_time?)
    }

    /// A process of which only the id is known.
    pub fn unknown(pid: i32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Whether both are about the same process, and not about two processes that had the same pid
    /// at different times.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.pid == other.pid && self.start_time.is_some() && self.start_time == other.start_time
    }
}

/// Shows `bash(4201)`, with `?` for an unknown name.
impl Display for ProcessSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value(&self.name_and_pid()))
    }
}

/// Reads the command line of the process `pid`, joined by spaces, cut at 300 characters.
///
/// This can block for as long as that process holds the lock of its memory map. Call it on a thread
/// that may block. `None` for a process that has exited, a zombie, a kernel thread, or a process
/// that we may not read.
pub fn cmdline(pid: i32) -> Option<String> {
    joined_cmdline(&procfile::read_of(pid, "cmdline").ok()?, procfile::LIMIT - 1)
}

/// The id in the content of `/proc/PID/loginuid` or `sessionid`. `None` if there was no login.
///
/// Allocates nothing, so that the OS handler may call it.
pub(crate) fn login_id(content: &[u8]) -> Option<u32> {
    let id = std::str::from_utf8(content).ok()?.trim().parse();
    // `(uid_t) -1` means no login (`Documentation/ABI/stable/procfs-audit_loginuid`).
    id.ok().filter(|&id| id != u32::MAX)
}

/// The audit session id of the login in which the process `pid` was started.
pub(crate) fn login_session(pid: i32) -> Option<u32> {
    login_id(&procfile::read_of(pid, "sessionid").ok()?)
}

/// The pid of this process. The kernel is asked each time, so it is right in a forked child.
pub(crate) fn own_pid() -> i32 {
    getpid().as_raw()
}

/// The systemd unit that the process `pid` belongs to.
pub(crate) fn unit(pid: i32) -> Option<CgroupUnit> {
    unit_of_cgroup_file(&procfile::text_of(pid, "cgroup")?)
}

/// Whether this process has the same pid for the system manager as for itself.
///
/// This is not so in a pid namespace of its own, as with `PrivatePIDs=`. There the manager would take
/// its pid for that of another process. Process 1 of a namespace is the manager if it is in the manager's
/// control group, which no other process can enter without the rights of root.
#[doc(hidden)]
pub fn manager_shares_pids() -> bool {
    let is_manager =
        |unit: CgroupUnit| unit.unit == "init.scope" && unit.manager == Manager::System;
    procfile::is_in_initial_pid_namespace("/proc/self") == Some(true)
        || unit(1).is_some_and(is_manager)
}

/// A command line whose arguments are separated by NUL, without its secrets. At most `max` bytes are
/// shown.
pub(crate) fn joined_cmdline(raw: &[u8], max: usize) -> Option<String> {
    let end = raw.iter().rposition(|&byte| byte != 0)? + 1;
    let text = redact_some(&raw[..end], max).replace('\0', " ");
    Some(truncate(&text, MAX_CMDLINE_CHARS))
}

/// A terminal's name from its device number, by Documentation/admin-guide/devices.txt of the kernel.
fn tty_name((major, minor): (i32, i32)) -> Option<String> {
    match (major, minor) {
        (0, 0) => None,
        // 136 to 143 are the slaves of Unix98 pseudo terminals, 256 to a major.
        (136..=143, _) => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        (4, 0..=63) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (5, 1) => Some("console".to_owned()),
        _ => Some(format!("char/{major}:{minor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A line of `/proc/PID/stat` for `(comm)` with the given parent, session, tty and start time.
    fn stat(comm: &str, ppid: i32, session: i32, tty: i32, start: u64) -> Vec<u8> {
        let tail = "0 ".repeat(29);
        format!(
            "7 ({comm}) S {ppid} 7 {session} {tty} 0 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} {tail}0\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_hostile_name_does_not_shift_the_fields_after_it() {
        for name in ["kill", "a b", ") R 1 1 1 1", "((", "x\ny", ")", ""] {
            let summary = ProcessSummary::from_stat(7, &stat(name, 42, 41, 34817, 1234));
            assert_eq!(summary.name.as_deref(), Some(name));
            assert_eq!(summary.ppid, Some(42));
            assert_eq!(summary.session, Some(41));
            assert_eq!(summary.tty.as_deref(), Some("pts/1"));
            assert_eq!(summary.start_time, Some(1234));
        }
    }

    #[test]
    fn a_broken_stat_file_leaves_only_the_pid() {
        let broken: [&[u8]; 13] = [
            b"",
            b"7",
            b"7 (",
            b"7 (kill",
            b"7 (kill)",
            b"7 (kill) ",
            b"7 (kill) S",
            b"7(kill) S 1",
            b"(kill) S 1",
            b"\xff\xfe\0",
            b"7 \xff(kill) S 1",
            "7\u{e9}(kill) S 1".as_bytes(),
            b")(",
        ];
        for stat in broken {
            assert_eq!(ProcessSummary::from_stat(7, stat), ProcessSummary::unknown(7));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_stat_file_causes_a_panic(
            stat in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
            shaped in "[0-9 ()]{0,6}[a-z()]{0,5}[) ]{0,3}[SRZ 0-9-]{0,40}",
        ) {
            let _ = ProcessSummary::from_stat(7, &stat);
            let _ = ProcessSummary::from_stat(7, shaped.as_bytes());
        }
    }

    #[test]
    fn terminals_have_their_names_below_dev() {
        let cases = [
            ((0, 0), None),
            ((136, 3), Some("pts/3")),
            ((137, 1), Some("pts/257")),
            ((4, 1), Some("tty1")),
            ((4, 64), Some("ttyS0")),
            ((5, 1), Some("console")),
            ((204, 64), Some("char/204:64")),
        ];
        for (device, name) in cases {
            assert_eq!(tty_name(device).as_deref(), name);
        }
    }

    #[test]
    fn arguments_are_joined_and_cut_at_a_character_boundary() {
        assert_eq!(
            joined_cmdline(b"kill\x00-9\x00\x00", procfile::LIMIT).as_deref(),
            Some("kill -9")
        );
        assert_eq!(joined_cmdline(b"", procfile::LIMIT), None);
        assert_eq!(joined_cmdline(b"\0\0", procfile::LIMIT), None);
        assert_eq!(joined_cmdline(b"a\xffb\0", procfile::LIMIT).as_deref(), Some("a\u{fffd}b"));
        let long = joined_cmdline("ü".repeat(5000).as_bytes(), procfile::LIMIT).unwrap();
        assert_eq!(long.chars().count(), MAX_CMDLINE_CHARS);
        assert!(long.ends_with("ü…"));
    }

    #[test]
    fn a_real_child_is_described_and_an_exited_one_is_not_an_error() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        let alive = ProcessSummary::read(pid);
        assert_eq!(alive.ppid, Some(std::process::id() as i32));
        assert_eq!(alive.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(alive.start_time > Some(0));
        assert_eq!(alive.ancestors(1)[0].pid, std::process::id() as i32);
        assert_eq!(alive.ancestors(64).last().map(|oldest| oldest.ppid), Some(Some(0)));
        assert!(alive.is_same_as(&ProcessSummary::read_stat(pid)));

        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ProcessSummary::read(pid), ProcessSummary::unknown(pid));
        assert_eq!(cmdline(pid), None);
        assert!(!alive.is_same_as(&ProcessSummary::read_stat(pid)));
    }

    #[test]
    fn an_ancestor_younger_than_its_child_is_a_reused_pid() {
        let impostor = ProcessSummary {
            ppid: Some(std::process::id() as i32),
            start_time: Some(0),
            ..ProcessSummary::unknown(7)
        };
        assert_eq!(impostor.ancestors(8), []);
    }

    #[test]
    fn the_facts_about_this_process_are_right() {
        let pid = std::process::id() as i32;
        let ours = ProcessSummary::read(pid);
        assert_eq!(ours.ppid, Some(nix::unistd::getppid().as_raw()));
        let shown: Vec<String> = std::env::args().collect();
        assert!(cmdline(pid).unwrap().starts_with(&shown[0]));
        assert_eq!(ProcessSummary::unknown(9).to_string(), "?(9)");
        let named = ProcessSummary { name: Some("a b".into()), ..ProcessSummary::unknown(9) };
        assert_eq!(named.to_string(), "\"a b(9)\"");
    }
}
