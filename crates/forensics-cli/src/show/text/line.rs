//! One line on a terminal: pieces of text in their colours, never wider than the terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use forensics_core::escape::Plain;
use forensics_core::record::Outcome;

use crate::timeline::Ending;
use forensics_core::record::PhaseOutcome;

pub(crate) const NONE: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const LATE: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();

/// Where lines go.
pub(crate) struct Screen<'a> {
    pub(crate) out: &'a mut dyn Write,
    /// In columns.
    pub(crate) width: usize,
    pub(crate) color: bool,
}

/// A line in the making. What is put into it is escaped.
#[derive(Default)]
pub(crate) struct Line(Vec<(Style, String)>);

impl Line {
    pub(crate) fn put(mut self, style: Style, text: &str) -> Self {
        self.0.push((style, Plain(text).to_string()));
        self
    }
}

impl Screen<'_> {
    /// Prints a line, cut where the screen ends.
    pub(crate) fn print(&mut self, line: &Line) -> io::Result<()> {
        let mut left = self.width;
        let whole: usize = line.0.iter().map(|(_, text)| columns(text)).sum();
        let cut = whole > left;
        if cut {
            left = left.saturating_sub(1);
        }
        let last = line.0.iter().rposition(|(_, text)| !text.trim_end().is_empty());
        for (at, (style, text)) in line.0.iter().enumerate().take(last.map_or(0, |at| at + 1)) {
            let text = if Some(at) == last { text.trim_end() } else { text };
            let shown = fitting(text, left);
            left -= columns(shown);
            if self.color && *style != NONE {
                write!(self.out, "{style}{shown}{style:#}")?;
            } else {
                write!(self.out, "{shown}")?;
            }
            if shown.len() < text.len() {
                break;
            }
        }
        writeln!(self.out, "{}", if cut && self.width > 0 { "…" } else { "" })
    }

    /// Prints a text behind a head, its further lines below the first.
    pub(crate) fn wrap(&mut self, head: &str, style: Style, text: &str) -> io::Result<()> {
        let indent = columns(head).min(self.width / 2);
        let room = self.width.saturating_sub(indent).max(1);
        let text = Plain(text).to_string();
        let mut head = head.to_owned();
        for piece in pieces(&text, room) {
            let line = Line(vec![(DIM, head), (style, piece.to_owned())]);
            self.print(&line)?;
            head = " ".repeat(indent);
        }
        Ok(())
    }
}

/// Parts of at most so many columns, parted at blanks where there are any.
fn pieces(text: &str, room: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        let fits = fitting(rest, room);
        if fits.len() == rest.len() {
            pieces.push(rest);
            break;
        }
        let blank = match rest[fits.len()..].starts_with(' ') {
            true => Some(fits.len()),
            false => fits.rfind(' ').filter(|&at| at > 0),
        };
        // Where not even one character fits, the line shows that by being cut.
        let one = rest.chars().next().map_or(1, char::len_utf8);
        let at = blank.unwrap_or(fits.len().max(one));
        pieces.push(rest[..at].trim_end());
        rest = rest[at..].trim_start_matches(' ');
    }
    pieces
}

/// As much of the front of an escaped text as fits into so many columns.
pub(crate) fn fitting(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|&(_, c)| {
        used += width(c);
        used > room
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// How many columns an escaped text takes at most.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Never too narrow. Combining characters have been escaped. From the Hangul on a character may be
/// wide (UAX #11); those between, in which our own bars and many signs are, are narrow.
const fn width(c: char) -> usize {
    match c {
        '\0'..'\u{1100}' | '\u{1e00}'..'\u{2300}' | '\u{2500}'..'\u{25a0}' => 1,
        _ => 2,
    }
}

/// Green where it is well, yellow where time ran out, red where it broke.
pub(crate) const fn style(ending: Ending, run: Outcome) -> Style {
    match ending {
        Ending::Finished(PhaseOutcome::Ok) => GOOD,
        Ending::Finished(PhaseOutcome::TimedOut | PhaseOutcome::CutShort) => LATE,
        Ending::Finished(PhaseOutcome::Failed | PhaseOutcome::Panicked) => BAD,
        Ending::Open if matches!(run, Outcome::KilledInPhase) => BAD,
        Ending::Open if !matches!(run, Outcome::Running) => LATE,
        _ => DIM,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(width: usize, color: bool, print: impl Fn(&mut Screen<'_>)) -> String {
        let mut out = Vec::new();
        print(&mut Screen { out: &mut out, width, color });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_cut_at_the_width_and_reset_after_its_colour() {
        let line = Line::default().put(NONE, "ab ").put(BAD, "cdef");
        for (width, color, expected) in [
            (80, false, "ab cdef\n"),
            (7, false, "ab cdef\n"),
            (6, false, "ab cd…\n"),
            (0, false, "\n"),
            (6, true, "ab \u{1b}[31mcd\u{1b}[0m…\n"),
        ] {
            assert_eq!(printed(width, color, |screen| screen.print(&line).unwrap()), expected);
        }
    }

    #[test]
    fn long_text_goes_on_below_itself() {
        let wrapped = |text| printed(12, false, |s| s.wrap("  a ", NONE, text).unwrap());
        assert_eq!(wrapped("one two three"), "  a one two\n    three\n");
        assert_eq!(wrapped("0123456789"), "  a 01234567\n    89\n");
        assert_eq!(wrapped("größte größe"), "  a größte\n    größe\n");
        assert_eq!(wrapped("漢字漢字漢字"), "  a 漢字漢字\n    漢字\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_screen(width in 0..60_usize, a: String, b: String) {
            let line = Line::default().put(NONE, &a).put(GOOD, &b);
            let text = printed(width, false, |screen| {
                screen.print(&line).unwrap();
                screen.wrap("  head ", NONE, &a).unwrap();
            });
            for line in text.lines() {
                prop_assert!(columns(line) <= width, "{line}");
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
