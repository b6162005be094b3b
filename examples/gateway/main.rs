//! A gateway that is stopped as often as it is started: HTTP requests in flight, long-lived
//! sessions, two adapters to chat services, and a store that has to be closed last.
//!
//! ```sh
//! cargo run --example gateway
//! ```
//!
//! Then press Ctrl-C, or `kill` it from another terminal, and read what it says.

#![forbid(unsafe_code)]

mod adapter;
mod door;
mod http;
mod listening;
mod options;
mod server;
mod store;
mod wire;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use forensics_tokio::{PhaseContext, ShutdownGuard, diagnostic, logging, probes};
use listenfd::ListenFd;

use crate::adapter::Adapter;
use crate::http::Traffic;
use crate::listening::Listening;
use crate::options::{Options, Trouble};
use crate::store::Store;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // Before anything else: in the diagnostic's process this does not return.
    diagnostic::run_if_child();
    let options = Options::parse();
    // Under systemd both do the same.
    match options.journald {
        true => logging::init_journal()?,
        false => logging::init(),
    };
    // While there is one thread: it clears the environment of what is meant for us alone.
    let passed = ListenFd::from_env();
    tokio::runtime::Runtime::new()?.block_on(serve(options, passed))
}

async fn serve(options: Options, passed: ListenFd) -> Result<ExitCode, Box<dyn Error>> {
    let mut builder = ShutdownGuard::builder("gateway")
        .drain_timeout(options.drain_timeout)
        .lead(options.lead)
        .watchdog(true)
        .marker("takeover", options.markers.join("takeover.json"))
        .marker("planned_stop", options.markers.join("planned-stop.json"));
    if let Some(deadline) = options.deadline {
        builder = builder.deadline(deadline);
    }
    if let Some(ceiling) = options.extend {
        builder = builder.extend_stop_timeout(ceiling);
    }
    if let Some(grace) = options.grace {
        builder = builder.grace(grace);
    }
    if let Some(file) = &options.termination_message {
        builder = builder.termination_message(file);
    }
    if let Some(log) = &options.diag_log {
        builder = builder.diag_log(log);
    }
    if let Some(folder) = &options.records {
        builder = builder.record_dir(folder);
    }
    // Signals are ours from here on, also while we still start.
    let guard = builder.install()?;

    let listening = Listening::open(passed, &options.listen).await?;
    // Not `println!`, which panics if stdout is closed: no reason for a service not to start.
    let _ = writeln!(io::stdout(), "listening on http://{}", listening.address()?);

    let traffic = Arc::new(Traffic::default());
    let store = Arc::new(Store::default());
    let telegram = Adapter::start("telegram", store.clone());
    let slack = Adapter::start("slack", store.clone());
    let trouble = options.trouble();

    // Tell those who are connected, so that they can go elsewhere.
    let told = traffic.clone();
    guard.phase("notify", move |cx| async move {
        trouble.befall(&cx).await;
        cx.record("sessions_told", told.say_goodbye());
    });

    // The server takes in nothing new since the token was cancelled; wait for what it had by then.
    let drain = traffic.requests.drain_phase();
    guard
        .phase("drain", move |cx| async move {
            trouble.befall(&cx).await;
            drain(cx).await;
        })
        .timeout(options.drain_timeout);

    // Each has a queue of its own to empty, so they need not wait for each other.
    guard
        .group("adapters")
        .timeout(options.drain_timeout)
        .phase("telegram", move |cx| stop_adapter(cx, trouble, telegram))
        .phase("slack", move |cx| stop_adapter(cx, trouble, slack));

    // Last, as everything before writes to it, and with a second that nothing before can take.
    guard
        .phase("db_close", move |cx| async move {
            trouble.befall(&cx).await;
            cx.record("rows", store.close()?);
            Ok::<(), store::Closed>(())
        })
        .reserve(Duration::from_secs(1));

    let stop = guard.token();
    let routes = http::routes(traffic, probes::router(&guard), stop.clone());
    let server = server::serve(listening, routes, stop);
    Ok(guard.run(server).await.exit_code())
}

async fn stop_adapter(cx: PhaseContext, trouble: Trouble, adapter: Adapter) {
    trouble.befall(&cx).await;
    cx.record("delivered", adapter.stop().await);
}
