//! A guarded program with a fault that its argument selects. It mostly uses a current-thread
//! runtime.
//!
//! `trouble KIND RECORDS`. It prints `ready` once its guard is installed.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use forensics_tokio::diagnostic::DiagCommand;
use forensics_tokio::{Escalation, ShutdownGuard, ShutdownReport, Signal, logging};
use nix::sys::signal::Signal::SIGINT;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry;

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().ok_or("usage: trouble KIND RECORDS")?;
    match kind.as_str() {
        "stuck_subscriber" | "stuck_and_impatient" | "all_stuck" => {
            tracing::subscriber::set_global_default(registry().with(Stuck))?;
        }
        _ => drop(logging::init()),
    }
    let records = PathBuf::from(arguments.next().ok_or("usage: trouble KIND RECORDS")?);
    let flushed = records.join("flushed");
    let runtime = match kind.as_str() {
        "blocked_workers" | "all_stuck" => {
            Builder::new_multi_thread().worker_threads(2).enable_all().build()?
        }
        _ => Builder::new_current_thread().enable_all().build()?,
    };
    runtime.block_on(async {
        let mut builder = ShutdownGuard::builder("trouble")
            .record_dir(&records)
            .watchdog(true)
            .deadline(Duration::from_secs(3))
            .on_forced_exit(move || {
                // The test looks for the file.
                let _ = std::fs::write(&flushed, "flushed");
            });
        if kind.contains("stuck") {
            // Under nohup(1) the start would log that SIGHUP stays ignored, and block there.
            builder = builder.signals([Signal::TERM, Signal::INT]);
        }
        match kind.as_str() {
            "durable" => builder = builder.fsync_records(true),
            "goes_on" | "starts_again" | "has_another" => {
                builder = builder.deadline(Duration::from_secs(1));
            }
            "ignores_environment" => builder = builder.ignore_environment(),
            "may_go_on" => {
                builder = builder.deadline(Duration::from_secs(1)).enforce_exit(false);
            }
            "impatient" | "stuck_and_impatient" => {
                builder = builder.escalation(Escalation::Exit);
            }
            "patient" => builder = builder.deadline(Duration::from_secs(55)),
            "stuck_flush" => builder = builder.escalation(Escalation::Exit).on_forced_exit(block),
            "slow_diagnostic" => {
                builder = builder
                    .deadline(Duration::from_secs(60))
                    .diag_log(records.join("diag.log"))
                    .diag_command(DiagCommand::Shell(
                        "sleep 3; echo late with \"${FORENSICS_CONTEXT}\"".to_owned(),
                    ));
            }
            "wedged_diagnostic" | "wedged_diagnostic_at_deadline" => {
                if kind == "wedged_diagnostic" {
                    builder = builder.deadline(Duration::from_secs(60));
                }
                builder = builder
                    .diag_log(records.join("diag.log"))
                    .diag_command(DiagCommand::Shell(WEDGED.to_owned()));
            }
            _ => {}
        }
        let guard = builder.install()?;
        println!("ready");
        match kind.as_str() {
            "blocked_phase" => drop(guard.phase("blocks", async |_| block())),
            "blocked_task" => {
                tokio::spawn(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    println!("blocked");
                    block();
                });
            }
            "blocked_workers" | "all_stuck" => {
                let both = Arc::new(Barrier::new(3));
                for _ in 0..2 {
                    let both = both.clone();
                    tokio::spawn(async move {
                        both.wait();
                        block();
                    });
                }
                both.wait();
                println!("blocked");
            }
            "durable"
            | "goes_on"
            | "ignores_environment"
            | "may_go_on"
            | "starts_again"
            | "has_another"
            | "received_twice"
            | "stuck_subscriber"
            | "wedged_diagnostic"
            | "wedged_diagnostic_at_deadline" => {}
            "eats_memory" => {
                // Far more than the test allows. Every page is written to, so it is resident.
                guard.phase("eats", async |_| {
                    let eaten: Vec<Vec<u8>> = (0..512).map(|_| vec![1; 1 << 20]).collect();
                    std::future::pending::<()>().await;
                    drop(eaten);
                });
            }
            "patient" => {
                let hangs = |_| std::future::pending::<()>();
                guard.phase("hangs", hangs).reserve(Duration::from_secs(50));
            }
            "blocked_pool" => drop(tokio::task::spawn_blocking(block)),
            "held_stderr" => {
                let (released, mut waits) = watch::channel(());
                let (held, holds) = mpsc::channel();
                thread::spawn(move || {
                    let _lock = std::io::stderr().lock();
                    let _ = held.send(());
                    // Until the test writes a line or ends.
                    let _ = std::io::stdin().read_line(&mut String::new());
                    drop(released);
                });
                holds.recv()?;
                println!("held");
                guard.phase("drain", async move |_| drop(waits.changed().await));
            }
            "impatient" | "stuck_and_impatient" | "slow_diagnostic" | "stuck_flush" => {
                drop(guard.phase("hangs", |_| std::future::pending::<()>()));
            }
            "panic" => panic!("main is lost"),
            "panic_in_service" => {
                return Ok(guard.run(async { panic!("service is lost") }).await);
            }
            "reserves" => {
                guard.phase("one", async |_| {}).reserve(Duration::from_secs(2));
                guard.phase("two", async |_| {}).reserve(Duration::from_secs(2));
            }
            _ => return Err("unknown KIND".into()),
        }
        // Another guard, with a longer deadline and another teardown.
        let another = (kind == "has_another").then(|| ShutdownGuard::builder("another").install());
        guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(1));
        let service = guard.token().cancelled_owned();
        let report = guard.run(service).await;
        match kind.as_str() {
            // Like a `main` that does not return.
            "goes_on" | "may_go_on" => thread::sleep(AFTERWARDS),
            "starts_again" => {
                let _ = ShutdownGuard::builder("again").install()?.run(sleep(AFTERWARDS)).await;
            }
            _ => {}
        }
        if let Some(another) = another.transpose()? {
            another.phase("slow", |_| sleep(AFTERWARDS));
            return Ok(another.run(async {}).await);
        }
        if kind == "received_twice" {
            println!("after {} ms", report.total.as_millis());
            kill(Pid::this(), SIGINT)?;
            println!("survived");
            // Until the signal ends the process.
            loop {
                kill(Pid::this(), SIGINT)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(report)
    })
}

/// How long the program runs after a teardown: longer than its deadline of a second plus the half
/// second after which it is ended.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// A diagnostic that never ends and ignores SIGTERM, and so does the process that it starts.
const WEDGED: &str = "trap '' TERM; sleep 3600 & echo pids $$ $!; wait";

/// A subscriber that never returns from an event of a shutdown.
struct Stuck;

impl<S: Subscriber> Layer<S> for Stuck {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "shutdown" {
            block();
        }
    }
}

/// Blocks the thread forever.
fn block() {
    loop {
        thread::park();
    }
}
