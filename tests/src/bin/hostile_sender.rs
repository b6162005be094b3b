//! Takes the given name, sends SIGTERM, and runs until its input ends.
//!
//! `hostile_sender PID NAME ANYTHING...`. The name can be any bytes except NUL. The kernel keeps 15
//! of them.

#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let pid = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let name = arguments.next().ok_or("usage: hostile_sender PID NAME ANYTHING...")?;
    prctl::set_name(&CString::new(name.into_vec())?)?;
    kill(Pid::from_raw(pid.ok_or("no pid")?), Signal::SIGTERM)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
