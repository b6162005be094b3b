//! A guarded program in which something else takes signals, as the argument says:
//!
//! | argument | what takes signals |
//! |---|---|
//! | `before`, `after`, `late` | the crate ctrlc, whose handlers are installed before the guard, after it, or half a second later |
//! | `over_tokio` | the crate ctrlc, over tokio's handlers, before the guard |
//! | `tokio_before`, `tokio_after`, `tokio_in_service` | `tokio::signal`, for all signals, before the guard, after it, or in the service |
//! | `tokio_term` | `tokio::signal`, for SIGTERM |
//! | `sigwait`, `signalfd` | a thread in sigwait(3), or a signalfd(2), for SIGTERM |
//! | `none` | nothing |
//!
//! Its only phase logs. It prints `ready` when it runs, and `taken` when sigwait(3) or the signalfd
//! has taken SIGTERM.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, logging};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    logging::init();
    let how = std::env::args().nth(1).unwrap_or_default();
    let mut term = SigSet::empty();
    if matches!(how.as_str(), "sigwait" | "signalfd") {
        term.add(Signal::SIGTERM);
        term.thread_block()?;
    }
    match how.as_str() {
        "sigwait" => drop(std::thread::spawn(move || term.wait().map(|_| println!("taken")))),
        "signalfd" => {
            let fd = SignalFd::new(&term)?;
            std::thread::spawn(move || fd.read_signal().map(|_| println!("taken")));
        }
        _ => {}
    }
    tokio::runtime::Runtime::new()?.block_on(serve(&how))
}

async fn serve(how: &str) -> Result<ShutdownReport, Box<dyn Error>> {
    let mut listeners = Vec::new();
    if matches!(how, "over_tokio" | "tokio_before") {
        listeners = listen()?;
    }
    if matches!(how, "before" | "over_tokio") {
        handle()?;
    }
    let guard = ShutdownGuard::builder("signal_delivery").install()?;
    if how == "after" {
        handle()?;
    }
    if how == "tokio_after" {
        listeners = listen()?;
    }
    if how == "tokio_term" {
        listeners.push(signal(SignalKind::terminate())?);
    }
    guard.phase("farewell", async |_| tracing::info!("farewell"));
    let stop = guard.token();
    let report = guard.run(async move {
        if how == "tokio_in_service" {
            listeners = listen()?;
        }
        println!("ready");
        if how == "late" {
            tokio::time::sleep(Duration::from_millis(500)).await;
            handle()?;
        }
        stop.cancelled().await;
        drop(listeners);
        Ok::<_, Box<dyn Error>>(())
    });
    Ok(report.await)
}

fn listen() -> io::Result<Vec<tokio::signal::unix::Signal>> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    kinds.into_iter().map(signal).collect()
}

/// With its feature `termination`, ctrlc handles SIGINT, SIGTERM and SIGHUP.
fn handle() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| println!("handled by ctrlc"))
}
