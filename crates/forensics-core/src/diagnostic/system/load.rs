//! How busy the machine is: load, pressure and free memory.

use std::io::{self, Write};
use std::path::Path;

use procfs::{IoPressure, LoadAverage, Meminfo, PressureRecord};

use super::facts::{self, Fact};
use super::reads::Reads;
use super::shown::{known, with_kib};

pub(super) fn write(out: &mut dyn Write, reads: &mut Reads<'_>, proc: &Path) -> io::Result<()> {
    writeln!(out, "--- load")?;
    // Absent if the kernel was built without PSI, EOPNOTSUPP if it was booted without it.
    let pressure = |what| {
        let path = proc.join("pressure").join(what);
        Fact::file(format!("pressure {what}"), path, |text| known(text, pressure))
    };
    let facts = vec![
        Fact::file("loadavg", proc.join("loadavg"), |text| known(text, load)),
        pressure("cpu"),
        pressure("memory"),
        pressure("io"),
        Fact::file("meminfo", proc.join("meminfo"), |text| known(text, memory)),
    ];
    facts::write(out, reads, facts)
}

fn load(load: &LoadAverage) -> String {
    let LoadAverage { one, five, fifteen, cur, max, latest_pid } = load;
    format!("{one:.2} {five:.2} {fifteen:.2} {cur}/{max} {latest_pid}")
}

/// Those of the processor and of memory have the same form.
fn pressure(pressure: &IoPressure) -> String {
    let record = |name, of: &PressureRecord| {
        let PressureRecord { avg10, avg60, avg300, total } = of;
        format!("{name} avg10={avg10:.2} avg60={avg60:.2} avg300={avg300:.2} total={total}")
    };
    format!("{} | {}", record("some", &pressure.some), record("full", &pressure.full))
}

fn memory(memory: &Meminfo) -> String {
    with_kib(&[
        ("MemTotal", Some(memory.mem_total / 1024)),
        ("MemAvailable", memory.mem_available.map(|bytes| bytes / 1024)),
        ("SwapTotal", Some(memory.swap_total / 1024)),
        ("SwapFree", Some(memory.swap_free / 1024)),
    ])
}
