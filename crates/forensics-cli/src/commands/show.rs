//! `forensics show`

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ColorChoice};
use forensics_core::json;
use forensics_core::record::Run;

use crate::format::{self, unread_lines};
use crate::html;
use crate::output::replace;
use crate::text::{self, Style};
use crate::timeline::Timeline;

/// Longest name of a service shown, in characters.
const MAX_SERVICE: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "\
A bar is the time that a phase used. The dots after it are the time that it had left. The bar of a
phase that was still running when the run ended has a different fill.

Exit status: 0; 2 if the record cannot be read or the page cannot be written.

Example:
  forensics show --html stop.html \"$(ls -d /var/lib/gateway/shutdown/*.jsonl | tail -1)\"")]
pub(crate) struct Show {
    /// The record
    file: PathBuf,
    /// Print JSON: the verdict and all events, on one line
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a self-contained page for a browser instead, with mode 0600; `-` is standard output
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// When to use colour; `auto` uses it on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

impl Show {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        let read = Run::read(&self.file).map_err(io::Error::other)?;
        let (record, run) = (read.record, read.post_mortem);
        if let Some(path) = &self.html {
            let page = html::page(&record, &run);
            if path == Path::new("-") {
                out.write_all(page.as_bytes())?;
            } else {
                let failed = |e| format!("cannot write {}: {e}", path.display());
                replace(path, page.as_bytes()).map_err(|e| io::Error::other(failed(e)))?;
            }
        } else if self.json {
            let all = serde_json::json!({ "verdict": run, "events": record.entries });
            writeln!(out, "{}", json::to_string(&all)?)?;
        } else {
            let service = format::name(&run.service, MAX_SERVICE);
            writeln!(out, "{service}[{}], started {}", run.pid, run.started)?;
            text::draw(out, &Timeline::of(&record), Style::of_stdout(self.color))?;
            writeln!(out, "{run}")?;
            if let Some(unread) = unread_lines(&record) {
                writeln!(out, "{unread}")?;
            }
        }
        Ok(())
    }
}
