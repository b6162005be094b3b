//! Runs a program of systemd, with a time limit.

use std::io;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use forensics_core::program;
use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;

/// How long it may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The output of the program `name`. If it does not answer within [`ANSWER_LIMIT`], it is killed.
pub(crate) fn output(name: &str, arguments: &[String]) -> io::Result<String> {
    let cannot_run = |e| io::Error::other(format!("cannot run {name}: {e}"));
    let mut command = Command::new(program::find(name).map_err(cannot_run)?);
    command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(cannot_run)?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    // A process that it started may hold its output open, even if it has exited.
    let Ok(output) = answer.recv_timeout(ANSWER_LIMIT) else {
        let _ = kill(pid, SIGKILL); // fails only if it has just exited
        let _ = answer.recv_timeout(Duration::from_secs(1)); // so that the thread has waited for it
        return Err(io::Error::other(format!("{name} did not answer within {ANSWER_LIMIT:?}")));
    };
    let Output { status, stdout, stderr } = output.map_err(cannot_run)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let text = [stdout, stderr].concat();
    Err(io::Error::other(format!("{name}: {}", String::from_utf8_lossy(&text).trim())))
}
