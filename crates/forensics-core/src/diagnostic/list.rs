//! The machine's processes: one small read for each, and a closer look at those that are shown.

use super::one::Process;
use super::shown::{elapsed, size};
use super::source::Source;
use super::tree::{Row, Tree, busiest};
use crate::escape::{MAX_CMDLINE_CHARS, Plain, Quoted, cut_to};
use crate::procfile::parse_stat;
use crate::secret::redact_some;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use nix::unistd::{SysconfVar, sysconf};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How many ancestors are shown above one of the busiest processes: the nearest ones.
const ANCESTORS: usize = 32;

/// How many descendants are looked at closely; further ones are shown by what `stat` says.
const CLOSELY: usize = 256;

/// Deeper rows are not moved in any further, so that a chain of forks costs no more than other
/// processes.
const MAX_INDENT: usize = 24;

/// What each process says in `stat`, in the order of their pid.
pub(super) struct List {
    /// The folder of the processes, opened.
    proc: File,
    page_size: u64,
    processes: Vec<Process>,
}

impl List {
    pub(super) fn read(source: &mut Source, proc: &Path, since_boot: Duration) -> io::Result<Self> {
        let ticks_per_second = system(SysconfVar::CLK_TCK).unwrap_or(100);
        let ticks = since_boot.as_millis().saturating_mul(ticks_per_second.into()) / 1000;
        let now = u64::try_from(ticks).unwrap_or(u64::MAX);
        let mut processes = Vec::new();
        let folder = File::open(proc)?;
        for entry in fs::read_dir(proc)?.map_while(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that can't be read has ended since it was listed.
            let Some(stat) = source.read_of(&folder, pid, "stat").ok().and_then(parse_stat) else {
                continue;
            };
            // The kernel lists them in this order, so that each is put at the end.
            if let Err(at) = processes.binary_search_by_key(&stat.pid, |p: &Process| p.pid) {
                processes.insert(at, Process::seen(&stat, now, ticks_per_second));
            }
        }
        let page_size = system(SysconfVar::PAGE_SIZE).unwrap_or(4096);
        Ok(Self { proc: folder, page_size, processes })
    }

    /// Writes process `pid` and all its descendants.
    pub(super) fn write_subtree(
        &self,
        out: &mut dyn Write,
        source: &mut Source,
        pid: i32,
    ) -> io::Result<()> {
        let rows = Tree::of(&self.processes, &|_| true).below(pid);
        match rows.len() {
            n @ 0..=CLOSELY => writeln!(out, "--- subtree of {pid} ({n} processes)")?,
            n => writeln!(out, "--- subtree of {pid} ({n} processes, {CLOSELY} of them closely)")?,
        }
        self.write_rows(out, source, &rows, CLOSELY)
    }

    /// Writes the machine's `top` busiest processes, with their nearest ancestors and without
    /// idle kernel threads.
    pub(super) fn write_busiest(
        &self,
        out: &mut dyn Write,
        source: &mut Source,
        top: usize,
    ) -> io::Result<()> {
        let wanted = busiest(&self.processes, top, ANCESTORS);
        let rows = Tree::of(&self.processes, &|at| wanted[at]).rows();
        let all = self.processes.len();
        writeln!(
            out,
            "--- busiest processes ({} of {all}: with their ancestors, without idle kernel threads)",
            rows.len()
        )?;
        self.write_rows(out, source, &rows, usize::MAX)
    }

    fn write_rows(
        &self,
        out: &mut dyn Write,
        source: &mut Source,
        rows: &[Row],
        closely: usize,
    ) -> io::Result<()> {
        writeln!(
            out,
            "{:>7} {:>7} {:>6} S {:>6} {:>8} {:>11} {:<24} COMMAND",
            "PID", "PPID", "UID", "%CPU", "RSS", "ELAPSED", "WCHAN"
        )?;
        for (n, row) in rows.iter().enumerate() {
            self.write_row(out, source, *row, n < closely)?;
        }
        out.flush()
    }

    fn write_row(
        &self,
        out: &mut dyn Write,
        source: &mut Source,
        row: Row,
        closely: bool,
    ) -> io::Result<()> {
        let process = &self.processes[row.at];
        let pid = process.pid;
        let uid = closely.then(|| user(&self.proc, pid)).flatten();
        let wchan = closely.then(|| wait_channel(source, &self.proc, pid)).flatten();
        write!(
            out,
            "{:>7} {:>7} {:>6} {} {:>6} {:>8} {:>11} {:<24} {:indent$}",
            pid,
            process.ppid,
            uid.as_deref().unwrap_or("-"),
            Plain(process.state.encode_utf8(&mut [0; 4])),
            format!("{}.{}", process.cpu_permille / 10, process.cpu_permille % 10),
            size(process.rss.saturating_mul(self.page_size)),
            elapsed(process.age()),
            wchan.as_deref().unwrap_or("-"),
            "",
            indent = (2 * row.depth).min(MAX_INDENT),
        )?;
        let name = process.name();
        // In an uninterruptible wait a process is likely to hold its memory map, on which reading
        // its command line would block. A zombie and a kernel thread have none.
        let command = match (closely, process.kernel_thread, process.state) {
            (true, false, 'D') => format!("({}) command line not read in state D", Plain(&name)),
            (_, _, 'Z' | 'X') => format!("({}) defunct", Plain(&name)),
            (_, true, _) => format!("[{}]", Plain(&name)),
            (false, ..) => format!("({})", Plain(&name)),
            (true, false, _) => {
                // Should this read never return, the text ends at the process that blocks it.
                out.flush()?;
                let read = source.read_of(&self.proc, pid, "cmdline").ok().and_then(command_line);
                read.unwrap_or_else(|| format!("({})", Plain(&name)))
            }
        };
        writeln!(out, "{command}")
    }
}

/// The effective user. The kernel keeps the owner of `/proc/PID` itself so for all processes,
/// whether dumpable or not (`task_dump_owner` in `fs/proc/base.c`).
fn user(proc: &File, pid: i32) -> Option<String> {
    let folder = fstatat(proc, pid.to_string().as_str(), AtFlags::empty()).ok()?;
    Some(folder.st_uid.to_string())
}

/// The kernel's function the process sleeps in, without what the compiler adds to its name
/// (`.isra.0`). `0` stands for none, or none we may know of.
fn wait_channel(source: &mut Source, proc: &File, pid: i32) -> Option<String> {
    let name = String::from_utf8_lossy(source.read_of(proc, pid, "wchan").ok()?);
    let name = name.split('.').next().filter(|name| !matches!(*name, "" | "0"))?;
    Some(Plain(name).to_string())
}

/// Arguments as they could be typed, at most [`MAX_CMDLINE_CHARS`] characters. `None` where there
/// are none, or only blank ones.
fn command_line(bytes: &[u8]) -> Option<String> {
    let text = redact_some(bytes, 4 * MAX_CMDLINE_CHARS + 4);
    let text = text.trim_end_matches('\0');
    if text.trim_matches(['\0', ' ']).is_empty() {
        return None;
    }
    let mut shown = String::with_capacity(text.len());
    // A title that the process set, as nginx and postgres do, is not quoted.
    let is_title = !text.contains('\0');
    for (n, argument) in text.split('\0').enumerate() {
        let blank = if n > 0 { " " } else { "" };
        // Writing into a String cannot fail.
        let _ = match !is_title && (argument.is_empty() || argument.contains(['"', ' '])) {
            true => write!(shown, "{blank}{}", Quoted(argument)),
            false => write!(shown, "{blank}{}", Plain(argument)),
        };
    }
    Some(cut_to(shown, MAX_CMDLINE_CHARS))
}

fn system(var: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(var).ok()??).ok().filter(|&n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_read_as_they_could_be_typed() {
        let cases: [(&[u8], Option<&str>); 10] = [
            (b"sleep\x0030\0", Some("sleep 30")),
            (b"sh\0-c\0sleep 30 & wait\0", Some(r#"sh -c "sleep 30 & wait""#)),
            (b"a\0\0--b=c\0", Some(r#"a "" --b=c"#)),
            (b"a\0say \"hi\"\0", Some(r#"a "say \"hi\"""#)),
            (b"nginx: master process\0\0\0\0", Some("nginx: master process")),
            (b"a\0b\nc\x1b[2J\0", Some(r"a b\nc\u{1b}[2J")),
            (b"\xff\xfe\0", Some("\u{fffd}\u{fffd}")),
            (b"", None),
            (b"\0\0\0", None),
            (b" \0 \0", None),
        ];
        for (bytes, shown) in cases {
            assert_eq!(command_line(bytes).as_deref(), shown);
        }
    }

    #[test]
    fn a_long_command_line_is_cut() {
        for text in ["a", "ä", "\u{1f980}", "\n", "x\0"] {
            let shown = command_line(text.repeat(4000).as_bytes()).unwrap();
            assert_eq!(shown.chars().count(), MAX_CMDLINE_CHARS);
            assert!(shown.ends_with('…'));
        }
    }
}
