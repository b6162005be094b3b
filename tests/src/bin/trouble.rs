//! A guarded program, mostly on a current-thread runtime, that gets into the trouble it is asked for.
//!
//! `trouble KIND RECORDS`. It says `ready` once it can be signalled.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use forensics_tokio::diagnostic::DiagCommand;
use forensics_tokio::{Escalation, ShutdownGuard, Signal, logging};
use nix::sys::signal::Signal::SIGINT;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry;

fn main() -> Result<ExitCode, Box<dyn Error>> {
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
            .flush(move || {
                // Nobody is left to tell where it fails; its test looks for the file.
                let _ = std::fs::write(&flushed, "flushed");
            });
        if kind.contains("stuck") {
            // Else it would be stuck from the start under nohup(1): that SIGHUP stays ignored is said.
            builder = builder.signals([Signal::TERM, Signal::INT]);
        }
        match kind.as_str() {
            "durable" => builder = builder.durable(true),
            "impatient" | "stuck_and_impatient" => {
                builder = builder.escalation(Escalation::Exit);
            }
            "patient" => builder = builder.deadline(Duration::from_secs(55)),
            "stuck_flush" => builder = builder.escalation(Escalation::Exit).flush(block),
            "slow_diagnostic" => {
                builder = builder
                    .deadline(Duration::from_secs(60))
                    .diag_log(records.join("diag.log"))
                    .diag_command(DiagCommand::Shell("sleep 3; echo late".to_owned()));
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
            "blocked_phase" => drop(guard.phase("blocks", |_| async { block() })),
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
            | "heard_twice"
            | "stuck_subscriber"
            | "wedged_diagnostic"
            | "wedged_diagnostic_at_deadline" => {}
            "eats_memory" => {
                // Each page touched, far more than its test lets it have.
                guard.phase("eats", |_| async {
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
                    // Until its test says so, or is gone.
                    let _ = std::io::stdin().read_line(&mut String::new());
                    drop(released);
                });
                holds.recv()?;
                println!("held");
                guard.phase("drain", move |_| async move { drop(waits.changed().await) });
            }
            "impatient" | "stuck_and_impatient" | "slow_diagnostic" | "stuck_flush" => {
                drop(guard.phase("hangs", |_| std::future::pending::<()>()));
            }
            "panic" => panic!("main is lost"),
            "panic_in_service" => {
                return Ok(guard.run(async { panic!("service is lost") }).await.exit_code());
            }
            "reserves" => {
                guard.phase("one", |_| async {}).reserve(Duration::from_secs(2));
                guard.phase("two", |_| async {}).reserve(Duration::from_secs(2));
            }
            _ => return Err("no such trouble".into()),
        }
        guard.phase("db_close", |_| async {}).reserve(Duration::from_secs(1));
        let report = guard.run(guard.token().cancelled_owned()).await;
        if kind == "heard_twice" {
            println!("after {} ms", report.total.as_millis());
            kill(Pid::this(), SIGINT)?;
            println!("survived");
            // Until it has its way.
            loop {
                kill(Pid::this(), SIGINT)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(report.exit_code())
    })
}

/// A diagnostic that never ends, nor does what it starts, and that hears no SIGTERM.
const WEDGED: &str = "trap '' TERM; sleep 3600 & echo pids $$ $!; wait";

/// A subscriber that takes what is said of a shutdown and never returns.
struct Stuck;

impl<S: Subscriber> Layer<S> for Stuck {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "shutdown" {
            block();
        }
    }
}

/// Blocks the thread for good.
fn block() {
    loop {
        thread::park();
    }
}
