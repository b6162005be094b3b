//! actix-web without `disable_signals()`, which is a mistake. actix and the guard then both hear SIGINT, and
//! actix ends the server at once. The guard warns of this.
//!
//! ```sh
//! cargo run -p forensics-example-actix --example actix_signals    # press Ctrl-C
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use env_logger::Env;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let guard = ShutdownGuard::builder("actix").install()?;
    let app = || App::new().route("/", web::get().to(slow));
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
    println!("listening on http://{}", server.addrs()[0]);
    guard.phase("drain", async |cx| cx.service_ended().await).timeout(guard.drain_timeout());
    Ok(guard.run(server.run()).await)
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(1)).await;
    "ok\n"
}
