//! The account of a stop in a few lines for people: what the termination message says.
//!
//! What matters most stands first, since the message may be cut where it is shown: how it ended, why
//! it stops, who asked, what did not go well. Never longer than [`MAX_BYTES`].

use std::fmt::Write;
use std::time::Duration;

use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::escape::Escaped;
use forensics_core::logfmt::Value;
use tokio::time::Instant;

use super::{Machine, Seconds};
use crate::outcome::Outcome;
use crate::report::PhaseReport;

/// The kubelet takes no more (`MaxContainerTerminationMessageLength`).
pub(crate) const MAX_BYTES: usize = 4096;

/// How a run stands, or ended.
#[derive(Debug, Clone)]
pub(crate) enum MessageState {
    /// It is stopping. If the message still says so when the run is dead, it was killed.
    Stopping { alarm: Option<String> },
    /// As planned.
    Ended { status: u8, total: Duration, timed_out: bool, error: Option<String> },
    /// We ended it, before the teardown had ended.
    Forced { status: u8, why: String },
    /// By a panic.
    Panicked { message: String, location: Option<String> },
    /// `main` dropped the guard.
    Abandoned,
}

/// What an account is made of.
#[derive(Debug, Clone, Copy)]
struct Account<'a> {
    service: &'a str,
    state: &'a MessageState,
    /// How long ago the stop was requested, and how long it may take.
    since: Duration,
    allowed: Duration,
    /// Absent where no stop was requested.
    context: Option<&'a ShutdownContext>,
    /// The phases that run, and for how long already.
    running: &'a [(String, Duration)],
    /// Those that have ended; members of groups before their group.
    ended: &'a [&'a PhaseReport],
}

impl Machine {
    /// The text of the termination message.
    pub(super) fn account(&self, state: &MessageState, now: Instant) -> String {
        let ran = |started| now.saturating_duration_since(started);
        let stop = self.stop();
        let running = stop.into_iter().flat_map(|stop| stop.running.values());
        let running: Vec<_> =
            running.map(|phase| (phase.key.name.to_string(), ran(phase.due.started))).collect();
        let reports = stop.into_iter().flat_map(|stop| &stop.reports);
        let ended: Vec<_> = reports.flat_map(|one| one.members.iter().chain([one])).collect();
        Account {
            service: &self.config.service,
            state,
            since: self.since(now),
            allowed: stop.map_or(Duration::ZERO, |stop| stop.allowed),
            context: stop.map(|stop| &*stop.context),
            running: &running,
            ended: &ended,
        }
        .text()
    }
}

impl Account<'_> {
    /// The text, lines apart by newlines, with all foreign text escaped.
    fn text(&self) -> String {
        let mut lines = vec![self.head()];
        lines.extend(self.context.and_then(sender));
        if !self.running.is_empty() {
            let running = self.running.iter();
            let running =
                running.map(|(name, ran)| format!("{} for {}", Value(name), Seconds(*ran)));
            lines.push(format!("running: {}", running.collect::<Vec<_>>().join(", ")));
        }
        let bad = self.ended.iter().filter(|phase| phase.outcome != Outcome::Ok);
        lines.extend(bad.map(|phase| {
            let error = phase.error.as_deref().unwrap_or_default();
            format!("{}: {}", took(phase), Escaped(error))
        }));
        let phases = self.ended.iter().filter(|phase| phase.members.is_empty());
        if let Some(slowest) = phases.max_by_key(|phase| phase.duration) {
            lines.push(format!("slowest: {}", took(slowest)));
            let all: Vec<String> = self.ended.iter().map(|phase| took(phase)).collect();
            lines.push(format!("phases: {}", all.join(", ")));
        }
        if let MessageState::Forced { why, .. } | MessageState::Stopping { alarm: Some(why) } =
            self.state
        {
            lines.push(format!("seen: {}", Escaped(why)));
        }
        if let Some(context) = self.context {
            lines.push(format!("context: {context}"));
        }
        fit(lines.join("\n") + "\n", MAX_BYTES)
    }

    fn head(&self) -> String {
        let mut head = Escaped(self.service).to_string();
        // Writing to a String does not fail.
        let _ = match self.state {
            MessageState::Stopping { .. } => write!(
                head,
                " was stopping, {} of at most {} so far, and killed if nothing else stands here",
                Seconds(self.since),
                Seconds(self.allowed)
            ),
            MessageState::Ended { status, total, timed_out, error } => {
                let total = Seconds(*total);
                let how = match (*timed_out, error) {
                    (_, Some(error)) => format!(", and failed: {}", Escaped(error)),
                    (true, None) => ", though a phase timed out".to_owned(),
                    (false, None) => ", as planned".to_owned(),
                };
                write!(head, " ended in {total}, exit status {status}{how}")
            }
            MessageState::Forced { status, why } => {
                let why = why.split(';').next().unwrap_or_default();
                write!(head, " was ended by force, exit status {status}: {}", Escaped(why))
            }
            MessageState::Panicked { message, location } => {
                let at = location
                    .as_deref()
                    .map(|place| format!(" at {}", Escaped(place)))
                    .unwrap_or_default();
                write!(head, " panicked{at}: {}", Escaped(message))
            }
            MessageState::Abandoned => {
                write!(head, " left its guard before its teardown had ended")
            }
        };
        if let Some(context) = self.context {
            let _ = match &context.trigger {
                Some(Trigger::Signal { signal }) => write!(head, "; {signal}"),
                _ => write!(head, "; no signal"),
            };
            let evidence = context.evidence();
            let evidence = Escaped(evidence.unwrap_or_default()).to_string();
            let _ = write!(head, ", cause {}: {evidence}", context.cause());
        }
        head
    }
}

/// `sender: kill(4242), uid 1000, by bash(4201)`
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
        let _ = write!(line, ", by {parent}");
    }
    if sender.forwards {
        line.push_str(", which passed it on");
    }
    Some(line)
}

fn took(phase: &PhaseReport) -> String {
    format!("{} {} {}", Value(&phase.name), phase.outcome, Seconds(phase.duration))
}

/// Cuts `text` to at most `max` bytes, between characters.
fn fit(mut text: String, max: usize) -> String {
    const CUT: &str = "…\n";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - CUT.len()));
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use forensics_core::context::StartupInfo;

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

    fn requested(reason: &str) -> ShutdownContext {
        let trigger = Trigger::Request { reason: reason.to_owned() };
        ShutdownContext::capture(&StartupInfo::collect(), trigger, None)
    }

    #[test]
    fn what_matters_most_stands_first() {
        let ended = [
            phase("notify", Outcome::Ok, 0, None),
            phase("drain", Outcome::TimedOut, 30_000, Some("still running after 30.00s")),
        ];
        let context = requested("upgrade");
        let seconds = Duration::from_secs;
        let account = |state: MessageState| {
            Account {
                service: "gateway",
                state: &state,
                since: seconds(2),
                allowed: seconds(45),
                context: Some(&context),
                running: &[],
                ended: &ended.iter().collect::<Vec<_>>(),
            }
            .text()
        };
        let rest = format!(
            "; no signal, cause requested: requested: upgrade\n\
             drain timed_out 30.00s: still running after 30.00s\n\
             slowest: drain timed_out 30.00s\n\
             phases: notify ok 0.00s, drain timed_out 30.00s\n\
             SEENcontext: {context}\n"
        );
        let rest = |seen: &str| rest.replace("SEEN", seen);
        let cases = [
            (
                MessageState::Ended { status: 0, total: seconds(3), timed_out: false, error: None },
                "gateway ended in 3.00s, exit status 0, as planned".to_owned() + &rest(""),
            ),
            (
                MessageState::Ended { status: 0, total: seconds(31), timed_out: true, error: None },
                "gateway ended in 31.00s, exit status 0, though a phase timed out".to_owned()
                    + &rest(""),
            ),
            (
                MessageState::Ended {
                    status: 1,
                    total: seconds(31),
                    timed_out: true,
                    error: Some("disk\ngone".to_owned()),
                },
                r"gateway ended in 31.00s, exit status 1, and failed: disk\ngone".to_owned()
                    + &rest(""),
            ),
            (
                MessageState::Forced {
                    status: 70,
                    why: "the deadline is over; threads: 1".to_owned(),
                },
                "gateway was ended by force, exit status 70: the deadline is over".to_owned()
                    + &rest("seen: the deadline is over; threads: 1\n"),
            ),
            (
                MessageState::Stopping { alarm: Some("slow".to_owned()) },
                "gateway was stopping, 2.00s of at most 45.00s so far, and killed if nothing else \
                 stands here"
                    .to_owned()
                    + &rest("seen: slow\n"),
            ),
        ];
        for (state, expected) in cases {
            assert_eq!(account(state), expected);
        }
    }

    #[test]
    fn a_panic_outside_of_a_stop_has_an_account_too() {
        let state = MessageState::Panicked {
            message: "oh\u{1b}[31m no".to_owned(),
            location: Some("src/main.rs:3:5".to_owned()),
        };
        let account = Account {
            service: "gateway",
            state: &state,
            since: Duration::ZERO,
            allowed: Duration::ZERO,
            context: None,
            running: &[],
            ended: &[],
        };
        assert_eq!(account.text(), "gateway panicked at src/main.rs:3:5: oh\\u{1b}[31m no\n");
    }

    #[test]
    fn it_fits_whatever_it_has_to_tell_and_nothing_in_it_can_leave_its_line() {
        let evil = "ü\n\u{7}gateway ended as planned".repeat(400);
        let context = requested(&evil);
        let ended: Vec<_> =
            (0..300).map(|_| phase(&evil, Outcome::Failed, 1, Some(&evil))).collect();
        let running = vec![(evil.clone(), Duration::ZERO)];
        for length in 0..30 {
            let service = "é".repeat(length) + &evil;
            let account = Account {
                service: &service,
                state: &MessageState::Forced { status: 70, why: evil.clone() },
                since: Duration::ZERO,
                allowed: Duration::ZERO,
                context: Some(&context),
                running: &running,
                ended: &ended.iter().collect::<Vec<_>>(),
            };
            let text = account.text();
            assert!((MAX_BYTES - 8..=MAX_BYTES).contains(&text.len()), "{}", text.len());
            assert!(text.ends_with("…\n"));
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            assert!(!text.lines().skip(1).any(|line| line.starts_with("gateway ended")));
        }
    }
}
