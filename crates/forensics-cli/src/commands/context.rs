//! `forensics context`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::{json, secret};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0.

Examples:
  forensics context --pid \"$(systemctl show -P MainPID gateway)\"
  forensics context --json --marker takeover=/run/gateway/takeover.json")]
pub(crate) struct Context {
    /// Print JSON, on one line
    #[arg(long)]
    json: bool,
    /// The process [default: this command itself]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Show command lines unchanged, including what looks like a secret
    #[arg(long)]
    show_secrets: bool,
    /// A marker file to look for; can be given several times
    #[arg(long = "marker", value_name = "NAME=PATH", value_parser = marker)]
    markers: Vec<(String, PathBuf)>,
}

impl Context {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        secret::show(self.show_secrets);
        let mut startup = self.pid.map_or_else(StartupInfo::collect, StartupInfo::collect_pid);
        if startup.process.name.is_none() {
            eprintln!("forensics: process {} does not exist, or is hidden", startup.process.pid);
        }
        startup.markers.clone_from(&self.markers);
        let context = ShutdownContext::snapshot(&startup);
        let text = if self.json { json::to_string(&context)? } else { context.to_string() };
        writeln!(out, "{text}")
    }
}

fn marker(text: &str) -> Result<(String, PathBuf), String> {
    let parts = text.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty());
    let (name, path) =
        parts.ok_or("write NAME=PATH, such as takeover=/run/gateway/takeover.json")?;
    Ok((name.to_owned(), path.into()))
}
