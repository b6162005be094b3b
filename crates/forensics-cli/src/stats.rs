//! Figures over many records: how runs ended, who stopped them, what each phase took.
//!
//! One record is in memory at a time, for each thread that reads; what is kept of it is counts, and
//! one number for each phase.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use forensics_core::escape::{Quoted, cut};
use forensics_core::record::{Event, PhaseOutcome, Record, verdict};
use serde_json::{Value, json};

use crate::timeline::seconds;

/// How many of the records that could not be read are named.
const NAMED: usize = 5;

/// Longest name shown, in characters.
const MAX_NAME: usize = 40;

/// The figures. Merging is adding up, so that several threads can count.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    runs: usize,
    /// Lines that could not be read, of records that could.
    corrupt_lines: usize,
    unreadable: usize,
    /// Why, for the first of them.
    complaints: Vec<String>,
    outcomes: Counts,
    causes: Counts,
    /// By name and user.
    senders: BTreeMap<(String, Option<u32>), usize>,
    phases: BTreeMap<String, Phase>,
}

/// How many causes or senders are shown, the most frequent; and how many phases.
const MAX_COUNTS: usize = 32;
const MAX_PHASES: usize = 1000;

type Counts = BTreeMap<String, usize>;

/// One phase over all runs; a member of a group by its group's name and its own.
#[derive(Debug, Default)]
struct Phase {
    /// How long each took that ended, whatever its end, in microseconds; skipped ones took nothing
    /// and are not in it.
    took: Vec<u64>,
    /// How often it ended other than well, by the outcome's word; and `not finished`.
    bad: Counts,
}

impl Stats {
    /// Of these records, read on as many threads as there are processors.
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let total = Mutex::new(Self::default());
        let next = AtomicUsize::new(0);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(paths.len());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut stats = Self::default();
                    while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                        stats.add(path);
                    }
                    // A panic while adding up would be one while allocating.
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.merge(stats);
                });
            }
        });
        let mut stats = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        stats.complaints.sort_unstable();
        stats.complaints.truncate(NAMED);
        stats.phases.values_mut().for_each(|phase| phase.took.sort_unstable());
        stats
    }

    fn add(&mut self, path: &Path) {
        let (record, now) = match Record::read_and_look(path) {
            Ok(read) => read,
            Err(e) => {
                self.unreadable += 1;
                self.complaints.push(e.to_string());
                return;
            }
        };
        let verdict = verdict(&record, &now);
        self.runs += 1;
        self.corrupt_lines += record.corrupt;
        count(&mut self.outcomes, verdict.ended());
        if let Some(cause) = &verdict.cause {
            count(&mut self.causes, cause);
        }
        if let Some(sender) = &verdict.sender {
            let name = sender.name.clone().unwrap_or_else(|| "?".to_owned());
            *self.senders.entry((name, sender.uid)).or_default() += 1;
        }
        for entry in &record.entries {
            let Event::PhaseFinished(finished) = &entry.event else { continue };
            let phase = self.phase(&finished.phase, finished.group.as_deref());
            if finished.outcome != PhaseOutcome::Skipped {
                phase.took.push(finished.took_us);
            }
            if finished.outcome != PhaseOutcome::Ok {
                count(&mut phase.bad, finished.outcome.as_str());
            }
        }
        for open in &verdict.phases {
            let phase = self.phase(&open.phase, open.group.as_deref());
            count(&mut phase.bad, "not finished");
        }
    }

    fn phase(&mut self, name: &str, group: Option<&str>) -> &mut Phase {
        let name = group.map_or_else(|| name.to_owned(), |group| format!("{group}/{name}"));
        self.phases.entry(name).or_default()
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.corrupt_lines += other.corrupt_lines;
        self.unreadable += other.unreadable;
        self.complaints.extend(other.complaints);
        merge(&mut self.outcomes, other.outcomes);
        merge(&mut self.causes, other.causes);
        for (sender, count) in other.senders {
            *self.senders.entry(sender).or_default() += count;
        }
        for (name, phase) in other.phases {
            let ours = self.phases.entry(name).or_default();
            ours.took.extend(phase.took);
            merge(&mut ours.bad, phase.bad);
        }
    }

    /// What could not be read, a line each; of many only the first.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = &str> {
        self.complaints.iter().map(String::as_str)
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} runs", self.runs)?;
        if self.unreadable > 0 {
            write!(out, "; {} records could not be read", self.unreadable)?;
        }
        if self.corrupt_lines > 0 {
            write!(out, "; {} lines could not be read", self.corrupt_lines)?;
        }
        writeln!(out)?;
        let named = |counts: &Counts| counts.iter().map(|(name, n)| (shown(name), *n)).collect();
        let senders = self.senders.iter().map(|(sender, n)| (sender_shown(sender, shown), *n));
        let lines: [(&str, Vec<(String, usize)>); 3] = [
            ("outcomes", named(&self.outcomes)),
            ("causes", named(&self.causes)),
            ("senders", senders.collect()),
        ];
        for (name, counts) in lines {
            let mut sorted: Vec<_> = counts.iter().collect();
            sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let shown = |(name, count): &(String, usize)| format!("{count} {name}");
            let mut sorted: Vec<_> = sorted.into_iter().take(MAX_COUNTS).map(shown).collect();
            if counts.len() > MAX_COUNTS {
                sorted.push(format!("and {} more", counts.len() - MAX_COUNTS));
            }
            writeln!(out, "{name:<9} {}", sorted.join(", "))?;
        }
        if self.phases.is_empty() {
            return Ok(());
        }
        let name = self
            .phases
            .keys()
            .take(MAX_PHASES)
            .map(|name| shown(name).chars().count())
            .max()
            .unwrap_or(0);
        let name = name.max("phase".len());
        let head = ["runs", "median", "95 %", "max"].map(|column| format!("{column:>9}")).concat();
        writeln!(out, "\n{:<name$} {head}  not ok", "phase")?;
        for (phase, figures) in self.phases.iter().take(MAX_PHASES) {
            let spans = [figures.percentile(50), figures.percentile(95), figures.percentile(100)];
            let spans = spans.map(|us| format!("{:>9}", us.map_or("-".to_owned(), seconds)));
            let bad = figures.bad.iter().map(|(word, count)| format!("{count} {word}"));
            let bad = bad.collect::<Vec<_>>().join(", ");
            let line = format!(
                "{:<name$} {:>9}{}  {bad}",
                shown(phase),
                figures.took.len(),
                spans.concat()
            );
            writeln!(out, "{}", line.trim_end())?;
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
    /// The nearest rank: the smallest value that so many per cent do not exceed. `None` where there
    /// is no value at all.
    fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.took.len() * percent).div_ceil(100);
        self.took.get(rank.checked_sub(1)?).copied()
    }
}

fn count(counts: &mut Counts, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

fn merge(counts: &mut Counts, others: Counts) {
    for (name, count) in others {
        *counts.entry(name).or_default() += count;
    }
}

/// `kill uid=1000`, the name as `shown` has it.
fn sender_shown((name, uid): &(String, Option<u32>), shown: impl Fn(&str) -> String) -> String {
    match uid {
        Some(uid) => format!("{} uid={uid}", shown(name)),
        None => shown(name),
    }
}

/// A name of others.
fn shown(name: &str) -> String {
    cut(&Quoted(name).to_string(), MAX_NAME).into_owned()
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
