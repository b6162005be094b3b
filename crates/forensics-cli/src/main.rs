//! `forensics`: the command line of shutdown-forensics.

#![forbid(unsafe_code)]

mod commands;
mod format;
mod html;
mod layout;
mod output;
mod program;
mod report;
mod stats;
mod text;
mod timeline;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use forensics_core::escape::{Escaped, error_chain};

use crate::commands::Command;

/// Why did the service stop, and what did it do with its last seconds?
#[derive(Debug, Parser)]
#[command(name = "forensics", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  forensics last /var/lib/gateway/shutdown     how did the last run end?
  forensics check gateway.service --drain 60s  does systemd wait long enough for the drain?
  forensics timespan --human '1h 90min'        how does systemd read this?";

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    match cli.command.run(&mut io::stdout().lock()) {
        Ok(code) => code,
        // The reader has exited, as in `forensics list DIR | head -1`.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("forensics: {}", Escaped(&error_chain(&e)));
            ExitCode::from(2)
        }
    }
}

/// Shows why the arguments are wrong, and exits. An argument can be the name of a file of another user, as in
/// `forensics show *`, so it is shown escaped.
fn refuse(error: &clap::Error) -> ! {
    let escaped = |argument: OsString| Escaped(&argument.to_string_lossy()).to_string();
    match Cli::try_parse_from(std::env::args_os().map(escaped)) {
        Err(shown) => shown.exit(),
        Ok(_) => error.exit(),
    }
}

#[cfg(test)]
mod tests {
    mod man;
}
