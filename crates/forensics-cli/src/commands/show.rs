//! `forensics show`

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use forensics_core::escape::{Quoted, cut};
use forensics_core::json;
use forensics_core::record::{Record, Run, Verdict};

use crate::html;
use crate::output::replace;
use crate::text::{self, Color, Style};
use crate::timeline::Timeline;

/// Longest name of a service shown, in characters.
const MAX_SERVICE: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "\
A bar is what a phase used, the dots behind it what it had left; a phase that had not ended when the
run did is drawn with another fill.

Exit status: 0; 2 where the record cannot be read, or the page not written.

Example:
  forensics show --html stop.html \"$(ls -d /var/lib/gateway/shutdown/*.jsonl | tail -1)\"")]
pub(crate) struct Show {
    /// The record
    file: PathBuf,
    /// Print JSON: the verdict and all events, on one line
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a page for a browser instead, complete in itself, readable by you
    /// alone; `-` is standard output
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// When to use colour
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: Color,
}

impl Show {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let Run { record, verdict, .. } = Run::read(&self.file).map_err(io::Error::other)?;
        match &self.html {
            None if self.json => {
                let all = serde_json::json!({ "verdict": verdict, "events": record.entries });
                writeln!(out, "{}", json::to_string(&all)?)?;
            }
            None => self.print(out, &record, &verdict)?,
            Some(path) => {
                let page = html::page(&record, &verdict);
                match path == Path::new("-") {
                    true => out.write_all(page.as_bytes())?,
                    false => write_file(path, &page)?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, out: &mut dyn Write, record: &Record, verdict: &Verdict) -> io::Result<()> {
        let service = cut(&verdict.service, MAX_SERVICE);
        writeln!(out, "{}[{}], started {}", Quoted(&service), verdict.pid, verdict.started)?;
        text::draw(out, &Timeline::of(record), Style::of_stdout(self.color))?;
        writeln!(out, "{verdict}")?;
        if record.corrupt > 0 || record.torn {
            let torn = if record.torn { ", and the last line is torn" } else { "" };
            writeln!(out, "{} lines could not be read{torn}", record.corrupt)?;
        }
        Ok(())
    }
}

fn write_file(path: &Path, page: &str) -> io::Result<()> {
    replace(path, page.as_bytes())
        .map_err(|e| io::Error::other(format!("cannot write {}: {e}", path.display())))
}
