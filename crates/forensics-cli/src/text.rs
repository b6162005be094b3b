//! A timeline as text: one bar per phase, and no line longer than the terminal is wide.

use std::io::{self, Write};

use forensics_core::escape::truncate;

use crate::format::{self, seconds};
use crate::layout::{Style, Tone, pad, width};
use crate::timeline::{Bar, Timeline};

/// Widest and narrowest bar, in characters. If the narrowest does not fit, no bars are drawn.
const WIDEST: usize = 60;
const NARROWEST: usize = 8;

/// Longest name shown.
const MAX_NAME: usize = 24;

/// Longest text of an event, error or value shown, in characters.
const MAX_NOTE: usize = 400;

/// The columns between two marks of the axis, at least.
const TICK: u64 = 7;

/// The columns of a drawing, in characters.
struct Layout<'a> {
    timeline: &'a Timeline,
    style: Style,
    offset: usize,
    name: usize,
    /// Zero if there is no room for bars.
    bar: usize,
    used: usize,
}

/// Draws a timeline.
pub(crate) fn draw(out: &mut dyn Write, timeline: &Timeline, style: Style) -> io::Result<()> {
    let layout = Layout::new(timeline, style);
    for mark in &timeline.marks {
        let text = truncate(&mark.text, MAX_NOTE);
        style.beside(out, (Tone::PLAIN, &layout.at(mark.at)), (mark.tone(), &text))?;
    }
    if !timeline.bars.is_empty() && layout.bar > 0 {
        layout.axis(out)?;
    }
    for bar in &timeline.bars {
        layout.row(out, bar)?;
    }
    if let Some(more) = &timeline.omitted {
        layout.line(out, &[(Tone::PLAIN, more)])?;
    }
    for ((name, at), line) in timeline.limits().zip(['┆', '║']) {
        let mut text = pad(name, layout.name + 2);
        if at <= timeline.span && layout.bar > 0 {
            text += &" ".repeat(layout.column(at).min(layout.bar - 1));
            text.push(line);
        }
        layout.line(out, &[(Tone::PLAIN, &layout.at(at)), (Tone::FAINT, text.trim_end())])?;
    }
    Ok(())
}

impl<'a> Layout<'a> {
    fn new(timeline: &'a Timeline, style: Style) -> Self {
        let longest =
            |length: fn(&Bar) -> usize| timeline.bars.iter().map(length).max().unwrap_or(0);
        let limits = timeline.limits().map(|(name, _)| name.len()).max().unwrap_or(0);
        let name = longest(|bar| width(&label(bar))).max(limits);
        let (used, word) = (longest(|bar| width(&bar.used())), longest(|bar| bar.word().len()));
        let last = timeline.limits().map(|(_, at)| at).max().unwrap_or(0).max(timeline.end);
        let offset = offset(last).len().max(9);
        let bar = style.width.saturating_sub(offset + 2 + name + 2 + 2 + used + 1 + word);
        let bar = if bar < NARROWEST { 0 } else { bar.min(WIDEST) };
        Self { timeline, style, offset, name, bar, used }
    }

    /// The times of the axis, each at its place.
    fn axis(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut axis = String::new();
        for (at, label) in self.timeline.ticks((self.bar as u64 / TICK).max(1)) {
            if width(&axis) <= self.column(at) {
                axis = pad(&axis, self.column(at)) + "╷" + &label;
            }
        }
        let indent = " ".repeat(self.offset + 2 + self.name + 2);
        self.line(out, &[(Tone::PLAIN, &indent), (Tone::FAINT, &axis)])
    }

    fn row(&self, out: &mut dyn Write, bar: &Bar) -> io::Result<()> {
        let (name, used, tone) = (self.name, self.used, bar.tone());
        let [before, full, left, after] = self.bar(bar);
        let at = self.at(bar.from);
        let mut indent = self.offset + 2;
        if self.bar == 0 {
            let text = format!("{} {} {}", label(bar).trim(), bar.word(), bar.used());
            self.style.beside(out, (Tone::PLAIN, &at), (tone, &text))?;
        } else {
            let start = at + &pad(&label(bar), name + 2) + &before;
            let used = format!("{after}{:>used$} ", bar.used());
            let bars = [(tone, &*full), (Tone::FAINT, &left)];
            let words = [(Tone::PLAIN, &*used), (tone, &bar.word())];
            self.line(out, &[&[(Tone::PLAIN, &*start)], &bars[..], &words].concat())?;
            indent += name + 2;
        }
        let indent = " ".repeat(indent);
        bar.notes().try_for_each(|note| {
            let note = truncate(format::text(&note, MAX_NOTE), MAX_NOTE);
            self.style.beside(out, (Tone::PLAIN, &indent), (Tone::FAINT, &note))
        })
    }

    /// Four parts: the time before the phase, the used time, the remaining time, and the padding
    /// after it.
    fn bar(&self, bar: &Bar) -> [String; 4] {
        let width = self.bar;
        if width == 0 {
            return Default::default();
        }
        let from = self.column(bar.from).min(width - 1);
        // A phase that took no time is shown as one character.
        let to = self.column(bar.to).clamp(from + 1, width);
        let budget = bar.budget.map_or(to, |budget| self.column(bar.from.saturating_add(budget)));
        let budget = budget.clamp(to, width);
        let fill = if bar.outcome.is_some() { "█" } else { "▒" };
        let after = " ".repeat(width - budget + 2);
        [" ".repeat(from), fill.repeat(to - from), "·".repeat(budget - to), after]
    }

    fn column(&self, at: u64) -> usize {
        (self.timeline.fraction(at) * self.bar as f64) as usize
    }

    /// The first column: a time.
    fn at(&self, at: u64) -> String {
        format!("{:>width$}  ", offset(at), width = self.offset)
    }

    fn line(&self, out: &mut dyn Write, segments: &[(Tone, &str)]) -> io::Result<()> {
        self.style.line(out, segments)
    }
}

fn offset(at: u64) -> String {
    format!("+{}", seconds(at))
}

fn label(bar: &Bar) -> String {
    let indent = if bar.group.is_some() { "  " } else { "" };
    format!("{indent}{}", format::name(&bar.name, MAX_NAME - indent.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::tests::timeline;

    fn drawn(record: &str, style: Style) -> String {
        let mut text = Vec::new();
        draw(&mut text, &timeline(record), style).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn record(phase: &str, began: u64, ended: u64, budget: u64) -> String {
        let phase = serde_json::to_string(phase).unwrap();
        let head = r#""v":1,"ts":"2026-11-23T10:15:00Z","mono_us""#;
        format!(
            r#"{{{head}:0,"event":"run_started","service":"gateway","pid":7,"version":"0"}}
{{{head}:1,"event":"signal","kind":"signal","ordinal":1,"cause":{phase},"line":"","deadline_us":{budget}}}
{{{head}:{began},"event":"phase_started","phase":{phase},"timeout_us":{budget},"offset_us":0}}
{{{head}:{ended},"event":"phase_finished","phase":{phase},"outcome":"failed","error":{phase},"took_us":1,"offset_us":1,"values":{{"k":{phase}}}}}
"#
        )
    }

    #[test]
    fn a_bar_shows_the_used_and_the_remaining_time() {
        let style = Style { color: false, wraps: false, width: 76 };
        let text = drawn(&record("drain", 1_000_001, 3_000_001, 4_000_000), style);
        assert!(text.starts_with("   +0.00s  signal, cause drain\n"), "{text}");
        let [axis, bar] = [1, 2].map(|n| text.lines().nth(n).unwrap());
        assert!(axis.contains("╷0 ") && axis.ends_with("╷4s"), "{axis}");
        assert!(bar.starts_with("   +1.00s  drain     "), "{bar}");
        assert!(bar.ends_with("2.00s of 4.00s failed"), "{bar}");
        let count = |c: char| bar.chars().filter(|one| *one == c).count();
        // Four seconds: one before the phase, two used, one left.
        assert!(count('█').abs_diff(2 * count('·')) <= 2, "{bar}");
        assert!(text.contains("+4.00s  deadline"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let colored =
            drawn(&record("drain", 1, 2, 3), Style { color: true, wraps: false, width: 76 });
        assert!(colored.contains("\u{1b}[31mfailed\u{1b}[0m"), "{colored:?}");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal_whatever_is_in_the_record(
            phase in "\\PC{0,60}",
            times in any::<[u64; 3]>(),
            width in 20_usize..200,
        ) {
            let [began, ended, budget] = times;
            let style = Style { color: false, wraps: width % 2 == 0, width };
            let text = drawn(&record(&phase, began, ended, budget), style);
            for line in text.lines() {
                prop_assert!(crate::layout::width(line) <= width, "{}", line);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
