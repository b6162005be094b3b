//! The cost of the context and its line, for a real signal from a real process.
//!
//! It is compared with the time that the kernel takes: each file that the context needs is opened,
//! read into one buffer on the stack and closed, without parsing it.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::process::{Child, Command, ExitCode, Stdio};

use forensics_core::capture::Signal;
use forensics_core::capture::{self, SignalInfo};
use forensics_core::context::{ShutdownContext, StartupInfo, Trigger};
use measure::{clock, in_turns, median};
use nix::sys::signal::{Signal as Nix, kill};
use nix::unistd::getppid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 4000;
/// How many new processes are measured.
const FRESH: usize = 60;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send"] => send(),
        ["fresh"] => fresh(),
        // Among others cargo's `--bench`.
        _ => conduct(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("context bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Signals its parent and stays until its input ends.
fn send() -> Result<()> {
    kill(getppid(), Nix::SIGTERM)?;
    stdin().lines().for_each(drop);
    Ok(())
}

/// A signal from a child that still runs. The child ends with its input.
fn signalled() -> Result<(SignalInfo, Child)> {
    let armed = capture::install(&[Signal::TERM])?;
    let sender =
        Command::new(std::env::current_exe()?).arg("send").stdin(Stdio::piped()).spawn()?;
    let mut signal = Vec::new();
    while signal.is_empty() {
        capture::wait(None);
        signal = capture::drain();
    }
    drop(armed);
    Ok((signal.remove(0), sender))
}

fn context(startup: &StartupInfo, signal: &SignalInfo) -> ShutdownContext {
    ShutdownContext::capture(startup, Trigger::Signal { signal: Signal::TERM }, Some(signal))
}

/// The context as far as the line shows it, and the line.
fn context_and_line(startup: &StartupInfo, signal: &SignalInfo, line: &mut String) {
    line.clear();
    let trigger = Trigger::Signal { signal: Signal::TERM };
    let mut context = ShutdownContext::start(startup, trigger, Some(signal));
    for probe in startup.line_probes() {
        let finding = probe.run(&context, startup);
        context.apply(finding);
    }
    // Writing to a String does not fail.
    let _ = write!(line, "{context}");
}

/// In a new process: the first time, and the median of the following ones.
fn fresh() -> Result<()> {
    let startup = StartupInfo::collect();
    let (signal, mut sender) = signalled()?;
    let first = clock(|| context_and_line(&startup, &signal, &mut String::new()));
    let mut line = String::new();
    let [warm] = in_turns(100, [&mut || clock(|| context_and_line(&startup, &signal, &mut line))]);
    drop(sender.stdin.take());
    sender.wait()?;
    println!("{first} {}", median(&warm) as u64);
    Ok(())
}

/// The files that are read for the line, each once. The sender's cause depends on its ancestors, so
/// they are read too, and its command line, because it is alive.
fn files(context: &ShutdownContext) -> Result<Vec<String>> {
    let sender = context.sender.as_ref().ok_or("no sender")?;
    let of = |pid: i32, file: &str| format!("/proc/{pid}/{file}");
    let pid = sender.process.pid;
    let mut files = vec!["/proc/loadavg".to_owned(), "/etc/passwd".to_owned()];
    files.extend(["stat", "status", "cmdline"].map(|file| of(pid, file)));
    files.push(of(context.process.pid, "status"));
    files.extend(sender.ancestors.iter().map(|ancestor| of(ancestor.pid, "stat")));
    files.extend(context.parent.iter().map(|parent| of(parent.pid, "stat")));
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn read(files: &[String]) -> std::io::Result<()> {
    let mut buffer = [0; 8192];
    for file in files {
        let read = File::open(file)?.read(&mut buffer)?;
        std::hint::black_box(&buffer[..read]);
    }
    Ok(())
}

fn conduct() -> Result<()> {
    let startup = StartupInfo::collect();
    let (signal, mut sender) = signalled()?;
    let files = files(&context(&startup, &signal))?;
    read(&files)?;
    let mut line = String::new();
    let seen = context(&startup, &signal);
    let [whole, floor, shown, all] = in_turns(
        TRIALS,
        [
            &mut || clock(|| context_and_line(&startup, &signal, &mut line)),
            &mut || clock(|| read(&files)),
            &mut || clock(|| seen.to_string()),
            &mut || clock(|| context(&startup, &signal)),
        ],
    );
    drop(sender.stdin.take());
    sender.wait()?;

    measure::title("Context and line (`cargo bench -p forensics-core --bench context`)");
    let what = format!("{} files, opened, read, closed", files.len());
    let (whole, floor) = (median(&whole), median(&floor));
    measure::ratio("context and line, warm", whole, &what, floor, 2.0);
    measure::note("of that the line alone", &measure::time(median(&shown)), "");
    measure::note("with what the record alone shows", &measure::time(median(&all)), "");

    let (mut first, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..FRESH {
        let mut process =
            Command::new(std::env::current_exe()?).arg("fresh").stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no pipe")?;
        let line = BufReader::new(output).lines().next().ok_or("no times")??;
        let (one, other) = line.split_once(' ').ok_or("not two times")?;
        first.push(one.parse()?);
        warm.push(other.parse()?);
        process.wait()?;
    }
    let (first, warm) = (median(&first), median(&warm));
    measure::report_ratio("the first of a process", first, "the warm ones after it", warm);
    Ok(())
}
