//! The cost of the signal handler, and how soon it runs: real signals between real processes.
//!
//! This process runs the trials, and is the sender that stays alive. It starts two more instances
//! of itself as receivers with the handler installed, one with the usual time slice and one with a
//! short one. Compared values are measured in alternating trials. Compare only figures of the same
//! run.
//!
//! The floor is the cost of the handler's reads without the handler: the same files of the
//! same process, read by a thread that the same kill(2) has just woken from sigwait(3). In both
//! cases the sender stays awake until it has the answer, because reading `stat` of a running
//! process takes 50 % longer than of a sleeping one.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use forensics_core::capture;
use forensics_core::capture::Signal;
use measure::{median, quantile, time};
use nix::fcntl::{OFlag, open, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as Nix, kill};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getppid, read};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 2500;
/// One in this many trials also has a sender that exits. These are few, because each starts a
/// process.
const EXITING: usize = 5;

/// What the handler reads about a sender, in its order: `loginuid` only if there is a login session,
/// and the target of the link `exe`.
const FILES: [&str; 4] = ["stat", "sessionid", "loginuid", "exe"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive"] => receive(),
        ["receive", "short-slice"] => receive_with_short_slice(),
        ["send-and-exit", target] => send_and_exit(target),
        // For example cargo's `--bench`.
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

fn receive_with_short_slice() -> Result<()> {
    if let Err(error) = capture::request_short_slice_for_main_thread() {
        eprintln!("no short time slice here: {error}");
    }
    receive()
}

/// The receiver: prints that it waits for a signal, and answers a signal with a line of numbers.
fn receive() -> Result<()> {
    let _guard = capture::install(&[Signal::TERM])?;
    let awaited = SigSet::from(Nix::SIGUSR1);
    awaited.thread_block()?;
    let sender = getppid();
    let paths = FILES.map(|file| format!("/proc/{sender}/{file}"));
    let all = paths.iter().filter(|path| has_session() || !path.ends_with("/loginuid"));
    let all: Vec<String> = all.cloned().collect();
    for question in stdin().lines() {
        let question = question?;
        println!("0");
        if question == "capture" {
            capture::wait(None);
            let captured = capture::drain().pop().ok_or("woken without a signal")?;
            let pid = captured.pid.ok_or("a signal without a sender")?;
            let named = u8::from(captured.snapshot.stat.is_some());
            println!("{} {} {pid} {named}", captured.mono_ns, captured.took_ns);
            continue;
        }
        let paths = match FILES.iter().position(|&file| file == question) {
            Some(only) => &paths[only..=only],
            None => &all,
        };
        awaited.wait()?;
        println!("{} {}", time_of(paths)?, time_of(paths)?);
    }
    Ok(())
}

/// Whether this process, and therefore the sender, belongs to a login session.
fn has_session() -> bool {
    std::fs::read_to_string("/proc/self/sessionid").is_ok_and(|id| id != u32::MAX.to_string())
}

/// How long it takes to open, read and close these files, or to read the link, in nanoseconds.
fn time_of(paths: &[String]) -> Result<u64> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let begin = now_ns()?;
    for path in paths {
        if path.ends_with("/exe") {
            std::hint::black_box(readlink(path.as_str())?);
            continue;
        }
        let file = open(path.as_str(), flags, Mode::empty())?;
        let mut content = [0; 512];
        read(&file, &mut content)?;
        std::hint::black_box(content);
    }
    Ok(now_ns()? - begin)
}

/// A receiver, as the sender sees it.
struct Receiver {
    process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    answers_fd: OwnedFd,
}

impl Receiver {
    fn start(args: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take().ok_or("no pipe")?;
        let answers = process.stdout.take().ok_or("no pipe")?;
        let answers_fd = answers.as_fd().try_clone_to_owned()?;
        let answers = BufReader::new(answers).lines();
        Ok(Self { process, questions, answers, answers_fd })
    }

    fn answer(&mut self) -> Result<Vec<u64>> {
        let line = self.answers.next().ok_or("a receiver has ended")??;
        Ok(line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    /// Polls until there is an answer, without sleeping.
    fn await_answer(&mut self) -> Result<()> {
        let mut fds = [PollFd::new(self.answers_fd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::ZERO)? == 0 {}
        Ok(())
    }

    /// Sends a question, and lets `send` signal this receiver as soon as it waits for a signal.
    fn ask<T>(
        &mut self,
        question: &str,
        send: impl FnOnce(Pid) -> Result<T>,
    ) -> Result<(T, Vec<u64>)> {
        self.questions.write_all(format!("{question}\n").as_bytes())?;
        self.answer()?;
        let sent = send(Pid::from_raw(self.process.id().try_into()?))?;
        self.await_answer()?;
        Ok((sent, self.answer()?))
    }

    /// How long these reads take, in nanoseconds: the first time, and right after that.
    fn reads(&mut self, files: &str) -> Result<(u64, u64)> {
        match self.ask(files, |target| Ok(kill(target, Nix::SIGUSR1)?))?.1[..] {
            [first, again] => Ok((first, again)),
            ref other => Err(format!("{other:?} are not two times").into()),
        }
    }

    /// Lets it capture a signal. `send` returns the pid of the sender and when it sent the signal.
    fn capture(&mut self, send: impl FnOnce(Pid) -> Result<(u32, u64)>) -> Result<Captured> {
        let ((sender, sent_ns), answer) = self.ask("capture", send)?;
        match answer[..] {
            [begin_ns, took_ns, pid, named] if pid == u64::from(sender) => Ok(Captured {
                latency: begin_ns.saturating_sub(sent_ns),
                took: took_ns,
                named: named == 1,
            }),
            ref other => Err(format!("{sender} sent a signal, the capture says {other:?}").into()),
        }
    }
}

/// One captured signal; times in nanoseconds.
struct Captured {
    latency: u64,
    took: u64,
    named: bool,
}

/// What is measured with one receiver, in nanoseconds.
#[derive(Default)]
struct Samples {
    handler: Vec<u64>,
    latency: Vec<u64>,
    floor: Vec<u64>,
    again: Vec<u64>,
    files: [Vec<u64>; FILES.len()],
    /// The handler with a sender that exits.
    exiting: Vec<u64>,
    /// How many of these still had a `stat` to read.
    named: usize,
}

impl Samples {
    fn add(&mut self, receiver: &mut Receiver, trial: usize) -> Result<()> {
        let captured = receiver.capture(|target| {
            let sent_ns = now_ns()?;
            kill(target, Nix::SIGTERM)?;
            Ok((std::process::id(), sent_ns))
        })?;
        self.handler.push(captured.took);
        self.latency.push(captured.latency);
        let (floor, again) = receiver.reads("all")?;
        self.floor.push(floor);
        self.again.push(again);
        for (file, samples) in FILES.iter().zip(&mut self.files) {
            samples.push(receiver.reads(file)?.0);
        }
        if trial.is_multiple_of(EXITING) {
            let captured = receiver.capture(|target| {
                let mut sender = Command::new(std::env::current_exe()?)
                    .args(["send-and-exit", &target.to_string()])
                    .spawn()?;
                // Waits for it, as a shell does. After this the sender is not even a zombie.
                sender.wait()?;
                Ok((sender.id(), 0))
            })?;
            self.exiting.push(captured.took);
            self.named += usize::from(captured.named);
        }
        Ok(())
    }
}

fn conduct() -> Result<()> {
    let mut receivers =
        [Receiver::start(&["receive"])?, Receiver::start(&["receive", "short-slice"])?];
    let mut samples = [Samples::default(), Samples::default()];
    for trial in 0..TRIALS {
        for (receiver, samples) in receivers.iter_mut().zip(&mut samples) {
            samples.add(receiver, trial)?;
        }
    }
    for (name, samples) in ["the usual time slice", "a short time slice"].iter().zip(&samples) {
        print(name, samples);
    }
    for Receiver { mut process, questions, .. } in receivers {
        // It ends at the end of its input.
        drop(questions);
        process.wait()?;
    }
    Ok(())
}

fn print(name: &str, samples: &Samples) {
    let (handler, floor) = (median(&samples.handler), median(&samples.floor));
    measure::title(&format!("Handler, {name} (`cargo bench -p forensics-core --bench capture`)"));
    measure::ratio("the handler", handler, "its reads alone", floor, 1.2);
    measure::row("the handler's time", &time(handler), "", handler / 1e3, 40.0, " µs");
    let unnamed = samples.exiting.len() - samples.named;
    let unnamed = unnamed as f64 * 100.0 / samples.exiting.len() as f64;
    let exiting = format!("of {} senders that exit", samples.exiting.len());
    measure::report("senders unnamed", &exiting, "", unnamed, " %");
    let note = |what: &str, samples: &[u64]| {
        let p95 = format!("95 %: {}", time(quantile(samples, 95)));
        measure::note(what, &time(median(samples)), &p95);
    };
    note("the handler", &samples.handler);
    note("its reads alone", &samples.floor);
    note("the same reads again at once", &samples.again);
    for (file, samples) in FILES.iter().zip(&samples.files) {
        note(&format!("`{file}` alone"), samples);
    }
    note("the handler, of a sender that exits", &samples.exiting);
    note("kill() to handler", &samples.latency);
}
