//! What is known of the terminal, if it is one.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use super::line::Screen;

/// The width where there is no terminal.
const WIDTH: usize = 80;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Where the text goes, and what it may look like there.
pub(crate) struct Terminal<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) color: Color,
}

impl<'a> Terminal<'a> {
    pub(super) fn screen(self) -> Screen<'a> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let columns = set("COLUMNS").and_then(|text| text.to_str()?.parse::<u16>().ok());
        let seen = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        let width = columns.filter(|&width| width > 0).or_else(seen).filter(|&width| width > 0);
        let dumb = || set("TERM").is_some_and(|term| term == "dumb");
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb(),
        };
        Screen { out: self.out, width: width.map_or(WIDTH, usize::from), color }
    }
}
