//! A daemon that starts as root and becomes another user after the guard is installed, as one that
//! must bind a low port does.
//!
//! `drops_privileges FOLDER`: the folder of its record and its diagnostic log.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// A user without an account.
const USER: u32 = 4711;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child();
    logging::init();
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("no folder")?);
    let guard = ShutdownGuard::builder("daemon")
        .diag_log(folder.join("diag.log"))
        .record_dir(folder)
        .install()?;
    setgroups(&[])?;
    setgid(Gid::from_raw(USER))?;
    setuid(Uid::from_raw(USER))?;
    println!("dropped");
    let stop = guard.token();
    Ok(guard.run(async move { stop.cancelled().await }).await)
}
