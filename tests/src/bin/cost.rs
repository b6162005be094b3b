//! Runs the pieces of work whose cost `tests/cost.rs` measures.
//!
//! `cost signal` waits for a signal and prints `cancelled` as soon as its token is cancelled. `cost
//! WHAT N` runs WHAT, one of `context record timespan`, N times.

#![forbid(unsafe_code)]

use std::error::Error;
use std::hint::black_box;

use forensics_tests::cost::{self, Subjects};
use forensics_tokio::ShutdownGuard;
use forensics_tokio::core::threads::Thread;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["signal"] => tokio::runtime::Runtime::new()?.block_on(signal()),
        [what, times] => {
            let subjects = Subjects::prepare()?;
            for _ in 0..times.parse()? {
                match what {
                    "context" => drop(black_box(cost::context_and_line(&subjects))),
                    "record" => cost::event_recorded(&subjects)?,
                    "timespan" => {
                        black_box(cost::timespan_read()?);
                    }
                    other => return Err(format!("unknown WHAT: {other}").into()),
                }
            }
            Ok(())
        }
        _ => Err("usage: cost signal | cost WHAT N".into()),
    }
}

async fn signal() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let guard = ShutdownGuard::builder("cost").install()?;
    let token = guard.token();
    let cancelled = tokio::spawn(async move {
        token.cancelled().await;
        println!("cancelled");
    });
    // The shutdown thread is ready when it sleeps, in a read(2), several times in a row.
    let sleeps =
        || Thread::all(64).iter().any(|it| it.name == "shutdown-thread" && it.state == 'S');
    let mut looks = 0;
    while looks < 3 {
        looks = if sleeps() { looks + 1 } else { 0 };
    }
    println!("ready");
    let service = guard.token().cancelled_owned();
    let _ = guard.run(service).await;
    Ok(cancelled.await?)
}
