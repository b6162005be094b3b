//! The process in question: its state and how near it is to its limits.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use procfs::process::Status;

use super::facts::{self, Fact};
use super::reads::Reads;
use super::shown::{joined, known, with_kib};

pub(super) fn write(
    out: &mut dyn Write,
    reads: &mut Reads<'_>,
    proc: &Path,
    pid: i32,
) -> io::Result<()> {
    writeln!(out, "--- process {pid}")?;
    let home = proc.join(pid.to_string());
    let fd = home.join("fd");
    let facts = vec![
        Fact::file("status", home.join("status"), |text| known(text, status)),
        Fact::new("open files", move || Ok(open_files(&fd)?.to_string())),
        Fact::file("limits", home.join("limits"), |text| match nofile(text) {
            Some((soft, hard)) => format!("nofile soft {soft}, hard {hard}"),
            None => "no line `Max open files`".to_owned(),
        }),
        Fact::file("oom_score_adj", home.join("oom_score_adj"), joined),
        Fact::file("cgroup", home.join("cgroup"), joined),
    ];
    facts::write(out, reads, facts)
}

fn status(status: &Status) -> String {
    let Status { state, tracerpid, threads, .. } = status;
    let mut shown = format!("State: {state} | TracerPid: {tracerpid} | Threads: {threads}");
    // A kernel thread has no memory of its own.
    if status.vmrss.is_some() {
        let memory = [("VmHWM", status.vmhwm), ("VmRSS", status.vmrss), ("VmSwap", status.vmswap)];
        shown += " | ";
        shown += &with_kib(&memory);
    }
    shown
}

/// From Linux 6.2 on the size of `/proc/PID/fd` is the number of open files (the kernel's
/// `filesystems/proc.rst`); before, it is 0 and they must be counted.
fn open_files(fd: &Path) -> io::Result<u64> {
    let open = fs::metadata(fd)?.len();
    if open > 0 {
        return Ok(open);
    }
    fs::read_dir(fd)?.try_fold(0, |n, entry| entry.map(|_| n + 1))
}

/// Soft and hard limit on open files, out of `/proc/PID/limits`.
fn nofile(limits: &str) -> Option<(&str, &str)> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_open_files_is_found() {
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let cases = [
            ("Max open files            1024                 524288               files\n", {
                Some(("1024", "524288"))
            }),
            ("Max open files            unlimited            unlimited            files\n", {
                Some(("unlimited", "unlimited"))
            }),
            ("Max open files            1024\n", None),
            ("Max file size             unlimited            unlimited            bytes\n", None),
        ];
        for (line, found) in cases {
            assert_eq!(nofile(&format!("{head}{line}")), found);
        }
    }
}
