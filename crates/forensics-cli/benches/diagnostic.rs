//! The built-in diagnostic on a machine with many processes, compared with ps(1).
//!
//! Each runs as a separate program, as at a stop. Its parent is a small process with no other
//! child, so the peak memory that the kernel reports for children is that of this program.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};

use measure::{clock, median};
use nix::sys::resource::{UsageWho, getrusage};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PS: &str = "`ps auxf --sort=-pcpu`";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((first, command)) if first == "measure" => once(command),
        _ => conduct(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("diagnostic bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command and prints how long it took in nanoseconds and its peak memory in KiB.
fn once(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let mut status = None;
    let took = clock(|| status = command.status().ok());
    if !status.is_some_and(|status| status.success()) {
        return Err(format!("{command:?} failed").into());
    }
    println!("{took} {}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}

/// Times and peak memory of one command.
#[derive(Default)]
struct Samples {
    took: Vec<u64>,
    peak: Vec<u64>,
}

impl Samples {
    fn add(&mut self, command: &[&str]) -> Result<()> {
        let output =
            Command::new(std::env::current_exe()?).arg("measure").args(command).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (took, peak) = text.trim().split_once(' ').ok_or("no figures")?;
        self.took.push(took.parse()?);
        self.peak.push(peak.parse()?);
        Ok(())
    }
}

/// Processes that sleep, ended when this is dropped.
struct Sleepers(Vec<Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            let _ = sleeper.kill();
        }
        for sleeper in &mut self.0 {
            let _ = sleeper.wait();
        }
    }
}

impl Sleepers {
    /// Starts processes until there are `all` of them on this machine.
    fn up_to(all: usize) -> Result<Self> {
        let there = fs::read_dir("/proc")?.flatten();
        let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let there = there.filter(|entry| entry.file_name().to_str().is_some_and(is_pid)).count();
        let mut sleepers = Self(Vec::new());
        for _ in there..all {
            sleepers.0.push(Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn()?);
        }
        Ok(sleepers)
    }
}

fn conduct() -> Result<()> {
    measure::title("The built-in diagnostic (`cargo bench -p forensics-cli --bench diagnostic`)");
    let mut points = Vec::new();
    let mut least = Samples::default();
    for (processes, trials) in [(100, 30), (1_000, 15), (5_000, 9)] {
        let sleepers = Sleepers::up_to(processes)?;
        let (mut ours, mut ps) = (Samples::default(), Samples::default());
        for _ in 0..trials {
            ours.add(&[env!("CARGO_BIN_EXE_forensics"), "diag"])?;
            ps.add(&["ps", "auxf", "--sort=-pcpu"])?;
            least.add(&["true"])?;
        }
        drop(sleepers);
        let what = format!("`forensics diag`, {processes} processes");
        let (ours_ns, ps_ns) = (median(&ours.took), median(&ps.took));
        let (ours_kib, ps_kib) = (median(&ours.peak), median(&ps.peak));
        let memory = format!("{what}: memory");
        let (ours_text, ps_text) = (format!("{ours_kib} KiB"), format!("`ps`: {ps_kib} KiB"));
        // With few processes both spend most of their time starting, and ours also reads the kernel
        // log.
        if processes < 1_000 {
            measure::report_ratio(&what, ours_ns, PS, ps_ns);
            measure::report(&memory, &ours_text, &ps_text, ours_kib / ps_kib, "×");
        } else {
            measure::ratio(&what, ours_ns, PS, ps_ns, 0.5);
            measure::row(&memory, &ours_text, &ps_text, ours_kib / ps_kib, 0.5, "×");
        }
        points.push((processes as f64, median(&ours.took)));
    }
    let least_kib = format!("{} KiB", median(&least.peak));
    measure::note("the floor: `true`", &measure::time(median(&least.took)), &least_kib);
    measure::report_growth("`forensics diag`", "process", &points);
    Ok(())
}
