//! Runs a program, and prints the most memory that it used, in KiB. Its output is dropped.
//!
//! `peak_memory PROGRAM [ARGUMENT...]`
//!
//! The kernel counts the memory of all children together, so this is a process with only one.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut program = Command::new(arguments.next().ok_or("usage: peak_memory PROGRAM")?);
    program.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}
