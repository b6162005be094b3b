//! A program that a test kills during its teardown. Its phases take some milliseconds. Each prints
//! a line when it starts and when it ends, each with one write. The test compares this output with
//! the record.
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

/// One write(2), because the line is complete. An error means that the test has ended.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
