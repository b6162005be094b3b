//! `forensics list`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use forensics_core::escape::Plain;
use forensics_core::record::{Verdict, runs};

/// List the runs of a folder, a line each, oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0; 2 where the folder cannot be read. A record that cannot be read is told on stderr.

Example:
  forensics list /var/lib/gateway/shutdown | grep -v ' clean '")]
pub(crate) struct List {
    /// The folder of the records
    dir: PathBuf,
    /// Print JSON, a line each
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        for path in runs(&self.dir).map_err(io::Error::other)? {
            match Verdict::of(&path) {
                Ok(verdict) if self.json => {
                    writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
                }
                Ok(verdict) => print(out, &verdict)?,
                Err(e) => eprintln!("forensics: {e}"),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(out: &mut dyn Write, verdict: &Verdict) -> io::Result<()> {
    let Verdict { started, service, pid, outcome, .. } = verdict;
    write!(out, "{started}  {:<22}  {}[{pid}]", outcome.as_str(), Plain(service))?;
    if let Some(signal) = &verdict.signal {
        write!(out, "  {}", Plain(signal))?;
    }
    if let Some(cause) = &verdict.cause {
        write!(out, " ({})", Plain(cause))?;
    }
    for open in &verdict.phases {
        write!(out, "  in {}", Plain(&open.phase))?;
    }
    writeln!(out)
}
