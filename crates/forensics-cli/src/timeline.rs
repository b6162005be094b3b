//! A run as it is drawn: phases as bars, single events as marks, all times in microseconds since the
//! first signal.
//!
//! Built from whatever a record holds: a phase without an end, an end without a start, members without
//! their group, clocks out of order. Only what no drawing can show is left out.

use std::collections::HashMap;

use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS};
use forensics_core::record::{
    Diag, Event, PhaseFinished, PhaseOutcome, PhaseStarted, Record, SignalEvent, Stopped,
    values_line,
};
use serde_json::{Map, Value};

use crate::format::{name, seconds, text};

/// A run, ready to be drawn.
pub(crate) struct Timeline<'a> {
    /// The time of the last event.
    pub(crate) end: u64,
    /// When the teardown must have ended.
    pub(crate) deadline: Option<u64>,
    /// In the order in which they began; members are in their group.
    pub(crate) bars: Vec<Bar<'a>>,
    /// In the order in which they happened.
    pub(crate) marks: Vec<Mark<'a>>,
    /// How many more phases and marks there are than are drawn.
    more: [usize; 2],
}

/// How many phases and marks are drawn: far more than any service has, and few enough to draw where a
/// record was made to have too many.
const MAX_BARS: usize = 1000;
const MAX_MARKS: usize = 1000;

/// A phase or a group.
pub(crate) struct Bar<'a> {
    pub(crate) name: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) from: u64,
    /// Its end, or that of the run where it has none.
    pub(crate) to: u64,
    /// How long it may have taken.
    pub(crate) budget: Option<u64>,
    /// Absent where it had not ended when the run did.
    pub(crate) outcome: Option<PhaseOutcome>,
    pub(crate) error: Option<&'a str>,
    /// What it recorded last.
    pub(crate) values: Option<&'a Map<String, Value>>,
    pub(crate) members: Vec<Bar<'a>>,
}

/// A single event.
pub(crate) struct Mark<'a> {
    pub(crate) at: u64,
    pub(crate) what: What<'a>,
}

pub(crate) enum What<'a> {
    /// Only the first signal has a cause.
    Signal {
        signal: &'a SignalEvent,
        is_first: bool,
    },
    /// The stalled phase, and the details.
    Wedged(Option<&'a str>, &'a str),
    Diag(&'a Diag),
    Stopped(&'a Stopped),
}

impl<'a> Timeline<'a> {
    pub(crate) fn of(record: &'a Record) -> Self {
        // Threads write concurrently, so lines can be out of order by some microseconds.
        let mut entries: Vec<_> = record.entries.iter().collect();
        entries.sort_by_key(|entry| entry.mono_us);
        let last = entries.last().map_or(0, |entry| entry.mono_us);
        let first = entries.iter().find_map(|entry| match &entry.event {
            Event::Signal(signal) => Some((entry.mono_us, signal)),
            _ => None,
        });
        let zero = first.map_or(last, |(at, _)| at);
        let end = last.saturating_sub(zero);

        let mut bars: Vec<Bar<'_>> = Vec::new();
        // The bars that have not ended, by name and group; of the same name the last one last.
        let mut open: HashMap<_, Vec<usize>> = HashMap::new();
        let mut marks = Vec::new();
        for entry in entries {
            let at = entry.mono_us.saturating_sub(zero);
            let what = match &entry.event {
                Event::PhaseStarted(started) => {
                    let bar = Bar::begun(started, at, end);
                    open.entry((bar.name, bar.group)).or_default().push(bars.len());
                    bars.push(bar);
                    continue;
                }
                Event::PhaseProgress(progress) => {
                    let place = (progress.phase.as_str(), progress.group.as_deref());
                    if let Some(&bar) = open.get(&place).and_then(|open| open.last()) {
                        bars[bar].values = Some(&progress.values);
                    }
                    continue;
                }
                Event::PhaseFinished(finished) => {
                    let place = (finished.phase.as_str(), finished.group.as_deref());
                    let bar = open.get_mut(&place).and_then(Vec::pop).unwrap_or_else(|| {
                        // A phase that was skipped never started.
                        bars.push(Bar::at(place, at));
                        bars.len() - 1
                    });
                    bars[bar].finish(finished, at);
                    continue;
                }
                Event::Signal(signal) => {
                    let is_first = first.is_some_and(|(_, one)| std::ptr::eq(one, signal));
                    What::Signal { signal, is_first }
                }
                Event::Wedged(wedged) => What::Wedged(wedged.phase.as_deref(), &wedged.detail),
                Event::Diag(diag) => What::Diag(diag),
                Event::Stopped(stopped) => What::Stopped(stopped),
                _ => continue,
            };
            marks.push(Mark { at, what });
        }
        let deadline = first.and_then(|(_, signal)| signal.deadline_us);
        let more = [bars.len().saturating_sub(MAX_BARS), marks.len().saturating_sub(MAX_MARKS)];
        bars.truncate(MAX_BARS);
        marks.truncate(MAX_MARKS);
        Self { end, deadline, more, bars: nest(bars), marks }
    }

    /// All bars, each group in front of its members.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Bar<'a>> {
        self.bars.iter().flat_map(|bar| std::iter::once(bar).chain(&bar.members))
    }

    /// What is not drawn, if anything.
    pub(crate) fn omitted(&self) -> Option<String> {
        match self.more {
            [0, 0] => None,
            [bars, marks] => Some(format!(
                "{bars} more phases and {marks} more events are not drawn: --json has them all"
            )),
        }
    }

    /// How long the drawing is: until the end of the run, or until the deadline if that is near.
    pub(crate) fn span(&self) -> u64 {
        let near = self.deadline.filter(|&deadline| deadline <= self.end.saturating_mul(3));
        near.unwrap_or(0).max(self.end).max(1)
    }
}

impl<'a> Bar<'a> {
    fn at((name, group): (&'a str, Option<&'a str>), at: u64) -> Self {
        Self {
            name,
            group,
            from: at,
            to: at,
            budget: None,
            outcome: None,
            error: None,
            values: None,
            members: Vec::new(),
        }
    }

    fn begun(started: &'a PhaseStarted, at: u64, end: u64) -> Self {
        let place = (started.phase.as_str(), started.group.as_deref());
        Self { to: end, budget: started.timeout_us, ..Self::at(place, at) }
    }

    fn finish(&mut self, finished: &'a PhaseFinished, at: u64) {
        self.to = at;
        self.outcome = Some(finished.outcome);
        self.error = finished.error.as_deref();
        if !finished.values.is_empty() {
            self.values = Some(&finished.values);
        }
    }

    /// How long it ran.
    pub(crate) fn took(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// The outcome's word.
    pub(crate) fn word(&self) -> &'static str {
        self.outcome.map_or("not finished", PhaseOutcome::as_str)
    }

    pub(crate) fn tone(&self) -> Tone {
        match self.outcome {
            Some(PhaseOutcome::Ok) => Tone::Good,
            Some(PhaseOutcome::Skipped) => Tone::Faint,
            Some(PhaseOutcome::TimedOut | PhaseOutcome::CutShort | PhaseOutcome::Other) => {
                Tone::Warning
            }
            _ => Tone::Bad,
        }
    }

    /// `1.20s of 30.00s`, or without the budget where it had none.
    pub(crate) fn used(&self) -> String {
        match self.budget {
            Some(budget) => format!("{} of {}", seconds(self.took()), seconds(budget)),
            None => seconds(self.took()),
        }
    }

    /// What it recorded, such as `active_now=3`.
    pub(crate) fn recorded(&self) -> String {
        self.values.map(values_line).unwrap_or_default()
    }
}

/// How good or bad something is, for a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
    Faint,
}

impl What<'_> {
    /// As text, in which foreign text is escaped.
    pub(crate) fn describe(&self) -> String {
        match self {
            What::Signal { signal, is_first } => {
                let name = |text: &str| name(text, MAX_NAME_CHARS);
                let kind = signal.kind.to_string();
                let mut text = name(signal.signal.as_deref().unwrap_or(&kind));
                if let Some(pid) = signal.sender_pid {
                    let sender = signal.sender_name.as_deref().unwrap_or("?");
                    text += &format!(" from {}({pid})", name(sender));
                }
                if *is_first {
                    text += &format!(", cause {}", name(&signal.cause));
                }
                text
            }
            What::Wedged(phase, detail) => {
                let phase = phase.map(|phase| format!(" in {}", name(phase, MAX_NAME_CHARS)));
                format!("stalled{}: {}", phase.unwrap_or_default(), text(detail, MAX_TEXT_CHARS))
            }
            What::Diag(diag) => {
                let error = diag.error.as_ref();
                let error = error.map(|error| format!(": {}", text(error, MAX_TEXT_CHARS)));
                format!("diagnostic {}{}", diag.state, error.unwrap_or_default())
            }
            What::Stopped(stopped) => {
                let status = stopped.exit_code.map(|code| format!(", exit status {code}"));
                format!("ended {}{}", stopped.how, status.unwrap_or_default())
            }
        }
    }

    pub(crate) fn tone(&self) -> Tone {
        match self {
            What::Signal { .. } => Tone::Warning,
            What::Wedged(..) => Tone::Bad,
            What::Diag(_) | What::Stopped(_) => Tone::Faint,
        }
    }
}

/// Puts members into the last group of their name that began before them. Members without one stay
/// where they are.
fn nest(flat: Vec<Bar<'_>>) -> Vec<Bar<'_>> {
    let mut bars: Vec<Bar<'_>> = Vec::new();
    for bar in flat {
        let group = bar.group.and_then(|group| {
            bars.iter_mut().rev().find(|one| one.group.is_none() && one.name == group)
        });
        match group {
            Some(group) => group.members.push(bar),
            None => bars.push(bar),
        }
    }
    bars
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
    fn members_stand_in_their_group_and_what_has_no_end_ends_with_the_run() {
        let record = record(&[
            (1000, SIGNAL),
            (1100, &started("adapters", None)),
            (1200, &started("slack", Some("adapters"))),
            (1100, &started("irc", Some("adapters"))),
            (1500, &finished("irc", Some("adapters"), "failed")),
            (1600, &finished("late", None, "skipped")),
            (1600, &finished("stray", Some("nowhere"), "skipped")),
            // The same request once more.
            (
                1900,
                r#""event":"signal","kind":"signal","signal":"SIGINT","ordinal":1,"cause":"unknown","line":"""#,
            ),
            (2000, r#""event":"wedged","what":"phase","phase":"slack","for_us":1,"detail":"d""#),
        ]);
        let timeline = Timeline::of(&record);
        let rows: Vec<_> =
            timeline.rows().map(|bar| (bar.name, bar.from, bar.to, bar.word())).collect();
        let expected = [
            ("adapters", 100, 1000, "not finished"),
            ("irc", 100, 500, "failed"),
            ("slack", 200, 1000, "not finished"),
            ("late", 600, 600, "skipped"),
            ("stray", 600, 600, "skipped"),
        ];
        assert_eq!(rows, expected);
        assert_eq!(timeline.bars[0].members.len(), 2);
        assert_eq!((timeline.end, timeline.deadline), (1000, Some(5000)));
        // The deadline is too far off to be drawn.
        assert_eq!(timeline.span(), 1000);
        let marks: Vec<_> = timeline.marks.iter().map(|mark| mark.what.describe()).collect();
        assert_eq!(marks, ["SIGTERM, cause operator", "SIGINT", "stalled in slack: d"]);
    }

    #[test]
    fn a_run_without_a_signal_is_drawn_and_one_name_twice_is_two_bars() {
        let record = record(&[
            (5, &started("a", None)),
            (6, &finished("a", None, "ok")),
            (7, &started("a", None)),
            (8, &finished("a", None, "timed_out")),
        ]);
        let timeline = Timeline::of(&record);
        let rows: Vec<_> = timeline.rows().map(|bar| (bar.name, bar.word())).collect();
        assert_eq!(rows, [("a", "ok"), ("a", "timed_out")]);
        assert_eq!((timeline.end, timeline.span()), (0, 1));
    }
}
