//! The sections of the diagnostic that are read from `/proc`, the cgroups and the kernel log.

mod cgroup;
mod facts;
mod format;
mod kmsg;
mod processes;
mod reads;
mod tree;

pub(crate) use kmsg::oom_log;

use std::io::{self, Write};

use self::reads::Reads;
use super::{Diagnostic, Work};

pub(super) fn write(
    look: &Diagnostic,
    out: &mut dyn Write,
    start: &mut dyn FnMut(Work) -> io::Result<()>,
) -> io::Result<()> {
    let reads = &mut Reads::new(start);
    writeln!(out, "--- process {}", look.pid)?;
    facts::write(out, reads, facts::of_process(&look.proc, look.pid))?;
    writeln!(out, "--- load")?;
    facts::write(out, reads, facts::of_load(&look.proc))?;
    cgroup::write(out, reads, &look.proc, &look.cgroup, look.pid)?;
    kmsg::write(out, reads, &look.kmsg)?;
    processes::write(out, reads, &look.proc, look.pid, look.top)
}
