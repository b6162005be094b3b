//! A run, ready to be drawn: phases are bars, single events are marks. All times are in
//! microseconds since the first signal.
//!
//! A record can be incomplete: a phase without an end, an end without a start, members without
//! their group, clocks out of order. Everything that is known is drawn.

use std::collections::HashMap;
use std::ptr;

use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS};
use forensics_core::record::{Entry, Event, PhaseOutcome, Record, values_line};
use serde_json::{Map, Value};

use crate::format::{name, seconds, text};

/// How many phases and marks are drawn. A service has far fewer; an attacker's record can have too
/// many to draw.
const MAX_BARS: usize = 1000;
const MAX_MARKS: usize = 1000;

/// A run, ready to be drawn.
pub(crate) struct Timeline<'a> {
    /// The time of the last event.
    pub(crate) end: u64,
    /// The time of the deadline.
    pub(crate) deadline: Option<u64>,
    /// The length of the drawing: until the end of the run, or until the deadline if that is close.
    pub(crate) span: u64,
    /// In the order in which they began; each group is followed by its members.
    pub(crate) bars: Vec<Bar<'a>>,
    /// In the order in which they happened.
    pub(crate) marks: Vec<Mark<'a>>,
    /// A note about what is not drawn, if anything.
    pub(crate) omitted: Option<String>,
}

/// A phase, a group, or a member of a group.
#[derive(Default)]
pub(crate) struct Bar<'a> {
    pub(crate) name: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) from: u64,
    /// When it ended, or when the run ended.
    pub(crate) to: u64,
    /// How long it may have taken.
    pub(crate) budget: Option<u64>,
    /// Absent if the run ended before the phase did.
    pub(crate) outcome: Option<PhaseOutcome>,
    pub(crate) error: Option<&'a str>,
    /// What it recorded last.
    values: Option<&'a Map<String, Value>>,
}

/// A signal, a stall, a diagnostic, or the end.
pub(crate) struct Mark<'a> {
    pub(crate) at: u64,
    pub(crate) event: &'a Event,
    /// Whether this is the first signal, which has a cause.
    is_first: bool,
}

/// How good or bad something is: its class on the page, and its colour on a terminal as an SGR code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tone {
    pub(crate) class: &'static str,
    pub(crate) sgr: &'static str,
}

impl Tone {
    pub(crate) const GOOD: Self = Self { class: "good", sgr: "32" };
    pub(crate) const WARNING: Self = Self { class: "warning", sgr: "33" };
    pub(crate) const BAD: Self = Self { class: "bad", sgr: "31" };
    pub(crate) const FAINT: Self = Self { class: "faint", sgr: "2" };
    pub(crate) const PLAIN: Self = Self { class: "", sgr: "" };
}

impl<'a> Timeline<'a> {
    pub(crate) fn of(record: &'a Record) -> Self {
        // Threads write concurrently, so lines can be out of order by some microseconds.
        // What a witness said is written after the run.
        let of_run = |entry: &&Entry| !matches!(entry.event, Event::Witness(_));
        let mut entries: Vec<_> = record.entries.iter().filter(of_run).collect();
        entries.sort_by_key(|entry| entry.mono_us);
        let last = entries.last().map_or(0, |entry| entry.mono_us);
        let first = entries.iter().copied().find(|entry| matches!(entry.event, Event::Signal(_)));
        let zero = first.map_or(last, |entry| entry.mono_us);
        let end = last.saturating_sub(zero);

        let mut bars: Vec<Bar<'_>> = Vec::new();
        // The bars that have not ended, by name and group, oldest first.
        let mut open: HashMap<_, Vec<usize>> = HashMap::new();
        let mut marks = Vec::new();
        for &entry in &entries {
            let (at, event) = (entry.mono_us.saturating_sub(zero), &entry.event);
            match event {
                Event::PhaseStarted(started) => {
                    let (name, group) = (started.phase.as_str(), started.group.as_deref());
                    open.entry((name, group)).or_default().push(bars.len());
                    let budget = started.timeout_us;
                    bars.push(Bar { name, group, from: at, to: end, budget, ..Bar::default() });
                }
                Event::PhaseProgress(progress) => {
                    let open = open.get(&(progress.phase.as_str(), progress.group.as_deref()));
                    if let Some(&bar) = open.and_then(|open| open.last()) {
                        bars[bar].values = Some(&progress.values);
                    }
                }
                Event::PhaseFinished(finished) => {
                    let (name, group) = (finished.phase.as_str(), finished.group.as_deref());
                    let bar =
                        open.get_mut(&(name, group)).and_then(Vec::pop).unwrap_or_else(|| {
                            // A phase that was skipped never started.
                            bars.push(Bar { name, group, from: at, ..Bar::default() });
                            bars.len() - 1
                        });
                    let bar = &mut bars[bar];
                    bar.to = at;
                    bar.outcome = Some(finished.outcome);
                    bar.error = finished.error.as_deref();
                    if !finished.values.is_empty() {
                        bar.values = Some(&finished.values);
                    }
                }
                Event::Signal(_)
                | Event::Explained(_)
                | Event::DeadlineMoved(_)
                | Event::Stalled(_)
                | Event::Diag(_)
                | Event::Stopped(_) => {
                    let is_first = first.is_some_and(|first| ptr::eq(first, entry));
                    marks.push(Mark { at, event, is_first });
                }
                _ => {}
            }
        }
        let moved = entries.iter().rev().find_map(|entry| match &entry.event {
            Event::DeadlineMoved(moved) => moved.deadline_us,
            _ => None,
        });
        let first_deadline = |first: &Entry| match &first.event {
            Event::Signal(signal) => signal.deadline_us,
            _ => None,
        };
        let deadline = moved.or_else(|| first.and_then(first_deadline));
        let near = deadline.filter(|&deadline| deadline <= end.saturating_mul(3));
        let span = near.unwrap_or(0).max(end).max(1);
        let more = bars.len().saturating_sub(MAX_BARS) + marks.len().saturating_sub(MAX_MARKS);
        let omitted = format!("{more} more phases and events are not drawn: use --json for all");
        let omitted = (more > 0).then_some(omitted);
        bars.truncate(MAX_BARS);
        marks.truncate(MAX_MARKS);
        Self { end, deadline, span, bars: nest(bars), marks, omitted }
    }

    /// The position of this time in the drawing, from 0 to 1.
    pub(crate) fn fraction(&self, at: u64) -> f64 {
        at.min(self.span) as f64 / self.span as f64
    }
}

/// Puts each member after the last group of that name that began before it. A member without such a
/// group stays where it is.
fn nest(flat: Vec<Bar<'_>>) -> Vec<Bar<'_>> {
    let mut bars: Vec<Bar<'_>> = Vec::new();
    for bar in flat {
        let is_its_group = |one: &Bar<'_>| one.group.is_none() && Some(one.name) == bar.group;
        let place = bars.iter().rposition(is_its_group).map_or(bars.len(), |group| {
            let behind = &bars[group + 1..];
            group + 1 + behind.iter().take_while(|one| one.group == bar.group).count()
        });
        bars.insert(place, bar);
    }
    bars
}

impl Bar<'_> {
    /// The word for its outcome.
    pub(crate) fn word(&self) -> String {
        self.outcome.map_or_else(|| "not finished".to_owned(), |outcome| outcome.to_string())
    }

    pub(crate) fn tone(&self) -> Tone {
        use PhaseOutcome::{CutShort, Ok, Other, Skipped, TimedOut};
        match self.outcome {
            Some(Ok) => Tone::GOOD,
            Some(Skipped) => Tone::FAINT,
            Some(TimedOut | CutShort | Other) => Tone::WARNING,
            _ => Tone::BAD,
        }
    }

    /// `1.20s of 30.00s`, or `1.20s` if it had no budget.
    pub(crate) fn used(&self) -> String {
        let took = seconds(self.to.saturating_sub(self.from));
        self.budget.map_or(took.clone(), |budget| format!("{took} of {}", seconds(budget)))
    }

    /// What it recorded, such as `active_now=3`.
    pub(crate) fn recorded(&self) -> String {
        self.values.map(values_line).unwrap_or_default()
    }
}

impl Mark<'_> {
    /// As text, in which foreign text is escaped.
    pub(crate) fn text(&self) -> String {
        let name = |name_of: &str| name(name_of, MAX_NAME_CHARS);
        let detail = |detail: &str| text(detail, MAX_TEXT_CHARS);
        match self.event {
            Event::Signal(signal) => {
                let kind = signal.kind.to_string();
                let mut text = name(signal.signal.as_deref().unwrap_or(&kind));
                if let Some(pid) = signal.sender_pid {
                    let sender = signal.sender_name.as_deref().unwrap_or("?");
                    text += &format!(" from {}({pid})", name(sender));
                }
                if self.is_first {
                    text += &format!(", cause {}", name(&signal.cause));
                }
                text
            }
            Event::Explained(explained) => {
                let [reason, basis] = [explained.reason.clone(), explained.basis.sentence()];
                format!(
                    "systemd: {} ({}), {}",
                    detail(&explained.detail),
                    name(&reason),
                    detail(&basis)
                )
            }
            Event::DeadlineMoved(moved) => {
                let [mut to, mut by] = [String::new(), String::new()];
                if let Some(us) = moved.deadline_us {
                    to = format!(" to {}", Timespan::Finite(us));
                }
                if let Some(timeout) = moved.stop_timeout_us {
                    by = format!(": systemd gives {timeout}");
                }
                format!("deadline moved{to}{by}")
            }
            Event::Stalled(stall) => {
                let phase = stall.phase.as_ref().map(|phase| format!(" in {}", name(phase)));
                format!("stalled{}: {}", phase.unwrap_or_default(), detail(&stall.detail))
            }
            Event::Diag(diag) => {
                let error = diag.error.as_ref().map(|error| format!(": {}", detail(error)));
                format!("diagnostic {}{}", diag.state, error.unwrap_or_default())
            }
            Event::Stopped(stopped) => {
                let status = stopped.exit_code.map(|code| format!(", exit status {code}"));
                format!("ended {}{}", stopped.how, status.unwrap_or_default())
            }
            _ => String::new(),
        }
    }

    pub(crate) fn tone(&self) -> Tone {
        match self.event {
            Event::Signal(_) => Tone::WARNING,
            Event::Stalled(_) => Tone::BAD,
            _ => Tone::FAINT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lines: &[(u64, &str)]) -> Record {
        let head = r#""v":1,"ts":"2026-11-23T10:15:00Z","mono_us":"#;
        let start = format!(
            "{{{head}0,\"event\":\"run_started\",\"service\":\"gateway\",\"pid\":7,\"version\":\"0\"}}\n"
        );
        let lines = lines.iter().map(|(at, rest)| format!("{{{head}{at},{rest}}}\n"));
        Record::parse((start + &lines.collect::<String>()).as_bytes()).unwrap()
    }

    const SIGNAL: &str = r#""event":"signal","kind":"signal","signal":"SIGTERM","ordinal":1,"cause":"operator","line":"","deadline_us":5000"#;

    fn started(phase: &str, group: Option<&str>) -> String {
        let group = group.map(|group| format!(r#","group":"{group}""#)).unwrap_or_default();
        format!(
            r#""event":"phase_started","phase":"{phase}"{group},"timeout_us":900,"offset_us":0"#
        )
    }

    fn finished(phase: &str, group: Option<&str>, outcome: &str) -> String {
        let group = group.map(|group| format!(r#","group":"{group}""#)).unwrap_or_default();
        format!(
            r#""event":"phase_finished","phase":"{phase}"{group},"outcome":"{outcome}","took_us":1,"offset_us":1"#
        )
    }

    #[test]
    fn members_follow_their_group_and_phases_without_an_end_end_with_the_run() {
        let record = record(&[
            (1000, SIGNAL),
            (1100, &started("adapters", None)),
            (1200, &started("slack", Some("adapters"))),
            (1100, &started("irc", Some("adapters"))),
            (1500, &finished("irc", Some("adapters"), "failed")),
            (1600, &finished("late", None, "skipped")),
            (1600, &finished("stray", Some("nowhere"), "skipped")),
            // A repeat that counts as the same request.
            (
                1900,
                r#""event":"signal","kind":"signal","signal":"SIGINT","ordinal":1,"cause":"unknown","line":"""#,
            ),
            (2000, r#""event":"wedged","what":"phase","phase":"slack","for_us":1,"detail":"d""#),
        ]);
        let timeline = Timeline::of(&record);
        let rows: Vec<_> =
            timeline.bars.iter().map(|bar| (bar.name, bar.from, bar.to, bar.word())).collect();
        let expected = [
            ("adapters", 100, 1000, "not finished"),
            ("irc", 100, 500, "failed"),
            ("slack", 200, 1000, "not finished"),
            ("late", 600, 600, "skipped"),
            ("stray", 600, 600, "skipped"),
        ];
        assert_eq!(rows, expected.map(|(name, from, to, word)| (name, from, to, word.to_owned())));
        let members = timeline.bars.iter().filter(|bar| bar.group == Some("adapters"));
        assert_eq!(members.count(), 2);
        assert_eq!((timeline.end, timeline.deadline), (1000, Some(5000)));
        // The deadline is too far away to be drawn.
        assert_eq!(timeline.span, 1000);
        let marks: Vec<_> = timeline.marks.iter().map(Mark::text).collect();
        assert_eq!(marks, ["SIGTERM, cause operator", "SIGINT", "stalled in slack: d"]);
    }

    #[test]
    fn a_run_without_a_signal_is_drawn_and_a_repeated_name_gives_two_bars() {
        let record = record(&[
            (5, &started("a", None)),
            (6, &finished("a", None, "ok")),
            (7, &started("a", None)),
            (8, &finished("a", None, "timed_out")),
        ]);
        let timeline = Timeline::of(&record);
        let rows: Vec<_> = timeline.bars.iter().map(|bar| (bar.name, bar.word())).collect();
        assert_eq!(rows, [("a", "ok".to_owned()), ("a", "timed_out".to_owned())]);
        assert_eq!((timeline.end, timeline.span), (0, 1));
    }
}
