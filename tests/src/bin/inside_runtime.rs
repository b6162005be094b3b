//! A guarded program under `#[tokio::main]`. Its diagnostic also starts inside a runtime.

#![forbid(unsafe_code)]

use std::error::Error;

use forensics_tokio::{ShutdownGuard, diagnostic};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    diagnostic::run_if_child();
    let guard = ShutdownGuard::builder("inside-runtime").install()?;
    println!("working");
    let stopped = guard.token().cancelled_owned();
    drop(guard.run(stopped).await);
    Ok(())
}
