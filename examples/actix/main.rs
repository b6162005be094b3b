//! actix-web, with its log by env_logger.
//!
//! ```sh
//! cargo run -p forensics-example-actix --example actix    # curl its address/slow, then press Ctrl-C
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use actix_web::dev::Service;
use actix_web::{App, HttpServer, web};
use env_logger::Env;
use forensics_tokio::inflight::InFlight;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let guard = ShutdownGuard::builder("actix").install()?;

    let requests = InFlight::new();
    let counted = requests.clone();
    let server = HttpServer::new(move || {
        let requests = requests.clone();
        App::new()
            // So that the log says how many requests the drain waits for.
            .wrap_fn(move |request, app| {
                let in_flight = requests.track();
                let answer = app.call(request);
                async move {
                    let answer = answer.await;
                    drop(in_flight);
                    answer
                }
            })
            .route("/", web::get().to(quick))
            .route("/slow", web::get().to(slow))
    })
    // Otherwise actix stops by itself, and at SIGINT it answers no request that is in progress.
    .disable_signals()
    // How long `stop(true)` waits for requests: longer than the phase, so that the phase says what is left.
    .shutdown_timeout(guard.drain_timeout().as_secs() + 1)
    .bind(("127.0.0.1", 0))?;
    println!("listening on http://{}", server.addrs()[0]);
    let server = server.run();

    let handle = server.handle();
    guard
        .phase("drain", async move |cx| {
            tokio::join!(handle.stop(true), counted.wait_idle(&cx));
        })
        .timeout(guard.drain_timeout());
    Ok(guard.run(server).await)
}

async fn quick() -> &'static str {
    "ok\n"
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(1)).await;
    "ok\n"
}
