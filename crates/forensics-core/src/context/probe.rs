//! The probes of a context. Each reads one fact, so that a caller can limit the time of each.
//!
//! Any file of `/proc`, `/sys` or a control group can block forever: lxcfs serves them through
//! FUSE, a command line waits for the lock of a memory map, and a marker may be on a network file
//! system whose server is dead. This crate starts no thread, so a probe is data. The caller runs it
//! on a thread that may block, waits for the [`ProbeResult`] for a limited time, and
//! [applies](ShutdownContext::apply) it.
//!
//! A process is named only if it is known to be the sender: its start time and its user are compared.
//! Nothing is looked up by a pid that the sender could choose itself, as in a sigqueue(3).

use super::{ShutdownContext, StartupInfo};
use crate::cause;
use crate::cgroupfs::Memory;
use crate::context::sender::{Sender, user_in_passwd};
use crate::marker::{self, Marker};
use crate::process::{self, ProcessSummary, own_pid};
use crate::procfile;
use crate::systemd::CgroupUnit;

/// How many of the sender's ancestors are named, its parent included.
const MAX_ANCESTORS: usize = 8;

/// One fact to find out about a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process under the sender's pid is the sender, by its start time and its user.
    Sender,
    /// The sender's parent, usually the shell that ran it.
    SenderParent,
    /// The ancestors above that, if the cause can depend on them.
    CauseAncestors,
    /// The ancestors above that, in any case.
    Ancestors,
    /// The sender's command line.
    SenderCmdline,
    /// The name of the sender's user, from `/etc/passwd` as it was when the service started.
    SenderUser,
    /// The sender's systemd unit.
    SenderUnit,
    /// Our parent.
    Parent,
    /// The process that traces us, such as a debugger.
    Tracer,
    /// The load averages.
    Load,
    /// The marker file with that index in [`StartupInfo::markers`].
    Marker(usize),
    /// The memory counters of our control group.
    Memory,
}

/// What a probe found, possibly nothing. See [`ShutdownContext::apply`].
pub type ProbeResult = Option<Found>;

/// A fact about a stop.
#[derive(Debug, Clone)]
pub enum Found {
    /// A sender that is known by other means, as in a test. It replaces the one that the handler
    /// saw.
    Sender(Sender),
    /// Another process runs under the pid that the handler saw.
    SenderIsAnother,
    /// The name of the sender's user.
    SenderUser(String),
    /// The sender's command line.
    SenderCmdline(String),
    /// The sender's systemd unit.
    SenderUnit(CgroupUnit),
    /// The sender's parent, and those above it.
    SenderAncestors(Vec<ProcessSummary>),
    /// Our parent.
    Parent(ProcessSummary),
    /// The process that traces us.
    Tracer(i32),
    /// The load averages.
    Load([f32; 3]),
    /// A marker file that exists.
    Marker(Marker),
    /// The memory counters of our control group.
    Memory(Memory),
}

impl Probe {
    /// The probes for facts that only the record shows. Run them after the line has been logged.
    pub const OF_RECORD: [Self; 3] = [Self::SenderUnit, Self::Ancestors, Self::Memory];
    /// The probes that identify the sender of a further signal, without its command line.
    pub const OF_SENDER: [Self; 5] =
        [Self::Sender, Self::SenderParent, Self::SenderUser, Self::SenderUnit, Self::Ancestors];

    /// Runs the probe. May block. Does not fail or panic.
    ///
    /// `context` is what is known so far. A probe that is not needed, such as the one for the command
    /// line of a sender that has exited, finds nothing and reads little or nothing.
    pub fn run(self, context: &ShutdownContext, startup: &StartupInfo) -> ProbeResult {
        let sender = context.sender.as_ref();
        match self {
            Probe::Sender => verified(sender?),
            Probe::SenderParent => {
                let sender = sender.filter(|sender| sender.ancestors.is_empty())?;
                Some(Found::SenderAncestors(sender.process.ancestors(1)))
            }
            // `Ancestors` reads them later.
            Probe::CauseAncestors if !context.cause().may_depend_on_ancestors() => None,
            Probe::CauseAncestors | Probe::Ancestors => {
                let [parent] = &sender?.ancestors[..] else { return None };
                let above = parent.ancestors(MAX_ANCESTORS - 1);
                let mut all = [vec![parent.clone()], above].concat();
                // They show whether the sender's login is still there.
                if sender?.process.login_session.is_some() {
                    for ancestor in &mut all {
                        ancestor.login_session = process::login_session(ancestor.pid);
                    }
                }
                Some(Found::SenderAncestors(all))
            }
            Probe::SenderCmdline => {
                cmdline(sender?, context.parent.as_ref()).map(Found::SenderCmdline)
            }
            Probe::SenderUser => {
                // In a sigqueue(3) the sender chose the uid. The uid of a sender outside our pid
                // namespace most likely belongs to another /etc/passwd.
                let sender = sender.filter(|it| it.is_verified() && it.process.pid > 0)?;
                user_in_passwd(&startup.passwd, sender.process.uid?).map(Found::SenderUser)
            }
            Probe::SenderUnit => {
                let sender =
                    sender.filter(|it| it.process.unit.is_none() && it.is_still_there())?;
                process::unit(sender.process.pid).map(Found::SenderUnit)
            }
            Probe::Parent => parent(context, startup).map(Found::Parent),
            Probe::Tracer => procfile::uid_and_tracer(context.process.pid).1.map(Found::Tracer),
            Probe::Load => {
                procfile::parse_load(&procfile::read("/proc/loadavg").ok()?).map(Found::Load)
            }
            Probe::Marker(index) => {
                let (name, path) = startup.markers.get(index)?;
                let pid = u32::try_from(context.process.pid).unwrap_or(0);
                marker::read(name, path, pid).map(Found::Marker)
            }
            Probe::Memory => Some(Found::Memory(startup.memory_cgroup.as_ref()?.read())),
        }
    }

    /// The same, without blocking. `None` if the probe needs something that might block.
    pub fn try_run(self, context: &ShutdownContext, startup: &StartupInfo) -> Option<ProbeResult> {
        if let Probe::Marker(_) = self {
            return None;
        }
        procfile::without_blocking(|| self.run(context, startup))
    }
}

/// Checks that the process the handler saw is the one that sent the signal.
fn verified(sender: &Sender) -> Option<Found> {
    let process = &sender.process;
    if !sender.is_verified() {
        return None;
    }
    // The handler may have seen another process. That happens if the signal was pending for a long
    // time, as in a stopped process. It also happens if the sender signalled its process group from
    // a pid namespace below ours, because the kernel then reports the pid of that namespace. If the
    // sender has exited, there is usually no file: the kernel reuses a pid only after all others.
    let (uid, _) = procfile::uid_and_tracer(process.pid);
    let is_same_process = || process.is_same_as(&ProcessSummary::read_stat(process.pid));
    if uid.is_some() && uid != process.uid {
        return is_same_process().then_some(Found::SenderIsAnother);
    }
    // The unit shows whether it is a user's manager, a service that was started in a login session, or
    // an OOM daemon.
    let is_manager = process.name.as_deref() == Some("systemd") && process.pid != 1;
    let may_be_service = process.login_session.is_some() && process.tty.is_none();
    let needs_unit = is_manager || may_be_service || cause::has_name_of_oom_daemon(process);
    let unit = if needs_unit { process::unit(process.pid) } else { None };
    unit.filter(|_| is_same_process()).map(Found::SenderUnit)
}

/// The sender's command line, if the process is still the sender. After an exec the process has
/// another command line, and so does a new process with the same pid.
fn cmdline(sender: &Sender, our_parent: Option<&ProcessSummary>) -> Option<String> {
    let process = &sender.process;
    if process.cmdline.is_some() {
        return None;
    }
    // Our parent's was read when we started.
    let parent = our_parent.filter(|parent| parent.is_same_as(process));
    if let Some(cmdline) = parent.and_then(|parent| parent.cmdline.clone()) {
        return Some(cmdline);
    }
    // A zombie has none. Without a start time the process cannot be identified.
    if process.state == Some('Z') || process.start_time.is_none() {
        return None;
    }
    process::cmdline(process.pid).filter(|_| sender.is_still_there())
}

/// Our current parent. If it is the same process as at the start, the facts known then are kept.
fn parent(context: &ShutdownContext, startup: &StartupInfo) -> Option<ProcessSummary> {
    let process = &context.process;
    let ppid = if process.pid == own_pid() {
        process.ppid
    } else {
        ProcessSummary::read_stat(process.pid).ppid.or(process.ppid)
    };
    let pid = ppid.filter(|&pid| pid > 0)?;
    // The sender was read a moment ago, and may have exited since.
    let sender = context.sender.as_ref();
    let now = match sender.filter(|it| it.is(pid) && it.process.start_time.is_some()) {
        Some(sender) => sender.process.clone(),
        None => ProcessSummary::read_stat(pid),
    };
    let Some(first) = startup.parent.as_ref().filter(|first| now.is_same_as(first)) else {
        return Some(now);
    };
    // After an exec the command line from the start is no longer right.
    let cmdline = first.cmdline.clone().filter(|_| first.name == now.name);
    Some(ProcessSummary { cmdline, state: now.state, name: now.name, ..first.clone() })
}
