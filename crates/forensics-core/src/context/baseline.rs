//! What is known from the start on: who we are, under which unit, whose child.

use std::path::PathBuf;

use nix::unistd::{getpid, getppid};
use serde::{Deserialize, Serialize};

use crate::cgroupfs::MemoryGroup;
use crate::escape::{MAX_NAME_CHARS, cut};
use crate::pod::Pod;
use crate::process::{self, ProcessSummary};
use crate::procfile;
use crate::systemd::{CgroupUnit, container_of_cgroup_file};

/// What systemd tells the processes it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SystemdMarkers {
    /// The unit and its manager, from our cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CgroupUnit>,
    /// `INVOCATION_ID`: this run of the unit, as in `journalctl _SYSTEMD_INVOCATION_ID=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// `JOURNAL_STREAM`: device and inode of the socket to the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_stream: Option<String>,
}

impl SystemdMarkers {
    /// Whether a service manager runs us: it left its `INVOCATION_ID`, or our cgroup is a
    /// service's. (A login session's scope is systemd's, too, but nobody is stopped through it.)
    pub fn is_managed(&self) -> bool {
        let service = |unit: &CgroupUnit| unit.unit.ends_with(".service");
        self.invocation_id.is_some() || self.unit.as_ref().is_some_and(service)
    }
}

/// What is known from the start on, so that the signal need not wait for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Baseline {
    /// The process in question, with its command line.
    pub process: ProcessSummary,
    /// Its parent at the start. [`Baseline::probe`] leaves out the command line, which can hang:
    /// who can bound that read adds it here.
    pub parent: Option<ProcessSummary>,
    /// What systemd left in the environment and in the cgroup's path.
    pub systemd: SystemdMarkers,
    /// The container runtime, where one can be seen.
    pub container: Option<String>,
    /// The Kubernetes pod, where we are in one.
    pub pod: Option<Pod>,
    /// The control group that counts our memory.
    pub memory_group: Option<MemoryGroup>,
    /// Whether the pid namespace is not the machine's own.
    pub in_pid_namespace: bool,
    /// The marker files to look at, by name. Who can bound that leaves them out, and adds what was
    /// found to the context.
    pub markers: Vec<(String, PathBuf)>,
}

impl Baseline {
    /// Probes this process. Reads files of `/proc` and our environment; cannot fail.
    pub fn probe() -> Self {
        let variable =
            |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::of(own_pid(), &variable)
    }

    /// Probes another process, whose command line and environment are read as well: both can hang
    /// for as long as that process holds the lock of its memory map.
    pub fn probe_pid(pid: i32) -> Self {
        let environ = procfile::read_of(pid, "environ").unwrap_or_default();
        let variable = |name: &str| {
            environ.split(|&byte| byte == 0).find_map(|entry| {
                let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(String::from_utf8_lossy(value).into_owned())
            })
        };
        let mut baseline = Self::of(pid, &variable);
        if let Some(parent) = &mut baseline.parent {
            parent.cmdline = process::cmdline(parent.pid);
        }
        baseline
    }

    fn of(pid: i32, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(cut(&value, MAX_NAME_CHARS).into_owned())
        };
        let mut process = ProcessSummary::read(pid);
        process.cmdline = process::cmdline(pid);
        // Right also where /proc is another pid namespace's.
        let proc = match pid == own_pid() {
            true => "/proc/self".to_owned(),
            false => format!("/proc/{pid}"),
        };
        Self {
            parent: process.ppid.filter(|&ppid| ppid > 0).map(ProcessSummary::read),
            systemd: SystemdMarkers {
                unit: process.unit.clone(),
                invocation_id: variable("INVOCATION_ID"),
                journal_stream: variable("JOURNAL_STREAM"),
            },
            container: container(&proc, variable("container")),
            pod: Pod::of(&proc, &variable),
            memory_group: MemoryGroup::of(&proc),
            in_pid_namespace: match procfile::is_in_initial_pid_namespace(&proc) {
                Some(initial) => !initial,
                // Without a /proc: a parent that has no pid here lives in a namespace above. (The
                // machine's own process 1 has none either, and nobody outside to be signalled by.)
                None => pid == own_pid() && getppid().as_raw() == 0,
            },
            markers: Vec::new(),
            process,
        }
    }
}

pub(super) fn own_pid() -> i32 {
    getpid().as_raw()
}

/// The container runtime: what it says itself in the environment (`container=`, by systemd's
/// container interface) or by a file, else what the cgroup's path looks like.
fn container(proc: &str, variable: Option<String>) -> Option<String> {
    let at_root = |file: &str| procfile::exists(&format!("{proc}/root/{file}"));
    let by_cgroup = || container_of_cgroup_file(&procfile::text(format!("{proc}/cgroup"))?);
    let seen = || match () {
        () if at_root(".dockerenv") => Some("docker"),
        () if at_root("run/.containerenv") => Some("podman"),
        () => by_cgroup(),
    };
    variable.or_else(|| seen().map(str::to_owned))
}
