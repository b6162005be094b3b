//! The processes that we start during a stop.
//!
//! Each is the leader of a new process group. When its [`Group`] is dropped, it is killed with all
//! processes that it started. So no process remains after a task is dropped, except one that left
//! the group by setsid(2). The input of a child is a pipe, because an empty root has no
//! `/dev/null`. The output that is read is bounded.
//!
//! A child is started by posix_spawn. It must not have a `pre_exec` hook, because std would then
//! use fork, which takes a quarter of a second in a process with 8 GiB resident.

use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};

use forensics_core::capture::is_secure_execution;
use forensics_core::program::{self, SYSTEM_PATH};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Systemd's programs print less than this.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// A child and all processes that it started. They are killed if this is dropped before the child was
/// waited for.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    /// Whether the child has ended without leaving an exit status.
    is_gone: bool,
}

impl Group {
    /// Starts `command` with this input, or an empty one.
    pub(crate) fn spawn(command: &mut Command, input: Option<File>) -> io::Result<Self> {
        // The write end is dropped here, so the child reads the end of the file.
        let empty = || io::pipe().map_or_else(|_| Stdio::null(), |(reader, _)| reader.into());
        let input = input.map_or_else(empty, Stdio::from);
        let child = command.stdin(input).process_group(0).spawn()?;
        Ok(Self { child, is_gone: false })
    }

    /// Waits for the end of the child itself. `None` if its exit status is not known, because this
    /// process ignores SIGCHLD: then the kernel keeps no exit status. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.child.wait().await {
            Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {
                self.is_gone = true;
                Ok(None)
            }
            ended => ended.map(Some),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its pid is the id of its group. `id` returns `None` after the child was waited for. Until
        // then the kernel does not reuse the pid, unless it keeps no exit status.
        let pid = self.child.id().filter(|_| !self.is_gone);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A command that starts the system's program `name`, such as `systemctl`.
///
/// # Errors
/// If there is no such program; see [`program::find`].
pub(crate) fn command(name: &str) -> io::Result<Command> {
    let mut command = Command::new(program::find(name)?);
    distrust_environment(&mut command);
    Ok(command)
}

/// Passes no variable of our environment on, if a caller with fewer rights may have set it.
pub(crate) fn distrust_environment(command: &mut Command) {
    if is_secure_execution() {
        command.env_clear().env("PATH", SYSTEM_PATH);
    }
}

/// What a child has printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// As [`Group::wait`] returns it.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs `command` and returns its output. Cancel safe: the process is killed, with all processes that it
/// started, if this is dropped.
///
/// # Errors
/// If it cannot be started or read, or if it prints more than 1 MiB.
pub(crate) async fn output(mut command: Command) -> io::Result<Output> {
    let mut group = Group::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()), None)?;
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read_all(stdout), read_all(stderr))?;
    Ok(Output { status: group.wait().await?, stdout, stderr })
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(stream) = stream {
        stream.take(MAX_OUTPUT + 1).read_to_end(&mut content).await?;
    }
    if content.len() as u64 > MAX_OUTPUT {
        return Err(io::Error::other("it printed more than 1 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_whole_output_is_read_and_the_input_is_empty() {
        let output = output(sh("cat; echo out; echo err >&2; exit 3")).await.unwrap();
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(output.status.and_then(|status| status.code()), Some(3));
    }

    #[tokio::test]
    async fn a_program_that_prints_without_end_is_ended() {
        for stream in ["", ">&2"] {
            let error = output(sh(&format!("exec cat /dev/zero {stream}"))).await.unwrap_err();
            assert_eq!(error.to_string(), "it printed more than 1 MiB");
        }
    }
}
