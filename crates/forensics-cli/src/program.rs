//! Runs a program of the system, with limits on the time that it takes and on what it prints.

use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use forensics_core::program;
use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;

/// How long it may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How much it may print, in bytes. A thousand messages of the journal have about one megabyte.
const MAX_OUTPUT: u64 = 8 << 20;

/// The output of the program `name`. If it does not answer within [`ANSWER_LIMIT`], it is killed.
///
/// # Errors
/// If it cannot be run, does not answer in time, fails, or prints too much.
pub(crate) fn output(name: &str, arguments: &[String]) -> io::Result<String> {
    let cannot_run = |e| io::Error::other(format!("cannot run {name}: {e}"));
    let mut command = Command::new(program::find(name).map_err(cannot_run)?);
    command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(cannot_run)?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(answer_of(child)));
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

/// Waits until the child has ended, and returns what it has printed.
fn answer_of(mut child: Child) -> io::Result<Output> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stderr = thread::spawn(move || read_all(stderr));
    // This closes the pipe. A program that has more to print then ends.
    let stdout = read_all(stdout);
    let stderr = stderr.join().unwrap_or_else(|_| Ok(Vec::new()));
    let status = child.wait()?;
    Ok(Output { status, stdout: stdout?, stderr: stderr? })
}

fn read_all(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(stream) = stream {
        stream.take(MAX_OUTPUT + 1).read_to_end(&mut content)?;
    }
    if content.len() as u64 > MAX_OUTPUT {
        return Err(io::Error::other(format!("it printed more than {} MiB", MAX_OUTPUT >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_prints_without_end_is_an_error_at_once() {
        let error = output("yes", &[]).unwrap_err().to_string();
        assert_eq!(error, "cannot run yes: it printed more than 8 MiB");
    }
}
