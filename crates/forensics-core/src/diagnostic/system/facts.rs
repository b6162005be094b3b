//! Facts, each on a line of its own: `name: value`.

use std::io::{self, Write};
use std::path::PathBuf;

use super::reads::{NoAnswer, Reads, text};
use super::shown::why;
use crate::escape::Plain;

/// One line of a section.
pub(super) struct Fact {
    name: String,
    read: Box<dyn Fn() -> io::Result<String> + Send>,
}

impl Fact {
    /// A fact of which `read` gives the value. The value is escaped when it is shown.
    pub(super) fn new(
        name: impl Into<String>,
        read: impl Fn() -> io::Result<String> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), read: Box::new(read) }
    }

    /// What `show` makes of the content of a file.
    pub(super) fn file(
        name: impl Into<String>,
        path: PathBuf,
        show: impl Fn(&str) -> String + Send + 'static,
    ) -> Self {
        Self::new(name, move || Ok(show(&text(&path)?)))
    }
}

/// Reads these facts and writes them in this order.
pub(super) fn write(
    out: &mut dyn Write,
    reads: &mut Reads<'_>,
    facts: Vec<Fact>,
) -> io::Result<()> {
    let names: Vec<String> = facts.iter().map(|fact| fact.name.clone()).collect();
    let values = reads.all(facts, |fact: Fact| (fact.read)());
    for (name, value) in names.iter().zip(values) {
        write_one(out, name, value)?;
    }
    out.flush()
}

/// Writes a line `name: value`, or why there is no value.
pub(super) fn write_one(
    out: &mut dyn Write,
    name: &str,
    value: Result<io::Result<String>, NoAnswer>,
) -> io::Result<()> {
    match value {
        Ok(Ok(value)) => writeln!(out, "{name}: {}", Plain(&value)),
        Ok(Err(e)) => writeln!(out, "{name}: not readable ({})", why(&e)),
        Err(no_answer) => writeln!(out, "{name}: {no_answer}"),
    }
}
