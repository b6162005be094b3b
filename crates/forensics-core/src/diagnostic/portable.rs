//! Other Unix, which has no `/proc` like Linux's, so nothing is read.

use std::io::{self, Write};
use std::time::Duration;

use super::{Diagnostic, Work};

pub(super) fn write(
    _: &Diagnostic,
    out: &mut dyn Write,
    _: &mut dyn FnMut(Work) -> io::Result<()>,
) -> io::Result<()> {
    writeln!(out, "--- system\nnothing to read: this system has no /proc like Linux's")
}

pub(crate) fn killed_for_memory(_pid: u32, _since: Duration) -> Option<String> {
    None
}
