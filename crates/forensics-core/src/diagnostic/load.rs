//! How busy the machine is: load, pressure and free memory, as the kernel words them.

use super::shown::{joined, pick};
use super::source::Source;
use std::io::{self, Write};
use std::path::Path;

const MEMORY: [&str; 4] = ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"];

pub(super) fn write(out: &mut dyn Write, source: &mut Source, proc: &Path) -> io::Result<()> {
    writeln!(out, "--- load")?;
    source.fact(out, "loadavg", &proc.join("loadavg"), &joined)?;
    // Absent where the kernel was built without PSI, EOPNOTSUPP where it was booted without.
    for what in ["cpu", "memory", "io"] {
        let path = proc.join("pressure").join(what);
        source.fact(out, &format!("pressure {what}"), &path, &joined)?;
    }
    source.fact(out, "meminfo", &proc.join("meminfo"), &|text| {
        pick(text, &|key| MEMORY.contains(&key))
    })?;
    out.flush()
}
