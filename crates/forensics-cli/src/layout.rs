//! Output for people on a terminal: no line is wider than the terminal, and nothing in a text can
//! control it.
//!
//! Widths are in columns. A character can take two of them, such as `日`.

use std::io::{self, IsTerminal, Write};
use std::mem;

use clap::{Args, ColorChoice, ValueEnum};
use forensics_core::escape::{Escaped, is_safe};
use unicode_width::UnicodeWidthChar;

/// The width without a terminal, or if the terminal does not say how wide it is.
const WIDTH: usize = 80;

/// The narrowest width that is used.
const NARROWEST: usize = 20;

/// Between two columns of a table.
const GAP: &str = "  ";

/// The width of a label and the space after it.
const LABEL: usize = 9;

/// Below this width a label has its own line.
const LABEL_ABOVE: usize = 36;

// The options of a command whose output differs on a terminal. A doc comment would become the help of the
// command.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to print: `people` is for reading, `line` one line per run; `auto` chooses `people` on a
    /// terminal
    #[arg(long, value_name = "FORMAT", default_value = "auto", conflicts_with = "json")]
    format: Format,
    #[command(flatten)]
    color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Auto,
    People,
    Line,
}

// The option `--color`.
#[derive(Debug, Args)]
pub(crate) struct Color {
    /// When to use color; `auto` uses it on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

impl Options {
    /// How to print for people. `None` if the output is for a program.
    pub(crate) fn for_people(&self) -> Option<Style> {
        let is_for_people = match self.format {
            Format::Auto => io::stdout().is_terminal(),
            Format::People => true,
            Format::Line => false,
        };
        is_for_people.then(|| Style { wraps: true, ..self.color.style() })
    }
}

impl Color {
    /// The settings for standard output.
    pub(crate) fn style(&self) -> Style {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let wraps = io::stdout().is_terminal();
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                wraps && variable("NO_COLOR").is_empty() && variable("TERM") != "dumb"
            }
        };
        let columns = variable("COLUMNS").to_str().and_then(|columns| columns.parse().ok());
        let terminal = || terminal_size::terminal_size_of(io::stdout());
        let width = columns.or_else(|| terminal().map(|(width, _)| width.0.into()));
        Style { color, wraps, width: width.unwrap_or(WIDTH).max(NARROWEST) }
    }
}

/// How good or bad something is: its class on a page, and its color on a terminal as an SGR code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tone {
    pub(crate) class: &'static str,
    sgr: &'static str,
}

impl Tone {
    pub(crate) const GOOD: Self = Self { class: "good", sgr: "32" };
    pub(crate) const WARNING: Self = Self { class: "warning", sgr: "33" };
    pub(crate) const BAD: Self = Self { class: "bad", sgr: "31" };
    pub(crate) const FAINT: Self = Self { class: "faint", sgr: "2" };
    pub(crate) const STRONG: Self = Self { class: "", sgr: "1" };
    pub(crate) const PLAIN: Self = Self { class: "", sgr: "" };
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) color: bool,
    /// Whether a long text continues on the next line. Otherwise it is cut, so that there is one line
    /// for each fact.
    pub(crate) wraps: bool,
    pub(crate) width: usize,
}

impl Style {
    /// Writes one line, cut at the width.
    pub(crate) fn line(self, out: &mut dyn Write, segments: &[(Tone, &str)]) -> io::Result<()> {
        let mut room = self.width;
        for (tone, text) in segments {
            let text = cut(&safe(text), room);
            room -= width(&text);
            if self.color && !tone.sgr.is_empty() && !text.trim().is_empty() {
                write!(out, "\u{1b}[{}m{text}\u{1b}[0m", tone.sgr)?;
            } else {
                write!(out, "{text}")?;
            }
        }
        writeln!(out)
    }

    /// Writes a text on as many lines as it needs.
    pub(crate) fn text(self, out: &mut dyn Write, tone: Tone, text: &str) -> io::Result<()> {
        if !self.wraps {
            return writeln!(out, "{}", safe(text));
        }
        let lines = wrap(safe(text).split(' '), self.width);
        lines.iter().try_for_each(|line| self.line(out, &[(tone, line)]))
    }

    /// Writes a text beside `prefix`, on as many lines as it needs, or cut.
    pub(crate) fn beside(
        self,
        out: &mut dyn Write,
        prefix: (Tone, &str),
        (tone, text): (Tone, &str),
    ) -> io::Result<()> {
        let room = self.width.saturating_sub(width(prefix.1));
        if room < NARROWEST / 2 || !self.wraps {
            return self.line(out, &[prefix, (tone, text)]);
        }
        let text = safe(text);
        self.lines(out, prefix, wrap(text.split(' '), room).into_iter().map(|line| (tone, line)))
    }

    /// Writes a label, and beside it each text on lines of its own. Writes nothing if there is no
    /// text.
    pub(crate) fn labelled(
        self,
        out: &mut dyn Write,
        label: &str,
        texts: &[(Tone, String)],
    ) -> io::Result<()> {
        let lines = texts.iter().flat_map(|(tone, text)| {
            let lines = wrap(safe(text).split(' '), self.room());
            lines.into_iter().map(|line| (*tone, line))
        });
        self.below(out, label, lines)
    }

    /// Writes a label, and beside it the words of a command, so that it can be copied. If each word fits
    /// into a line, all lines but the last end with a backslash. Otherwise the command is one long line,
    /// which the terminal breaks: a line break in the middle of a word would begin another command.
    pub(crate) fn command(
        self,
        out: &mut dyn Write,
        label: &str,
        words: &[String],
    ) -> io::Result<()> {
        let words: Vec<_> = words.iter().map(|word| safe(word)).collect();
        let words = words.iter().map(String::as_str);
        let room = self.room() - 2;
        let style = match words.clone().all(|word| width(word) <= room) {
            true => self,
            false => Style { width: usize::MAX, ..self },
        };
        let mut lines = wrap(words.clone(), style.room());
        if lines.len() > 1 {
            lines = wrap(words, room);
            let last = lines.len() - 1;
            lines[..last].iter_mut().for_each(|line| line.push_str(" \\"));
        }
        style.below(out, label, lines.into_iter().map(|line| (Tone::PLAIN, line)))
    }

    /// The width beside a label, or below it if the terminal is narrow.
    fn room(self) -> usize {
        self.width - if self.width < LABEL_ABOVE { 2 } else { LABEL }
    }

    fn below(
        self,
        out: &mut dyn Write,
        label: &str,
        lines: impl Iterator<Item = (Tone, String)>,
    ) -> io::Result<()> {
        let indent = self.width - self.room();
        let (mut label, mut lines) = (label, lines.peekable());
        if label.len() >= indent && lines.peek().is_some() {
            self.line(out, &[(Tone::STRONG, label)])?;
            label = "";
        }
        self.lines(out, (Tone::STRONG, &format!("{label:<indent$}")), lines)
    }

    /// Writes lines, the first one after `prefix`, and the others indented by its width.
    fn lines(
        self,
        out: &mut dyn Write,
        (mut tone, prefix): (Tone, &str),
        lines: impl Iterator<Item = (Tone, String)>,
    ) -> io::Result<()> {
        let mut prefix = prefix.to_owned();
        for (of_line, line) in lines {
            self.line(out, &[(tone, &prefix), (of_line, &line)])?;
            (tone, prefix) = (Tone::PLAIN, " ".repeat(width(&prefix)));
        }
        Ok(())
    }

    /// Writes a table under its titles. If it is too wide, its last columns are left out, and those
    /// that are wider than their minimum become narrower.
    pub(crate) fn table<const N: usize>(
        self,
        out: &mut dyn Write,
        columns: [(&str, usize); N],
        rows: &[[(Tone, String); N]],
    ) -> io::Result<()> {
        let wanted = |n: usize| {
            let cells = rows.iter().map(|row| width(&safe(&row[n].1))).max().unwrap_or(0);
            if cells == 0 { 0 } else { cells.max(columns[n].0.len()) }
        };
        // A column without a cell is left out.
        let mut shown: Vec<_> = (0..N).map(|n| (n, wanted(n))).filter(|(_, w)| *w > 0).collect();
        let minimum = |(n, wanted): (usize, usize)| wanted.min(columns[n].1);
        let fits = |widths: &mut dyn Iterator<Item = usize>| {
            widths.map(|width| width + GAP.len()).sum::<usize>() <= self.width + GAP.len()
        };
        while shown.len() > 1 && !fits(&mut shown.iter().copied().map(minimum)) {
            shown.pop();
        }
        while !fits(&mut shown.iter().map(|column| column.1)) {
            let excess = |column: &&mut (usize, usize)| column.1 - minimum(**column);
            let Some(widest) = shown.iter_mut().max_by_key(excess) else { break };
            if widest.1 == minimum(*widest) {
                break;
            }
            widest.1 -= 1;
        }
        let titles = std::array::from_fn(|n| (Tone::STRONG, columns[n].0.to_owned()));
        for row in [&titles].into_iter().chain(rows) {
            let mut line = Vec::new();
            for (at, &(n, to)) in shown.iter().enumerate() {
                let text = cut(&safe(&row[n].1), to);
                let is_last = at + 1 == shown.len();
                let gap = if is_last { 0 } else { to - width(&text) + GAP.len() };
                line.extend([(row[n].0, text), (Tone::PLAIN, " ".repeat(gap))]);
            }
            let line: Vec<_> = line.iter().map(|(tone, text)| (*tone, text.as_str())).collect();
            self.line(out, &line)?;
        }
        Ok(())
    }
}

/// The columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text, escaped if it has a character that could control the terminal. A text that is already
/// escaped is unchanged.
pub(crate) fn safe(text: &str) -> String {
    if text.chars().all(is_safe) { text.to_owned() } else { Escaped(text).to_string() }
}

/// The start of a text that is at most `max` columns wide. If the text is wider, it ends with `…`.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let Some(room) = max.checked_sub(1) else { return String::new() };
    text[..fitting(text, room)].to_owned() + "…"
}

/// The text, filled up with spaces.
pub(crate) fn pad(text: &str, to: usize) -> String {
    text.to_owned() + &" ".repeat(to.saturating_sub(width(text)))
}

/// How many bytes of a text fit into `room` columns.
fn fitting(text: &str, room: usize) -> usize {
    let mut used = 0;
    let too_wide = text.char_indices().find(|&(_, c)| {
        used += char_width(c);
        used > room
    });
    too_wide.map_or(text.len(), |(at, _)| at)
}

/// Lines of these words, none wider than `room`. A word that is wider is divided.
fn wrap<'a>(words: impl IntoIterator<Item = &'a str>, room: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for mut word in words {
        if !line.is_empty() {
            if width(&line) + 1 + width(word) <= room {
                line = line + " " + word;
                continue;
            }
            lines.push(mem::take(&mut line));
        }
        while width(word) > room {
            let (head, rest) = word.split_at(fitting(word, room));
            lines.push(head.to_owned());
            word = rest;
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_wrapped_between_words_and_a_long_word_is_divided() {
        let cases: [(&str, usize, &[&str]); 7] = [
            ("", 5, &[""]),
            ("one two three", 20, &["one two three"]),
            ("one two three", 7, &["one two", "three"]),
            ("one two three", 6, &["one", "two", "three"]),
            ("a longer-word b", 5, &["a", "longe", "r-wor", "d b"]),
            ("日本語 日本", 7, &["日本語", "日本"]),
            ("日本語", 5, &["日本", "語"]),
        ];
        for (text, room, expected) in cases {
            assert_eq!(wrap(text.split(' '), room), expected, "{text} {room}");
        }
        let cuts =
            [("日本語", 6, "日本語"), ("日本語", 5, "日本…"), ("日本語", 4, "日…"), ("ab", 1, "…")];
        for (text, max, expected) in cuts {
            assert_eq!(cut(text, max), expected);
        }
    }

    #[test]
    fn a_divided_command_can_be_copied() {
        let command =
            ["journalctl", "-u", "gateway.service", "--since", "'2026-11-23 10:15:00 UTC'"];
        let command = command.map(str::to_owned);
        let written = |width| {
            let mut out = Vec::new();
            Style { color: false, wraps: true, width }.command(&mut out, "Look", &command).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(100), format!("Look     {}\n", command.join(" ")));
        let narrow = written(40);
        let lines: Vec<_> = narrow.lines().map(|line| &line[LABEL..]).collect();
        let expected =
            ["journalctl -u gateway.service \\", "--since \\", "'2026-11-23 10:15:00 UTC'"];
        assert_eq!(lines, expected);
        // No word is divided, so that no part of one is a command.
        assert_eq!(written(20), written(100));
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_from_the_right() {
        let columns = [("OUTCOME", 5), ("STARTED", 7), ("EMPTY", 5), ("SERVICE", 6)];
        let row = ["killed_in_phase", "10:15:00", "", "a-long-name"].map(str::to_owned);
        let rows = [row.map(|text| (Tone::PLAIN, text))];
        let table = |width| {
            let mut out = Vec::new();
            Style { color: false, wraps: true, width }.table(&mut out, columns, &rows).unwrap();
            String::from_utf8(out).unwrap()
        };
        let cases = [
            (80, "OUTCOME          STARTED   SERVICE\nkilled_in_phase  10:15:00  a-long-name\n"),
            (30, "OUTCOME    STARTED   SERVICE\nkilled_i…  10:15:00  a-long-n…\n"),
            (20, "OUTCOME     STARTED\nkilled_in…  10:15:00\n"),
        ];
        for (width, expected) in cases {
            assert_eq!(table(width), expected, "{width}");
        }
    }

    proptest! {
        #[test]
        fn no_table_is_too_wide_or_controls_the_terminal(
            cells in any::<[[String; 3]; 2]>(),
            width in NARROWEST..200,
        ) {
            let rows = cells.map(|row| row.map(|text| (Tone::PLAIN, text)));
            let mut out = Vec::new();
            let columns = [("A", 15), ("B", 19), ("C", 8)];
            Style { color: false, wraps: true, width }.table(&mut out, columns, &rows).unwrap();
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(out.lines().count(), 3);
            for line in out.lines() {
                prop_assert!(line.chars().all(is_safe) && super::width(line) <= width, "{}", line);
            }
        }
    }
}
