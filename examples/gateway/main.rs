//! An HTTP gateway with requests in flight, long-lived sessions, two adapters to chat services, and a
//! store that has to be closed last.
//!
//! ```sh
//! cargo run --example gateway
//! ```
//!
//! Then press Ctrl-C, or `kill` it from another terminal, and read its log.

#![forbid(unsafe_code)]

mod adapter;
mod http;
mod options;
mod store;

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use forensics_tokio::connections::Connections;
use forensics_tokio::serve::{self, serve};
use forensics_tokio::streams::Streams;
use forensics_tokio::{
    Builder, PhaseContext, ShutdownGuard, ShutdownReport, diagnostic, logging, probes,
};

use crate::adapter::Adapter;
use crate::options::{Options, Trouble};
use crate::store::Store;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    // Must be first: runs the diagnostic if this process was started for it.
    diagnostic::run_if_child();
    let options = Options::parse();
    // Under systemd both do the same.
    if options.journald {
        logging::init_journal()?;
    } else {
        logging::init();
    }
    // A socket from systemd. This removes its variables from the environment, so that no child takes the
    // socket for its own. No other thread reads the environment yet.
    let passed = serve::inherited()?.into_iter().next();
    // From here on a signal requests a stop, also while the service starts.
    let guard = builder(&options).install()?;

    let listener = match passed {
        Some(listener) => listener,
        None => serve::Listener::bind(&options.listen).await?,
    };
    // Not `println!`, which panics if stdout is closed.
    let _ = writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?);

    let connections = Connections::new();
    let sessions = Streams::new();
    let store = Arc::new(Store::default());
    let telegram = Adapter::start("telegram", store.clone());
    let slack = Adapter::start("slack", store.clone());
    let trouble = options.trouble();

    // Tell the connected clients, so that they can go elsewhere.
    let told = sessions.clone();
    guard.phase("notify", async move |cx| {
        trouble.apply(&cx).await;
        cx.record("sessions_told", told.say_goodbye());
    });

    // Since the token was cancelled, the server accepts nothing new. Wait for the accepted
    // requests.
    let drain = connections.drain_phase();
    guard
        .phase("drain", async move |cx| {
            trouble.apply(&cx).await;
            drain(cx).await;
        })
        .timeout(guard.drain_timeout());

    // Each adapter has its own queue to empty, so they need not wait for each other.
    guard
        .group("adapters", |group| {
            group.phase("telegram", move |cx| stop_adapter(cx, trouble, telegram));
            group.phase("slack", move |cx| stop_adapter(cx, trouble, slack));
        })
        .timeout(guard.drain_timeout());

    // Last, because the other phases write to it. No other phase can use its second.
    guard
        .phase("db_close", async move |cx| {
            trouble.apply(&cx).await;
            cx.record("rows", store.close()?);
            Ok::<(), store::Closed>(())
        })
        .reserve(Duration::from_secs(1));

    let routes = http::routes(sessions, probes::router(&guard));
    let server = serve(listener, routes, &connections, guard.token());
    Ok(guard.run(server).await)
}

/// The settings of the guard, from the command line.
fn builder(options: &Options) -> Builder {
    let mut builder = ShutdownGuard::builder("gateway")
        .drain_timeout(options.drain_timeout)
        .pre_stop_delay(options.lead)
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
        builder = builder.stop_timeout(grace);
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
    builder
}

async fn stop_adapter(cx: PhaseContext, trouble: Trouble, adapter: Adapter) {
    trouble.apply(&cx).await;
    cx.record("delivered", adapter.stop().await);
}
