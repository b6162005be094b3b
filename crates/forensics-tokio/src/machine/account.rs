//! The text of the termination message: a summary of the stop for people.
//!
//! The most important facts come first, because the message may be cut when it is shown: how the
//! run ended, why it stopped, who requested that, and which phases did not end with `ok`. It is
//! never longer than [`MAX_BYTES`].

use std::fmt::Write;

use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::escape::{Escaped, truncate_bytes};
use forensics_core::logfmt::Value;
use forensics_core::record::ExitKind;
use tokio::time::Instant;

use super::{Action, Machine, Seconds, Stop, Turn};
use crate::outcome::Outcome;
use crate::report::{PhaseReport, ShutdownReport};

/// The kubelet reads no more (`MaxContainerTerminationMessageLength`).
pub(crate) const MAX_BYTES: usize = 4096;

impl Machine {
    /// Writes the last termination message, which only another last one can replace. Its first line
    /// is the name of the service and `head`, which says how the run has ended. `seen` describes a
    /// stall, if there is one.
    pub(super) fn tell_end(&self, head: &str, seen: Option<&str>, turn: &mut Turn) {
        if self.writes_message {
            let text = self.account(head, seen, turn.now);
            turn.act(Action::WriteMessage { text, is_last: true });
        }
    }

    /// Writes that the service is stopping. If this message is still there after the process has
    /// ended, the process was killed.
    pub(super) fn tell_stopping(&self, seen: Option<&str>, turn: &mut Turn) {
        let Some(stop) = self.stop.as_ref().filter(|_| self.writes_message) else { return };
        let head = format!(
            "was stopping, {} of at most {} so far, and was killed if this is its last message",
            Seconds(turn.since(stop.began)),
            Seconds(stop.limit.allowed)
        );
        let text = self.account(&head, seen, turn.now);
        turn.act(Action::WriteMessage { text, is_last: false });
    }

    /// The text of the message. Lines are separated by newlines, and foreign text is escaped.
    fn account(&self, head: &str, seen: Option<&str>, now: Instant) -> String {
        let mut lines = vec![format!("{} {head}", Escaped(&self.config.service))];
        if let Some(stop) = &self.stop {
            lines[0] += &cause(&stop.context);
            lines.extend(sender(&stop.context));
            lines.extend(stop.explained.as_ref().map(|why| format!("systemd: {}", why.detail)));
            lines.extend(stop.phases(now));
        }
        lines.extend(seen.map(|seen| format!("seen: {}", Escaped(seen))));
        lines.extend(self.stop.as_ref().map(|stop| format!("context: {}", stop.context)));
        fit(lines.join("\n") + "\n", MAX_BYTES)
    }
}

impl Stop {
    /// The lines about the phases: those that run, those that did not end with `ok`, the slowest
    /// one, and all that have ended.
    fn phases(&self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        let running = self.running.values();
        let running: Vec<_> = running
            .map(|phase| format!("{} for {}", Value(&phase.key.name), Seconds(phase.ran(now))))
            .collect();
        if !running.is_empty() {
            lines.push(format!("running: {}", running.join(", ")));
        }
        let bad = self.ended().filter(|phase| phase.outcome != Outcome::Ok);
        lines.extend(bad.map(|phase| {
            let error = phase.error.as_deref().unwrap_or_default();
            format!("{}: {}", took(phase), Escaped(error))
        }));
        let phases = self.ended().filter(|phase| phase.members.is_empty());
        if let Some(slowest) = phases.max_by_key(|phase| phase.duration) {
            lines.push(format!("slowest: {}", took(slowest)));
            let all: Vec<String> = self.ended().map(took).collect();
            lines.push(format!("phases: {}", all.join(", ")));
        }
        lines
    }
}

/// The `head` of a message about a run that has ended by itself.
pub(super) fn ended(report: &ShutdownReport) -> String {
    let how = if report.is_failed() {
        format!(", and failed: {}", Escaped(&report.failure()))
    } else {
        let how = match report.how {
            ExitKind::Clean => ", as planned",
            ExitKind::CutShort => ", though the stop was escalated",
            _ => ", though a phase timed out",
        };
        how.to_owned()
    };
    let status = match report.exit_signal {
        Some(signal) => format!("by {signal}"),
        None => format!("exit status {}", report.exit_status),
    };
    format!("ended in {}, {status}{how}", Seconds(report.total))
}

/// The signal and the cause: `; SIGTERM, cause operator: sender kill(4242) has a terminal`
fn cause(context: &ShutdownContext) -> String {
    let signal = match context.trigger {
        Some(Trigger::Signal { signal }) => signal.to_string(),
        _ => "no signal".to_owned(),
    };
    let evidence = context.evidence().unwrap_or_default();
    format!("; {signal}, cause {}: {}", context.cause(), Escaped(evidence))
}

/// The sender: `sender: kill(4242), uid 1000, parent bash(4201)`
fn sender(context: &ShutdownContext) -> Option<String> {
    let sender = context.sender.as_ref()?;
    let mut line = match sender.process.pid {
        0 => "sender: outside our pid namespace".to_owned(),
        _ => format!("sender: {}", sender.process),
    };
    if let Some(uid) = sender.process.uid {
        let _ = write!(line, ", uid {uid}");
    }
    if let Some(parent) = sender.parent() {
        let _ = write!(line, ", parent {parent}");
    }
    if sender.forwards {
        line.push_str(", which forwarded the signal");
    }
    Some(line)
}

fn took(phase: &PhaseReport) -> String {
    format!("{} {} {}", Value(&phase.name), phase.outcome, Seconds(phase.duration))
}

/// Cuts `text` to at most `max` bytes, between characters.
fn fit(mut text: String, max: usize) -> String {
    truncate_bytes(&mut text, max, "…\n");
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use forensics_core::capture::Signal;
    use forensics_core::context::StartupInfo;

    use super::*;
    use crate::config::Config;
    use crate::machine::{Event, Stage, State};
    use crate::panics::Panic;

    fn phase(name: &str, outcome: Outcome, ms: u64, error: Option<&str>) -> PhaseReport {
        PhaseReport {
            name: name.to_owned(),
            outcome,
            error: error.map(str::to_owned),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(ms),
            values: serde_json::Map::new(),
            members: Vec::new(),
        }
    }

    /// A machine whose stop was requested for `reason` at `began`, and whose phases ended with
    /// `reports`. Also returns the context of the stop.
    fn stopping(
        service: &str,
        reason: &str,
        reports: Vec<PhaseReport>,
        began: Instant,
    ) -> (Machine, Arc<ShutdownContext>) {
        let trigger = Trigger::Request { reason: reason.to_owned() };
        let context = ShutdownContext::capture(&StartupInfo::collect(), trigger.clone(), None);
        let config = Config { service: service.to_owned(), ..Config::new("test".to_owned()) };
        let mut machine = Machine::new(Arc::new(config), false, true);
        machine.handle(Event::Requested(trigger), began);
        machine.handle(Event::ContextCaptured(Box::new(context)), began);
        let stop = machine.stop.as_mut().unwrap();
        stop.reports = reports;
        let context = stop.context.clone();
        (machine, context)
    }

    #[test]
    fn what_matters_most_stands_first() {
        let reports = vec![
            phase("notify", Outcome::Ok, 0, None),
            phase("drain", Outcome::TimedOut, 30_000, Some("still running after 30.00s")),
        ];
        let began = Instant::now();
        let seconds = Duration::from_secs;
        let (mut machine, context) = stopping("gateway", "upgrade", reports, began);
        let rest = |seen: &str| {
            format!(
                "; no signal, cause requested: requested: upgrade\n\
                 drain timed_out 30.00s: still running after 30.00s\n\
                 slowest: drain timed_out 30.00s\n\
                 phases: notify ok 0s, drain timed_out 30.00s\n\
                 {seen}context: {context}\n"
            )
        };
        let mut closing = machine.clone();
        closing.state = State::TearingDown(Stage::Closing { since: began + seconds(3) });
        let report = closing.report().unwrap();
        let timed_out = ShutdownReport { total: seconds(31), ..report.clone() };
        let failed = ShutdownReport {
            how: ExitKind::Failed,
            errors: vec!["disk\ngone".to_owned()],
            exit_status: 1,
            ..timed_out.clone()
        };
        let cases = [
            (
                ShutdownReport { how: ExitKind::Clean, ..report.clone() },
                "gateway ended in 3.00s, exit status 0, as planned",
            ),
            (
                ShutdownReport {
                    how: ExitKind::CutShort,
                    exit_signal: Some(Signal::INT),
                    ..report
                },
                "gateway ended in 3.00s, by SIGINT, though the stop was escalated",
            ),
            (timed_out, "gateway ended in 31.00s, exit status 0, though a phase timed out"),
            (failed, r"gateway ended in 31.00s, exit status 1, and failed: disk\ngone"),
        ];
        for (report, expected) in cases {
            let text = machine.account(&ended(&report), None, began);
            assert_eq!(text, expected.to_owned() + &rest(""));
        }
        let mut turn = Turn { now: began + seconds(2), actions: Vec::new() };
        machine.tell_stopping(Some("slow"), &mut turn);
        let detail = "the deadline has passed; threads: 1".to_owned();
        machine.exit_described(detail.clone(), &mut turn);
        machine.exiting(&detail, &mut turn);
        let written = turn.actions.into_iter().filter_map(|action| match action {
            Action::WriteMessage { text, .. } => Some(text),
            _ => None,
        });
        let expected = [
            "gateway was stopping, 2.00s of at most 45.00s so far, and was killed if this is its \
             last message"
                .to_owned()
                + &rest("seen: slow\n"),
            "gateway was ended by force, exit status 70: the deadline has passed".to_owned()
                + &rest("seen: the deadline has passed; threads: 1\n"),
        ];
        assert_eq!(written.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_panic_outside_of_a_stop_has_an_account_too() {
        let config = Config::new("gateway".to_owned());
        let mut machine = Machine::new(Arc::new(config), false, true);
        let panic = Panic {
            message: "oh\u{1b}[31m no".to_owned(),
            location: Some("src/main.rs:3:5".to_owned()),
        };
        let actions = machine.handle(Event::GuardDropped(Some(panic)), Instant::now());
        let expected = "gateway panicked at src/main.rs:3:5: oh\\u{1b}[31m no\n";
        assert!(
            matches!(&actions[..], [_, Action::WriteMessage { text, .. }, _] if text == expected),
            "{actions:?}"
        );
    }

    #[test]
    fn it_fits_whatever_it_has_to_tell_and_nothing_in_it_can_leave_its_line() {
        let evil = "ü\n\u{7}gateway ended as planned".repeat(400);
        let failed = phase(&evil, Outcome::Failed, 1, Some(&evil));
        for length in 0..30 {
            let service = "é".repeat(length) + &evil;
            let (machine, _) = stopping(&service, &evil, vec![failed.clone(); 300], Instant::now());
            let text = machine.account("was ended", Some(&evil), Instant::now());
            assert!((MAX_BYTES - 8..=MAX_BYTES).contains(&text.len()), "{}", text.len());
            assert!(text.ends_with("…\n"));
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            assert!(!text.lines().skip(1).any(|line| line.starts_with("gateway ended")));
        }
    }
}
