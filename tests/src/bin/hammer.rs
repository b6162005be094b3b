//! Clients that ask the gateway while a command runs, and say what became of their requests.
//!
//! `hammer ADDRESS CLIENTS COMMAND [ARG...]`, with so many clients of each habit. It ends as the
//! command does, and prints one line, and one more for each request that was lost.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{Command, ExitCode};

use forensics_tests::crowd::Crowd;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: hammer ADDRESS CLIENTS COMMAND [ARG...]");
    let (address, clients, command) = (next()?, next()?.parse()?, next()?);
    let crowd = Crowd::start(&address, clients);
    crowd.wait_for_answers(1);
    let status = Command::new(command).args(arguments).status()?;
    // Whoever served to the end of the command goes on serving.
    crowd.wait_for_answers(1);
    let account = crowd.leave();
    println!("{account}");
    account.lost.iter().for_each(|lost| println!("lost: {lost}"));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
