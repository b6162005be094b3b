//! `forensics diag`

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use clap::Args;
use forensics_core::diagnostic::Diagnostic;
use forensics_core::secret;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0.

Example:
  forensics diag --pid \"$(systemctl show -P MainPID gateway)\"")]
pub(crate) struct Diag {
    /// The process whose cgroup and descendants are shown [default: the caller of this command]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Show command lines unchanged, including what looks like a secret
    #[arg(long)]
    show_secrets: bool,
}

impl Diag {
    pub(crate) fn run(&self) -> io::Result<()> {
        secret::show(self.show_secrets);
        let caller = || i32::try_from(std::os::unix::process::parent_id()).unwrap_or(1);
        // `Stdout` would write each line separately.
        let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let start = |work| thread::Builder::new().spawn(work).map(drop);
        Diagnostic::of(self.pid.unwrap_or_else(caller)).write_to(&mut out, start)
    }
}
