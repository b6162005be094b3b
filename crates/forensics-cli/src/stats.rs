//! Figures over many records: how runs ended, who stopped them, and how long each phase took.
//!
//! One line of a record is in memory at a time. Only counts are kept, and one number per phase of each
//! run, up to a limit.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forensics_core::escape::{Escaped, MAX_NAME_CHARS, error_chain, truncate};
use forensics_core::record::{
    Event, ForeignRecords, PhaseFinished, PhaseOutcome, ReadError, RecordFile, phase_name,
    post_mortem,
};
use serde::{Serialize, Serializer};

use crate::format::{self, seconds};

/// How many unreadable records are named.
const MAX_COMPLAINTS: usize = 5;

/// How many causes or senders are shown, the most frequent ones; and how many phases.
const MAX_COUNTS: usize = 32;
const MAX_PHASES: usize = 1000;

/// Longest name shown, in characters.
const MAX_NAME: usize = 40;

/// How many names are counted separately. A further one is counted as [`OTHERS`].
const MAX_NAMES: usize = 10_000;
const OTHERS: &str = "…";

/// How many times are kept of each phase, and of all phases together. Later ones are not in the
/// median, the 95th percentile and the maximum.
const MAX_TIMES: usize = 1 << 21;

/// Counts by name. Foreign names are escaped.
type Counts = BTreeMap<String, usize>;

/// The figures, as `--json` prints them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    runs: usize,
    /// Records of other users than the folder's owner, root and the reader. They are not counted.
    #[serde(skip_serializing_if = "is_none", serialize_with = "count")]
    foreign: ForeignRecords,
    unreadable: usize,
    /// Unreadable lines in readable records.
    corrupt_lines: usize,
    outcomes: Counts,
    causes: Counts,
    /// systemd's reasons for the stop.
    stop_reasons: Counts,
    /// By name and user, such as `kill uid=1000`.
    senders: Counts,
    /// By name; members of groups by `GROUP/PHASE`.
    phases: BTreeMap<String, Phase>,
    /// How many times are kept.
    #[serde(skip)]
    times: usize,
}

/// One phase over all runs.
#[derive(Debug, Default, Serialize)]
struct Phase {
    /// How long it ran each time it ended, in microseconds. A skipped phase did not run.
    #[serde(skip)]
    took: Vec<u64>,
    runs: usize,
    median_us: Option<u64>,
    p95_us: Option<u64>,
    max_us: Option<u64>,
    timed_out: usize,
    /// How often it did not end well, by outcome or `not finished`.
    not_ok: Counts,
}

impl Stats {
    /// Reads the records. Those that cannot be read are named on standard error.
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let mut stats = Self::default();
        paths.iter().for_each(|path| stats.add(path));
        stats.phases.values_mut().for_each(Phase::finish);
        stats
    }

    fn add(&mut self, path: &Path) {
        if let Err(e) = self.read(path) {
            self.unreadable += 1;
            if self.unreadable <= MAX_COMPLAINTS {
                eprintln!("forensics: {}", Escaped(&error_chain(&e)));
            }
        }
    }

    fn read(&mut self, path: &Path) -> Result<(), ReadError> {
        let file = RecordFile::open(path)?;
        if let Some(uid) = file.foreign_uid() {
            self.foreign.add(uid);
            return Ok(());
        }
        let host = file.host()?;
        let record = file.read(|_, _| ())?;
        let run = post_mortem(&record, &host);
        self.runs += 1;
        self.corrupt_lines += record.corrupt;
        *self.outcomes.entry(run.outcome.to_string()).or_default() += 1;
        if let Some(cause) = run.cause {
            *entry(&mut self.causes, shown(&cause)) += 1;
        }
        if let Some(explained) = run.explained {
            *entry(&mut self.stop_reasons, shown(&explained.reason)) += 1;
        }
        if let Some(sender) = run.sender {
            let name = shown(sender.name.as_deref().unwrap_or("?"));
            let user = sender.uid.map(|uid| format!(" uid={uid}")).unwrap_or_default();
            *entry(&mut self.senders, name + &user) += 1;
        }
        // Read again, because a file that is not a record must not be counted.
        file.read(|entry, _| {
            if let Event::PhaseFinished(finished) = &entry.event {
                self.finished(finished);
            }
        })?;
        for open in &run.phases {
            let phase = self.phase(&open.phase, open.group.as_deref());
            *phase.not_ok.entry("not finished".to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn finished(&mut self, finished: &PhaseFinished) {
        let has_room = self.times < MAX_TIMES;
        let phase = self.phase(&finished.phase, finished.group.as_deref());
        if finished.outcome != PhaseOutcome::Ok {
            *phase.not_ok.entry(finished.outcome.to_string()).or_default() += 1;
        }
        if finished.outcome != PhaseOutcome::Skipped {
            phase.runs += 1;
            if has_room {
                phase.took.push(finished.took_us);
                self.times += 1;
            }
        }
    }

    fn phase(&mut self, name: &str, group: Option<&str>) -> &mut Phase {
        entry(&mut self.phases, truncate(phase_name(name, group), MAX_NAME_CHARS))
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} runs", self.runs)?;
        for (count, what) in [(self.unreadable, "records"), (self.corrupt_lines, "lines")] {
            if count > 0 {
                write!(out, "; {count} {what} could not be read")?;
            }
        }
        if self.foreign.count > 0 {
            write!(out, "; not counted: {}", self.foreign)?;
        }
        writeln!(out, "\noutcomes  {}", most_frequent(&self.outcomes))?;
        writeln!(out, "causes    {}", most_frequent(&self.causes))?;
        if !self.stop_reasons.is_empty() {
            writeln!(out, "reasons   {}", most_frequent(&self.stop_reasons))?;
        }
        writeln!(out, "senders   {}", most_frequent(&self.senders))?;
        if self.phases.is_empty() {
            return Ok(());
        }
        let names = self.phases.keys().take(MAX_PHASES);
        let width = names.map(|name| shown(name).chars().count()).max().unwrap_or(0).max(5);
        writeln!(
            out,
            "\n{:<width$} {:>9}{:>9}{:>9}{:>9}  not ok",
            "phase", "runs", "median", "95 %", "max"
        )?;
        for (name, phase) in self.phases.iter().take(MAX_PHASES) {
            let [median, p95, max] = [phase.median_us, phase.p95_us, phase.max_us]
                .map(|us| us.map_or("-".to_owned(), seconds));
            let not_ok: Vec<_> =
                phase.not_ok.iter().map(|(word, n)| format!("{n} {word}")).collect();
            let (name, runs, not_ok) = (shown(name), phase.runs, not_ok.join(", "));
            let row = format!("{name:<width$} {runs:>9}{median:>9}{p95:>9}{max:>9}  {not_ok}");
            writeln!(out, "{}", row.trim_end())?;
        }
        match self.phases.len().saturating_sub(MAX_PHASES) {
            0 => Ok(()),
            more => writeln!(out, "and {more} more phases: use --json for all"),
        }
    }
}

impl Phase {
    /// Computes the figures after all runs have been added.
    fn finish(&mut self) {
        self.took.sort_unstable();
        [self.median_us, self.p95_us, self.max_us] =
            [50, 95, 100].map(|percent| percentile(&self.took, percent));
        self.timed_out = self.not_ok.get("timed_out").copied().unwrap_or(0);
    }
}

/// The value of that name.
fn entry<T: Default>(values: &mut BTreeMap<String, T>, name: String) -> &mut T {
    let is_counted = values.len() < MAX_NAMES || values.contains_key(&name);
    values.entry(if is_counted { name } else { OTHERS.to_owned() }).or_default()
}

/// The nearest rank: the smallest value that this percentage of the values does not exceed. `None` if
/// there are no values.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// `12 clean, 3 failed, and 2 more`, the most frequent first.
fn most_frequent(counts: &Counts) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let some = counts.iter().take(MAX_COUNTS);
    let mut shown: Vec<_> = some.map(|(name, count)| format!("{count} {name}")).collect();
    if counts.len() > MAX_COUNTS {
        shown.push(format!("and {} more", counts.len() - MAX_COUNTS));
    }
    shown.join(", ")
}

fn is_none(foreign: &ForeignRecords) -> bool {
    foreign.count == 0
}

fn count<S: Serializer>(foreign: &ForeignRecords, to: S) -> Result<S::Ok, S::Error> {
    foreign.count.serialize(to)
}

fn shown(name: &str) -> String {
    format::name(name, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
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
            assert_eq!(percentile(&took, percent), expected, "{percent} of {took:?}");
        }
    }
}
