//! `forensics last`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use forensics_core::json;
use forensics_core::record::PostMortem;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 the run ended cleanly, 1 it did not, 2 there is no readable record.

Example, for the unit's journal:
  ExecStopPost=-/usr/bin/forensics last /var/lib/gateway/shutdown")]
pub(crate) struct Last {
    /// The folder of the records
    dir: PathBuf,
    /// Print JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Last {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let last = PostMortem::of_last(&self.dir).map_err(io::Error::other)?;
        let none = || format!("{}: no record that can be read", self.dir.display());
        let last = last.ok_or_else(|| io::Error::other(none()))?;
        let text = if self.json { json::to_string(&last)? } else { last.to_string() };
        writeln!(out, "{text}")?;
        Ok(ExitCode::from(u8::from(!last.is_clean())))
    }
}
