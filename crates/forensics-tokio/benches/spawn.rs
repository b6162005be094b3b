//! Starting the diagnostic from a process with much memory resident: it must not copy page tables.
//!
//! It measures `spawn()` alone, of a command like the diagnostic's, and a whole stop through the
//! guard, with a diagnostic that does nothing.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::process::Stdio;

use forensics_tokio::ShutdownGuard;
use forensics_tokio::diagnostic::DiagCommand;
use measure::{median, nanos};
use tokio::process::Command;
use tokio::runtime::Runtime;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 30;

fn main() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut spawns = Vec::new();
    let mut stops = Vec::new();
    for gib in [0, 1, 4] {
        // Written to, so that every page is resident.
        let resident = vec![1_u8; gib << 30];
        let [spawn, stop] = measure::in_turns(
            TRIALS,
            [&mut || runtime.block_on(spawn()).unwrap_or(u64::MAX), &mut || {
                runtime.block_on(stop()).unwrap_or(u64::MAX)
            }],
        );
        std::hint::black_box(&resident);
        spawns.push(median(&spawn));
        stops.push(median(&stop));
    }
    measure::title("The diagnostic's start (`cargo bench -p forensics-tokio --bench spawn`)");
    for (what, times) in [("`spawn()`", &spawns), ("a stop with a diagnostic", &stops)] {
        measure::note(&format!("{what}, 1 GiB resident"), &measure::time(times[1]), "");
    }
    measure::ratio("`spawn()`, 4 GiB resident", spawns[2], "with none", spawns[0], 2.0);
    measure::row("`spawn()`, 4 GiB resident", "", "", spawns[2] / 1e6, 1.0, " ms");
    let what = "a stop with a diagnostic, 4 GiB resident";
    measure::report_ratio(what, stops[2], "with none", stops[0]);
    Ok(())
}

/// A command like the diagnostic's. It has no hook before exec, which would make std use fork.
async fn spawn() -> Result<u64> {
    let begin = std::time::Instant::now();
    let mut child = Command::new("/bin/true")
        .env("FORENSICS_PID", "1")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let took = nanos(begin.elapsed());
    child.wait().await?;
    Ok(took)
}

async fn stop() -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let guard = ShutdownGuard::builder("bench")
        .diag_log(dir.path().join("diag.log"))
        .diag_command(DiagCommand::Program("/bin/true".into(), Vec::new()))
        .install()?;
    let begin = std::time::Instant::now();
    guard.handle().request_shutdown("bench");
    let _ = guard.run(async {}).await;
    Ok(nanos(begin.elapsed()))
}
