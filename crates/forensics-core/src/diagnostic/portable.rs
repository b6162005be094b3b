//! Other Unix: there is no `/proc` as Linux has it, so there is nothing to read.

use std::io::{self, Write};
use std::time::Duration;

use super::{Diagnostic, Work};

pub(super) fn write(
    _: &Diagnostic,
    out: &mut dyn Write,
    _: &mut dyn FnMut(Work) -> io::Result<()>,
) -> io::Result<()> {
    writeln!(out, "--- system\nnothing to read: it has no /proc as Linux has it")
}

pub(crate) fn killed_for_memory(_pid: u32, _since: Duration) -> Option<String> {
    None
}
