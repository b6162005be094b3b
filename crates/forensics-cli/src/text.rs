//! A timeline as text: one bar per phase, and no line longer than the terminal is wide.

use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;
use forensics_core::escape::truncate;

use crate::format::{self, seconds};
use crate::timeline::{Bar, Timeline, Tone};

/// Widest and narrowest bar, in characters. If the narrowest does not fit, no bars are drawn.
const WIDEST: usize = 60;
const NARROWEST: usize = 8;

/// Longest name shown.
const MAX_NAME: usize = 24;

/// The width without a terminal, or if the terminal does not say how wide it is.
const WIDTH: usize = 80;

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    color: bool,
    width: usize,
}

impl Style {
    /// The settings for standard output.
    pub(crate) fn of_stdout(color: ColorChoice) -> Self {
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let no_color = std::env::var_os("NO_COLOR").unwrap_or_default();
                io::stdout().is_terminal() && no_color.is_empty()
            }
        };
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let terminal = || terminal_size::terminal_size_of(io::stdout());
        let width = columns.or_else(|| terminal().map(|(width, _)| width.0.into()));
        Self { color, width: width.unwrap_or(WIDTH).max(20) }
    }
}

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
        layout.line(out, &[(Tone::PLAIN, &layout.at(mark.at)), (mark.tone(), &mark.text)])?;
    }
    for bar in &timeline.bars {
        layout.row(out, bar)?;
    }
    if let Some(more) = &timeline.omitted {
        layout.line(out, &[(Tone::PLAIN, more)])?;
    }
    if let Some(deadline) = timeline.deadline {
        let mut text = format!("{:<name$}  ", "deadline", name = layout.name);
        if deadline <= timeline.span && layout.bar > 0 {
            text += &" ".repeat(layout.column(deadline).min(layout.bar - 1));
            text += "┆";
        }
        let text = (Tone::FAINT, text.trim_end());
        layout.line(out, &[(Tone::PLAIN, &layout.at(deadline)), text])?;
    }
    Ok(())
}

impl<'a> Layout<'a> {
    fn new(timeline: &'a Timeline, style: Style) -> Self {
        let longest =
            |length: fn(&Bar) -> usize| timeline.bars.iter().map(length).max().unwrap_or(0);
        let name = longest(|bar| label(bar).chars().count()).max("deadline".len());
        let (used, word) = (longest(|bar| bar.used().len()), longest(|bar| bar.word().len()));
        let last = timeline.deadline.unwrap_or(0).max(timeline.end);
        let offset = offset(last).len().max(9);
        let bar = style.width.saturating_sub(offset + 2 + name + 2 + 2 + used + 1 + word);
        let bar = if bar < NARROWEST { 0 } else { bar.min(WIDEST) };
        Self { timeline, style, offset, name, bar, used }
    }

    fn row(&self, out: &mut dyn Write, bar: &Bar) -> io::Result<()> {
        let (name, used, tone) = (self.name, self.used, bar.tone());
        let [before, full, left, after] = self.bar(bar);
        self.line(
            out,
            &[
                (Tone::PLAIN, &format!("{}{:<name$}  {before}", self.at(bar.from), label(bar))),
                (tone, &full),
                (Tone::FAINT, &left),
                (Tone::PLAIN, &format!("{after}{:>used$} ", bar.used())),
                (tone, &bar.word()),
            ],
        )?;
        let error = format::text(&bar.error, self.style.width);
        for (tone, text) in [(tone, &error), (Tone::FAINT, &bar.recorded)] {
            if !text.is_empty() {
                let indent = " ".repeat(self.offset + 2 + name + 2);
                self.line(out, &[(Tone::PLAIN, &indent), (tone, text)])?;
            }
        }
        Ok(())
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

    /// One line, cut at the width of the terminal.
    fn line(&self, out: &mut dyn Write, segments: &[(Tone, &str)]) -> io::Result<()> {
        let mut room = self.style.width;
        for (tone, text) in segments {
            let text = truncate(*text, room);
            room -= text.chars().count();
            if self.style.color && !tone.sgr.is_empty() && !text.is_empty() {
                write!(out, "\u{1b}[{}m{text}\u{1b}[0m", tone.sgr)?;
            } else {
                write!(out, "{text}")?;
            }
        }
        writeln!(out)
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
        let style = Style { color: false, width: 76 };
        let text = drawn(&record("drain", 1_000_001, 3_000_001, 4_000_000), style);
        assert!(text.starts_with("   +0.00s  signal, cause drain\n"), "{text}");
        let bar = text.lines().nth(1).unwrap();
        assert!(bar.starts_with("   +1.00s  drain     "), "{bar}");
        assert!(bar.ends_with("2.00s of 4.00s failed"), "{bar}");
        let count = |c: char| bar.chars().filter(|one| *one == c).count();
        // Four seconds: one before the phase, two used, one left.
        assert!(count('█').abs_diff(2 * count('·')) <= 2, "{bar}");
        assert!(text.contains("+4.00s  deadline"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let colored = drawn(&record("drain", 1, 2, 3), Style { color: true, width: 76 });
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
            let text = drawn(&record(&phase, began, ended, budget), Style { color: false, width });
            for line in text.lines() {
                prop_assert!(line.chars().count() <= width, "{}", line);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
