//! What the capture costs, and how soon it comes: real signals between real processes.
//!
//! This process conducts, and is the sender that lives. Two receivers, itself started again, arm
//! the capture: one as it comes, one with [`capture::hint_low_latency`]. All that is compared is
//! measured in turns, one of each a trial, so that the machine's mood is in every figure alike;
//! compare the figures of one run only.
//!
//! The floor is the reading that the handler does, without the handler: the same files of the same
//! process, by a thread that has just been woken, as the handler's has. In a loop the same system
//! calls take about half as long, which is the row `again`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use forensics_core::capture;
use forensics_core::signal::Signal;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::signal::{Signal as Nix, kill};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getppid, read};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 2500;
/// Of so many trials one has a sender that exits, too: each is a process to start.
const EXITING: usize = 5;

/// What the handler reads of a sender, in its order.
const FILES: [&str; 4] = ["stat", "loginuid", "sessionid", "exe"];
const LINK: &str = "exe";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive"] => receive(),
        ["receive", "hinted"] => hinted(),
        ["send-and-exit", target] => send_and_exit(target),
        // Among others cargo's `--bench`.
        _ => conduct(),
    };
    if let Err(error) = done {
        eprintln!("capture bench: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn send_and_exit(target: &str) -> Result<()> {
    kill(Pid::from_raw(target.parse()?), Nix::SIGTERM)?;
    capture::exit_now(0)
}

fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn hinted() -> Result<()> {
    if let Err(error) = capture::hint_low_latency() {
        eprintln!("no hint_low_latency here: {error}");
    }
    receive()
}

/// The receiver's end: answers each line with a line of numbers.
fn receive() -> Result<()> {
    let _armed = capture::arm(&[Signal::TERM])?;
    let sender = getppid();
    let paths = FILES.map(|file| format!("/proc/{sender}/{file}"));
    for line in stdin().lines() {
        match line?.as_str() {
            "signal" => {
                println!("0");
                capture::wait(None);
                let captured = capture::take().pop().ok_or("woken without a signal")?;
                let pid = captured.pid.ok_or("a signal without a sender")?;
                let named = u8::from(captured.sighting.stat.is_some());
                println!("{} {} {pid} {named}", captured.mono_ns, captured.took_ns);
            }
            "floor" => println!("{}", time(&paths)?),
            "again" => {
                time(&paths)?;
                println!("{}", time(&paths)?);
            }
            file => println!("{}", time(&[format!("/proc/{sender}/{file}")])?),
        }
    }
    Ok(())
}

/// How long it takes to open, read and close these, in nanoseconds.
fn time(paths: &[String]) -> Result<u64> {
    let begin = now_ns()?;
    for path in paths {
        if path.ends_with(LINK) {
            std::hint::black_box(readlink(path.as_str())?);
        } else {
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let file = open(path.as_str(), flags, Mode::empty())?;
            let mut content = [0; 512];
            read(&file, &mut content)?;
            std::hint::black_box(content);
        }
    }
    Ok(now_ns()? - begin)
}

/// The conductor's end of a receiver.
struct Receiver {
    process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Receiver {
    fn start(args: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?).lines();
        Ok(Self { process, questions, answers })
    }

    fn answer(&mut self) -> Result<Vec<u64>> {
        let line = self.answers.next().ok_or("a receiver has ended")??;
        Ok(line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    fn ask(&mut self, question: &str) -> Result<Vec<u64>> {
        self.questions.write_all(format!("{question}\n").as_bytes())?;
        self.answer()
    }

    /// Has `send` signal this receiver, and checks that the capture says what `send` does of the
    /// sender's pid.
    fn signal(&mut self, send: impl FnOnce(u32) -> Result<u32>) -> Result<Taken> {
        self.ask("signal")?;
        let sender = send(self.process.id())?;
        match self.answer()?[..] {
            [begin_ns, took_ns, pid, named] if pid == u64::from(sender) => {
                Ok(Taken { begin_ns, took_ns, named: named == 1 })
            }
            ref other => Err(format!("{sender} sent a signal, the capture says {other:?}").into()),
        }
    }
}

struct Taken {
    begin_ns: u64,
    took_ns: u64,
    named: bool,
}

/// What is measured of one receiver, in nanoseconds.
#[derive(Default)]
struct Samples {
    handler: Vec<u64>,
    latency: Vec<u64>,
    floor: Vec<u64>,
    again: Vec<u64>,
    files: [Vec<u64>; FILES.len()],
    /// Of the senders that exit: in how many trials `stat` could be read, and how often not.
    named: u32,
    unnamed: u32,
}

impl Samples {
    fn add(&mut self, receiver: &mut Receiver, trial: usize) -> Result<()> {
        let mut sent_ns = 0;
        let taken = receiver.signal(|target| {
            sent_ns = now_ns()?;
            kill(Pid::from_raw(target.try_into()?), Nix::SIGTERM)?;
            Ok(std::process::id())
        })?;
        self.handler.push(taken.took_ns);
        self.latency.push(taken.begin_ns.saturating_sub(sent_ns));
        self.floor.extend(receiver.ask("floor")?);
        self.again.extend(receiver.ask("again")?);
        for (file, samples) in FILES.iter().zip(&mut self.files) {
            samples.extend(receiver.ask(file)?);
        }
        if trial.is_multiple_of(EXITING) {
            let taken = receiver.signal(|target| {
                let mut sender = Command::new(std::env::current_exe()?)
                    .args(["send-and-exit", &target.to_string()])
                    .spawn()?;
                // As a shell does: from here on the sender is no zombie either.
                sender.wait()?;
                Ok(sender.id())
            })?;
            *(if taken.named { &mut self.named } else { &mut self.unnamed }) += 1;
        }
        Ok(())
    }
}

fn conduct() -> Result<()> {
    let mut receivers = [Receiver::start(&["receive"])?, Receiver::start(&["receive", "hinted"])?];
    let mut samples = [Samples::default(), Samples::default()];
    for trial in 0..TRIALS {
        for (receiver, samples) in receivers.iter_mut().zip(&mut samples) {
            samples.add(receiver, trial)?;
        }
    }
    for (name, samples) in ["as it comes", "with hint_low_latency()"].iter().zip(&samples) {
        print(name, samples);
    }
    for Receiver { mut process, questions, .. } in receivers {
        // The end of its input ends it.
        drop(questions);
        process.wait()?;
    }
    Ok(())
}

fn print(name: &str, samples: &Samples) {
    let floor = quantile(&samples.floor, 50);
    let row = |what: &str, samples: &[u64], bar: &str| {
        let median = quantile(samples, 50);
        println!(
            "{what:<24} {median:>9.1} {:>9.1} {:>7.2}  {bar}",
            quantile(samples, 95),
            median / floor
        );
    };
    let handler = quantile(&samples.handler, 50);
    let bar = format!(
        "at most 1.2 x the floor: {}; median at most 40 us: {}",
        verdict(handler <= 1.2 * floor),
        verdict(handler <= 40.0)
    );
    println!("{name}, {TRIALS} trials");
    println!("{:<24} {:>9} {:>9} {:>7}", "", "median us", "p95 us", "x floor");
    row("the handler", &samples.handler, &bar);
    row("its reads alone: floor", &samples.floor, "");
    row("  again at once", &samples.again, "");
    for (file, samples) in FILES.iter().zip(&samples.files) {
        row(&format!("  {file}"), samples, "");
    }
    row("kill() to handler", &samples.latency, "");
    println!(
        "{:<24} {:>8.1} %  of {}",
        "senders that exit, named",
        f64::from(samples.named) * 100.0 / f64::from(samples.named + samples.unnamed),
        samples.named + samples.unnamed
    );
    println!();
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT MET" }
}

/// In microseconds.
fn quantile(samples: &[u64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() * percent / 100] as f64 / 1000.0
}
