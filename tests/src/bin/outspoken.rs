//! A guarded program whose own texts are all hostile: its name, the names, errors, panics and
//! values of its phases, and its reason to stop.
//!
//! `outspoken LOG STOP RECORDS DIAG_LOG ANYTHING...`. LOG is `concise` for the guard's own
//! subscriber, or `plain` for tracing-subscriber's. STOP is
//!
//! - `request`: it requests the stop itself;
//! - `descriptors`: it prints `ready`, waits for a signal, and its diagnostic lists the open
//!   descriptors. It has a marker in the current folder;
//! - `block`: it waits for a signal, and a phase blocks its thread until the exit is forced.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tests::HOSTILE;
use forensics_tokio::diagnostic::DiagCommand;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use serde_json::json;

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child();
    let arguments: Vec<String> = std::env::args().skip(1).take(4).collect();
    let [log, stop, records, diag_log] = arguments.as_slice() else {
        return Err("usage: outspoken LOG STOP RECORDS DIAG_LOG".into());
    };
    match log.as_str() {
        "plain" => tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init(),
        _ => drop(logging::init()),
    }
    // Without the default hook, because std would print the panic's message unescaped.
    std::panic::set_hook(Box::new(|_| {}));
    let long = HOSTILE.repeat(20_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut builder = ShutdownGuard::builder(HOSTILE)
            .record_dir(records)
            .diag_log(diag_log)
            .deadline(Duration::from_secs(3));
        if stop == "descriptors" {
            builder = builder.diag_command(DiagCommand::Shell("ls -l /proc/self/fd".to_owned()));
            builder = builder.marker("planned", "planned.json");
        }
        let guard = builder.install()?;
        let text = long.clone();
        guard.phase(format!("first {HOSTILE}"), async move |cx| {
            cx.record(HOSTILE, HOSTILE);
            cx.record("long", text.clone());
            cx.record(text.clone(), json!([HOSTILE, {HOSTILE: [HOSTILE]}]));
            let mut deep = json!(HOSTILE);
            for _ in 0..200 {
                deep = json!([deep]);
            }
            cx.record("deep", deep);
            Err::<(), _>(text)
        });
        let text = long.clone();
        let group = guard.group(format!("group {long}"), |group| {
            group.phase(long.clone(), async move |_| panic!("{text}"));
        });
        guard.phase("after", async |_| {}).requires(group.id());
        if stop == "block" {
            guard.phase(format!("blocks {HOSTILE}"), async |_| {
                loop {
                    std::thread::park();
                }
            });
        }
        guard.handle().status(&long);
        if stop == "request" {
            guard.handle().request_shutdown(long.clone());
        }
        println!("ready");
        let service = guard.token().cancelled_owned();
        let report = guard.run(service).await;
        println!("{}", serde_json::to_string(&report)?);
        Ok(report)
    })
}
