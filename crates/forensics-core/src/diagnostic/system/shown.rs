//! How numbers, files and errors are shown.

use std::io;

use nix::errno::Errno;
use procfs::FromRead;

use crate::escape::{MAX_CMDLINE_CHARS, Plain, cut_to};

/// Bytes in powers of 1024, with one decimal from a KiB on: `512B`, `1.5M`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u32, char); 6] =
        [(60, 'E'), (50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    let Some(&(shift, unit)) = UNITS.iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

/// What `show` makes of a file's content as procfs reads it. A file that procfs does not know in
/// this form, for example one of an older kernel, is shown as it is.
pub(super) fn known<T: FromRead>(text: &str, show: impl Fn(&T) -> String) -> String {
    // procfs panics where a line is cut off, or where a character of several bytes lies across a
    // place at which it cuts. None of the values shown holds one.
    let ascii = text.replace(|c: char| !c.is_ascii(), "?");
    let content = ascii.ends_with('\n').then(|| T::from_read(ascii.as_bytes()));
    match content {
        Some(Ok(content)) => show(&content),
        _ => cut_to(joined(text), MAX_CMDLINE_CHARS),
    }
}

/// Sizes in KiB as the kernel writes them, without those that it does not give:
/// ` | VmRSS: 12 kB | VmSwap: 0 kB`.
pub(super) fn with_kib(sizes: &[(&str, Option<u64>)]) -> String {
    sizes.iter().filter_map(|(name, kib)| Some(format!(" | {name}: {} kB", (*kib)?))).collect()
}

/// The lines of a file as one: `a 1 | b 2`.
pub(super) fn joined(text: &str) -> String {
    pick(text, |_| true)
}

/// Those lines of a file whose first word is wanted, as one line.
pub(super) fn pick(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let wanted = lines.filter(|words| words.first().is_some_and(|first| wanted(first)));
    wanted.map(|words| words.join(" ")).collect::<Vec<_>>().join(" | ")
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
    fn files_of_several_lines_become_one() {
        let events = "low 0\nhigh 3\nmax 0\noom 1\noom_kill 1\n";
        assert_eq!(joined(events), "low 0 | high 3 | max 0 | oom 1 | oom_kill 1");
        assert_eq!(pick(events, |key| key.starts_with("oom")), "oom 1 | oom_kill 1");
        assert_eq!(joined("VmRSS:\t   12 kB\n"), "VmRSS: 12 kB");
        assert_eq!(joined(""), "");
    }

    #[test]
    fn a_file_that_procfs_does_not_know_is_shown_as_it_is() {
        let load = |text| known(text, |load: &procfs::LoadAverage| format!("one={}", load.one));
        assert_eq!(load("0.50 0.30 0.20 1/80 4242\n"), "one=0.5");
        for text in ["0.50 0.30", "0.50 0.30\n", "", "\n", "\u{e9}\n"] {
            assert_eq!(load(text), text.trim_end());
        }
        assert_eq!(load(&"x".repeat(9000)).chars().count(), MAX_CMDLINE_CHARS);
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_procfs_panic(text in "[ -~\n\u{e9}]{0,100}", line in "(some|full)?[ =:0-9a-z.]{0,9}\n?") {
            for text in [text, line.repeat(2), line] {
                known(&text, |_: &procfs::LoadAverage| String::new());
                known(&text, |_: &procfs::IoPressure| String::new());
                known(&text, |_: &procfs::Meminfo| String::new());
                known(&text, |_: &procfs::process::Status| String::new());
            }
        }
    }

    #[test]
    fn errors_are_named_as_the_system_names_them() {
        assert_eq!(why(&io::Error::from_raw_os_error(nix::libc::EPERM)), "EPERM");
        assert_eq!(why(&io::Error::other("a\nb")), r"a\nb");
    }
}
