//! Figures over many records: how runs ended, who stopped them, and how long each phase took.
//!
//! One record is in memory at a time. Of each, only counts are kept, and one number for each phase.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forensics_core::record::{Event, PhaseOutcome, Record, post_mortem};
use serde_json::{Value, json};

use crate::format::{self, seconds};

/// How many of the records that could not be read are named.
const MAX_COMPLAINTS: usize = 5;

/// How many causes or senders are shown, the most frequent ones; and how many phases.
const MAX_COUNTS: usize = 32;
const MAX_PHASES: usize = 1000;

/// Longest name shown, in characters.
const MAX_NAME: usize = 40;

type Counts = BTreeMap<String, usize>;

/// The figures.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    runs: usize,
    /// Lines that could not be read, in records that could.
    corrupt_lines: usize,
    unreadable: usize,
    /// Why, for the first of them.
    complaints: Vec<String>,
    outcomes: Counts,
    causes: Counts,
    /// By name and user.
    senders: BTreeMap<(String, Option<u32>), usize>,
    /// By name, in a group by `GROUP/PHASE`.
    phases: BTreeMap<String, Phase>,
}

/// One phase over all runs.
#[derive(Debug, Default)]
struct Phase {
    /// How long it ran each time it ended, in microseconds. A skipped phase did not run.
    took: Vec<u64>,
    /// How often it ended badly, by the word of its outcome; and `not finished`.
    bad: Counts,
}

impl Stats {
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let mut stats = Self::default();
        paths.iter().for_each(|path| stats.add(path));
        stats.phases.values_mut().for_each(|phase| phase.took.sort_unstable());
        stats
    }

    fn add(&mut self, path: &Path) {
        let (record, host) = match Record::read_with_host(path) {
            Ok(read) => read,
            Err(e) => {
                self.unreadable += 1;
                if self.complaints.len() < MAX_COMPLAINTS {
                    self.complaints.push(e.to_string());
                }
                return;
            }
        };
        let run = post_mortem(&record, &host);
        self.runs += 1;
        self.corrupt_lines += record.corrupt;
        *self.outcomes.entry(run.ended()).or_default() += 1;
        if let Some(cause) = run.cause {
            *self.causes.entry(cause).or_default() += 1;
        }
        if let Some(sender) = run.sender {
            let name = sender.name.unwrap_or_else(|| "?".to_owned());
            *self.senders.entry((name, sender.uid)).or_default() += 1;
        }
        for entry in &record.entries {
            let Event::PhaseFinished(finished) = &entry.event else { continue };
            let phase = self.phase(&finished.phase, finished.group.as_deref());
            if finished.outcome != PhaseOutcome::Skipped {
                phase.took.push(finished.took_us);
            }
            if finished.outcome != PhaseOutcome::Ok {
                *phase.bad.entry(finished.outcome.to_string()).or_default() += 1;
            }
        }
        for open in &run.phases {
            let phase = self.phase(&open.phase, open.group.as_deref());
            *phase.bad.entry("not finished".to_owned()).or_default() += 1;
        }
    }

    fn phase(&mut self, name: &str, group: Option<&str>) -> &mut Phase {
        self.phases.entry(format::phase(name, group)).or_default()
    }

    /// Why records could not be read, for the first of them.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} runs", self.runs)?;
        for (count, what) in [(self.unreadable, "records"), (self.corrupt_lines, "lines")] {
            if count > 0 {
                write!(out, "; {count} {what} could not be read")?;
            }
        }
        let named = |counts: &Counts| counts.iter().map(|(name, n)| (*n, shown(name))).collect();
        let senders = self.senders.iter().map(|(sender, n)| (*n, sender_shown(sender, shown)));
        writeln!(out, "\noutcomes  {}", most_frequent(named(&self.outcomes)))?;
        writeln!(out, "causes    {}", most_frequent(named(&self.causes)))?;
        writeln!(out, "senders   {}", most_frequent(senders.collect()))?;
        if self.phases.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> =
            self.phases.iter().take(MAX_PHASES).map(|(name, phase)| (shown(name), phase)).collect();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(5);
        let row = |name: &str, [runs, median, p95, max]: [&str; 4], bad: &str| {
            let row = format!("{name:<width$} {runs:>9}{median:>9}{p95:>9}{max:>9}  {bad}");
            row.trim_end().to_owned()
        };
        writeln!(out, "\n{}", row("phase", ["runs", "median", "95 %", "max"], "not ok"))?;
        for (name, phase) in rows {
            let span = |percent| phase.percentile(percent).map_or("-".to_owned(), seconds);
            let runs = phase.took.len().to_string();
            let bad: Vec<_> = phase.bad.iter().map(|(word, n)| format!("{n} {word}")).collect();
            let columns = [&*runs, &span(50), &span(95), &span(100)];
            writeln!(out, "{}", row(&name, columns, &bad.join(", ")))?;
        }
        match self.phases.len().saturating_sub(MAX_PHASES) {
            0 => Ok(()),
            more => writeln!(out, "and {more} more phases: --json has them all"),
        }
    }

    pub(crate) fn as_json(&self) -> Value {
        let phases = self.phases.iter().map(|(name, phase)| {
            let figures = json!({
                "runs": phase.took.len(),
                "median_us": phase.percentile(50),
                "p95_us": phase.percentile(95),
                "max_us": phase.percentile(100),
                "timed_out": phase.bad.get("timed_out").copied().unwrap_or(0),
                "not_ok": phase.bad,
            });
            (name.clone(), figures)
        });
        let senders =
            self.senders.iter().map(|(sender, n)| (sender_shown(sender, str::to_owned), json!(n)));
        json!({
            "runs": self.runs,
            "unreadable": self.unreadable,
            "corrupt_lines": self.corrupt_lines,
            "outcomes": self.outcomes,
            "causes": self.causes,
            "senders": senders.collect::<serde_json::Map<_, _>>(),
            "phases": phases.collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl Phase {
    /// The nearest rank: the smallest value that this percentage of the values does not exceed. `None`
    /// if there are no values.
    fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.took.len() * percent).div_ceil(100);
        self.took.get(rank.checked_sub(1)?).copied()
    }
}

/// `12 clean, 3 failed, and 2 more`, the most frequent first.
fn most_frequent(mut counts: Vec<(usize, String)>) -> String {
    let more = counts.len().saturating_sub(MAX_COUNTS);
    counts.sort_by_key(|(count, _)| Reverse(*count));
    let mut shown: Vec<_> =
        counts.iter().take(MAX_COUNTS).map(|(count, name)| format!("{count} {name}")).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// `kill uid=1000`, with the name as `shown` gives it.
fn sender_shown((name, uid): &(String, Option<u32>), shown: impl Fn(&str) -> String) -> String {
    let uid = uid.map(|uid| format!(" uid={uid}")).unwrap_or_default();
    format!("{}{uid}", shown(name))
}

fn shown(name: &str) -> String {
    format::name(name, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let of = |took: Vec<u64>, percent| Phase { took, bad: Counts::new() }.percentile(percent);
        let hundred: Vec<u64> = (1..=100).collect();
        let cases = [
            (vec![], 50, None),
            (vec![7], 50, Some(7)),
            (vec![7], 95, Some(7)),
            (vec![1, 2], 50, Some(1)),
            (vec![1, 2, 3], 50, Some(2)),
            (hundred.clone(), 95, Some(95)),
            (hundred, 100, Some(100)),
        ];
        for (took, percent, expected) in cases {
            assert_eq!(of(took.clone(), percent), expected, "{percent} of {took:?}");
        }
    }
}
