//! A run, ready to be drawn: phases are bars, single events are marks. All times are in
//! microseconds since the first signal.
//!
//! A record can be incomplete: a phase without an end, an end without a start, members without
//! their group, clocks out of order. Everything that is known is drawn.

use std::collections::HashMap;

use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_NAME_CHARS, MAX_TEXT_CHARS, truncate};
use forensics_core::record::{Diag, Entry, Event, PhaseOutcome, values_line};
use serde_json::Value;

use crate::format::{name, seconds, short, text};
use crate::layout::Tone;

/// How many phases and marks are drawn. A service has far fewer; an attacker's record can have too
/// many to draw.
const MAX_BARS: usize = 1000;
const MAX_MARKS: usize = 1000;

/// Longest text of a phase, in characters.
const MAX_CHARS: usize = 2000;

/// A run, ready to be drawn.
pub(crate) struct Timeline {
    /// The time of the last event.
    pub(crate) end: u64,
    /// The time of the deadline.
    pub(crate) deadline: Option<u64>,
    /// When the supervisor's stop timeout ends.
    pub(crate) stop_timeout: Option<u64>,
    /// The length of the drawing: until the end of the run, or until the deadline or the end of the
    /// stop timeout if that is close.
    pub(crate) span: u64,
    /// The phases, in the order in which they began; each group is followed by its members.
    pub(crate) bars: Vec<Bar>,
    /// The single events, in the order in which they happened.
    pub(crate) marks: Vec<Mark>,
    /// A note about what is not drawn, if anything.
    pub(crate) omitted: Option<String>,
    /// What the cause of the first signal rests on.
    pub(crate) cause_evidence: Option<String>,
    /// The file of the diagnostic.
    pub(crate) diagnostic: Option<String>,
}

/// A phase, a group, or a member of a group.
#[derive(Default)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) group: Option<String>,
    pub(crate) from: u64,
    /// When it ended, or when the run ended.
    pub(crate) to: u64,
    /// How long it may have taken.
    pub(crate) budget: Option<u64>,
    /// How much of that time earlier phases had to leave for it.
    pub(crate) reserve: Option<u64>,
    /// Absent if the run ended before the phase did.
    pub(crate) outcome: Option<PhaseOutcome>,
    pub(crate) error: String,
    /// What it recorded last, such as `active_now=3`.
    pub(crate) recorded: String,
}

/// A signal, a stall, a diagnostic, or the end.
pub(crate) struct Mark {
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    /// As text, in which foreign text is escaped.
    pub(crate) text: String,
}

#[derive(PartialEq)]
pub(crate) enum Kind {
    /// A signal. Only the cause of the first one is shown.
    Signal {
        cause: String,
    },
    /// A stall, and the phase that is stalled.
    Stall {
        phase: Option<String>,
    },
    Other,
}

/// A phase by its name and its group.
type Key = (String, Option<String>);

/// Collects a [`Timeline`] entry by entry, in the order of the record. The times in it are still those of
/// the record. [`timeline`](Self::timeline) counts them from the first signal.
#[derive(Default)]
pub(crate) struct Collector {
    last: u64,
    /// The first signal, and its deadline.
    first: Option<(u64, Option<u64>)>,
    /// When the deadline moved last, and where to.
    moved: Option<(u64, u64)>,
    bars: Vec<Bar>,
    /// The bars that have not ended, oldest first.
    open: HashMap<Key, Vec<usize>>,
    marks: Vec<Mark>,
    /// How many phases and marks are not drawn.
    more: usize,
    cause_evidence: Option<String>,
    diagnostic: Option<String>,
}

impl Collector {
    pub(crate) fn add(&mut self, entry: &Entry) {
        // What a witness said was added after the run had ended, and is not a part of it.
        if matches!(entry.event, Event::Witness(_)) {
            return;
        }
        let at = entry.mono_us;
        self.last = self.last.max(at);
        let cut = |text: &str| truncate(text, MAX_CHARS);
        let key = |phase: &str, group: Option<&str>| (cut(phase), group.map(cut));
        match &entry.event {
            Event::PhaseStarted(started) => {
                let key = key(&started.phase, started.group.as_deref());
                if let Some(n) = self.push(&key, at) {
                    self.bars[n].budget = started.timeout_us;
                    self.bars[n].reserve = started.reserve_us;
                    self.open.entry(key).or_default().push(n);
                }
            }
            Event::PhaseProgress(progress) => {
                let key = key(&progress.phase, progress.group.as_deref());
                if let Some(&n) = self.open.get(&key).and_then(|open| open.last()) {
                    self.bars[n].recorded = cut(&values_line(&progress.values));
                }
            }
            Event::PhaseFinished(finished) => {
                let key = key(&finished.phase, finished.group.as_deref());
                let ended = self.open.get_mut(&key).and_then(Vec::pop);
                // A phase without a start gets its bar here, as a skipped one always does. If starts were
                // left out because there were too many, this phase may already be counted.
                let is_counted = self.more > 0 && finished.outcome != PhaseOutcome::Skipped;
                let ended = ended.or_else(|| (!is_counted).then(|| self.push(&key, at)).flatten());
                let Some(bar) = ended.map(|n| &mut self.bars[n]) else { return };
                (bar.to, bar.outcome) = (at, Some(finished.outcome));
                bar.error = cut(finished.error.as_deref().unwrap_or_default());
                if !finished.values.is_empty() {
                    bar.recorded = cut(&values_line(&finished.values));
                }
            }
            event => {
                if let Event::Signal(signal) = event
                    && self.first.is_none_or(|(first, _)| at < first)
                {
                    self.first = Some((at, signal.deadline_us));
                    let evidence = signal.context.pointer("/verdict/evidence");
                    self.cause_evidence = evidence.and_then(Value::as_str).map(cut);
                }
                if let Event::Diag(Diag { path: Some(path), .. }) = event {
                    self.diagnostic = Some(cut(path));
                }
                if let Event::DeadlineMoved(moved) = event
                    && let Some(to) = moved.deadline_us
                    && self.moved.is_none_or(|(last, _)| at >= last)
                {
                    self.moved = Some((at, to));
                }
                match mark(event) {
                    Some(_) if self.marks.len() == MAX_MARKS => self.more += 1,
                    Some((kind, text)) => self.marks.push(Mark { at, kind, text }),
                    None => {}
                }
            }
        }
    }

    /// A new bar that begins now. `None` if there are too many.
    fn push(&mut self, (name, group): &Key, from: u64) -> Option<usize> {
        if self.bars.len() == MAX_BARS {
            self.more += 1;
            return None;
        }
        let (name, group) = (name.clone(), group.clone());
        self.bars.push(Bar { name, group, from, ..Bar::default() });
        Some(self.bars.len() - 1)
    }

    /// `stop_timeout` is when the supervisor's stop timeout ends, counted from the first signal.
    pub(crate) fn timeline(self, stop_timeout: Option<u64>) -> Timeline {
        let Self { last, first, moved, mut bars, mut marks, more, .. } = self;
        let Self { cause_evidence, diagnostic, .. } = self;
        let zero = first.map_or(last, |(at, _)| at);
        let end = last.saturating_sub(zero);
        for bar in &mut bars {
            bar.from = bar.from.saturating_sub(zero);
            bar.to = bar.outcome.map_or(end, |_| bar.to.saturating_sub(zero));
        }
        // Threads write concurrently, so lines can be out of order by some microseconds.
        bars.sort_by_key(|bar| bar.from);
        marks.sort_by_key(|mark| mark.at);
        let mut is_first = true;
        for mark in &mut marks {
            if let Kind::Signal { cause } = &mark.kind {
                if is_first && mark.at == zero {
                    mark.text += &format!(", cause {}", name(cause, MAX_NAME_CHARS));
                }
                is_first = false;
            }
            mark.at = mark.at.saturating_sub(zero);
        }
        let deadline = moved.map(|(_, to)| to).or_else(|| first.and_then(|(_, deadline)| deadline));
        let limits = deadline.into_iter().chain(stop_timeout);
        let near = limits.filter(|&limit| limit <= end.saturating_mul(3)).max();
        let span = near.unwrap_or(0).max(end).max(1);
        let omitted = format!("{more} more phases and events are not drawn: use --json for all");
        let omitted = (more > 0).then_some(omitted);
        let bars = nest(bars);
        Timeline {
            end,
            deadline,
            stop_timeout,
            span,
            bars,
            marks,
            omitted,
            cause_evidence,
            diagnostic,
        }
    }
}

impl Timeline {
    /// The position of this time in the drawing, from 0 to 1.
    pub(crate) fn fraction(&self, at: u64) -> f64 {
        at.min(self.span) as f64 / self.span as f64
    }

    /// The deadline and the end of the stop timeout, as far as they are known.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let limits = [("deadline", self.deadline), ("stop timeout", self.stop_timeout)];
        limits.into_iter().filter_map(|(name, at)| Some((name, at?)))
    }

    /// The steps of an axis, at most `most`: round times, and their labels.
    pub(crate) fn ticks(&self, most: u64) -> Vec<(u64, String)> {
        let step = steps().find(|step| self.span / step <= most).unwrap_or(self.span);
        let ticks = (0..=self.span / step).map(|n| n * step);
        ticks.map(|at| (at, self.label(at))).collect()
    }

    /// A round time in the unit that fits the length of the drawing.
    fn label(&self, at: u64) -> String {
        let of = |unit_us: u64, unit: &str| format!("{}{unit}", at as f64 / unit_us as f64);
        match self.span {
            _ if at == 0 => "0".to_owned(),
            ..MS => of(1, "µs"),
            MS..S => of(MS, "ms"),
            S..TWO_MINUTES => of(S, "s"),
            _ => Timespan::Finite(at).to_string(),
        }
    }
}

const MS: u64 = 1000;
const S: u64 = 1000 * MS;
const TWO_MINUTES: u64 = 120 * S;
const DAY: u64 = 86_400 * S;

/// Round lengths of time, from a microsecond on: 1, 2, 5, 10, … seconds; then those of a clock; then
/// days.
fn steps() -> impl Iterator<Item = u64> {
    let tens = |unit: u64| (0..).map_while(move |n| unit.checked_mul(10_u64.checked_pow(n)?));
    let decimal = move |unit| tens(unit).flat_map(|ten| [1, 2, 5].map(|n| ten.saturating_mul(n)));
    let clock = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200].map(|n| n * S);
    let below_15_s = decimal(1).take_while(|&step| step <= 10 * S);
    below_15_s.chain(clock).chain(decimal(DAY))
}

/// Puts each member after the last group of that name that began before it. A member without such a
/// group stays where it is.
fn nest(flat: Vec<Bar>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for bar in flat {
        let is_its_group = |one: &Bar| one.group.is_none() && Some(&one.name) == bar.group.as_ref();
        let place = bars.iter().rposition(is_its_group).map_or(bars.len(), |group| {
            let behind = &bars[group + 1..];
            group + 1 + behind.iter().take_while(|one| one.group == bar.group).count()
        });
        bars.insert(place, bar);
    }
    bars
}

impl Bar {
    /// What is known about it besides its times and its outcome.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let reserve = self.reserve.map(|us| format!("reserve {}", short(us)));
        let notes = [Some(self.error.clone()), Some(self.recorded.clone()), reserve];
        notes.into_iter().flatten().filter(|note| !note.is_empty())
    }

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
        let took = short(self.to.saturating_sub(self.from));
        self.budget.map_or(took.clone(), |budget| format!("{took} of {}", seconds(budget)))
    }
}

/// The kind of an event that is a mark, and its text.
fn mark(event: &Event) -> Option<(Kind, String)> {
    let name = |name_of: &str| name(name_of, MAX_NAME_CHARS);
    let detail = |detail: &str| text(detail, MAX_TEXT_CHARS);
    Some(match event {
        Event::Signal(signal) => {
            let kind = signal.kind.to_string();
            let mut text = name(signal.signal.as_deref().unwrap_or(&kind));
            if let Some(pid) = signal.sender_pid {
                let sender = signal.sender_name.as_deref().unwrap_or("?");
                text += &format!(" from {}({pid})", name(sender));
            }
            (Kind::Signal { cause: truncate(&*signal.cause, MAX_NAME_CHARS) }, text)
        }
        Event::Explained(explained) => {
            let (reason, basis) = (name(&explained.reason), explained.basis.sentence());
            let detail = [detail(&explained.detail), detail(&basis)];
            (Kind::Other, format!("systemd: {} ({reason}), {}", detail[0], detail[1]))
        }
        Event::DeadlineMoved(moved) => {
            let [mut to, mut by] = [String::new(), String::new()];
            if let Some(us) = moved.deadline_us {
                to = format!(" to {}", Timespan::Finite(us));
            }
            if let Some(timeout) = moved.stop_timeout_us {
                by = format!(": systemd gives {timeout}");
            }
            (Kind::Other, format!("deadline moved{to}{by}"))
        }
        Event::Stalled(stall) => {
            let phase = stall.phase.as_ref().map(|phase| format!(" in {}", name(phase)));
            let text = format!("stalled{}: {}", phase.unwrap_or_default(), detail(&stall.detail));
            let phase = stall.phase.as_deref().map(|phase| truncate(phase, MAX_CHARS));
            (Kind::Stall { phase }, text)
        }
        Event::Diag(diag) => {
            let error = diag.error.as_ref().map(|error| format!(": {}", detail(error)));
            (Kind::Other, format!("diagnostic {}{}", diag.state, error.unwrap_or_default()))
        }
        Event::Stopped(stopped) => {
            let status = stopped.exit_code.map(|code| format!(", exit status {code}"));
            (Kind::Other, format!("ended {}{}", stopped.how, status.unwrap_or_default()))
        }
        _ => return None,
    })
}

impl Mark {
    pub(crate) fn tone(&self) -> Tone {
        match self.kind {
            Kind::Signal { .. } => Tone::WARNING,
            Kind::Stall { .. } => Tone::BAD,
            Kind::Other => Tone::FAINT,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use forensics_core::record::Record;

    use super::*;

    pub(crate) fn timeline(record: &str) -> Timeline {
        let mut collector = Collector::default();
        let record = Record::parse(record.as_bytes()).unwrap();
        record.entries.iter().for_each(|entry| collector.add(entry));
        collector.timeline(None)
    }

    fn drawn(lines: &[(u64, &str)]) -> Timeline {
        let head = r#""v":1,"ts":"2026-11-23T10:15:00Z","mono_us":"#;
        let start = format!(
            "{{{head}0,\"event\":\"run_started\",\"service\":\"gateway\",\"pid\":7,\"version\":\"0\"}}\n"
        );
        let lines = lines.iter().map(|(at, rest)| format!("{{{head}{at},{rest}}}\n"));
        timeline(&(start + &lines.collect::<String>()))
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
        let timeline = drawn(&[
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
        let rows: Vec<_> =
            timeline.bars.iter().map(|bar| (&*bar.name, bar.from, bar.to, bar.word())).collect();
        let expected = [
            ("adapters", 100, 1000, "not finished"),
            ("irc", 100, 500, "failed"),
            ("slack", 200, 1000, "not finished"),
            ("late", 600, 600, "skipped"),
            ("stray", 600, 600, "skipped"),
        ];
        assert_eq!(rows, expected.map(|(name, from, to, word)| (name, from, to, word.to_owned())));
        let members = timeline.bars.iter().filter(|bar| bar.group.as_deref() == Some("adapters"));
        assert_eq!(members.count(), 2);
        assert_eq!((timeline.end, timeline.deadline), (1000, Some(5000)));
        // The deadline is too far away to be drawn.
        assert_eq!(timeline.span, 1000);
        let marks: Vec<_> = timeline.marks.iter().map(|mark| &*mark.text).collect();
        assert_eq!(marks, ["SIGTERM, cause operator", "SIGINT", "stalled in slack: d"]);
    }

    #[test]
    fn a_run_without_a_signal_is_drawn_and_a_repeated_name_gives_two_bars() {
        let timeline = drawn(&[
            (5, &started("a", None)),
            (6, &finished("a", None, "ok")),
            (7, &started("a", None)),
            (8, &finished("a", None, "timed_out")),
        ]);
        let rows: Vec<_> = timeline.bars.iter().map(|bar| (&*bar.name, bar.word())).collect();
        assert_eq!(rows, [("a", "ok".to_owned()), ("a", "timed_out".to_owned())]);
        assert_eq!((timeline.end, timeline.span), (0, 1));
    }

    #[test]
    fn the_axis_has_round_times_in_units_that_fit() {
        let cases: [(u64, &[&str]); 10] = [
            (1, &["0", "1µs"]),
            (950, &["0", "200µs", "400µs", "600µs", "800µs"]),
            (45_000, &["0", "10ms", "20ms", "30ms", "40ms"]),
            (2_700_000, &["0", "0.5s", "1s", "1.5s", "2s", "2.5s"]),
            (2_900_000_000, &["0", "10min", "20min", "30min", "40min"]),
            (5_100_000, &["0", "1s", "2s", "3s", "4s", "5s"]),
            (48_000_000, &["0", "10s", "20s", "30s", "40s"]),
            (110_000_000, &["0", "30s", "60s", "90s"]),
            (300_000_000, &["0", "1min", "2min", "3min", "4min", "5min"]),
            (7_500_000_000, &["0", "30min", "1h", "1h 30min", "2h"]),
        ];
        for (span, expected) in cases {
            let timeline = Timeline { span, ..drawn(&[]) };
            let labels: Vec<_> = timeline.ticks(5).into_iter().map(|(_, label)| label).collect();
            assert_eq!(labels, expected, "{span}");
        }
        for span in [0, 1, 7, u64::MAX].map(|span: u64| span.max(1)) {
            let count = Timeline { span, ..drawn(&[]) }.ticks(5).len();
            assert!((2..=6).contains(&count), "{span}: {count}");
        }
    }
}
