//! The last kernel messages about killed or crashed processes, from `/dev/kmsg`.
//!
//! Reading needs `CAP_SYSLOG` if `kernel.dmesg_restrict` is 1, and most containers have no such
//! device. procfs does not read this file.

mod record;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::libc::{EINTR, EINVAL, EPIPE, O_NONBLOCK};

use self::record::{Record, stamp};
use super::facts::write_one;
use super::reads::Reads;
use crate::clock;
use crate::record::OomLog;

/// How many of the matching lines are shown: the last ones.
const SHOWN: usize = 20;

/// The size of the longest record (`CONSOLE_EXT_LOG_MAX` in older kernels' `printk.h`).
const MAX_RECORD: usize = 8192;

/// How many records are read at most, in case the log is written as fast as it is read. By default
/// the kernel keeps 128 KiB and 4 KiB per processor (`init/Kconfig`).
const MAX_RECORDS: usize = 250_000;

/// What the kernel writes before `: Killed process` (`mm/oom_kill.c`).
const OUT_OF_MEMORY: [&str; 3] =
    ["Memory cgroup out of memory", "Out of memory", "Out of memory (oom_kill_allocating_task)"];

pub(super) fn write(out: &mut dyn Write, reads: &mut Reads<'_>, kmsg: &Path) -> io::Result<()> {
    let now = stamp(Duration::from_micros(clock::mono_us()));
    writeln!(out, "--- kernel log on kills and crashes (now [{now}])")?;
    let kmsg = kmsg.to_owned();
    match reads.one(move || last_matching(&mut open(&kmsg)?)) {
        Ok(lines) if !lines.is_empty() => writeln!(out, "{}", lines.join("\n"))?,
        none => write_one(out, "kernel log", none.map(|_| "no such line".to_owned()))?,
    }
    out.flush()
}

/// What the kernel logged about an OOM kill of this process at `since` after the boot or later:
/// `Memory cgroup out of memory: Killed process 4100 (gateway) …` (`__oom_kill_process()`).
///
/// `pid` is that of the initial pid namespace, because the kernel logs no other. `name` is the
/// process's `comm`, because pids are used again.
pub(crate) fn oom_log(pid: u32, name: &str, since: Duration) -> OomLog {
    let log = open(Path::new("/dev/kmsg"));
    let found = log.and_then(|mut log| search(&mut log, pid, name, since));
    found.unwrap_or_default()
}

/// Opens the device so that a read after the last record fails with `EAGAIN` and does not wait.
fn open(kmsg: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(O_NONBLOCK).open(kmsg)
}

fn search(log: &mut impl Read, pid: u32, name: &str, since: Duration) -> io::Result<OomLog> {
    /// The clock of the log may run by 500 ppm faster or slower than `CLOCK_MONOTONIC`, which NTP
    /// adjusts.
    const DRIFT: u32 = 2000;
    let since = since.saturating_sub(since / DRIFT + Duration::from_secs(1));
    let (any, killed) =
        (format!("Killed process {pid} ("), format!("Killed process {pid} ({name})"));
    let is_on_kill = |record: &Record, killed: &str| {
        // Only one of the kernel's own sentences may precede it. Other messages contain names of
        // cgroups, which a user may choose.
        let (why, rest) = record.message.split_once(": ").unwrap_or_default();
        let is_of_kernel = record.priority < 8 && OUT_OF_MEMORY.contains(&why);
        is_of_kernel && rest.starts_with(killed) && record.since_boot >= since
    };
    let (mut line, mut oldest, mut has_other_name) = (None, None, false);
    each(log, |record| {
        oldest.get_or_insert(record.since_boot);
        // It may have changed its name since its start, or it is a later process with its pid.
        has_other_name |= is_on_kill(&record, &any);
        if is_on_kill(&record, &killed) {
            line = Some(record.shown());
        }
    })?;
    // An older line may have been overwritten.
    let is_complete = oldest.is_some_and(|oldest| oldest <= since);
    Ok(match line {
        Some(line) => OomLog::Killed(line),
        None if is_complete && !has_other_name => OomLog::NotKilled,
        None => OomLog::Unknown,
    })
}

/// The last matching lines of a log, as they are shown.
fn last_matching(log: &mut impl Read) -> io::Result<Vec<String>> {
    let records = wanted(log)?;
    Ok(records[records.len().saturating_sub(SHOWN)..].iter().map(Record::shown).collect())
}

/// The records about a kill or a crash, oldest first.
fn wanted(log: &mut impl Read) -> io::Result<Vec<Record>> {
    let mut wanted = Vec::new();
    each(log, |record| wanted.extend(Some(record).filter(Record::is_wanted)))?;
    Ok(wanted)
}

/// Visits each record, oldest first. The log gives one record per read, and fails with `EAGAIN`
/// after the newest.
fn each(log: &mut impl Read, mut visit: impl FnMut(Record)) -> io::Result<()> {
    let mut buffer = [0; MAX_RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => Record::parse(&buffer[..read]).into_iter().for_each(&mut visit),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            // EPIPE: the record was overwritten before it was read. EINVAL: it is longer than the
            // buffer. In both cases the next read gives the next record.
            Err(e) if matches!(e.raw_os_error(), Some(EPIPE | EINVAL | EINTR)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that gives one record per read, as the device does.
    struct Log<I>(I);

    impl<I: Iterator<Item = io::Result<String>>> Read for Log<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let record = self.0.next().unwrap_or(Err(ErrorKind::WouldBlock.into()))?;
            record.as_bytes().read(buffer)
        }
    }

    fn read(records: impl IntoIterator<Item = io::Result<String>>) -> io::Result<Vec<String>> {
        last_matching(&mut Log(records.into_iter()))
    }

    #[test]
    fn an_oom_killed_process_is_found_only_by_the_kernels_own_message() {
        let killed = "Memory cgroup out of memory: Killed process 4100 (gateway) total-vm:1kB";
        let cases = [
            (format!("3,1,5000042,-;{killed}"), true),
            // Before the last event of the run, about another process, and written by a program.
            (format!("3,1,3000000,-;{killed}"), false),
            (format!("3,1,5000042,-;{}", killed.replace("4100", "41000")), false),
            (format!("12,1,5000042,-;{killed}"), false),
            ("3,1,5000042,-;oom_reaper: reaped process 4100 (gateway)".to_owned(), false),
            // Forged by a control group's name.
            (
                "3,1,5000042,-;oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/x: Killed process \
                 4100 (gateway)"
                    .to_owned(),
                false,
            ),
        ];
        let found = |records: Vec<String>| {
            let mut log = Log(records.into_iter().map(Ok));
            search(&mut log, 4100, "gateway", Duration::from_secs(5)).unwrap()
        };
        for (record, is_found) in cases {
            let expected = if is_found {
                OomLog::Killed(format!("[    5.000042] {killed}"))
            } else {
                OomLog::NotKilled
            };
            let first = "6,0,0,-;Linux version".to_owned();
            assert_eq!(found(vec![first, record.clone()]), expected, "{record}");
        }
        // It may be the process, by a later name.
        for name in ["gateway2", "hog"] {
            let other = format!("3,1,5000042,-;{}", killed.replace("gateway", name));
            let log = vec!["6,0,0,-;Linux version".to_owned(), other];
            assert_eq!(found(log), OomLog::Unknown, "{name}");
        }
        // The lines of that time may have been overwritten.
        assert_eq!(found(vec!["6,9,9000000,-;eth0: link up".to_owned()]), OomLog::Unknown);
        assert_eq!(found(vec![]), OomLog::Unknown);
    }

    #[test]
    fn only_kills_and_crashes_are_shown() {
        let cases = [
            ("Out of memory: Killed process 7 (x) total-vm:1kB", true),
            ("x invoked oom-killer: gfp_mask=0xcc0", true),
            ("oom_reaper: reaped process 7 (x)", true),
            ("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)", true),
            ("x[7]: segfault at 0 ip 0 sp 0 error 4 in x", true),
            ("traps: x[7] general protection fault ip:0", true),
            ("systemd[1]: Killing process 7 (x) with signal SIGKILL.", true),
            ("rfkill: input handler enabled", false),
            ("no room left", false),
            ("", false),
            ("eth0: link up", false),
        ];
        for (message, shown) in cases {
            let found = read([Ok(format!("6,1,5000042,-;{message}\n"))]).unwrap();
            let expected = shown.then(|| format!("[    5.000042] {message}"));
            assert_eq!(found, Vec::from_iter(expected));
        }
    }

    #[test]
    fn the_last_lines_are_kept() {
        let records = (0..100).map(|n| Ok(format!("6,{n},{n},-;Killed process {n}\n")));
        let found = read(records).unwrap();
        assert_eq!(found.len(), SHOWN);
        assert!(found[0].ends_with("process 80") && found[19].ends_with("process 99"));
    }

    #[test]
    fn a_lost_record_does_not_end_the_reading() {
        let kill = || Ok("6,1,0,-;Killed process 1\n".to_owned());
        for lost in [nix::libc::EPIPE, nix::libc::EINVAL, nix::libc::EINTR] {
            let lost = Err(io::Error::from_raw_os_error(lost));
            assert_eq!(read([kill(), lost, kill()]).unwrap().len(), 2);
        }
        assert!(read([kill(), Err(ErrorKind::PermissionDenied.into())]).is_err());
    }

    #[test]
    fn a_log_that_never_ends_is_read_up_to_a_limit() {
        let endless = std::iter::repeat_with(|| Ok("6,1,0,-;x\n".to_owned()));
        assert_eq!(read(endless).unwrap().len(), 0);
    }

    #[test]
    fn a_long_or_hostile_message_stays_one_short_line() {
        let found = read([Ok(format!("6,1,0,-;kill \u{1b}[2J{}\n", "x".repeat(4000)))]).unwrap();
        assert!(found[0].contains(r"\u{1b}[2J") && found[0].len() < 400);
    }
}
