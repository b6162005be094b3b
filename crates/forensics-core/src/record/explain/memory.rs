//! OOM kills.

use super::words::shown;
use crate::basis::{Basis, Source};
use crate::record::HostState;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{OomLog, Reason};

/// What the kernel log says, if it says that it OOM-killed this process.
fn line(host: &HostState) -> Option<String> {
    let OomLog::Killed(line) = &host.oom_log else { return None };
    Some(format!("the kernel log says: {}", shown(line)))
}

/// Whether a witness says that the process ended by something else than SIGKILL. Then a line of the
/// kernel log is about a later process with the same pid and name, or one of the two is wrong.
fn is_contradicted(run: &Summary<'_>) -> bool {
    run.has_exited() || run.ended_by().is_some_and(|signal| signal != "SIGKILL")
}

/// That line, if a witness contradicts it.
pub(super) fn contradicted_line(run: &Summary<'_>, host: &HostState) -> Option<String> {
    let line = line(host).filter(|_| is_contradicted(run))?;
    Some(format!("{line}; that contradicts the rest, or is about a later process with its pid"))
}

/// The verdict if the kernel log says that it OOM-killed this process.
pub(super) fn by_kernel(run: &Summary<'_>, host: &HostState) -> Option<Verdict> {
    let evidence = line(host).filter(|_| !is_contradicted(run))?;
    let advice = "raise MemoryMax= or the container's limit, or find what took the memory";
    Some(Verdict::new(Reason::OutOfMemory, Basis::observed(Source::Kernel), evidence, advice))
}

/// What the run read from its cgroup when it was asked to stop.
fn counted(run: &Summary<'_>, name: &str) -> Option<u64> {
    run.asked.and_then(|(_, signal)| signal.context["memory"][name].as_u64())
}

/// How many other processes of its cgroup had been OOM-killed before it was asked to stop.
pub(super) fn others_killed(run: &Summary<'_>) -> u64 {
    let (before, start) = (counted(run, "oom_kill"), run.start.oom_kill);
    before.zip(start).map_or(0, |(before, start)| before.saturating_sub(start))
}

/// What is known about OOM kills, if nothing says that this process was OOM-killed. A counter of a
/// cgroup counts every process of it.
pub(super) fn memory(run: &Summary<'_>, host: &HostState) -> String {
    let mut hints = String::new();
    let counted = |name: &str| counted(run, name);
    if let (Some(used), Some(max)) = (counted("current"), counted("max"))
        && used / 9 >= max / 10
    {
        let [used, max] = [used, max].map(|bytes| bytes >> 20);
        hints += &format!("; its memory was at {used} MiB of {max} MiB when it was asked to stop");
    }
    // An OOM kill that was counted at the request to stop, or at the start, was that of another process.
    let before = counted("oom_kill").or(run.start.oom_kill);
    let others = others_killed(run);
    if others > 0 {
        hints += &format!("; {others} other processes of its cgroup had been OOM-killed");
    }
    if host.oom_log == OomLog::NotKilled {
        return hints + "; the kernel log shows no OOM kill of it";
    }
    let is_same_cgroup =
        run.start.cgroup_inode.is_some() && run.start.cgroup_inode == host.cgroup_inode;
    match (before, host.oom_kill.filter(|_| is_same_cgroup)) {
        (Some(before), Some(now)) if now > before => {
            hints
                + &format!(
                    "; its cgroup's oom_kill counter was {before} and is {now} now: processes of the \
                 cgroup were OOM-killed, perhaps this one"
                )
        }
        (Some(_), Some(_)) => hints + "; its cgroup counts no OOM kill since",
        // Not in a unit, because systemd then reports an OOM kill.
        _ if run.start.unit.is_none() && run.start.cgroup_inode.is_some() => {
            hints
                + "; cannot tell whether it was OOM-killed: the counters of its cgroup cannot be \
                     read from here"
        }
        _ => hints,
    }
}
