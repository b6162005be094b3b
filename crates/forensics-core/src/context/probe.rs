//! The probes of a context: each reads one thing, so that a caller can bound each of them.
//!
//! Any file of `/proc`, `/sys` or a control group can block for ever: lxcfs serves them through FUSE,
//! a command line waits for the lock of a memory map, a marker may lie on a dead network file system.
//! This crate starts no thread, so a probe is data. A caller runs it wherever it may block, waits for
//! the [`Finding`] as long as it likes, and [applies](ShutdownContext::apply) it.
//!
//! A process is named only if it is surely the one that sent the signal: its start time and its user
//! are compared, and nothing is looked up by a pid that the sender could choose itself (sigqueue(3)).

use super::startup::own_pid;
use super::{ShutdownContext, StartupInfo};
use crate::cgroupfs::{Memory, MemoryCgroup};
use crate::marker::{self, Marker};
use crate::process::{self, ProcessSummary};
use crate::procfile;
use crate::sender::{Sender, SenderFact, user_name};

/// How many of the sender's ancestors are named, its parent included.
const MAX_ANCESTORS: usize = 8;

/// One thing to find out about a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The name of the sender's user, from `/etc/passwd`.
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
    /// What our control group counts of its memory.
    Memory,
}

/// What a probe found, possibly nothing. See [`ShutdownContext::apply`].
#[derive(Debug, Clone)]
pub struct Finding(pub(super) Option<Found>);

impl Finding {
    /// A sender that is known by other means, as in a test. Takes the place of what the handler saw.
    pub fn sender(sender: Sender) -> Self {
        Self(Some(Found::Sender(sender)))
    }
}

#[derive(Debug, Clone)]
pub(super) enum Found {
    Sender(Sender),
    AboutSender(SenderFact),
    Parent(ProcessSummary),
    Tracer(i32),
    Load([f32; 3]),
    Marker(Marker),
    Memory(Memory),
}

impl Probe {
    /// Reads what this probe is about. May block; never fails or panics.
    ///
    /// `context` is what is known so far. A probe that is not needed by that, such as the command
    /// line of a sender that has exited, finds nothing and reads little or nothing.
    pub fn run(self, context: &ShutdownContext, startup: &StartupInfo) -> Finding {
        Finding(self.find(context, startup))
    }

    fn find(self, context: &ShutdownContext, startup: &StartupInfo) -> Option<Found> {
        match self {
            Probe::Sender
            | Probe::SenderParent
            | Probe::SenderCmdline
            | Probe::SenderUser
            | Probe::SenderUnit
            | Probe::Ancestors => self.of_sender(context).map(Found::AboutSender),
            // Else they are left to `Ancestors`.
            Probe::CauseAncestors if context.cause().may_depend_on_ancestors() => {
                Probe::Ancestors.of_sender(context).map(Found::AboutSender)
            }
            Probe::CauseAncestors => None,
            Probe::Parent => parent(context, startup).map(Found::Parent),
            Probe::Tracer => {
                let (_, tracer) = process::uid_and_tracer(context.process.pid);
                tracer.map(Found::Tracer)
            }
            Probe::Load => {
                let content = procfile::read("/proc/loadavg").ok()?;
                procfile::parse_load(&content).map(Found::Load)
            }
            Probe::Marker(index) => {
                let (name, path) = startup.markers.get(index)?;
                let pid = u32::try_from(context.process.pid).unwrap_or(0);
                marker::read(name, path, pid).map(Found::Marker)
            }
            Probe::Memory => {
                startup.memory_cgroup.as_ref().map(MemoryCgroup::read).map(Found::Memory)
            }
        }
    }

    /// What is to be found out about the sender.
    fn of_sender(self, context: &ShutdownContext) -> Option<SenderFact> {
        let sender = context.sender.as_ref()?;
        let process = &sender.process;
        match self {
            Probe::Sender => verified(sender),
            Probe::SenderParent if sender.ancestors.is_empty() => {
                Some(SenderFact::Ancestors(process.ancestors(1)))
            }
            Probe::Ancestors => {
                let [parent] = &sender.ancestors[..] else { return None };
                let above = parent.ancestors(MAX_ANCESTORS - 1);
                Some(SenderFact::Ancestors([vec![parent.clone()], above].concat()))
            }
            Probe::SenderCmdline => {
                cmdline(sender, context.parent.as_ref()).map(SenderFact::Cmdline)
            }
            // A sigqueue(3) holds the uid that its sender wrote there. And outside our pid namespace
            // the uid is most likely another user's, of another /etc/passwd.
            Probe::SenderUser if sender.is_verified() && process.pid > 0 => {
                user_name(process.uid?).map(SenderFact::User)
            }
            Probe::SenderUnit if process.unit.is_none() && sender.is_still_there() => {
                process::unit(process.pid).map(SenderFact::Unit)
            }
            _ => None,
        }
    }
}

/// Checks that the process the handler saw is the one that sent the signal.
fn verified(sender: &Sender) -> Option<SenderFact> {
    let process = &sender.process;
    if !sender.is_verified() || !process.is_same_as(&ProcessSummary::read_stat(process.pid)) {
        return None;
    }
    // The handler may have seen another process already: if the signal had waited for long, as in a
    // stopped process, or if the sender signalled its process group from a pid namespace below ours,
    // where the kernel gives its number there. The sender may also have exited since the read above;
    // then there is no file, as a pid is not reused before all others have been.
    let (uid, _) = process::uid_and_tracer(process.pid);
    if uid.is_some() && uid != process.uid {
        return Some(SenderFact::IsAnother);
    }
    // Most likely a user's manager; its unit tells whose.
    let is_manager = process.name.as_deref() == Some("systemd") && process.pid != 1;
    if is_manager { process::unit(process.pid).map(SenderFact::Unit) } else { None }
}

/// The sender's command line, if it is surely the sender's. A program that the sender has become by
/// exec has another, and so has a process that took over its pid.
fn cmdline(sender: &Sender, our_parent: Option<&ProcessSummary>) -> Option<String> {
    let process = &sender.process;
    if process.cmdline.is_some() {
        return None;
    }
    // Our parent's was read when we started.
    if let Some(parent) = our_parent.filter(|parent| parent.is_same_as(process))
        && parent.cmdline.is_some()
    {
        return parent.cmdline.clone();
    }
    // A zombie has none, and without a start time nothing tells whose it is.
    if process.state == Some('Z') || process.start_time.is_none() {
        return None;
    }
    process::cmdline(process.pid).filter(|_| sender.is_still_there())
}

/// Our parent as it is now, with what was known of it at the start if it is still the same process.
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
    let sender = sender.filter(|it| it.is(pid) && it.process.start_time.is_some());
    let now =
        sender.map_or_else(|| ProcessSummary::read_stat(pid), |sender| sender.process.clone());
    let Some(first) = startup.parent.as_ref().filter(|first| now.is_same_as(first)) else {
        return Some(now);
    };
    // A process changes its program by exec. The old command line is then no longer true.
    let cmdline = first.cmdline.clone().filter(|_| first.name == now.name);
    Some(ProcessSummary { cmdline, state: now.state, name: now.name, ..first.clone() })
}
