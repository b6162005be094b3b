//! How much later a signal reaches a service through the guard than through `tokio::signal` alone,
//! on an idle host and on a busy one.
//!
//! Each trial starts a service and stops it by one signal. Trials with a guard at its default
//! settings alternate with trials with listeners of `tokio::signal`. This process sends the signals
//! and keeps running. All times are read from one clock. The listeners of the bare service were
//! woken once before the measurement, which favours them: the guard is never woken before a stop.
//!
//! The log goes to a file, and the measured times go to a pipe at the end. A reader of the log
//! would be woken by each line and compete for the processors during the measurement.
//!
//! On the busy host, four processes per processor compute without a pause.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Lines, Write, stdout};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use forensics_tokio::ShutdownGuard;
use measure::quantile;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getppid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 300;
const BUSY_LOOPS_PER_CPU: usize = 4;
/// How long a service must have been asleep before it is stopped.
const SETTLED: Duration = Duration::from_millis(2);

/// When the context line was written, in nanoseconds.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare"] => run(bare()),
        ["guarded"] => run(guarded()),
        ["spin"] => spin(),
        // For example cargo's `--bench`.
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

fn run(service: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(service)
}

fn now_ns() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Computes until the process that started it has ended.
fn spin() -> Result<()> {
    let parent = getppid();
    while getppid() == parent {
        for round in 0..1_000_000_u64 {
            std::hint::black_box(round);
        }
    }
    Ok(())
}

/// The service without a guard.
async fn bare() -> Result<()> {
    for _ in 0..2 {
        let token = CancellationToken::new();
        let mut listener = signal(SignalKind::terminate())?;
        let cancelled = token.clone();
        // Tasks of the runtime, as in a server.
        let cancelled_at = tokio::spawn(async move {
            cancelled.cancelled().await;
            now_ns()
        });
        let line = tokio::spawn(async move {
            listener.recv().await;
            token.cancel();
            println!("a line");
            now_ns()
        });
        eprintln!("ready");
        eprintln!("{} {}", cancelled_at.await?, line.await?);
    }
    Ok(())
}

/// A writer that stores when it has written the context line.
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

async fn guarded() -> Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Stamped).init();
    let guard = ShutdownGuard::builder("bench").install()?;
    let token = guard.token();
    let cancelled_at = tokio::spawn(async move {
        token.cancelled().await;
        now_ns()
    });
    eprintln!("ready");
    let service = guard.token().cancelled_owned();
    let _ = guard.run(service).await;
    eprintln!("{} {}", cancelled_at.await?, WRITTEN.load(Ordering::SeqCst));
    Ok(())
}

/// Processes that compute. They are ended when this is dropped.
struct BusyLoops(Vec<Child>);

impl BusyLoops {
    fn start(count: usize) -> Result<Self> {
        let mut loops = Self(Vec::new());
        for _ in 0..count {
            loops.0.push(Command::new(std::env::current_exe()?).arg("spin").spawn()?);
        }
        Ok(loops)
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A service that was started for one trial.
struct Service {
    process: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Service {
    fn start(how: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(how)
            .stdout(tempfile::tempfile()?)
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(process.stderr.take().ok_or("no pipe")?).lines();
        Ok(Self { process, lines })
    }

    /// When the token was cancelled and when the line was written, after a signal, in nanoseconds.
    fn stop(&mut self) -> Result<[u64; 2]> {
        self.next(|line| (line == "ready").then_some(()))?;
        self.settle()?;
        let sent = now_ns();
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        self.next(|line| {
            let (token, line) = line.split_once(' ')?;
            let after = |time: &str| Some(time.parse::<u64>().ok()?.saturating_sub(sent));
            Some([after(token)?, after(line)?])
        })
    }

    /// The result of `take` for the first line for which it returns one.
    fn next<T>(&mut self, take: impl Fn(&str) -> Option<T>) -> Result<T> {
        for line in &mut self.lines {
            if let Some(taken) = take(&line?) {
                return Ok(taken);
            }
        }
        Err("the service has ended".into())
    }

    /// Waits until all threads sleep, as in a service that has been running for a while.
    fn settle(&self) -> Result<()> {
        let mut before = None;
        loop {
            let now = self.switches()?;
            if now.is_some() && now == before {
                return Ok(());
            }
            before = now;
            sleep(SETTLED);
        }
    }

    /// How often the threads have gone to sleep in total. `None` if a thread is running.
    fn switches(&self) -> Result<Option<u64>> {
        let mut all = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // A thread may have ended meanwhile.
            let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            if field("State:").is_some_and(|state| !state.trim().starts_with('S')) {
                return Ok(None);
            }
            let switches = field("voluntary_ctxt_switches:").unwrap_or("0");
            all += switches.trim().parse::<u64>()?;
        }
        Ok(Some(all))
    }
}

/// The times of the bare and of the guarded service, each for the token and for the line.
fn measure() -> Result<[[Vec<u64>; 2]; 2]> {
    let mut samples = [const { [Vec::new(), Vec::new()] }; 2];
    for _ in 0..TRIALS {
        for (how, [token, line]) in ["bare", "guarded"].iter().zip(&mut samples) {
            let mut service = Service::start(how)?;
            if *how == "bare" {
                service.stop()?;
            }
            let times = service.stop()?;
            service.process.wait()?;
            token.push(times[0]);
            line.push(times[1]);
        }
    }
    Ok(samples)
}

/// Prints a table with targets for the 50th and the 99th percentile, in µs.
fn print(title: &str, [bare, guarded]: &[[Vec<u64>; 2]; 2], targets: [f64; 2]) {
    measure::title(&format!("{title} (`cargo bench -p forensics-tokio --bench signal`)"));
    for (what, bare, guarded) in [
        ("signal to context line written", &bare[1], &guarded[1]),
        ("signal to cancelled token", &bare[0], &guarded[0]),
    ] {
        for (percent, target) in [50, 99].into_iter().zip(targets) {
            let what = format!("{what}, p{percent}");
            let (bare, guarded) = (quantile(bare, percent), quantile(guarded, percent));
            let floor = format!("bare tokio::signal: {}", measure::time(bare));
            let more = (guarded - bare) / 1e3;
            measure::row(&what, &measure::time(guarded), &floor, more, target, " µs more");
        }
    }
}

fn conduct() -> Result<()> {
    print("From the signal on, idle host", &measure()?, [250.0, 1000.0]);
    let cpus = available_parallelism()?.get();
    let count = BUSY_LOOPS_PER_CPU * cpus;
    let busy = BusyLoops::start(count)?;
    let samples = measure()?;
    drop(busy);
    let title = format!("From the signal on, busy host: {count} busy loops on {cpus} CPUs");
    print(&title, &samples, [300.0, 1000.0]);
    Ok(())
}
