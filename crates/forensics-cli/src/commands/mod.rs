//! The commands, a file each.

mod check;
mod context;
mod diag;
mod last;
mod list;
mod show;
mod timespan;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};
use forensics_core::duration;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Timespan(timespan::Timespan),
    Context(context::Context),
    Check(check::Check),
    Diag(diag::Diag),
    Last(last::Last),
    List(list::List),
    Show(show::Show),
    /// Print a completion script for a shell
    #[command(after_help = "Exit status: 0.\n\nExample:\n  forensics completions bash \
                            > /usr/share/bash-completion/completions/forensics")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Runs it, its output going to `out`.
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        match self {
            Command::Timespan(command) => command.run(out),
            Command::Context(command) => command.run(out),
            Command::Check(command) => command.run(out),
            Command::Diag(command) => command.run(),
            Command::Last(command) => command.run(out),
            Command::List(command) => command.run(out),
            Command::Show(command) => command.run(out),
            Command::Completions { shell } => {
                // clap_complete panics where it cannot write.
                let mut script = Vec::new();
                clap_complete::generate(
                    *shell,
                    &mut crate::Cli::command(),
                    "forensics",
                    &mut script,
                );
                out.write_all(&script)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// A time span of the command line that must be finite.
fn finite(text: &str) -> Result<std::time::Duration, String> {
    let span = duration::parse(text).map_err(|e| e.to_string())?;
    span.to_std().ok_or_else(|| "`infinity` is no time: give a span such as `60s`".to_owned())
}
