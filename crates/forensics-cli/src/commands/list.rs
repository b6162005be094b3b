//! `forensics list`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use forensics_core::escape::{Escaped, error_chain};
use forensics_core::json;
use forensics_core::record::{PostMortem, phase_name, runs};

use crate::layout::{Options, Tone};
use crate::stats::Stats;
use crate::{format, report};

/// How many phases are named, of those that a run was killed in.
const MAX_PHASES: usize = 16;

/// How many rows a table has. A folder can have more records than memory should hold.
const MAX_ROWS: usize = 1000;

/// Longest text in a cell of the table, in characters.
const MAX_CELL: usize = 60;

/// Longest name shown, in characters.
const MAX_NAME: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal it prints a table. A column that does not fit is left out.

Exit status: 0; 2 if the folder cannot be read. A record that cannot be read is reported on stderr.

With --stats: the number of runs by end, by cause, by systemd's reason for the stop, and by sender. For each
phase: how often it ran; the median, the 95th percentile and the maximum of its time (nearest rank, without
skipped phases); and how often it did not end well. Members of groups are shown as GROUP/PHASE.

Examples:
  forensics list /var/lib/gateway/shutdown | grep -v ' clean '
  forensics list /var/lib/gateway/shutdown --stats")]
pub(crate) struct List {
    /// The folder of the records
    dir: PathBuf,
    /// Print JSON, one line per run; with --stats one object
    #[arg(long)]
    json: bool,
    /// Print figures over all runs instead of the runs
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    options: Options,
}

impl List {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        let paths = runs(&self.dir).map_err(io::Error::other)?;
        if self.stats {
            let stats = Stats::of(&paths);
            if self.json {
                writeln!(out, "{}", json::to_string(&stats)?)?;
            } else {
                stats.print(out)?;
            }
            return Ok(());
        }
        let people = self.options.for_people().filter(|_| !self.json);
        let mut rows = Vec::new();
        for path in paths {
            if let Some(style) = people.filter(|_| rows.len() == MAX_ROWS) {
                style.table(out, COLUMNS, &rows)?;
                rows.clear();
            }
            match PostMortem::of(&path) {
                Ok(run) if self.json => writeln!(out, "{}", json::to_string(&run)?)?,
                Ok(run) if people.is_some() => rows.push(row(&run)),
                Ok(run) => print(out, &run)?,
                Err(e) => eprintln!("forensics: {}", Escaped(&error_chain(&e))),
            }
        }
        match people {
            Some(style) if !rows.is_empty() => style.table(out, COLUMNS, &rows),
            _ => Ok(()),
        }
    }
}

/// The columns of the table, the most telling first, and how narrow each may become.
const COLUMNS: [(&str, usize); 6] = [
    ("OUTCOME", 22),
    ("STARTED (UTC)", 14),
    ("IN PHASE", 8),
    ("CAUSE", 8),
    ("SIGNAL", 7),
    ("SERVICE", 8),
];

/// A row of the table.
fn row(run: &PostMortem) -> [(Tone, String); 6] {
    let name = |text: &str| format::name(text, MAX_CELL);
    let phases = run.phases.iter().map(|open| phase_name(&open.phase, open.group.as_deref()));
    let phases = phases.take(MAX_PHASES).collect::<Vec<_>>().join(", ");
    let mut cause = run.cause.as_deref().map(name).unwrap_or_default();
    if let Some(explained) = &run.explained {
        cause = format!("{cause}, {}", name(&explained.reason));
    }
    let mut outcome = run.outcome.to_string();
    if let Some(uid) = run.file_uid {
        outcome += &format!(" (file of uid {uid})");
    }
    [
        (report::tone(run), outcome),
        (Tone::PLAIN, format::utc(run.started)),
        (Tone::PLAIN, format::text(&phases, MAX_CELL)),
        (Tone::PLAIN, cause),
        (Tone::PLAIN, run.signal.as_deref().map(name).unwrap_or_default()),
        (Tone::PLAIN, format!("{}[{}]", name(&run.service), run.pid)),
    ]
}

fn print(out: &mut dyn Write, run: &PostMortem) -> io::Result<()> {
    let name = |text: &str| format::name(text, MAX_NAME);
    let outcome = run.outcome.to_string();
    write!(out, "{}  {outcome:<22}  {}[{}]", run.started, name(&run.service), run.pid)?;
    if let Some(signal) = &run.signal {
        write!(out, "  {}", name(signal))?;
    }
    if let Some(cause) = &run.cause {
        let reason =
            run.explained.as_ref().map(|explained| format!(", {}", name(&explained.reason)));
        write!(out, " ({}{})", name(cause), reason.unwrap_or_default())?;
    }
    for open in run.phases.iter().take(MAX_PHASES) {
        write!(out, "  in {}", name(&open.phase))?;
    }
    match run.phases.len().saturating_sub(MAX_PHASES) {
        0 => {}
        more => write!(out, "  and {more} more")?,
    }
    match run.file_uid {
        Some(uid) => writeln!(out, "  (file of uid {uid})"),
        None => writeln!(out),
    }
}
