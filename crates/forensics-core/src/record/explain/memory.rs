//! OOM kills.

use super::words::shown;
use crate::basis::{Basis, Source};
use crate::record::HostState;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{OomLog, Reason};

/// The verdict if the kernel log says that it OOM-killed this process.
pub(super) fn by_kernel(host: &HostState) -> Option<Verdict> {
    let OomLog::Killed(line) = &host.oom_log else { return None };
    let evidence = format!("the kernel log says: {}", shown(line));
    let advice = "raise MemoryMax= or the container's limit, or find what took the memory";
    Some(Verdict::new(Reason::OutOfMemory, Basis::observed(Source::Kernel), evidence, advice))
}

/// What is known about OOM kills, if nothing says that this process was OOM-killed. A counter of a
/// cgroup counts every process of it.
pub(super) fn memory(run: &Summary<'_>, host: &HostState) -> String {
    let mut hints = String::new();
    let counted = |name: &str| run.asked.and_then(|(_, s)| s.context["memory"][name].as_u64());
    if let (Some(used), Some(max)) = (counted("current"), counted("max"))
        && used / 9 >= max / 10
    {
        let [used, max] = [used, max].map(|bytes| bytes >> 20);
        hints += &format!("; its memory was at {used} MiB of {max} MiB when it was asked to stop");
    }
    // What was counted before the last event had not killed it.
    let before = counted("oom_kill").or(run.start.oom_kill);
    if let (Some(before), Some(start)) = (before, run.start.oom_kill)
        && before > start
    {
        let others = before - start;
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
        // The unit's result or the container's runtime knows it.
        _ if run.start.unit.is_none() && run.start.cgroup_inode.is_some() => {
            hints
                + "; cannot tell whether it was OOM-killed: the counters of its cgroup cannot be \
                     read from here"
        }
        _ => hints,
    }
}
