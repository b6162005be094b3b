//! Compares this crate with the installed `systemd-analyze timespan` on random time spans.
//!
//! The texts are made from a seed, which is printed. `TIMESPAN_SEED` sets the seed,
//! `TIMESPAN_SPANS` the number of valid texts. Without systemd-analyze the test is skipped and says
//! so; with `CI=true` it fails.

use std::env;
use std::io::{ErrorKind, Write, stderr};
use std::process::{Command, Output};

use forensics_core::duration::{Timespan, parse};

const UNITS: [&str; 30] = [
    "seconds", "second", "sec", "s", "minutes", "minute", "min", "months", "month", "M", "msec",
    "ms", "m", "hours", "hour", "hr", "h", "days", "day", "d", "weeks", "week", "w", "years",
    "year", "y", "usec", "us", "\u{3bc}s", "\u{b5}s",
];
const BLANKS: [&str; 8] = ["", "", "", " ", "  ", "\t", "\n", " \r"];
const JUNK: [&str; 20] = [
    " ", "\u{b}", "\u{c}", "+", "-", ".", ",", "0", "5", "9", "999999", "s", "m", "M", "u", "e",
    "x", "é", "infinity", "\u{a0}",
];

/// A command line of this many texts stays well below the kernel's limit.
const BATCH: usize = 500;
/// systemd-analyze stops at the first error, so each of these costs a process.
const REFUSED: usize = 120;

#[test]
fn random_spans_and_errors_are_those_of_the_installed_systemd() {
    let version = match systemd_analyze(&["--version".to_owned()]) {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned),
        None if env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no systemd-analyze in CI"),
        // Bypasses the test harness, which hides the output of a passing test.
        None => return writeln!(stderr(), "skipped: no systemd-analyze here").unwrap(),
    };
    let seed = number_from_env("TIMESPAN_SEED").unwrap_or(252);
    let spans = number_from_env("TIMESPAN_SPANS").unwrap_or(4_000) as usize;
    println!("TIMESPAN_SEED={seed} TIMESPAN_SPANS={spans} against {version:?}");

    let mut random = Random(seed);
    let mut batch = Vec::new();
    let (mut accepted, mut invalid, mut out_of_range) = (0, 0, 0);
    while accepted < spans || invalid < REFUSED || out_of_range < REFUSED {
        let text = random.text();
        match parse(&text) {
            Ok(span) if accepted < spans => {
                accepted += 1;
                batch.push((text, span));
            }
            Err(error) => {
                let (count, message) = match error.is_out_of_range() {
                    true => (&mut out_of_range, "Numerical result out of range"),
                    false => (&mut invalid, "Invalid argument"),
                };
                if *count < REFUSED {
                    *count += 1;
                    expect_refusal(&text, message);
                }
            }
            Ok(_) => {}
        }
        if batch.len() == BATCH || accepted == spans {
            expect_spans(&std::mem::take(&mut batch));
        }
    }
    println!("{accepted} spans, {invalid} invalid and {out_of_range} out of range: all the same");
}

fn expect_spans(batch: &[(String, Timespan)]) {
    if batch.is_empty() {
        return;
    }
    let texts: Vec<String> = batch.iter().map(|(text, _)| text.clone()).collect();
    let output = timespan(&texts);
    let shown = String::from_utf8_lossy(&output.stdout);
    // No valid text contains a colon, so the lines of `Original:` cannot be confused with these.
    let values =
        |label: &'static str| shown.lines().filter_map(move |l| l.trim().strip_prefix(label));
    let mut answers = values("μs: ").zip(values("Human: "));
    for (text, span) in batch {
        let Some((micros, human)) = answers.next() else {
            panic!("{text:?}: we read {span:?}; {}", String::from_utf8_lossy(&output.stderr))
        };
        assert_eq!(span.as_micros().unwrap_or(u64::MAX).to_string(), micros, "{text:?}");
        assert_eq!(span.to_string(), human, "{text:?}");
    }
    assert!(answers.next().is_none() && output.status.success(), "more answers than questions");
}

fn expect_refusal(text: &str, message: &str) {
    let output = timespan(&[text.to_owned()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let refused = !output.status.success() && stderr.contains(&format!("': {message}\n"));
    assert!(refused, "{text:?}: we say {message}; {stderr}{output:?}");
}

fn timespan(texts: &[String]) -> Output {
    let args = ["timespan".to_owned(), "--".to_owned()];
    systemd_analyze(&[&args, texts].concat()).expect("it ran before")
}

/// `None` if it is not installed.
fn systemd_analyze(args: &[String]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// `SplitMix64`, which gives the same texts from the same seed on every machine and with every
/// version of every crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// A span that is valid or nearly valid.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(4) {
            text += self.one_of(&BLANKS);
            text += &self.number();
            text += self.one_of(&BLANKS);
            if self.below(5) > 0 {
                text += self.one_of(&UNITS);
            }
        }
        text += self.one_of(&BLANKS);
        if self.below(3) == 0 {
            for _ in 0..=self.below(2) {
                self.mutate(&mut text);
            }
        }
        text
    }

    fn number(&mut self) -> String {
        // Any number of bits, so that most spans are in range and some are close to its end.
        let bits = [8, 8, 16, 24, 32, 44, 64][self.below(7)];
        let whole = self.next() >> (64 - self.below(bits) - 1);
        let sign = ["", "", "", "+"][self.below(4)];
        let digits = 1 + self.below(18);
        let fraction = self.next() % 10_u64.pow(digits as u32);
        match self.below(5) {
            0 | 1 => format!("{sign}{whole}"),
            2 | 3 => format!("{sign}{whole}.{fraction:0digits$}"),
            _ => format!(".{fraction:0digits$}"),
        }
    }

    /// Inserts junk at one position, or removes a character.
    fn mutate(&mut self, text: &mut String) {
        let at = self.below(text.chars().count() + 1);
        let at = text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
        if self.below(3) == 0 && at < text.len() {
            text.remove(at);
        } else {
            text.insert_str(at, self.one_of(&JUNK));
        }
    }
}
