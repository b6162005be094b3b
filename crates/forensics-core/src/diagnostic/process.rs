//! The process the look is about: its state and how near it is to its limits.

use super::shown::{joined, pick};
use super::source::{Source, said, unreadable};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

const STATUS: [&str; 6] = ["State", "TracerPid", "Threads", "VmHWM", "VmRSS", "VmSwap"];

pub(super) fn write(
    out: &mut dyn Write,
    source: &mut Source,
    proc: &Path,
    pid: i32,
) -> io::Result<()> {
    let home = proc.join(pid.to_string());
    writeln!(out, "--- process {pid}")?;
    source.fact(out, "status", &home.join("status"), &|text| {
        pick(text, &|key| STATUS.contains(&key))
    })?;
    match open_files(&home.join("fd")) {
        Ok(open) => said(out, "open files", open)?,
        Err(e) => unreadable(out, "open files", &e)?,
    }
    source.fact(out, "limits", &home.join("limits"), &|text| match nofile(text) {
        Some((soft, hard)) => format!("nofile soft {soft}, hard {hard}"),
        None => "no line `Max open files`".to_owned(),
    })?;
    source.fact(out, "oom_score_adj", &home.join("oom_score_adj"), &joined)?;
    source.fact(out, "cgroup", &home.join("cgroup"), &joined)?;
    out.flush()
}

/// From Linux 6.2 on the size of `/proc/PID/fd` is the number of open files (the kernel's
/// `filesystems/proc.rst`); before, it is 0 and they must be counted.
fn open_files(fd: &Path) -> io::Result<u64> {
    match fs::metadata(fd)?.len() {
        0 => fs::read_dir(fd)?.try_fold(0, |n, entry| entry.map(|_| n + 1)),
        open => Ok(open),
    }
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
