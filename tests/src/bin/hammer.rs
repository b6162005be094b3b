//! Clients that send requests to the gateway while a command runs, and report the results.
//!
//! `hammer ADDRESS CLIENTS COMMAND [ARG...]` starts CLIENTS clients of each kind. It exits with the
//! status of the command. It prints one line, and another one for each lost request.
//!
//! `hammer --stop …` is for a command that stops the gateway: the clients end when they are refused.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{Command, ExitCode};

use forensics_tests::crowd::Crowd;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let stops = arguments.next_if_eq("--stop").is_some();
    let mut next = || arguments.next().ok_or("usage: hammer ADDRESS CLIENTS COMMAND [ARG...]");
    let (address, clients, command) = (next()?, next()?.parse()?, next()?);
    let crowd = Crowd::start(&address, clients);
    crowd.wait_for_answers(1);
    let status = Command::new(command).args(arguments).status()?;
    let account = if stops {
        crowd.refused()
    } else {
        // The gateway still serves after the command, so the clients must be told to end.
        crowd.wait_for_answers(1);
        crowd.leave()
    };
    println!("{account}");
    account.lost.iter().for_each(|lost| println!("lost: {lost}"));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
