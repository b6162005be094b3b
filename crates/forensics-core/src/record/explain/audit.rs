//! Who sent SIGKILL, by the audit log.

use super::words::ended_by_signal;
use crate::basis::{Basis, Source};
use crate::cause::CONTAINER_RUNTIMES;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{Reason, RunStarted, SentSignal, UnitEnd};

/// The exit status of a container whose main process was ended by SIGKILL.
const KILLED: i32 = 137;

/// Adds the sender of SIGKILL to a verdict. If the verdict was only inferred, and its reason does not fit
/// this sender, the reason becomes `signal`.
pub(super) fn with_sender(verdict: Verdict, run: &Summary<'_>) -> Verdict {
    let Some(sent) = run.sent("SIGKILL").filter(|_| may_be_the_end(run)) else { return verdict };
    let said = format!("by the audit log, {sent}");
    let is_observed = matches!(verdict.basis(), Basis::Observed { .. });
    let is_explained = match verdict.reason() {
        Reason::StopTimeout => sent.is_of_systemd(run.start),
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

/// Whether SIGKILL may have ended the run: no other witness says that it ended in another way. The signal
/// can also reach a process that has ended already and has not been waited for.
fn may_be_the_end(run: &Summary<'_>) -> bool {
    let by_other = |signal: String| signal != "SIGKILL";
    let by_systemd = run.main_end().and_then(UnitEnd::signal);
    let status = run.container_end.as_ref().filter(|_| run.is_of_container());
    let status = status.and_then(|end| end.exit_code);
    !run.has_exited()
        && !by_systemd.is_some_and(by_other)
        && status.is_none_or(|status| status == KILLED)
}

impl SentSignal {
    /// Whether its sender is systemd, as the manager of the system or of the run's user. A program can
    /// choose its name, and its path in a namespace.
    fn is_of_systemd(&self, start: &RunStarted) -> bool {
        let is_systemd = |exe: &str| exe.ends_with("/systemd/systemd");
        let is_of_user = start.manager.as_deref() == Some("user")
            && start.uid.is_none_or(|uid| uid == self.sender_uid);
        self.sender_name.as_deref() == Some("systemd")
            && self.sender_exe.as_deref().is_some_and(is_systemd)
            && (self.sender_uid == 0 || is_of_user)
    }

    fn is_of_container_runtime(&self) -> bool {
        let name = self.sender_name.as_deref();
        name.is_some_and(|name| CONTAINER_RUNTIMES.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::record::{Digest, HostState, post_mortem};

    /// The reason, the basis and the evidence for a run with these events after its start.
    fn verdict(events: &[Value]) -> [String; 3] {
        let start = json!({ "event": "run_started", "service": "gateway", "pid": 6805, "version": "0",
            "stop_timeout_us": 3_000_000, "parent_pid": 1 });
        let lines = [&[start], events].concat().into_iter().map(|mut event| {
            event["v"] = 1.into();
            event["ts"] = "2026-11-28T15:02:37Z".into();
            if event["mono_us"].is_null() {
                event["mono_us"] = 1.into();
            }
            format!("{event}\n")
        });
        let record = Digest::parse(lines.collect::<String>().as_bytes()).unwrap();
        let host = HostState { mono_us: Some(3_200_000), ..HostState::default() };
        let run = post_mortem(&record, &host);
        [run.reason.to_string(), run.basis.to_string(), run.evidence]
    }

    fn sent_by(name: &str, exe: &str) -> Value {
        json!({ "event": "witness", "source": "audit_log", "signal": "SIGKILL",
            "sent": "2026-11-28T15:02:40Z", "sender_pid": 7, "sender_uid": 0, "sender_name": name,
            "sender_exe": exe })
    }

    fn unit_end(status: &str) -> Value {
        json!({ "event": "witness", "source": "systemd", "service_result": "signal",
            "exit_code": "killed", "exit_status": status })
    }

    #[test]
    fn the_sender_refines_what_was_inferred_and_is_added_to_what_was_observed() {
        let by_kill = sent_by("kill", "/usr/bin/kill");
        let by_systemd = sent_by("systemd", "/usr/lib/systemd/systemd");
        // A program of another user than root, in a namespace of its own.
        let mut by_imitator = by_systemd.clone();
        by_imitator["sender_uid"] = 1000.into();
        let term = json!({ "event": "signal", "kind": "signal", "signal": "SIGTERM", "ordinal": 1,
            "cause": "systemd", "line": "", "sender_pid": 1, "sender_name": "systemd" });
        let phase = json!({ "event": "phase_started", "phase": "drain", "offset_us": 1,
            "mono_us": 2_900_000 });
        let killed = "by the audit log, SIGKILL sent by kill(7), /usr/bin/kill, uid 0";
        let stopped = "by the audit log, SIGKILL sent by systemd(7), ";
        // The sender is not named if systemd says that another signal ended the process.
        let cases = [
            (vec![by_kill.clone()], "signal", "observed:audit_log", Some(killed)),
            (vec![unit_end("KILL"), by_kill.clone()], "signal", "observed:systemd", Some(killed)),
            (vec![unit_end("SEGV"), by_kill.clone()], "signal", "observed:systemd", None),
            (
                vec![term.clone(), phase.clone(), by_systemd],
                "stop_timeout",
                "inferred",
                Some(stopped),
            ),
            (
                vec![term.clone(), phase.clone(), by_imitator],
                "signal",
                "observed:audit_log",
                Some(stopped),
            ),
            (vec![term, phase, by_kill], "signal", "observed:audit_log", Some(killed)),
        ];
        for (events, reason, basis, said) in cases {
            let [its_reason, its_basis, evidence] = verdict(&events);
            assert_eq!([its_reason.as_str(), &its_basis], [reason, basis], "{evidence}");
            assert_eq!(evidence.contains("audit log"), said.is_some(), "{evidence}");
            assert!(said.is_none_or(|said| evidence.contains(said)), "{evidence}");
            assert!(!evidence.contains("not recorded"), "{evidence}");
        }
    }
}
