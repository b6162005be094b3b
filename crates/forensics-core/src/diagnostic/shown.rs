//! How numbers, files and errors are shown.

use crate::escape::Plain;
use nix::errno::Errno;
use std::fmt::Write;
use std::io;
use std::time::Duration;

/// Bytes in powers of 1024, with one decimal from a KiB on: `512B`, `1.5M`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u32, char); 6] =
        [(60, 'E'), (50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    match UNITS.iter().find(|(shift, _)| bytes >> shift > 0) {
        None => format!("{bytes}B"),
        Some(&(shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
    }
}

/// Elapsed time as `ps -o etime` has it: `[[days-]hours:]minutes:seconds`.
pub(super) fn elapsed(time: Duration) -> String {
    let s = time.as_secs();
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// The lines of a file as one: `a 1 | b 2`.
pub(super) fn joined(text: &str) -> String {
    pick(text, &|_| true)
}

/// Those lines of a file whose first word, less a colon, is wanted, as one line.
pub(super) fn pick(text: &str, wanted: &dyn Fn(&str) -> bool) -> String {
    let mut line = String::new();
    for found in text.lines() {
        let mut words = found.split_whitespace();
        let Some(first) = words.next().filter(|w| wanted(w.trim_end_matches(':'))) else {
            continue;
        };
        line.push_str(if line.is_empty() { "" } else { " | " });
        line.push_str(first);
        for word in words {
            // Writing into a String cannot fail.
            let _ = write!(line, " {word}");
        }
    }
    line
}

/// An error in a word: the name of its number where it has one, as `EPERM`.
pub(super) fn why(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => Plain(&e.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_one_decimal() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (1024 * 1024 - 1, "1023.9K"),
            (5 << 30, "5.0G"),
            (u64::MAX, "15.9E"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn elapsed_time_reads_as_in_ps() {
        let cases = [
            (0, "00:00"),
            (59, "00:59"),
            (3599, "59:59"),
            (3600, "01:00:00"),
            (86_399, "23:59:59"),
            (90_061, "1-01:01:01"),
        ];
        for (seconds, shown) in cases {
            assert_eq!(elapsed(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn files_of_several_lines_become_one() {
        let events = "low 0\nhigh 3\nmax 0\noom 1\noom_kill 1\n";
        assert_eq!(joined(events), "low 0 | high 3 | max 0 | oom 1 | oom_kill 1");
        assert_eq!(pick(events, &|key| key.starts_with("oom")), "oom 1 | oom_kill 1");
        assert_eq!(pick("VmRSS:\t   12 kB\n", &|key| key == "VmRSS"), "VmRSS: 12 kB");
        assert_eq!(joined(""), "");
    }

    #[test]
    fn errors_are_named_as_the_system_names_them() {
        assert_eq!(why(&io::Error::from_raw_os_error(nix::libc::EPERM)), "EPERM");
        assert_eq!(why(&io::Error::other("a\nb")), r"a\nb");
    }
}
