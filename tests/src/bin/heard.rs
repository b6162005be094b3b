//! A guarded program with a choice of loggers and subscribers, to test where the guard's events go.
//!
//! `heard LOGGER SUBSCRIBER ACTION FILE`. The logger of the crate `log` writes to FILE, and the
//! subscriber to stdout. `heard` lists what they can be.
//!
//! ACTION is
//!
//! - `signal`: waits for a signal. One phase times out, and one fails;
//! - `fail`: the service fails after the stop has begun;
//! - `never`: never calls `run()`;
//! - `early`: drops the future of `run()` while a phase runs;
//! - `panic`: panics before it calls `run()`;
//! - `two`: has two guards.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::ShutdownGuard;
use tracing::Subscriber;
use tracing::subscriber::{set_default, set_global_default};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

const USAGE: &str = "usage: heard none|env_logger|simplelog|fern|errors|blocks|bridge \
    none|global|scoped|was_scoped|filtered|errors|silent|json|late ACTION FILE";

/// A logger that blocks forever as soon as it is told that a stop has begun.
struct Blocks;

impl log::Log for Blocks {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        while record.args().to_string().starts_with("Shutdown context") {
            std::thread::park();
        }
    }

    fn flush(&self) {}
}

fn set_logger(kind: &str, file: File) -> Result<(), Box<dyn Error>> {
    let info = log::LevelFilter::Info;
    match kind {
        "none" => {}
        "env_logger" | "errors" => env_logger::Builder::new()
            .filter_level(if kind == "errors" { log::LevelFilter::Error } else { info })
            .target(env_logger::Target::Pipe(Box::new(file)))
            .init(),
        "simplelog" => simplelog::WriteLogger::init(info, simplelog::Config::default(), file)?,
        "fern" => fern::Dispatch::new()
            .level(info)
            .format(|out, text, record| {
                out.finish(format_args!("[{} {}] {text}", record.level(), record.target()));
            })
            .chain(file)
            .apply()?,
        "blocks" => {
            log::set_boxed_logger(Box::new(Blocks))?;
            log::set_max_level(info);
        }
        // Passes records on to the subscriber.
        "bridge" => tracing_log::LogTracer::init()?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn lines() -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt().with_ansi(false).finish()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [logger, subscriber, action, file] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    set_logger(logger, File::create(file)?)?;
    let mut scope = None;
    match subscriber.as_str() {
        "none" | "late" => {}
        "global" => set_global_default(lines())?,
        "scoped" => scope = Some(set_default(lines())),
        "was_scoped" => drop(set_default(lines())),
        "filtered" | "errors" => {
            let filter = if subscriber == "errors" { "error" } else { "heard=debug" };
            let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter);
            set_global_default(lines.finish())?;
        }
        // Receives everything and shows nothing, as a subscriber that only exports traces.
        "silent" => {
            set_global_default(tracing_subscriber::registry().with(EnvFilter::new("info")))?;
        }
        "json" => set_global_default(tracing_subscriber::fmt().json().finish())?,
        _ => return Err(USAGE.into()),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(action, subscriber == "late"))?;
    drop(scope);
    Ok(code)
}

async fn run(action: &str, is_late: bool) -> Result<ExitCode, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("heard").deadline(Duration::from_secs(5)).install()?;
    if is_late {
        set_global_default(lines())?;
    }
    guard.phase("work", async |_| {
        log::info!("a record of the service, in its phase");
        tracing::info!("an event of the service, in its phase");
    });
    let stop = guard.handle();
    match action {
        "signal" => {
            guard
                .phase("drain", |_| std::future::pending::<()>())
                .timeout(Duration::from_millis(20));
            guard.phase("flush", async |_| Err::<(), _>("disk full"));
            ready()?;
            let token = guard.token();
            let report = guard.run(token.cancelled_owned()).await;
            log::info!("a record of the service, at its end");
            tracing::info!("an event of the service, at its end");
            Ok(report.exit_code())
        }
        "fail" => {
            ready()?;
            let token = guard.token();
            let service = async move {
                token.cancelled().await;
                Err::<(), _>("accept failed")
            };
            guard.phase("ended", async |cx| cx.service_ended().await);
            Ok(guard.run(service).await.exit_code())
        }
        "never" => Err("no address to listen on".into()),
        "early" => {
            let (started, runs) = tokio::sync::oneshot::channel();
            guard.phase("drain", async |_| {
                let _ = started.send(());
                std::future::pending::<()>().await;
            });
            guard.phase("db_close", async |_| {});
            stop.request_shutdown("test");
            tokio::select! {
                _ = guard.run(async {}) => {}
                _ = runs => {}
            }
            Ok(ExitCode::SUCCESS)
        }
        "panic" => panic!("no configuration"),
        "two" => {
            let other = ShutdownGuard::builder("other").install()?;
            other.phase("work", async |_| {});
            ready()?;
            let (one, two) = (guard.token(), other.token());
            let (one, two) =
                tokio::join!(guard.run(one.cancelled_owned()), other.run(two.cancelled_owned()));
            Ok(ExitCode::from(one.exit_status.max(two.exit_status)))
        }
        _ => Err(USAGE.into()),
    }
}

fn ready() -> io::Result<()> {
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()
}
