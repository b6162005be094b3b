//! `kill_and_exit PID`: sends SIGTERM and exits as fast as possible.

#![forbid(unsafe_code)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pid = std::env::args().nth(1).ok_or("usage: kill_and_exit PID")?;
    kill(Pid::from_raw(pid.parse()?), Signal::SIGTERM)?;
    Ok(())
}
