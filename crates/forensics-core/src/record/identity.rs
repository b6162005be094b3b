//! Whose run a record is, and whether that run still lives.
//!
//! Several services, several pods of one service, and several machines may write to one folder, and
//! a lock is not visible everywhere: some network and FUSE file systems do not share it. So a record
//! stores where its run ran, and which process it was. Deciding is separate from looking:
//! [`HostState::liveness`] and [`HostState::is_ours`] are functions of plain data.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::utsname::uname;
use nix::unistd::{Pid, getpid};

use super::{HostState, RunStarted};
use crate::context::Pod;
use crate::escape::{MAX_NAME_CHARS, truncate};
use crate::process::ProcessSummary;
use crate::procfile;

/// Where a process runs. A fact that is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The host name. In a container it is usually the container's id, or the pod's name.
    pub host: Option<String>,
    /// The content of `/etc/machine-id` (`machine-id(5)`).
    pub machine_id: Option<String>,
    /// The Kubernetes pod, `NAMESPACE/NAME` or `NAME`.
    pub pod: Option<String>,
    /// The inode of the pid namespace, in which the pid is unique.
    pub pid_namespace: Option<u64>,
}

impl Place {
    /// The place of this process.
    pub fn here() -> Self {
        let text = |text: &str| truncate(text.trim(), MAX_NAME_CHARS);
        let host = uname().ok().map(|names| text(&names.nodename().to_string_lossy()));
        let machine_id = procfile::text("/etc/machine-id").map(|id| text(&id));
        Self {
            host: host.filter(|host| !host.is_empty()),
            machine_id: machine_id.filter(|id| id.len() == 32),
            pod: Pod::ours().map(|pod| pod.to_string()),
            pid_namespace: procfile::pid_namespace(),
        }
    }
}

impl RunStarted {
    /// Stores where the run runs.
    pub fn set_place(&mut self, place: Place) {
        let Place { host, machine_id, pod, pid_namespace } = place;
        (self.host, self.machine_id, self.pod) = (host, machine_id, pod);
        self.pid_namespace = pid_namespace;
    }

    /// Stores by what the audit log knows this process.
    pub fn set_audit_identity(&mut self, process: &ProcessSummary) {
        self.process_name.clone_from(&process.name);
        self.host_pid = procfile::host_pid();
        self.uid = process.uid.filter(|_| procfile::is_in_first_user_namespace());
    }
}

/// What the pid of a run shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessState {
    /// Nothing: it is a pid of another boot, machine or pid namespace, or `/proc` hides it.
    #[default]
    Unseen,
    /// The process of the run lives.
    Alive,
    /// The process of the run has ended.
    Gone,
    /// It is the process that looks. If it does not hold the lock, it has executed another program
    /// since, or has dropped its guard.
    Own,
}

impl ProcessState {
    /// Looks for the process of a run.
    pub(super) fn look(start: &RunStarted, boot_id: Option<&str>, here: &Place) -> Self {
        let is_here = start.boot_id.is_some()
            && start.boot_id.as_deref() == boot_id
            && start.pid_namespace.is_some()
            && start.pid_namespace == here.pid_namespace;
        let Some(pid) = i32::try_from(start.pid).ok().filter(|&pid| pid > 0 && is_here) else {
            return Self::Unseen;
        };
        // A signal of a process to itself would look like its start in the audit log.
        let is_own = pid == getpid().as_raw();
        if !is_own && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
            return Self::Gone;
        }
        if !procfile::is_ours() {
            return Self::Unseen;
        }
        let found = ProcessSummary::read_stat(pid);
        match (start.start_time, found.start_time) {
            (Some(then), Some(now)) if then != now => Self::Gone,
            // It has ended, and its parent has not yet asked how.
            (Some(_), Some(_)) if matches!(found.state, Some('Z' | 'X')) => Self::Gone,
            (Some(_), Some(_)) if is_own => Self::Own,
            (Some(_), Some(_)) => Self::Alive,
            _ => Self::Unseen,
        }
    }
}

/// Whether a run whose record has no end still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    Alive,
    Ended,
    /// It cannot be seen from here.
    Unknown,
}

impl HostState {
    /// Whether the run belongs to the same pod as we do. Outside of Kubernetes: to the same boot, or
    /// to the same machine.
    pub(super) fn is_ours(&self, start: &RunStarted) -> bool {
        let here = &self.place;
        if start.pod.is_some() || here.pod.is_some() {
            return start.pod == here.pod;
        }
        let is_other_machine = matches!(
            (&start.machine_id, &here.machine_id), (Some(then), Some(now)) if then != now
        );
        // A record of an older version has no host name.
        self.is_same_boot(start)
            || start.host.is_none()
            || (start.host == here.host && !is_other_machine)
    }

    /// Whether the run still lives, if its record has no end. The first matching row decides.
    ///
    /// | there is | the run |
    /// |---|---|
    /// | a process with that pid and start time, whose lock would be visible and is not held | has ended: it has executed another program |
    /// | a process with that pid and start time, in this boot and pid namespace | lives |
    /// | no such process, in the boot and the pid namespace of the run | has ended, even if a forked child still holds the lock |
    /// | the lock | lives |
    /// | a record of an older version, which has no host name | has ended |
    /// | the boot and the file of the run, so its lock would be visible | has ended |
    /// | our pod: it has one container of the service at a time | has ended |
    /// | another boot of this machine | has ended |
    /// | none of these | is not visible from here |
    pub(super) fn liveness(&self, start: &RunStarted) -> Liveness {
        let is_lock_visible = start.lock.is_some() && start.lock == self.lock;
        let is_same_boot = self.is_same_boot(start);
        let is_over = start.host.is_none()
            || (is_same_boot && is_lock_visible)
            || (start.pod.is_some() && start.pod == self.place.pod)
            || (!is_same_boot && self.is_ours(start))
            || self.process == ProcessState::Own;
        match self.process {
            _ if self.has_executed(start) => Liveness::Ended,
            ProcessState::Alive => Liveness::Alive,
            ProcessState::Gone => Liveness::Ended,
            _ if self.locked => Liveness::Alive,
            _ if is_over => Liveness::Ended,
            _ => Liveness::Unknown,
        }
    }

    fn is_same_boot(&self, start: &RunStarted) -> bool {
        start.boot_id.is_some() && start.boot_id == self.boot_id
    }
}

impl HostState {
    /// Whether this is another boot of the machine that the run ran on. In a container, the machine
    /// id may be that of the image, and a pod may have moved.
    pub(super) fn is_reboot(&self, start: &RunStarted) -> bool {
        let here = &self.place;
        let is_other_boot = matches!(
            (&start.boot_id, &self.boot_id), (Some(then), Some(now)) if then != now
        );
        let is_same_machine = start.machine_id.is_some() && start.machine_id == here.machine_id;
        let is_outside_containers = start.pod.is_none()
            && here.pod.is_none()
            && start.pid_namespace == Some(procfile::INITIAL_PID_NAMESPACE);
        is_other_boot && is_same_machine && is_outside_containers
    }

    /// Whether the process of the run lives and has executed another program: its lock would be
    /// visible here, and is not held.
    pub(super) fn has_executed(&self, start: &RunStarted) -> bool {
        let is_lock_visible = start.lock.is_some() && start.lock == self.lock;
        let lives = matches!(self.process, ProcessState::Alive | ProcessState::Own);
        let is_own = self.process == ProcessState::Own;
        lives && !self.locked && self.is_same_boot(start) && (is_lock_visible || is_own)
    }
}

/// A name for an open file that is unique within a boot: `DEVICE:INODE`. Processes that see the
/// same id see the same locks.
pub(super) fn lock_id(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    Some(format!("{:x}:{}", meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of this boot, by fields: boot, host, machine, pod, and whether it is the same file.
    fn run(boot: &str, host: &str, machine: &str, pod: &str, lock: &str) -> RunStarted {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut start = RunStarted::new("gateway", 4100);
        start.set_place(Place {
            host: some(host),
            machine_id: some(machine),
            pod: some(pod),
            pid_namespace: Some(1),
        });
        (start.boot_id, start.lock) = (some(boot), some(lock));
        start
    }

    fn host(pod: &str, locked: bool, process: ProcessState) -> HostState {
        let start = run("b1", "h1", "m1", pod, "1:1");
        let place = Place {
            host: start.host,
            machine_id: start.machine_id,
            pod: start.pod,
            pid_namespace: Some(1),
        };
        HostState {
            locked,
            process,
            place,
            boot_id: start.boot_id,
            lock: start.lock,
            ..HostState::default()
        }
    }

    #[test]
    fn what_is_known_about_the_process_comes_before_the_lock_and_the_lock_before_the_place() {
        use Liveness::{Alive as Lives, Ended, Unknown};
        use ProcessState::{Alive, Gone, Own, Unseen};
        // The run: boot, host, machine, pod, file. Then the reader's pod, whether the file is
        // locked, and the process. Then whether the run is ours, and whether it lives.
        type Case<'a> = ([&'a str; 5], &'a str, bool, ProcessState, bool, Liveness);
        let cases: [Case<'_>; 32] = [
            // The process can be seen. A lock that a forked child holds, or that is not shared, does
            // not count.
            (["b1", "h1", "m1", "", "2:9"], "", false, Alive, true, Lives),
            // The lock would be visible: it has executed another program.
            (["b1", "h1", "m1", "", "1:1"], "", false, Alive, true, Ended),
            (["b1", "h1", "m1", "", "1:1"], "", true, Alive, true, Lives),
            (["b1", "h1", "m1", "", "1:1"], "", true, Gone, true, Ended),
            (["b1", "h1", "m1", "", "2:9"], "", false, Gone, true, Ended),
            (["b1", "h1", "m1", "p1", "2:9"], "p2", false, Alive, false, Lives),
            (["b1", "h1", "m1", "p1", "1:1"], "p2", true, Gone, false, Ended),
            // It is the process that looks.
            (["b1", "h1", "m1", "", "1:1"], "", true, Own, true, Lives),
            (["b1", "h1", "m1", "", "2:9"], "", false, Own, true, Ended),
            // The lock is visible: the same boot and the same file.
            (["b1", "h1", "m1", "", "1:1"], "", true, Unseen, true, Lives),
            (["b1", "h1", "m1", "", "1:1"], "", false, Unseen, true, Ended),
            (["b1", "h2", "", "", "1:1"], "", false, Unseen, true, Ended),
            (["b1", "h2", "", "p1", "1:1"], "p2", false, Unseen, false, Ended),
            // It is not: another mount, a copy of the file, or a run that could not lock it.
            (["b1", "h1", "m1", "", "2:9"], "", false, Unseen, true, Unknown),
            (["b1", "h1", "m1", "", ""], "", false, Unseen, true, Unknown),
            (["b1", "h2", "", "", "2:9"], "", false, Unseen, true, Unknown),
            (["b1", "h2", "", "p1", "2:9"], "p2", false, Unseen, false, Unknown),
            (["b1", "h2", "", "p1", "2:9"], "", false, Unseen, false, Unknown),
            (["b1", "h2", "", "p1", "2:9"], "p2", true, Unseen, false, Lives),
            // Our own pod, also on another node.
            (["b1", "h1", "m1", "p1", "2:9"], "p1", false, Unseen, true, Ended),
            (["b2", "h1", "m2", "p1", "2:9"], "p1", false, Unseen, true, Ended),
            (["b2", "h1", "m2", "p1", "2:9"], "p1", true, Unseen, true, Lives),
            // Another boot: of this machine, or of another one.
            (["b2", "h1", "m1", "", "1:1"], "", false, Unseen, true, Ended),
            (["b2", "h1", "", "", "2:9"], "", false, Unseen, true, Ended),
            (["b2", "h1", "m2", "", "1:1"], "", false, Unseen, false, Unknown),
            (["b2", "h2", "m1", "", "1:1"], "", false, Unseen, false, Unknown),
            (["b2", "h2", "m2", "", "1:1"], "", true, Unseen, false, Lives),
            (["b2", "h1", "m1", "p1", "1:1"], "p2", false, Unseen, false, Unknown),
            (["b2", "h1", "m1", "p1", "1:1"], "", false, Unseen, false, Unknown),
            (["", "h1", "m1", "", "2:9"], "", false, Unseen, true, Ended),
            // A record of an older version.
            (["b2", "", "", "", ""], "", false, Unseen, true, Ended),
            (["b1", "", "", "p1", ""], "p2", false, Unseen, false, Ended),
        ];
        for ([boot, name, machine, pod, lock], our_pod, locked, process, ours, lives) in cases {
            let (start, here) =
                (run(boot, name, machine, pod, lock), host(our_pod, locked, process));
            let decided = (here.is_ours(&start), here.liveness(&start));
            assert_eq!(decided, (ours, lives), "{start:?} seen from {here:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_pid_and_its_start_time() {
        let (boot, here) = (crate::clock::boot_id(), Place::here());
        assert!(boot.is_some() && here.pid_namespace.is_some() && here.host.is_some());
        let look = |pid: u32, start_time, boot: Option<&str>| {
            let mut start = RunStarted::new("gateway", pid);
            start.set_place(here.clone());
            (start.boot_id, start.start_time) = (boot.map(str::to_owned), start_time);
            ProcessState::look(&start, crate::clock::boot_id().as_deref(), &here)
        };
        let boot = boot.as_deref();
        let own = getpid().as_raw();
        let started = ProcessSummary::read_stat(own).start_time;
        let own = own.unsigned_abs();
        assert_eq!(look(own, started, boot), ProcessState::Own);
        assert_eq!(look(own, Some(1), boot), ProcessState::Gone);
        assert_eq!(look(own, started, Some("another")), ProcessState::Unseen);
        assert_eq!(look(own, None, boot), ProcessState::Unseen);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let started = ProcessSummary::read_stat(pid.cast_signed()).start_time;
        assert_eq!(look(pid, started, boot), ProcessState::Alive);
        child.kill().unwrap();
        // A zombie, then nothing.
        while ProcessSummary::read_stat(pid.cast_signed()).state != Some('Z') {
            std::thread::yield_now();
        }
        assert_eq!(look(pid, started, boot), ProcessState::Gone);
        child.wait().unwrap();
        assert_eq!(look(pid, started, boot), ProcessState::Gone);
        for hostile in [0, u32::MAX, 1 << 31] {
            assert_eq!(look(hostile, Some(1), boot), ProcessState::Unseen);
        }
    }
}
