//! Facts about the process and the machine, one per line: `name: value`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::format::{joined, pick, problem};
use super::reads::{Reads, text};
use crate::escape::Escaped;

/// The lines of `/proc/PID/status` that are shown.
const STATUS: [&str; 6] = ["State:", "TracerPid:", "Threads:", "VmHWM:", "VmRSS:", "VmSwap:"];

/// The lines of `/proc/meminfo` that are shown.
const MEMINFO: [&str; 4] = ["MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:"];

/// The name of a fact and the function that reads its value. The value is escaped when it is shown.
pub(super) type Fact = (String, Box<dyn Fn() -> io::Result<String> + Send>);

/// A fact whose value is `show` of the content of a file.
pub(super) fn file(
    name: impl Into<String>,
    path: PathBuf,
    show: impl Fn(&str) -> String + Send + 'static,
) -> Fact {
    (name.into(), Box::new(move || Ok(show(&text(&path)?))))
}

/// Reads these facts and writes them in this order.
pub(super) fn write(
    out: &mut dyn Write,
    reads: &mut Reads<'_>,
    facts: Vec<Fact>,
) -> io::Result<()> {
    let (names, values): (Vec<_>, Vec<_>) = facts.into_iter().unzip();
    for (name, value) in names.iter().zip(reads.all(values, |read| read())) {
        write_one(out, name, value)?;
    }
    out.flush()
}

/// Writes a line `name: value`, or why there is no value.
pub(super) fn write_one(
    out: &mut dyn Write,
    name: &str,
    value: io::Result<String>,
) -> io::Result<()> {
    let value = value.map_or_else(|error| problem(&error), |value| Escaped(&value).to_string());
    writeln!(out, "{name}: {value}")
}

/// The state of a process and how close it is to its limits.
pub(super) fn of_process(proc: &Path, pid: i32) -> Vec<Fact> {
    let home = proc.join(pid.to_string());
    let fd = home.join("fd");
    vec![
        file("status", home.join("status"), |text| pick(text, &STATUS, "no known line")),
        ("open files".to_owned(), Box::new(move || Ok(open_files(&fd)?.to_string()))),
        file("limits", home.join("limits"), |text| {
            nofile(text).unwrap_or_else(|| "no line `Max open files`".to_owned())
        }),
        file("oom_score_adj", home.join("oom_score_adj"), joined),
        file("cgroup", home.join("cgroup"), joined),
    ]
}

/// How busy the machine is: load, pressure and free memory.
pub(super) fn of_load(proc: &Path) -> Vec<Fact> {
    // Absent if the kernel was built without PSI, EOPNOTSUPP if it was booted without it.
    let pressure =
        |what| file(format!("pressure {what}"), proc.join("pressure").join(what), joined);
    vec![
        file("loadavg", proc.join("loadavg"), joined),
        pressure("cpu"),
        pressure("memory"),
        pressure("io"),
        file("meminfo", proc.join("meminfo"), |text| pick(text, &MEMINFO, "no known line")),
    ]
}

/// From Linux 6.2 on, the size of `/proc/PID/fd` is the number of open files (the kernel's
/// `filesystems/proc.rst`). On older kernels it is 0 and they must be counted.
fn open_files(fd: &Path) -> io::Result<u64> {
    let open = fs::metadata(fd)?.len();
    if open > 0 {
        return Ok(open);
    }
    fs::read_dir(fd)?.try_fold(0, |n, entry| entry.map(|_| n + 1))
}

/// Soft and hard limit on open files, from `/proc/PID/limits`.
fn nofile(limits: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace();
    Some(format!("nofile soft {}, hard {}", words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_open_files_is_found() {
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let cases = [
            ("Max open files            1024                 524288               files\n", {
                Some("nofile soft 1024, hard 524288")
            }),
            ("Max open files            unlimited            unlimited            files\n", {
                Some("nofile soft unlimited, hard unlimited")
            }),
            ("Max open files            1024\n", None),
            ("Max file size             unlimited            unlimited            bytes\n", None),
        ];
        for (line, found) in cases {
            assert_eq!(nofile(&format!("{head}{line}")).as_deref(), found);
        }
    }
}
