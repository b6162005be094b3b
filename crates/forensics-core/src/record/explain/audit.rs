//! Who sent SIGKILL, by the audit log.

use super::words::ended_by_signal;
use crate::basis::{Basis, Source};
use crate::cause::CONTAINER_RUNTIMES;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{Reason, SentSignal, UnitEnd};

/// The exit status of a container whose main process was ended by SIGKILL.
const KILLED: i32 = 137;

/// Adds the sender of SIGKILL to a verdict. A verdict that was only inferred, and that this sender does
/// not explain, is replaced by it.
pub(super) fn with_sender(verdict: Verdict, run: &Summary<'_>) -> Verdict {
    let Some(sent) = run.sent("SIGKILL").filter(|_| may_be_the_end(run)) else { return verdict };
    let said = format!("by the audit log, {sent}");
    let is_observed = matches!(verdict.basis(), Basis::Observed { .. });
    let is_explained = match verdict.reason() {
        Reason::StopTimeout => sent.is_of_systemd(),
        Reason::GracePeriod => sent.is_of_container_runtime(),
        _ => false,
    };
    if is_observed || is_explained {
        return verdict.with_evidence(&said);
    }
    let basis = Basis::observed(Source::AuditLog);
    if verdict.reason() == Reason::Signal {
        let (reason, _, evidence, advice) = verdict.into_parts();
        let evidence = format!("{evidence}; {said}");
        return Verdict::new(reason, basis, evidence, advice.unwrap_or_default());
    }
    let (ended, advice) = ended_by_signal("SIGKILL", run);
    Verdict::new(Reason::Signal, basis, format!("{ended}; {said}"), advice)
}

/// Whether nobody says that it ended in another way. SIGKILL can also reach a process that has ended
/// but has not been waited for.
fn may_be_the_end(run: &Summary<'_>) -> bool {
    let by_other = |signal: String| signal != "SIGKILL";
    let by_systemd = run.unit_end.as_ref().and_then(UnitEnd::signal);
    let status = run.container_end.as_ref().filter(|_| run.is_of_container());
    let status = status.and_then(|end| end.exit_code);
    !run.has_exited()
        && !by_systemd.is_some_and(by_other)
        && status.is_none_or(|status| status == KILLED)
}

impl SentSignal {
    /// Whether its sender is systemd, as the manager of the system or of a user.
    fn is_of_systemd(&self) -> bool {
        let is_systemd = |exe: &str| exe.ends_with("/systemd/systemd");
        self.sender_name.as_deref() == Some("systemd")
            && self.sender_exe.as_deref().is_some_and(is_systemd)
    }

    fn is_of_container_runtime(&self) -> bool {
        let name = self.sender_name.as_deref();
        name.is_some_and(|name| CONTAINER_RUNTIMES.contains(&name))
    }
}
