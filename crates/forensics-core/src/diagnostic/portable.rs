//! Other Unix, which has no `/proc` like Linux's, so nothing is read.

use std::io::{self, Write};
use std::time::Duration;

use super::{Diagnostic, Work};
use crate::record::OomLog;

pub(super) fn write(
    _: &Diagnostic,
    out: &mut dyn Write,
    _: &mut dyn FnMut(Work) -> io::Result<()>,
) -> io::Result<()> {
    writeln!(out, "--- system\nnothing to read: this system has no /proc like Linux's")
}

pub(crate) fn oom_log(_pid: u32, _name: &str, _since: Duration) -> OomLog {
    OomLog::Unknown
}
