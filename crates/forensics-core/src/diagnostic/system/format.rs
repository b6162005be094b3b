//! How numbers, files and errors are shown.

use std::io;

use nix::errno::Errno;

use crate::escape::Escaped;

/// Bytes in units of powers of 1024, with one decimal from 1 KiB on: `512B`, `1.5M`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u32, char); 6] =
        [(60, 'E'), (50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    let Some(&(shift, unit)) = UNITS.iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

/// The lines of a file as one: `a 1 | b 2`.
pub(super) fn joined(text: &str) -> String {
    let lines = text.lines().map(single_spaced).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" | ")
}

/// The lines of a file that begin with these words, in this order, as one line; `none` if there are
/// none.
pub(super) fn pick(text: &str, first_words: &[&str], none: &str) -> String {
    let line = |word: &&str| text.lines().find(|line| line.split_whitespace().next() == Some(word));
    let lines: Vec<_> = first_words.iter().filter_map(line).map(single_spaced).collect();
    if lines.is_empty() { none.to_owned() } else { lines.join(" | ") }
}

fn single_spaced(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a file has no content to show.
pub(super) fn problem(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("not readable ({:?})", Errno::from_raw(number)),
        None => Escaped(&error.to_string()).to_string(),
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
    fn files_of_several_lines_become_one() {
        let events = "low 0\nhigh 3\nmax 0\noom 1\noom_kill 1\n";
        assert_eq!(joined(events), "low 0 | high 3 | max 0 | oom 1 | oom_kill 1");
        assert_eq!(pick(events, &["oom", "none", "high"], ""), "oom 1 | high 3");
        assert_eq!(pick(events, &["none"], "no known line"), "no known line");
        assert_eq!(joined("VmRSS:\t   12 kB\n"), "VmRSS: 12 kB");
        assert_eq!(joined(""), "");
    }

    #[test]
    fn errors_have_the_names_of_the_system() {
        assert_eq!(
            problem(&io::Error::from_raw_os_error(nix::libc::EPERM)),
            "not readable (EPERM)"
        );
        assert_eq!(problem(&io::Error::other("a\nb")), r"a\nb");
    }
}
