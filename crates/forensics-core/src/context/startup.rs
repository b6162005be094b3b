//! The facts that are known when the service starts: our process, its unit and its parent.

use std::path::PathBuf;

use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use super::{Platform, Pod, Probe};
use crate::cause;
use crate::cgroupfs::MemoryCgroup;
use crate::escape::{MAX_NAME_CHARS, truncate};
use crate::os;
use crate::process::{self, ProcessSummary, own_pid};
use crate::procfile;
use crate::systemd::{CgroupUnit, container_of_cgroup_file};

/// How many of our ancestors are known.
const MAX_ANCESTORS: usize = 16;

/// What systemd passes to the processes that it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdInfo {
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

impl SystemdInfo {
    /// Whether a service manager runs us: it set `INVOCATION_ID`, or our cgroup is that of a
    /// service. The scope of a login session does not count, because it contains no service.
    pub fn is_managed(&self) -> bool {
        let service = |unit: &CgroupUnit| unit.unit.ends_with(".service");
        self.invocation_id.is_some() || self.unit.as_ref().is_some_and(service)
    }
}

/// The facts that are known when the service starts, so that they need not be read when a signal
/// arrives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartupInfo {
    /// The process, with its command line.
    pub process: ProcessSummary,
    /// Its parent at the start. [`StartupInfo::collect`] leaves out the command line, because that
    /// read can block. A caller that can limit the wait adds it here.
    pub parent: Option<ProcessSummary>,
    /// The parent, its parent, and so on at the start.
    pub(super) ancestors: Vec<ProcessSummary>,
    /// What systemd put into the environment and the cgroup's path.
    #[doc(hidden)]
    pub systemd: SystemdInfo,
    /// The container runtime, if one can be seen.
    pub container: Option<String>,
    /// The Kubernetes pod, if we are in one.
    pub pod: Option<Pod>,
    /// The platform that runs us, if our environment identifies it.
    #[doc(hidden)]
    pub platform: Option<&'static Platform>,
    /// The control group that counts our memory.
    #[doc(hidden)]
    pub memory_cgroup: Option<MemoryCgroup>,
    /// Whether the pid namespace is not the machine's own.
    pub in_pid_namespace: bool,
    /// The marker files to look for, by name.
    pub markers: Vec<(String, PathBuf)>,
    /// The content of `/etc/passwd`, for the names of senders' users. Reading it during a stop
    /// could block.
    pub(super) passwd: String,
}

impl StartupInfo {
    /// Collects the facts about this process. Reads our environment and files of `/proc`; cannot
    /// fail.
    pub fn collect() -> Self {
        Self::of(own_pid(), &own_variable)
    }

    /// Collects the facts about another process. Also reads the command line and environment of
    /// that process, and the command line of its parent. Each of these reads can block for as long
    /// as the process holds the lock of its memory map.
    pub fn collect_pid(pid: i32) -> Self {
        let environ = procfile::read_of(pid, "environ").unwrap_or_default();
        let variable = |name: &str| {
            environ.split(|&byte| byte == 0).find_map(|entry| {
                let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(String::from_utf8_lossy(value).into_owned())
            })
        };
        let mut startup = Self::of(pid, &variable);
        if let Some(parent) = &mut startup.parent {
            parent.cmdline = process::cmdline(parent.pid);
        }
        startup
    }

    fn of(pid: i32, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).and_then(usable);
        let mut process = ProcessSummary::read(pid);
        process.cmdline = process::cmdline(pid);
        let is_own = pid == own_pid();
        // `self` is right even if /proc belongs to another pid namespace.
        let proc = if is_own { "/proc/self".to_owned() } else { format!("/proc/{pid}") };
        // A user with fewer rights than ours can choose the root of another process. A link or a mount
        // there can lead to a file that this user may not read.
        let root = is_own.then(|| format!("{proc}/root"));
        // Used if /proc does not tell. A parent with the pid 0 is outside our pid namespace, so that is not
        // the machine's own. Process 1 of the machine has no parent either, but nothing outside can signal it.
        let has_outside_parent = || is_own && getppid().as_raw() == 0;
        // Read here, because it may not be read later without blocking.
        procfile::overflow_uid();
        Self {
            ancestors: process.ancestors(MAX_ANCESTORS),
            parent: process.ppid.filter(|&ppid| ppid > 0).map(ProcessSummary::read),
            systemd: SystemdInfo {
                unit: process.unit.clone(),
                invocation_id: variable("INVOCATION_ID"),
                journal_stream: variable("JOURNAL_STREAM"),
            },
            container: container(&proc, variable("container")),
            pod: Pod::of(root.as_deref(), &variable),
            platform: Platform::of(&variable),
            memory_cgroup: MemoryCgroup::of(&proc),
            in_pid_namespace: procfile::is_in_initial_pid_namespace(&proc)
                .map_or_else(has_outside_parent, |is_initial| !is_initial),
            markers: Vec::new(),
            passwd: procfile::text("/etc/passwd").unwrap_or_default(),
            process,
        }
    }

    /// Whether we are a service of systemd, and not a container in one. A container's runtime does
    /// not pass on `INVOCATION_ID`.
    pub(super) fn is_service(&self) -> bool {
        let in_container = self.container.is_some() || self.pod.is_some();
        self.systemd.invocation_id.is_some() || (self.systemd.is_managed() && !in_container)
    }

    /// Whether we are in a container. If it shares the machine's pid namespace, its runtime is one of our
    /// ancestors.
    pub(super) fn is_in_container(&self) -> bool {
        let is_below_runtime = || self.ancestors.iter().any(cause::is_container_runtime);
        self.container.is_some() || self.pod.is_some() || is_below_runtime()
    }

    /// Whether the process was one of our ancestors at the start.
    pub(super) fn is_ancestor(&self, process: &ProcessSummary) -> bool {
        self.ancestors.iter().any(|ancestor| ancestor.is_same_as(process))
    }

    /// The probes for the context line and the cause, in the order in which to run them. The sender
    /// is first, because it may exit at any moment. Files that lxcfs or another file server may
    /// serve are last.
    #[doc(hidden)]
    pub fn line_probes(&self) -> Vec<Probe> {
        use Probe::*;
        let mut probes = vec![Sender, SenderParent, CauseAncestors, Parent, Tracer];
        probes.extend([SenderCmdline, SenderUser, Load]);
        probes.extend((0..self.markers.len()).map(Marker));
        probes
    }
}

/// A variable of our environment.
pub(super) fn own_variable(name: &str) -> Option<String> {
    usable(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// The value of a variable, cut to a reasonable length. An empty variable counts as unset.
fn usable(value: String) -> Option<String> {
    (!value.is_empty()).then(|| truncate(value, MAX_NAME_CHARS))
}

/// The container runtime, from the variable `container` of systemd's container interface, from a
/// file, or from the form of the cgroup's path.
fn container(proc: &str, variable: Option<String>) -> Option<String> {
    let root = format!("{proc}/root");
    let at_root = |file: &str| match proc {
        "/proc/self" => procfile::exists(&format!("{root}/{file}")),
        _ => os::is_file_below(root.as_ref(), file.as_ref()),
    };
    if variable.is_some() {
        return variable;
    }
    let seen = if at_root(".dockerenv") {
        "docker"
    } else if at_root("run/.containerenv") {
        "podman"
    } else {
        container_of_cgroup_file(&procfile::text(format!("{proc}/cgroup"))?)?
    };
    Some(seen.to_owned())
}
