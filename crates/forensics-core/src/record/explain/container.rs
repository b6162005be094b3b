//! Ends that a container runtime reports.

use super::memory::others_killed;
use super::timer::StopTimer;
use super::words::{ended_by_signal, shown, state};
use super::{Texts, texts};
use crate::basis::{Basis, Source};
use crate::record::post_mortem::Span;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{ContainerEnd, HostState, Reason};

/// What the runtime said, in its own words.
pub(super) fn said(end: &ContainerEnd) -> String {
    let code = end.exit_code.map(|code| format!("ExitCode={code}"));
    let oom = end.oom_killed.map(|oom| format!("OOMKilled={oom}"));
    let reason = end.reason.as_ref().map(|reason| format!("reason={}", shown(reason)));
    let at = end.finished_at.map(|at| format!("FinishedAt={at}"));
    let all = code.into_iter().chain(oom).chain(reason).chain(at);
    format!("{} reports {}", shown(&end.runtime), all.collect::<Vec<_>>().join(" "))
}

/// The verdict that follows from what the runtime says. `None` if it says nothing about how the
/// container ended.
pub(super) fn by_container(
    run: &Summary<'_>,
    host: &HostState,
    timer: Option<&StopTimer<'_>>,
) -> Option<Verdict> {
    let end = run.container_end.as_ref()?;
    let code = end.exit_code?;
    let said = said(end);
    if !run.is_of_container() {
        return Some(of_another(run, code, &said));
    }
    let signal = end.signal();
    let is_kill = signal.as_deref() == Some("SIGKILL");
    // The runtime reports an OOM kill of any process of the container, at any time.
    let timer = timer.filter(|timer| is_kill && timer.fits(run, host));
    let is_explained = timer.is_some() || others_killed(run) > 0;
    if is_kill && end.oom_killed == Some(true) && !is_explained {
        let basis = Basis::inferred(format!(
            "{} reports an OOM kill in the container",
            shown(&end.runtime)
        ))
        .and("its exit status stands for SIGKILL");
        let killed = "the kernel OOM-killed a process of its container, and it ended by SIGKILL";
        let advice = "raise the container's memory limit, or find what took the memory";
        let evidence = format!("{killed}; {said}");
        return Some(Verdict::new(Reason::OutOfMemory, basis, evidence, advice));
    }
    if let Some(timer) = timer {
        let verdict = timer.verdict(run, host);
        return Some(verdict.with_evidence(&said));
    }
    let (evidence, advice) = match &signal {
        Some(signal) => by_signal(run, end, signal),
        None => {
            let evidence = format!("it exited with status {code} and did not record its end");
            let how = "return from main only after run(), and do not call exit()";
            texts(evidence, format!("{}: {how}", state(run)))
        }
    };
    let (reason, basis) = match &signal {
        Some(signal) => {
            let runtime = shown(&end.runtime);
            let basis = Basis::inferred(format!("{runtime} reports the exit status {code}"));
            (Reason::Signal, basis.and(format!("{code} is 128 and the number of {signal}")))
        }
        None => (Reason::Exit, Basis::observed(Source::ContainerRuntime)),
    };
    let evidence = format!("{evidence}{}; {said}", when(run, end));
    Some(Verdict::new(reason, basis, evidence, advice))
}

/// The container's status is not that of this process, as far as is known.
fn of_another(run: &Summary<'_>, code: i32, said: &str) -> Verdict {
    let ended = format!("its container ended with status {code}");
    let basis = Basis::inferred(&ended).and("its record has no end");
    // The infrastructure container of a pod is process 1 of a shared pid namespace.
    let parent = run.start.parent_name.as_deref().filter(|name| *name != "pause");
    let one = parent.filter(|_| run.start.parent_pid == Some(1)).map(shown);
    let (basis, evidence) = match one {
        Some(name) => (
            basis.and(format!("process 1 of the container was its parent, {name}")),
            format!(
                "process 1 of its container ({name}) ended with status {code}, and the kernel then \
                 kills every other process of the container; how this process ended is not known"
            ),
        ),
        None => (
            basis.and("this process was not process 1 of a pid namespace"),
            format!("{ended}; whether that is the status of this process is not known"),
        ),
    };
    let advice = super::supervisor::shell_as_process_one(run).unwrap_or_default();
    Verdict::new(Reason::ContainerEnded, basis, format!("{evidence}; {said}"), advice)
}

fn by_signal(run: &Summary<'_>, end: &ContainerEnd, signal: &str) -> Texts {
    let (mut evidence, advice) = ended_by_signal(signal, run);
    if signal == "SIGKILL" {
        if run.sent(signal).is_none() {
            evidence += "; who sent it is not recorded";
        }
        let others = others_killed(run);
        if others > 0 {
            evidence += &format!(
                "; {others} other processes of its cgroup had been OOM-killed before it was asked to stop"
            );
        }
        if end.oom_killed == Some(false) {
            evidence += "; OOMKilled=false does not rule out an OOM kill, because the runtime can \
                         miss one";
        }
    } else {
        evidence += ", or exited with the status that stands for it";
    }
    texts(evidence, advice)
}

/// How long after the first signal it ended.
fn when(run: &Summary<'_>, end: &ContainerEnd) -> String {
    let Some((at_us, _)) = run.asked.filter(|_| end.finished_at.is_some()) else {
        return String::new();
    };
    let after = run.died_us.map(|died_us| Span(died_us.saturating_sub(at_us)));
    after.map(|after| format!("; it ended {after} after the signal")).unwrap_or_default()
}
