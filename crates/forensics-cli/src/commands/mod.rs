//! The commands, one file each.

mod audit;
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

/// The commands. The options of a command are built only if it is called.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Read time spans as systemd does, and print them in microseconds
    ///
    /// Each is printed on its own line. `infinity` means no limit. One that cannot be read is
    /// reported on stderr, and the others are still printed.
    Timespan(timespan::Timespan),
    /// Print the context line that a process would log at a stop, without the sender
    ///
    /// Facts that cannot be read are left out. If the process does not exist, nearly all are
    /// missing.
    Context(context::Context),
    /// Check whether systemd waits long enough for a service to drain
    Check(check::Check),
    /// Print a diagnostic: the process, load, pressure, cgroup, kernel log, process tree
    ///
    /// A guarded service writes the same to its diagnostic log when it is signalled.
    Diag(diag::Diag),
    /// Show the audit rule that logs who sends signals, and whether it is loaded
    ///
    /// With the rule, `last` and the next start of a service say who sent it SIGKILL, which the
    /// service itself cannot know.
    Audit(audit::Audit),
    /// Show how the last run ended, why, and what to change
    Last(last::Last),
    /// List the runs of a folder, one per line, oldest first
    List(list::List),
    /// Show the timeline of a run: its signals, its phases as bars, its end
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
    /// Runs the command, which writes its output to `out`.
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        match self {
            Command::Timespan(command) => return command.run(out),
            Command::Audit(command) => return command.run(out),
            Command::Check(command) => return command.run(out),
            Command::Last(command) => return command.run(out),
            Command::Context(command) => command.run(out)?,
            Command::Diag(command) => command.run()?,
            Command::List(command) => command.run(out)?,
            Command::Show(command) => command.run(out)?,
            Command::Completions { shell } => {
                // clap_complete panics if it cannot write.
                let mut script = Vec::new();
                let mut cli = crate::Cli::command();
                clap_complete::generate(*shell, &mut cli, "forensics", &mut script);
                out.write_all(&script)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a time span of the command line, which must be finite.
fn finite(text: &str) -> Result<std::time::Duration, String> {
    let span = duration::parse(text).map_err(|e| e.to_string())?;
    span.to_std().ok_or_else(|| "`infinity` is not allowed here; use for example `60s`".to_owned())
}
