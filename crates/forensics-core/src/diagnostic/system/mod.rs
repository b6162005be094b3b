//! The sections of the diagnostic that are read from `/proc`, the cgroups and the kernel log.

mod cgroup;
mod facts;
mod kmsg;
mod load;
mod process;
mod processes;
mod reads;
mod shown;
mod tree;

pub(crate) use kmsg::killed_for_memory;

use std::io::{self, Write};

use self::reads::Reads;
use super::{Diagnostic, Work};
use crate::os;

/// `, up 1-02:03:04`: the time since boot, including time asleep.
///
/// The kernel is asked directly: in a container, lxcfs shows the container's own in `/proc/uptime`.
pub(super) fn uptime() -> String {
    os::since_boot().map_or_else(String::new, |up| format!(", up {}", shown::elapsed(up)))
}

pub(super) fn write(
    look: &Diagnostic,
    out: &mut dyn Write,
    start: &mut dyn FnMut(Work) -> io::Result<()>,
) -> io::Result<()> {
    let reads = &mut Reads::new(start);
    process::write(out, reads, &look.proc, look.pid)?;
    load::write(out, reads, &look.proc)?;
    cgroup::write(out, reads, &look.proc, &look.cgroup, look.pid)?;
    kmsg::write(out, reads, &look.kmsg)?;
    processes::write(out, reads, &look.proc, look.pid, look.top)
}
