//! What a guard costs while no stop is requested: wake-ups, threads, memory.
//!
//! This program starts itself twice, with a guard and without. Both processes listen for SIGTERM.
//! This process reads their counters in `/proc` after they have started.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use forensics_tokio::ShutdownGuard;
use tokio::signal::unix::{SignalKind, signal};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The log thread ends a second after the last line.
const SETTLE: Duration = Duration::from_secs(3);
/// How long both processes are measured.
const WATCHED: Duration = Duration::from_secs(10);
/// The number of pairs. The allocator behaves differently in each process, so the bench uses
/// medians.
const PAIRS: usize = 5;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some(how @ ("bare" | "guarded")) => serve(how == "guarded"),
        _ => conduct(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until its input ends.
fn serve(guarded: bool) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    tracing::info!("starting");
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    runtime.spawn(async move { terminate.recv().await });
    let _guard = guarded.then(|| ShutdownGuard::builder("bench").install()).transpose()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// A process's counters.
#[derive(Debug, Clone, Copy)]
struct Counters {
    threads: u64,
    /// Voluntary context switches of all threads.
    woken: u64,
    /// Resident memory in KiB.
    resident: u64,
    /// The part of it that is not backed by a file, in KiB. The rest is the text of the program,
    /// which the kernel can drop.
    anonymous: u64,
}

fn counters(process: &Child) -> Result<Counters> {
    let home = format!("/proc/{}", process.id());
    let field = |path: &str, name: &str| -> Result<u64> {
        let status = fs::read_to_string(path)?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
        Ok(line.split_whitespace().next().ok_or("an empty field")?.parse()?)
    };
    let status = format!("{home}/status");
    let mut counters = Counters {
        threads: 0,
        woken: 0,
        resident: field(&status, "VmRSS:")?,
        anonymous: field(&status, "RssAnon:")?,
    };
    for task in fs::read_dir(format!("{home}/task"))? {
        let status = task?.path().join("status");
        counters.threads += 1;
        counters.woken += field(&status.to_string_lossy(), "voluntary_ctxt_switches:")?;
    }
    Ok(counters)
}

fn conduct() -> Result<()> {
    let (mut threads, mut woken) = (Vec::new(), Vec::new());
    let (mut resident, mut anonymous) = (Vec::new(), Vec::new());
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        for how in ["bare", "guarded"] {
            let process = Command::new(std::env::current_exe()?)
                .arg(how)
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            pairs.push(process);
        }
    }
    sleep(SETTLE);
    let before = pairs.iter().map(counters).collect::<Result<Vec<_>>>()?;
    sleep(WATCHED);
    let after = pairs.iter().map(counters).collect::<Result<Vec<_>>>()?;
    for mut process in pairs {
        drop(process.stdin.take());
        process.wait()?;
    }
    for (before, after) in before.chunks(2).zip(after.chunks(2)) {
        let wakes = |n: usize| after[n].woken - before[n].woken;
        woken.push(wakes(1).saturating_sub(wakes(0)));
        threads.push(after[1].threads.saturating_sub(after[0].threads));
        resident.push(after[1].resident.saturating_sub(after[0].resident));
        anonymous.push(after[1].anonymous.saturating_sub(after[0].anonymous));
    }
    measure::title("An idle guard (`cargo bench -p forensics-tokio --bench idle`)");
    let seconds = format!("in {} s, all threads", WATCHED.as_secs());
    let without = "the service without it";
    measure::row("wake-ups more", &seconds, without, measure::median(&woken), 0.0, "");
    measure::row("threads more", "", without, measure::median(&threads), 1.0, "");
    measure::report("resident memory more", "", without, measure::median(&resident), " KiB");
    let anonymous = format!("{} KiB", measure::median(&anonymous));
    measure::note("of that anonymous memory", &anonymous, without);
    Ok(())
}
