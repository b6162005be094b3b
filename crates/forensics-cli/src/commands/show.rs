//! `forensics show`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use forensics_core::escape::Plain;
use forensics_core::record::{Event, PhaseFinished, PhaseStarted, Record, Verdict};

/// How many characters a bar has.
const BAR: usize = 40;

/// Show the timeline of a run: its signals, its phases as bars, its end
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0; 2 where the record cannot be read.

Example:
  forensics show \"$(ls -d /var/lib/gateway/shutdown/* | tail -1)\"")]
pub(crate) struct Show {
    /// The record
    file: PathBuf,
    /// Print JSON: the verdict and all events, on one line
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let record = Record::read(&self.file).map_err(io::Error::other)?;
        let verdict = Verdict::of(&self.file).map_err(io::Error::other)?;
        if self.json {
            let json = serde_json::json!({ "verdict": verdict, "events": record.entries });
            writeln!(out, "{json}")?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{}[{}], started {}", Plain(&verdict.service), verdict.pid, verdict.started)?;
        timeline(out, &record)?;
        writeln!(out, "{verdict}")?;
        if record.corrupt > 0 || record.torn {
            let torn = if record.torn { ", and the last line is torn" } else { "" };
            writeln!(out, "{} lines could not be read{torn}", record.corrupt)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A phase of the timeline; times are `mono_us`.
struct Bar<'a> {
    started: &'a PhaseStarted,
    from: u64,
    finished: Option<&'a PhaseFinished>,
    to: u64,
}

fn timeline(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    let last = record.entries.iter().map(|entry| entry.mono_us).max().unwrap_or(0);
    let asked = record.entries.iter().find(|entry| matches!(entry.event, Event::Signal(_)));
    let zero = asked.map_or(last, |entry| entry.mono_us);
    let since = |mono_us: u64| format!("+{:.2}s", mono_us.saturating_sub(zero) as f64 / 1e6);

    let mut bars: Vec<Bar<'_>> = Vec::new();
    for entry in &record.entries {
        match &entry.event {
            Event::PhaseStarted(started) => {
                bars.push(Bar { started, from: entry.mono_us, finished: None, to: last });
            }
            Event::PhaseFinished(finished) => {
                let open = bars.iter_mut().rev().find(|bar| {
                    bar.finished.is_none()
                        && (&bar.started.phase, &bar.started.group)
                            == (&finished.phase, &finished.group)
                });
                match open {
                    Some(bar) => (bar.finished, bar.to) = (Some(finished), entry.mono_us),
                    None => writeln!(
                        out,
                        "{:>9}  {} {}: {}",
                        since(entry.mono_us),
                        Plain(&finished.phase),
                        finished.outcome,
                        Plain(finished.error.as_deref().unwrap_or_default()),
                    )?,
                }
            }
            Event::Signal(signal) => {
                let what = signal.signal.as_deref().unwrap_or(signal.kind.as_str());
                write!(out, "{:>9}  {}", since(entry.mono_us), Plain(what))?;
                if let Some(pid) = signal.sender_pid {
                    let name = signal.sender_name.as_deref().unwrap_or("?");
                    write!(out, " from {}({pid})", Plain(name))?;
                }
                writeln!(out, ", cause {}", Plain(&signal.cause))?;
            }
            Event::Wedged(wedged) => {
                writeln!(out, "{:>9}  wedged: {}", since(entry.mono_us), Plain(&wedged.detail))?;
            }
            _ => {}
        }
    }
    let width = bars.iter().map(|bar| label(bar).chars().count()).max().unwrap_or(0);
    for bar in &bars {
        let outcome = bar.finished.map_or("not finished", |finished| finished.outcome.as_str());
        let took = bar.to.saturating_sub(bar.from) as f64 / 1e6;
        writeln!(
            out,
            "{:>9}  {:<width$}  {}  {took:.2}s {outcome}",
            since(bar.from),
            label(bar),
            draw(bar, zero, last),
        )?;
        if let Some(error) = bar.finished.and_then(|finished| finished.error.as_ref()) {
            writeln!(out, "{:>9}  {:<width$}  {}", "", "", Plain(error))?;
        }
    }
    Ok(())
}

fn label(bar: &Bar<'_>) -> String {
    let indent = if bar.started.group.is_some() { "  " } else { "" };
    format!("{indent}{}", Plain(&bar.started.phase))
}

/// The phase's place between the signal and the last event: at least one character of it.
fn draw(bar: &Bar<'_>, zero: u64, last: u64) -> String {
    let span = last.saturating_sub(zero).max(1);
    let column = |mono_us: u64| {
        let at = u128::from(mono_us.saturating_sub(zero)) * BAR as u128 / u128::from(span);
        usize::try_from(at).unwrap_or(BAR).min(BAR)
    };
    let from = column(bar.from).min(BAR - 1);
    let to = column(bar.to).clamp(from + 1, BAR);
    let fill = if bar.finished.is_some() { "█" } else { "▒" };
    format!("{}{}{}", "·".repeat(from), fill.repeat(to - from), "·".repeat(BAR - to))
}
