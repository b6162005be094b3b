//! `forensics timespan`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use forensics_core::duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0; 2 if a time span cannot be read.

Examples:
  forensics timespan 90 '1min 30s' infinity
  forensics timespan --human 5400s")]
pub(crate) struct Timespan {
    /// Print systemd's own form, such as `1min 30s`
    #[arg(long)]
    human: bool,
    /// Time spans as in systemd.time(7)
    #[arg(value_name = "TEXT", required = true, allow_hyphen_values = true)]
    texts: Vec<String>,
}

impl Timespan {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        for text in &self.texts {
            match duration::parse(text) {
                Ok(span) => match span.as_micros() {
                    Some(micros) if !self.human => writeln!(out, "{micros}")?,
                    _ => writeln!(out, "{span}")?,
                },
                Err(e) => {
                    eprintln!("forensics: {e}");
                    code = ExitCode::from(2);
                }
            }
        }
        Ok(code)
    }
}
