//! A teardown to be killed in: phases of some milliseconds, each of which says on stdout, by a
//! write of its own, when it begins and when it ends. What arrived there is the judge of what the
//! record says.
//!
//! `killed RECORDS`

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use forensics_tokio::{PhaseContext, ShutdownGuard, ShutdownReport};

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    let records = std::env::args_os().nth(1).ok_or("usage: killed RECORDS")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let guard = ShutdownGuard::builder("killed").signals([]).record_dir(&records).install()?;
        for name in ["notify", "drain", "adapters", "db_close"] {
            guard.phase(name, phase);
        }
        guard.handle().request_shutdown("to be killed");
        let report = guard.run(async {}).await;
        say("end");
        Ok(report)
    })
}

async fn phase(cx: PhaseContext) {
    say(&format!("+{}", cx.name()));
    tokio::time::sleep(Duration::from_millis(5)).await;
    say(&format!("-{}", cx.name()));
}

/// One write(2), as the line is complete; nobody is left to tell where it fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
