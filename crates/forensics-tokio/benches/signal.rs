//! How much later a signal gets to a service through the guard than through `tokio::signal` alone.
//!
//! Each trial is a process that is stopped once, as services are: first SIGUSR1 comes to bare
//! listeners of its runtime, then SIGTERM to its guard. Both are sent by this process, which stays,
//! and read off one clock. The bare listeners have been woken once before, which is in their favour.
//!
//! Lines go to a file, and what is measured to a pipe once all is over: a reader of the lines would
//! be woken by each, and want a processor while it counts.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Lines, Write, stdout};
use std::process::{ChildStderr, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use forensics_tokio::ShutdownGuard;
use measure::quantile;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 300;

/// When the first line that names the context had been written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => {
            tokio::runtime::Runtime::new().map_err(Into::into).and_then(|r| r.block_on(serve()))
        }
        _ => conduct(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signal bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn now_ns() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Notes when the context line has been written.
struct Stamped;

impl Write for Stamped {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stdout().lock().write_all(line)?;
        if line.windows(17).any(|part| part == b"Shutdown context:") {
            WRITTEN.store(now_ns(), Ordering::SeqCst);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stdout().flush()
    }
}

async fn serve() -> Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Stamped).init();
    let guard = ShutdownGuard::builder("bench").install()?;
    // Tasks of the runtime, as a server's are.
    for _ in 0..2 {
        let token = CancellationToken::new();
        let mut listener = signal(SignalKind::user_defined1())?;
        let cancelled = token.clone();
        let heard = tokio::spawn(async move {
            cancelled.cancelled().await;
            now_ns()
        });
        let line = tokio::spawn(async move {
            listener.recv().await;
            token.cancel();
            println!("a line of its own");
            now_ns()
        });
        eprintln!("ready");
        eprintln!("{} {}", heard.await?, line.await?);
    }
    let token = guard.token();
    let heard = tokio::spawn(async move {
        token.cancelled().await;
        now_ns()
    });
    eprintln!("ready");
    let _ = guard.run(guard.token().cancelled_owned()).await;
    eprintln!("{} {}", heard.await?, WRITTEN.load(Ordering::SeqCst));
    Ok(())
}

/// The next line that `take` makes something of.
fn next<T>(
    lines: &mut Lines<BufReader<ChildStderr>>,
    take: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    for line in lines {
        if let Some(taken) = take(&line?) {
            return Ok(taken);
        }
    }
    Err("the service has ended".into())
}

/// Whether the guard's thread waits for a signal: nobody stops a service while that still starts.
fn keeper_sleeps(pid: Pid) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread can be gone by now.
        let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        if stat.contains("(shutdown-keeper) S") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// When the token was cancelled and the line written, after the signal; in nanoseconds.
fn stop(pid: Pid, signal: Signal, lines: &mut Lines<BufReader<ChildStderr>>) -> Result<(u64, u64)> {
    next(lines, |line| (line == "ready").then_some(()))?;
    while !keeper_sleeps(pid)? {
        std::thread::yield_now();
    }
    let sent = now_ns();
    kill(pid, signal)?;
    let (token, line) = next(lines, |line| {
        let (token, line) = line.split_once(' ')?;
        Some((token.parse::<u64>().ok()?, line.parse::<u64>().ok()?))
    })?;
    Ok((token.saturating_sub(sent), line.saturating_sub(sent)))
}

fn conduct() -> Result<()> {
    let (mut bare_token, mut bare_line) = (Vec::new(), Vec::new());
    let (mut token, mut line) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let mut service = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdout(tempfile::tempfile()?)
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = Pid::from_raw(service.id().try_into()?);
        let mut lines = BufReader::new(service.stderr.take().ok_or("no pipe")?).lines();
        stop(pid, Signal::SIGUSR1, &mut lines)?;
        let bare = stop(pid, Signal::SIGUSR1, &mut lines)?;
        let guarded = stop(pid, Signal::SIGTERM, &mut lines)?;
        service.wait()?;
        bare_token.push(bare.0);
        bare_line.push(bare.1);
        token.push(guarded.0);
        line.push(guarded.1);
    }
    measure::title("From the signal on (`cargo bench -p forensics-tokio --bench signal`)");
    for (what, ours, bare, percent, at_most) in [
        ("signal to cancelled token, p50", &token, &bare_token, 50, 150.0),
        ("signal to cancelled token, p99", &token, &bare_token, 99, 500.0),
        ("signal to context line written, p50", &line, &bare_line, 50, 250.0),
    ] {
        let (ours, bare) = (quantile(ours, percent), quantile(bare, percent));
        let against = format!("bare tokio::signal: {}", measure::time(bare));
        measure::row(
            what,
            &measure::time(ours),
            &against,
            (ours - bare) / 1e3,
            at_most,
            " µs more",
        );
    }
    Ok(())
}
